"""No secret leaves through the log, however it is written."""

from __future__ import annotations

import json

import pytest

from telemetry.logs import masker


@pytest.mark.parametrize("secret", ["plain-1234", 'with "quotes"', "back\\slash", "line\nbreak", "ümlaut-ß"])
def test_a_secret_is_masked_in_text_and_in_json(secret: str) -> None:
    mask = masker([secret])
    assert mask(f"the key {secret} is wrong") == "the key •••• is wrong"
    for ascii_ in (False, True):
        line = mask(json.dumps({"event": f"the key {secret} is wrong"}, ensure_ascii=ascii_))
        assert json.loads(line) == {"event": "the key •••• is wrong"}


def test_a_short_text_is_no_secret_and_a_links_query_is() -> None:
    mask = masker(["abc"])
    assert mask("abc https://a.example/x?sig=1&t=2 end") == "abc https://a.example/x?•••• end"
