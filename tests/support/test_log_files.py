"""A program's log as a whole."""

from __future__ import annotations

from pathlib import Path

from support import log_files
from tests.admin.world import say


def test_a_download_has_all_that_is_kept(tmp_path: Path) -> None:
    say(tmp_path, "one")
    (tmp_path / "logs" / "inference.log").rename(tmp_path / "logs" / "inference.log.1")
    say(tmp_path, "two")
    assert [line.split()[-1] for line in log_files.whole(tmp_path / "logs", "inference", str)] == ["one", "two"]
