from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from guard import verdict
from guard.verdict import EXIT_FATAL, Verdict


def test_a_verdict_that_no_disk_takes_is_still_this_processs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(verdict, "_unwritten", None)
    monkeypatch.setattr(Path, "write_text", full)
    decided = Verdict(code=EXIT_FATAL, reason="poller could not be started in 4 tries")
    verdict.leave(tmp_path, decided)
    verdict.leave(tmp_path, Verdict(code=0, reason="what followed from it"))
    assert verdict.found(tmp_path) == decided
    assert decided.reason in caplog.text


def test_of_two_verdicts_the_first_stays(tmp_path: Path) -> None:
    for reason in ("first", "second"):
        verdict.leave(tmp_path, Verdict(code=0, reason=reason))
    assert verdict.found(tmp_path) == Verdict(code=0, reason="first")
    assert [file.name for file in tmp_path.iterdir()] == ["exit.json"]
