"""Small random weights, written once; where torch is missing, what needs them is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest


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
