"""What a user may choose at the price of exactness: the transformer's linear layers in 8 bits, and a tiny decoder."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from torch.nn import functional  # noqa: E402

from errors import EngineFailed  # noqa: E402
from inference.engine import Options  # noqa: E402
from inference.engines.fastwan import float8, layout, tiny  # noqa: E402
from inference.engines.fastwan.decoder import Past, parts  # noqa: E402
from inference.engines.fastwan.engine import Engine  # noqa: E402
from inference.engines.fastwan.models import load  # noqa: E402
from inference.engines.fused import Fused  # noqa: E402
from tests.fakes import fastwan, made_up_card  # noqa: E402
from tests.inference.fastwan.runs import BESIDE, latents, painting, run  # noqa: E402
from weights import manifest, plans  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the tiny decoder beside it."""
    folder = fastwan.write(tmp_path_factory.mktemp("lossy") / "models")
    fastwan.write_tiny(folder)
    return folder


def chosen(folder: Path, device: str = "cpu", **options: Any) -> Engine:
    engine = Engine()
    engine.configure(Options(compile="off", **options))
    engine.load(folder, device)
    return engine


def distance(made: Any, expected: Any) -> float:
    return float((made.float() - expected.float()).norm() / expected.float().norm())


# ---- 8-bit linear layers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_row_is_as_near_as_eight_bits_allow_however_large_its_numbers(dtype: Any) -> None:
    rows = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 40)[:, None]
    rows[3] = 0
    rows = rows.to(dtype)
    made, scale = float8.eighths(rows)
    assert torch.isfinite(made.float()).all()
    assert made.float().abs().amax(1)[0] == 448  # the largest number of a row has the largest one of the kind
    back = made.float() * scale
    # three bits after the leading one: half of the last is a sixteenth; below 2^-6 of 448 / 2^15 the steps are even
    assert ((back - rows.float()).abs() <= rows.float().abs() / 16 + scale * 2**-10).all()


@pytest.mark.parametrize("multiplied", [True, False])
def test_a_layer_gives_nearly_what_the_linear_one_gives(multiplied: bool) -> None:
    linear = torch.nn.Linear(96, 64)
    layer = float8.LinearFloat8(linear, multiplied)
    rows, scale = float8.eighths(linear.weight.detach())
    layer.weight.data, layer.weight_scale.data = rows, scale
    x = torch.randn(2, 7, 96)
    expected = linear(x).detach()
    assert 0 < distance(layer(x, Fused()).detach(), expected) < 0.05


def test_a_device_that_does_not_multiply_them_widens_them_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(*given: Any, **named: Any) -> Any:
        raise RuntimeError("scaled_mm is only supported on devices of compute capability 8.9 and more\nmore words")

    float8.is_multiplied.cache_clear()
    monkeypatch.setattr(functional, "scaled_mm", refuses)
    with caplog.at_level(logging.WARNING):
        assert not float8.is_multiplied(CPU, torch.bfloat16)
    assert "cpu does not support fp8 multiplication, so fp8 saves memory but no time: scaled_mm is only" in caplog.text
    assert "more words" not in caplog.text
    monkeypatch.setattr(functional, "scaled_mm", lambda x, w, *_, **__: torch.zeros(len(x), w.shape[1]))
    float8.is_multiplied.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not float8.is_multiplied(CPU, torch.bfloat16)
    assert "incorrectly (error 100 %)" in caplog.text


def test_a_device_is_tried_with_a_bias_as_every_layer_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*given: Any, **named: Any) -> Any:
        if named["bias"] is not None:
            raise RuntimeError("Bias is not supported")
        return multiplied(*given, **named)

    multiplied = functional.scaled_mm
    float8.is_multiplied.cache_clear()
    monkeypatch.setattr(functional, "scaled_mm", refuses)
    assert not float8.is_multiplied(CPU, torch.bfloat16)
    float8.is_multiplied.cache_clear()


def test_every_linear_layer_of_the_blocks_is_in_8_bits_and_nothing_else(both: Path) -> None:
    exact, eighth = (load(both, "cpu", torch.float32, replace(BESIDE, linears=kind)) for kind in ("bf16", "fp8"))
    kinds = dict(eighth.transformer.named_parameters())
    linear = {f"{name}.weight" for name, each in exact.transformer.named_modules() if isinstance(each, torch.nn.Linear)}
    assert {name for name, each in kinds.items() if each.dtype == float8.KIND} == {
        name for name in linear if name.startswith("blocks.")
    }
    for name, each in exact.transformer.named_parameters():
        if kinds[name].dtype != float8.KIND:
            assert torch.equal(each, kinds[name]), name


def test_a_job_in_8_bits_is_near_the_exact_one_and_says_what_it_is(both: Path, engine: Engine, tmp_path: Path) -> None:
    image = painting(tmp_path / "i.png")
    eighth = chosen(both, linears="fp8")
    assert 0 < distance(latents(eighth, image), latents(engine, image)) < 0.05
    metrics = run(eighth, tmp_path / "o.mp4", image)
    assert (metrics.extra["linears"], metrics.extra["decoder"]) == ("fp8", "full")


@pytest.mark.parametrize("name", ["whole", "streamed"])
def test_on_a_card_the_same_comes_out_of_each_place(name: str, both: Path, tmp_path: Path) -> None:
    image = painting(tmp_path / "i.png")
    expected = latents(chosen(both, linears="fp8"), image)
    with made_up_card.inserted() as card:
        on_card = chosen(both, "cuda:0", linears="fp8", decoder="tiny")
        on_card._use(next(plan for plan in plans.offered("fp8", "tiny") if plan.name == name))
        made = latents(on_card, image)
        metrics = run(on_card, tmp_path / "o.mp4", image)
        del on_card
    assert distance(made, expected) < 0.03  # 16 bits there, 32 here
    assert [metrics.extra[name] for name in ("plan", "linears", "decoder")] == [name, "fp8", "tiny"]
    assert card.time.complaints == []


