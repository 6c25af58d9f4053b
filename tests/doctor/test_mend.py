"""`worker doctor --fix` puts right what is safe, says each before and after, and notes it; it leaves everything else alone."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import supervision
from doctor import mend
from entrance import make_token
from jobqueue import soundness
from operations import Operator
from settings import load
from tests.admin import world
from tests.cli.conftest import Run

WELL = {"ENGINE": "preview", "DATA_LIMIT_GB": "0.1"}


def test_where_no_worker_has_run_nothing_is_done(worker: Run, folder: Path) -> None:
    done = worker("doctor", "--fix", **WELL)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("fix   nothing to fix\n")
    assert not (folder / "data").exists()


def test_what_is_wrong_is_said_by_the_examination_and_put_right_only_if_asked(
    worker: Run, operator: Operator, folder: Path
) -> None:
    data_dir = folder / "data"
    make_token(data_dir)
    (data_dir / "admin_token").chmod(0o644)
    for name, age_s in ((".doctor-1", 7200), (".doctor-2", 60), (".admin_token-ab", 7200), ("mine.txt", 7200)):
        (data_dir / name).write_bytes(b"x")
        os.utime(data_dir / name, (time.time() - age_s,) * 2)
    operator.control.begin_session("over", "192.0.2.1", "old", time.time() - 13 * 3600)
    operator.control.begin_session("open", "192.0.2.1", "new", time.time())
    (data_dir / "jobs.reserve").unlink()

    said = worker("doctor", **WELL)
    assert "warn  token " in said.stdout
    assert said.stdout.count("      to do: worker doctor --fix ") == 4
    assert (data_dir / ".doctor-1").exists()
    assert operator.control.notes() == []

    done = worker("doctor", "--fix", **WELL)
    assert (done.returncode, done.stderr) == (0, "")
    assert "(mode 644); restricts it to its owner (0600)\n      now readable by its owner only\n" in done.stdout
    assert "      deleted .doctor-1, .admin_token-ab\n" in done.stdout
    assert "1 expired sessions of the page are still stored; deletes them\n      deleted 1\n" in done.stdout
    assert "      recreated\n" in done.stdout
    assert "to do: worker doctor --fix" not in done.stdout
    assert (data_dir / "admin_token").stat().st_mode & 0o777 == 0o600
    assert [(data_dir / name).exists() for name in (".doctor-1", ".doctor-2", "mine.txt", "jobs.reserve")] == [
        False, True, True, True,
    ]  # fmt: skip
    assert [row["hash"] for row in operator.control.sessions()] == ["open"]
    notes = [(note["action"], note["target"], note["actor"][:4]) for note in operator.control.notes()]
    names = ("reserve", "log-ins", "left files", "token")
    assert notes == [("doctor --fix", name, "cli:") for name in names]
    again = json.loads(worker("doctor", "--fix", "--json", **WELL).stdout)
    assert (again["ok"], again["fixes"]) == (True, [])


def test_a_large_log_is_folded_into_the_queue(operator: Operator, folder: Path) -> None:
    settings, database = load({"DATA_DIR": str(folder / "data")}), operator.queue.database
    database.read("pragma wal_autocheckpoint = 0")

    def fill(connection: object) -> None:
        for number in range(20):
            connection.execute("insert into control values (?, ?, '')", (f"big-{number}", "x" * 2**20))  # type: ignore[attr-defined]

    database.write(fill)
    assert soundness.log_bytes(settings.database) > mend.LOG_BYTES
    (repair,) = mend.repairs(settings)
    done = mend.carry_out(repair, operator.control, "test")
    assert (done["ok"], done["result"]) == (True, "0.0 MB left")
    assert soundness.log_bytes(settings.database) < 2**20
    assert len(database.read("select * from control where name glob 'big-*'")) == 20


def test_a_program_that_was_stopped_is_started(worker: Run, operator: Operator, folder: Path) -> None:
    data_dir = folder / "data"
    with world.supervisord(data_dir, {"uploader": "steady.py", "admin": "steady.py"}) as supervisord:
        supervisord.running_pid("uploader")
        supervision._asked(supervisord.folder / "run", "stopProcess", "uploader")  # as an operator might, by hand
        variables = {**WELL, "TMPDIR": tempfile.gettempdir()}
        found = json.loads(worker("doctor", "--json", **variables).stdout)["checks"]
        assert [(one["name"], one["do"]) for one in found if one["said"].startswith("is stopped")] == [
            ("uploader", "worker doctor --fix starts it")
        ]
        fixes = json.loads(worker("doctor", "--fix", "--json", **variables).stdout)["fixes"]
        assert [(one["name"], one["result"]) for one in fixes] == [("uploader", "starting")]
        supervisord.running_pid("uploader")
    assert (operator.control.notes()[0]["action"], operator.control.notes()[0]["target"]) == ("doctor --fix", "uploader")


def test_a_repair_that_fails_is_said_and_noted_and_stops_no_other(operator: Operator, folder: Path) -> None:
    def act() -> str:
        raise PermissionError(13, "Permission denied", "x")

    done = mend.carry_out(mend.Repair(name="x", said="is wrong", does="tries", act=act), operator.control, "test")
    assert done["ok"] is False
    assert operator.control.notes()[0]["result"] == "failed: [Errno 13] Permission denied: 'x'"


def test_a_queue_that_cannot_be_read_is_left_alone(worker: Run, operator: Operator, folder: Path) -> None:
    path = folder / "data" / "jobs.db"
    operator.queue.database.close()
    path.write_bytes(b"no database at all" * 1000)
    done = worker("doctor", "--fix", **WELL)
    assert done.returncode == 1
    assert "nothing was fixed" in done.stderr
