from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from guard.__main__ import freshen


def test_what_lies_in_the_run_folder_for_weeks_is_kept_young_but_no_sign_of_life(tmp_path: Path) -> None:
    (tmp_path / "started.json").touch()
    (tmp_path / "alive-poller").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        for file in tmp_path.iterdir():
            os.utime(file, (0, 0))
        freshen(tmp_path)
        freshen(tmp_path / "gone")
        young = {file.name for file in tmp_path.iterdir() if file.stat().st_mtime > time.time() - 60}
    assert young == {"started.json", "s.sock"}
