"""These tests need a card; elsewhere they skip. `pytest tests/gpu` on a machine that has one."""

from __future__ import annotations

import pytest

from tests.inference.conftest import repository, weights

__all__ = ["repository", "weights"]


@pytest.fixture(scope="session")
def card() -> str:
    """The device to run on."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no card that CUDA can use")
    return "cuda:0"
