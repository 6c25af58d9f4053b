"""`python -m doctor`: one examination, printed as a line of JSON, for callers that it must not block or crash."""

from __future__ import annotations

import faulthandler
import json
import sys

import settings
from doctor.examination import WHOLE_S, examine


def main() -> None:
    """Examine the worker of this environment. Exits with all stacks on standard error if that takes WHOLE_S."""
    faulthandler.dump_traceback_later(WHOLE_S, exit=True)
    sys.stdout.write(json.dumps(examine(settings.load()), ensure_ascii=True, default=str) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
