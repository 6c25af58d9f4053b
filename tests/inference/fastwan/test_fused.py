"""Functions run as written until a compiled twin is ready and has proven itself; nobody waits for it, unless asked."""

from __future__ import annotations

import logging
import shutil
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from inference.engines.fastwan import fused  # noqa: E402
from inference.engines.fastwan.fused import Fused  # noqa: E402
from tests.patience import until  # noqa: E402

COMPILES_WITHIN_S = 100.0
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")


def rows(count: int = 300, width: int = 48) -> Any:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


@needs_compiler
@pytest.mark.slow
def test_a_compiled_function_takes_over_when_it_is_ready_and_gives_the_same() -> None:
    made, gamma = Fused("behind"), rows(1)[0]
    with torch.inference_mode():
        expected = fused.norm_silu(rows(), gamma)
        assert torch.equal(made.norm_silu(rows(), gamma), expected)  # as written: nothing can be ready yet
        until(lambda: made.ready == 1, COMPILES_WITHIN_S)
        assert torch.allclose(made.norm_silu(rows(), gamma), expected, atol=1e-5)
        assert torch.allclose(made.norm_silu(rows(77), gamma), fused.norm_silu(rows(77), gamma), atol=1e-5)


@needs_compiler
@pytest.mark.slow
def test_when_asked_everything_is_compiled_before_it_is_used() -> None:
    made, one, two = Fused("first"), rows(1)[0], rows(2)[1]
    angles = rows(300, 12)
    with torch.inference_mode():
        for name, given in (
            ("norm_silu", (rows(), one)),
            ("modulate", (torch.empty(300, 48), rows(), one, two)),
            ("gate", (rows(), rows(300) * 2, one)),
            ("turn", (rows(), one, angles.cos(), angles.sin())),
        ):
            expected = getattr(fused, name)(*(each.clone() for each in given))
            assert torch.allclose(getattr(made, name)(*given), expected, atol=1e-5), name
    assert made.ready == 4


def test_what_cannot_be_compiled_runs_as_written_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    def stubborn(x: Any) -> Any:
        return x * 2 if float(x.sum()) > 0 else x  # what it does depends on the numbers: no compiler takes that whole

    made = Fused("first")
    with caplog.at_level(logging.WARNING), torch.inference_mode():
        assert torch.equal(made._run(stubborn, torch.ones(4, 3)), torch.full((4, 3), 2.0))
    assert made.ready == 0
    assert "stubborn runs as written" in caplog.text


def test_off_compiles_nothing() -> None:
    made = Fused()
    made.norm_silu(rows(), rows(1)[0])
    assert made.ready == 0
    assert not made._twins
