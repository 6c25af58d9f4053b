"""An engine on small random weights for the tests of this package; where torch is missing, these tests skip themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from inference.engine import Metrics
    from inference.engines.musetalk.engine import Engine
    from tests.inference.musetalk.engines import Say


@pytest.fixture(scope="module")
def engine(weights: Path) -> Engine:
    from tests.inference.musetalk.engines import loaded

    return loaded(weights)


@pytest.fixture
def say(engine: Engine, tmp_path: Path) -> Say:
    from tests.inference.musetalk.engines import run

    def say_(*inputs: Any, **fields: Any) -> tuple[Path, Metrics]:
        return tmp_path / "out.mp4", run(engine, tmp_path / "out.mp4", *inputs, **fields)

    return say_
