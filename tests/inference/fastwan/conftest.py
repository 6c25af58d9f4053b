"""An engine on small random weights for the tests of this package; where torch is missing, these tests skip themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from inference.engines.fastwan.engine import Engine
    from inference.engines.fastwan.models import Models


@pytest.fixture(scope="session")
def models(repository: Path) -> Models:
    import torch

    from inference.engines.fastwan.models import load
    from tests.inference.fastwan.runs import BESIDE

    return load(repository, "cpu", torch.float32, BESIDE)


@pytest.fixture(scope="module")
def engine(repository: Path) -> Engine:
    from inference.engines.fastwan.engine import Engine

    made = Engine()
    made.load(repository, "cpu")
    made.warm_up()
    return made
