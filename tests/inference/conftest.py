"""Small random weights, written once, and engines on them; where torch is missing, what needs them is skipped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from inference.engines.musetalk.engine import Engine


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MuseTalk's published layout in small."""
    pytest.importorskip("torch")
    from tests.fakes import checkpoints

    return checkpoints.write(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MODELS_DIR with FastWan's published layout in small."""
    pytest.importorskip("diffusers")
    from tests.fakes import fastwan

    return fastwan.write(tmp_path_factory.mktemp("fastwan"))


@pytest.fixture(scope="module")
def painting(weights: Path) -> Engine:
    """A MuseTalk that finds real faces and paints instead of speaking."""
    from tests.fakes import stand_ins
    from tests.inference.musetalk.engines import loaded

    engine = loaded(weights)
    engine.use({"1.5": stand_ins.replaced(engine._models["1.5"])})
    engine.warm_up()
    return engine
