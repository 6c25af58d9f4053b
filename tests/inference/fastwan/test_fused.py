"""A compiled twin is used once it has proven itself, and nothing is compiled while jobs run."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from inference.engines.fastwan import elementwise, float8  # noqa: E402
from inference.engines.fastwan.elementwise import norm_silu  # noqa: E402
from inference.engines.fused import Fused  # noqa: E402
from weights.plans import Linears  # noqa: E402

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")


def rows(count: int = 300, width: int = 48) -> Any:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


def made_by_twins(work: Any) -> int:
    """How many compiled functions ran."""
    with torch.profiler.profile() as seen:
        work()
    return sum("Torch-Compiled Region" in event.name for event in seen.events())


@needs_compiler
@pytest.mark.slow
def test_what_is_compiled_serves_any_number_of_rows_and_weights_made_elsewhere() -> None:
    made, weight = Fused("first"), torch.nn.Parameter(rows(1)[0], requires_grad=False)
    with torch.inference_mode():
        for count in (300, 77, 5000):
            angles, told = rows(count, 12), rows(2)
            for name, given in (
                ("norm_silu", (rows(count), weight[:, None].flatten())),
                ("modulate", (torch.empty(1, count, 48)[0], rows(count), told[0], told[1])),
                ("gate", (rows(count + 1)[1:], rows(count), told[0])),
                ("turn", (rows(count), weight, angles.cos(), angles.sin())),
            ):
                function = getattr(elementwise, name)
                expected = function(given[0].clone(), *given[1:])
                if count == 300:
                    made.run(function, given[0].clone(), *given[1:])
                got: list[Any] = []
                assert made_by_twins(lambda: got.append(made.run(function, *given))) == 1, (name, count)  # noqa: B023
                assert torch.allclose(got[0], expected, atol=1e-5), name
    assert made.ready == 4


@needs_compiler
@pytest.mark.slow
def test_eight_bits_are_as_near_compiled_as_written() -> None:
    made = Fused("first")
    with torch.inference_mode():
        for count in (300, 77):
            x = rows(count).bfloat16()
            (expected, scales), (got, found) = float8.eighths(x), float8.eighths(x, made)
            assert torch.allclose(scales, found, rtol=2**-8)
            apart = [
                float((each.float() * scale - x.float()).norm() / x.float().norm())
                for each, scale in ((expected, scales), (got, found))
            ]
            assert 0.01 < apart[1] <= 1.01 * apart[0] < 0.03
    assert made.ready == 1


@needs_compiler
@pytest.mark.slow
def test_what_it_was_not_compiled_for_runs_as_written_instead_of_being_compiled_in_a_job() -> None:
    made, gamma = Fused("first"), rows(1)[0]
    with torch.inference_mode():
        made.run(norm_silu, rows(), gamma)
        made.settle()
        wide, turned = rows(300, 96), rows(48, 300).T
        assert made_by_twins(lambda: made.run(norm_silu, wide, rows(1, 96)[0])) == 0
        assert made_by_twins(lambda: made.run(norm_silu, turned, gamma)) == 0
        assert torch.equal(made.run(norm_silu, turned, gamma), norm_silu(turned, gamma))
        assert made_by_twins(lambda: made.run(norm_silu, rows(), gamma)) == 1
    assert made.ready == 1


def test_only_the_number_of_rows_is_dynamic_whatever_was_compiled_before(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs: list[Any] = []

    def looks(graph: Any, given: Any) -> Any:
        found = [node.meta["example_value"] for node in graph.graph.nodes if node.op == "placeholder"]
        inputs.append([each.shape for each in found if isinstance(each, torch.Tensor)])
        return graph.forward

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile(function, backend=looks, **options))
    made = Fused("first")
    with torch.inference_mode():
        for width in (48, 96, 256):
            made.run(norm_silu, rows(300, width), rows(1, width)[0])
    assert made.ready == 3
    assert [[[type(side) for side in shape] for shape in shapes] for shapes in inputs] == 3 * [[[torch.SymInt, int], [int]]]


def test_what_cannot_be_compiled_runs_as_written_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    def stubborn(x: Any) -> Any:
        return x * 2 if float(x.sum()) > 0 else x  # what it does depends on the numbers: no compiler takes that whole

    made = Fused("first")
    with caplog.at_level(logging.WARNING), torch.inference_mode():
        assert torch.equal(made.run(stubborn, torch.ones(4, 3)), torch.full((4, 3), 2.0))
    assert made.ready == 0
    assert "stubborn runs uncompiled" in caplog.text


def test_off_compiles_nothing() -> None:
    made = Fused()
    made.run(norm_silu, rows(), rows(1)[0])
    assert made.ready == 0
    assert not made._twins


class Counting(Fused):
    """`calls`: of functions that may have been compiled."""

    calls = 0

    def run(self, function: Any, *given: Any, **more: Any) -> Any:
        self.calls += len(given[0]) > 1
        return super().run(function, *given, **more)


@needs_compiler
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("linears", ["bf16", "fp8"])
def test_in_a_job_of_another_size_everything_that_was_compiled_is_used(repository: Path, linears: Linears) -> None:
    pytest.importorskip("diffusers")
    from inference.engines.fastwan import models, sampling, vae
    from inference.engines.fastwan.decoder import Decoder
    from inference.engines.fastwan.transformer import Transformer
    from tests.inference.fastwan.runs import BESIDE

    loaded, made = models.load(repository, "cpu", torch.float32, replace(BESIDE, linears=linears)), Counting("first")

    def job(height: int) -> None:
        shape, heard = (1, 48, 4, height, 6), torch.zeros(1, 512, loaded.transformer.config.text_dim)
        network = Transformer(loaded, heard, shape, True, made)
        image = torch.zeros(1, 48, 1, height, 6)
        latents = sampling.denoise(network, sampling.noise(3, shape), image, loaded.device, lambda _: None)
        list(vae.pictures(loaded, Decoder(loaded.vae, made), latents, 2, False, lambda _: None))

    job(4)
    made.settle()
    made.calls = 0
    assert made_by_twins(lambda: job(8)) == made.calls > 100
