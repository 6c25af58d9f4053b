"""The benchmark measures all contestants alike, and none of them changes what another one runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from benchmarks import fastwan, fastwan_memory  # noqa: E402
from inference.engines.fastwan.shape import Shape  # noqa: E402
from tests.fakes import made_up_card  # noqa: E402


def test_all_go_through_the_same_stages_and_no_decoder_is_laid_out_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)  # which is then as it was
    found = fastwan.networks(True, torch.device("cpu"), torch.float32)
    result = fastwan.compare(found, Shape(width=64, height=64, frames=5), True, 1)
    assert all(each.is_contiguous() for each in found.vae.parameters())
    stages = {name: tuple(run["stages"]) for name, run in result["runs"].items()}
    assert stages["A"] == stages["A2"] == fastwan.STAGES
    assert stages["ours"] == stages["ours, both"] == ("image", "steps", "decode", "write")
    assert all(run["stages"]["image"] > 0 and run["peak_mib"] is None for run in result["runs"].values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real card")
def test_memory_is_that_of_one_contestant_whatever_else_was_and_is_on_the_card() -> None:
    with made_up_card.inserted(10**8):

        def network() -> Any:
            return torch.nn.Linear(512, 1024, bias=False, device="cuda:0")  # 2 MiB

        other = torch.zeros(10**6, device="cuda:0")
        del other  # the allocator keeps it
        kept, ours = torch.zeros(10**6, device="cuda:0"), SimpleNamespace(transformer=network(), vae=network())
        run = lambda: torch.zeros(2**18, device="cuda:0")  # noqa: E731
        assert fastwan_memory.peak_mib(run, ours, torch.device("cuda:0")) == 5
        del kept, ours
