from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.orchestrator import FakeOrchestrator, fake_orchestrator
from tests.poller.house import House, open_house


@pytest.fixture
def house(tmp_path: Path) -> House:
    return open_house(tmp_path / "data")


@pytest.fixture
def fake() -> Iterator[FakeOrchestrator]:
    with fake_orchestrator() as orchestrator:
        yield orchestrator
