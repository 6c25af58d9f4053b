"""Which user the commands act as, tried out by root in processes of their own, because nobody becomes root again."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import CHECKOUT, Run

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

NOBODY = pwd.getpwnam("nobody").pw_uid
START = """
import os, settings
from cli import answer
answer.act_as_worker(settings.load(), owner={owner})
print(os.getuid(), os.getgid(), sorted(os.getgroups()))
try:
    os.setuid(0)
except PermissionError:
    print("for good")
"""


def start(folder: Path, *before: str, owner: bool = True, user: str = "nobody") -> subprocess.CompletedProcess[str]:
    """Begin as `worker up` does, on the folder's data."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "DATA_DIR": str(folder / "data"), "WORKER_USER": user}
    command = [*before, sys.executable, "-c", START.format(owner=owner)]
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def owner_of(path: Path) -> int:
    return path.lstat().st_uid


def test_root_becomes_the_worker_s_user_for_good(folder: Path) -> None:
    done = start(folder)
    uid, gid = NOBODY, pwd.getpwnam("nobody").pw_gid
    assert done.stdout.splitlines() == [f"{uid} {gid} [{gid}]", "for good"], done.stderr
    assert owner_of(folder / "data") == NOBODY


def test_an_earlier_worker_s_files_come_with_the_folder(folder: Path) -> None:
    kept = folder / "data" / "outputs" / "a" / "b.mp4"
    kept.parent.mkdir(parents=True)
    for path in (kept, folder / "data" / "jobs.db"):
        path.touch()
        os.chown(path, 4321, 4321)
    (folder / "data" / "link").symlink_to(folder / "elsewhere")
    (folder / "elsewhere").touch()
    assert start(folder).returncode == 0
    assert {owner_of(path) for path in (kept, kept.parent, folder / "data" / "jobs.db")} == {NOBODY}
    assert owner_of(folder / "elsewhere") == 0


def test_other_people_s_files_on_a_volume_stay_theirs(folder: Path) -> None:
    theirs = folder / "data" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.touch()
    assert start(folder).returncode == 0
    assert (owner_of(theirs), owner_of(folder / "data")) == (0, NOBODY)


def test_a_command_beside_the_worker_gives_no_folder_away(folder: Path) -> None:
    (folder / "data").mkdir()
    assert start(folder, owner=False).stdout.startswith(f"{NOBODY} ")
    assert owner_of(folder / "data") == 0


def test_what_a_command_leaves_is_the_worker_s(worker: Run, folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "face.mp4").write_bytes(b"x")
    assert start(folder).returncode == 0
    made = "from jobqueue import migrations; import pathlib, os; os.setuid(%d); migrations.prepare(pathlib.Path('%s'))"
    subprocess.run([sys.executable, "-c", made % (NOBODY, folder / "data" / "jobs.db")], cwd=CHECKOUT, check=True)
    done = worker("submit", str(folder / "face.mp4"), "https://example.com/a.wav", WORKER_USER="nobody")
    assert done.returncode == 0, done.stderr
    assert {owner_of(path) for path in (folder / "data").rglob("*")} == {NOBODY}


def test_a_file_that_the_worker_s_user_may_not_read_is_named(worker: Run, folder: Path) -> None:
    test_what_a_command_leaves_is_the_worker_s(worker, folder)
    (folder / "face.mp4").chmod(0o600)
    done = worker("submit", str(folder / "face.mp4"), "https://example.com/a.wav", WORKER_USER="nobody")
    assert (done.returncode, done.stderr) == (2, f"{folder}/face.mp4: cannot be read by user {NOBODY}\n")


def test_root_without_the_right_to_change_is_told_what_to_do(folder: Path) -> None:
    done = start(folder, "setpriv", "--bounding-set=-setuid,-setgid,-chown", "--inh-caps=-setuid,-setgid,-chown")
    assert done.returncode != 0
    assert "WORKER_USER=nobody: root cannot switch to this user here" in done.stderr
