"""Small random weights for the tests of this package, written once; where torch is missing, these tests skip themselves."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published layout in small."""
    pytest.importorskip("torch")
    from tests.fakes import checkpoints

    return checkpoints.write(tmp_path_factory.mktemp("weights"))
