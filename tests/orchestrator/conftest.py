"""One orchestrator for the tests of a module that do not care about silence; each test has jobs and workers of its own.

Tests that need a database `place` run on SQLite; those marked `ON_BOTH` run on PostgreSQL too, where it is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestrator import cluster as clusters
from tests.orchestrator.cluster import Cluster
from tests.orchestrator.server import Server, running


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    programs = clusters.programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (initdb and postgres on PATH or in /usr/lib/postgresql)")
    with clusters.running(programs) as started:
        yield started


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A folder, or the URL of an empty database."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return tmp_path / "data"
    return str(request.getfixturevalue("cluster").new_database())


@pytest.fixture
def server(place: Path | str) -> Iterator[Server]:
    with running(place) as started:
        yield started


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its queues are empty at the beginning of a test only if every test before it has taken what it put in."""
    on_server = request.param == "postgresql"
    place = request.getfixturevalue("cluster").new_database() if on_server else tmp_path_factory.mktemp("orchestrator")
    with running(place, "--silence-s", "3600") as started:
        yield started
        left = started.get("/jobs?state=queued")["jobs"]
        assert left == [], "a test has left jobs in the queue"
