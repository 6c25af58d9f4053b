"""The style sheet and the scripts, packed once: over a slow link they are most of a page.

Pages themselves are not packed: they hold a log-in's token beside words that a stranger may have chosen, and the length of the
two packed together would tell of the token.
"""

from __future__ import annotations

import gzip
from typing import Any

import flask

_TEXTS = ("text/css", "text/javascript", "application/javascript")


def pack(app: flask.Flask) -> None:
    """Send static texts packed to whoever takes them so."""
    plain = app.view_functions["static"]
    packed: dict[tuple[str, str | None], bytes] = {}

    def static(**asked: Any) -> flask.Response:
        response = flask.make_response(plain(**asked))
        if response.mimetype not in _TEXTS:
            return response
        response.vary.add("Accept-Encoding")
        if response.status_code == 200 and flask.request.accept_encodings["gzip"]:
            key = (asked["filename"], response.get_etag()[0])
            if key not in packed:
                response.direct_passthrough = False
                packed[key] = gzip.compress(response.get_data(), 9, mtime=0)
            else:
                response.close()
            response.direct_passthrough = False
            response.set_data(packed[key])
            response.headers["Content-Encoding"] = "gzip"
            response.set_etag(key[1] or "", weak=True)  # the same text, in other bytes
        return response

    app.view_functions["static"] = static
