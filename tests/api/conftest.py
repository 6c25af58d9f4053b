from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.program import Api, running


@pytest.fixture(scope="module")
def _program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("api") / "data", ENGINE="musetalk") as api:
        yield api


@pytest.fixture
def api(_program: Api) -> Iterator[Api]:
    """One program for the tests of a module; each begins with an empty queue and no flags."""
    yield _program
    for job in _program.queue.unfinished():
        _program.queue.cancel(job.id, "the test is over")
    for name, flag in _program.control.flags().items():
        _program.control.take_down(name, by=flag["by"])  # type: ignore[arg-type]
    ended = [job.id for job in _program.queue.newest(limit=1000)]
    _program.outbox.forget(ended)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"
