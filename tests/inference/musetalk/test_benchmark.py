"""The benchmark on a card that is not there: everybody makes the same frames, with diffusers' blocks and with ours."""

from __future__ import annotations

import argparse

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

if torch.cuda.is_available():
    pytest.skip("there is a real card: run the benchmark itself", allow_module_level=True)

from benchmarks import musetalk  # noqa: E402
from inference.engines.fused import Fused  # noqa: E402
from tests.inference.musetalk.engines import another_card  # noqa: E402


@pytest.mark.slow
def test_everybody_makes_the_same_frames_on_a_card() -> None:
    with another_card() as card:
        device = torch.device("cuda:0")
        theirs, ours = musetalk.networks(True, device), musetalk.networks(True, device, Fused())
        options = argparse.Namespace(source=1, batch=2, rounds=1)
        result = musetalk.compare(theirs, ours, (256, 256), 0.4, options)
        assert card.time.complaints == []
    assert 0 < result["difference"] < musetalk.AGREED
    assert {name: run["frames"] for name, run in result["runs"].items()} == dict.fromkeys(
        ("R", "S", "ours, first", "ours, known"), 10
    )
    assert all(run["gpu_busy"] is None for run in result["runs"].values())  # there is no driver to ask