# ---- the tiny decoder ------------------------------------------------------------------------------------------------------


def decoded_at_once(state: dict[str, Any], x: Any) -> Any:
    """What the published decoder does with normalised latents (1, 48, t, h, w), written as its description has it: all pictures
    at once, nothing before the first, the first three left out."""
    weights = {name[len("decoder.") :]: each.float() for name, each in state.items()}

    def conv(name: str, x: Any) -> Any:
        weight = weights[f"{name}.weight"]
        return functional.conv2d(x, weight, weights.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    x = torch.tanh(x[0].transpose(0, 1) / 3) * 3
    x = conv("1", x).relu()
    for first, times in ((3, 1), (9, 2), (15, 2)):
        for number in range(first, first + 3):
            before = functional.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:-1]
            inner = conv(f"{number}.conv.0", torch.cat((x, before), 1)).relu()
            x = (conv(f"{number}.conv.4", conv(f"{number}.conv.2", inner).relu()) + x).relu()
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        grown = conv(f"{first + 4}.conv", x)
        x = grown.reshape(len(x) * times, -1, *x.shape[2:])
        x = conv(str(first + 5), x)
    x = conv("22", x.relu())
    return functional.pixel_shuffle(x, 2)[3:] * 2 - 1  # (1 + 4 (t - 1), 3, 16 h, 16 w)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_the_tiny_decoder_gives_what_its_description_gives_in_parts_of_any_size(both: Path, chunk: int) -> None:
    decoder = tiny.Decoder(tiny.load(both, CPU, torch.float32))
    state = torch.load(both / layout.TINY, weights_only=True)
    x = 2 * torch.randn(1, 48, 6, 3, 4, generator=torch.Generator().manual_seed(1))
    past = Past()
    made = torch.cat([decoder.part(decoder.scaled(x)[:, :, part], past) for part in parts(6, chunk)], 2)
    expected = decoded_at_once({name: each for name, each in state.items() if name.startswith("decoder.")}, x)
    assert made.shape == (1, 3, 21, 48, 64)
    assert distance(made[0].transpose(0, 1), expected) < 1e-5


def test_the_published_file_has_as_many_numbers_as_the_network_and_its_encoder() -> None:
    ours = sum(each.numel() for each in tiny.network().parameters())
    assert ours == plans.TINY_PARAMETERS
    encoder = (12 * 64 * 9 + 64) + 9 * ((128 * 64 + 2 * 64 * 64) * 9 + 3 * 64) + 3 * 64 * 64 * 9 + (64 * 48 * 9 + 48)
    pools = 2 * 128 * 64 + 64 * 64
    published = next(file.size_bytes for file in manifest.FASTWAN if file.path == layout.TINY)
    assert 2 * (ours + encoder + pools) < published < 1.01 * 2 * (ours + encoder + pools)


def test_a_job_with_the_tiny_decoder_has_its_pictures_and_no_other_decoder(both: Path, engine: Engine, tmp_path: Path) -> None:
    image = painting(tmp_path / "i.png")
    small = chosen(both, decoder="tiny")
    assert small._loaded.vae.decoder is None
    made = latents(small, image)
    assert torch.equal(made, latents(engine, image))  # only the pictures are made another way
    metrics = run(small, tmp_path / "o.mp4", image)
    assert (metrics.frames, metrics.extra["decoder"]) == (9, "tiny")
    state = torch.load(both / layout.TINY, weights_only=True)
    expected = decoded_at_once({name: each for name, each in state.items() if name.startswith("decoder.")}, made)
    shown = np.stack(list(small._pictures(made, lambda _: None))).astype(float)
    assert np.abs(shown - (expected.clamp(-1, 1) + 1).permute(0, 2, 3, 1).numpy() * 127.5).max() <= 0.51


def test_a_tiny_decoder_that_is_not_there_or_not_whole_is_named_with_its_size_and_the_command(
    repository: Path, both: Path, tmp_path: Path
) -> None:
    engine = Engine()
    assert engine.missing(repository) == []  # nobody asked for it
    engine.configure(Options(decoder="tiny"))
    (line,) = engine.missing(repository)
    assert line.endswith(
        "taehv/taew2_2.pth: is missing; 22,884,021 bytes are expected; `worker models pull fastwan` fetches it"
    )
    cut = tmp_path / layout.TINY
    cut.parent.mkdir()
    cut.write_bytes((both / layout.TINY).read_bytes()[:1_000_000])
    with pytest.raises(
        EngineFailed, match=r"taew2_2\.pth: is not a complete checkpoint \(1,000,000 bytes\); 22,884,021 bytes are expected"
    ):
        tiny.load(tmp_path, CPU, torch.float32)


def test_a_file_of_another_network_is_refused(both: Path, tmp_path: Path) -> None:
    path = tmp_path / layout.TINY
    path.parent.mkdir()
    torch.save({"decoder.1.weight": torch.zeros(64, 16, 3, 3)}, path)
    said = r"taew2_2\.pth: is for a different network: \d+ tensors missing \(.+`worker models pull fastwan` fetches it"
    with pytest.raises(EngineFailed, match=said):
        tiny.load(tmp_path, CPU, torch.float32)
