"""`worker doctor` says each finding in a line, with what to do, and ends with 1 only for a fault."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run

#: A data folder may be as full as the disk of whoever runs the tests.
SMALL = {"DATA_LIMIT_GB": "0.1"}


def test_a_machine_without_a_card_does_for_an_engine_that_needs_none(worker: Run, folder: Path) -> None:
    done = worker("doctor", ENGINE="preview", **SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    for line in ("ok    GPU ", "ok    encoder        H.264 by ", "ok    queue ", "ok    ports ", "ok    store "):
        assert line in done.stdout
    assert not (folder / "data").exists()  # it changes nothing


def test_a_fault_is_a_line_with_what_to_do_and_an_exit_code(worker: Run) -> None:
    done = worker("doctor", ENGINE="fastwan", **SMALL)
    assert done.returncode == 1
    assert "fail  weights " in done.stdout
    assert "      to do: worker models pull fastwan\n" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(" warnings")
