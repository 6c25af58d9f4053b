"""One orchestrator for the tests of a module that do not care about silence; each test has jobs and workers of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestrator.server import Server, running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "data") as started:
        yield started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its queues are empty at the beginning of a test only if every test before it has taken what it put in."""
    with running(tmp_path_factory.mktemp("orchestrator"), "--silence-s", "3600") as started:
        yield started
        left = started.get("/jobs?state=queued")["jobs"]
        assert left == [], "a test has left jobs in the queue"
