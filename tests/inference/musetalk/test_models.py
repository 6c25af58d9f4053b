"""The six networks from the published layout in small: whole, ready to run, and refused in one line where a file is wrong."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from errors import EngineFailed  # noqa: E402
from inference.engines.musetalk import models  # noqa: E402
from inference.engines.musetalk.networks.bisenet import BiSeNet  # noqa: E402
from inference.engines.musetalk.networks.dwpose import DWPose  # noqa: E402
from tests.fakes import checkpoints  # noqa: E402
from tests.inference.musetalk.networks.test_dwpose import scrambled  # noqa: E402


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def loaded(published: Path) -> models.Models:
    return models.load(published)


@pytest.fixture
def copied(published: Path, tmp_path: Path) -> Path:
    """A layout of the test's own; its files may be replaced, not written into."""
    return Path(shutil.copytree(published, tmp_path / "models"))


def networks(found: models.Models) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("unet", "vae", "whisper", "pose", "detector", "parser")}


def test_every_network_is_ready_to_run_and_not_to_learn(loaded: models.Models) -> None:
    for name, network in networks(loaded).items():
        assert not any(module.training for module in network.modules()), name
        assert not any(parameter.requires_grad for parameter in network.parameters()), name
        assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}, name
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}, name
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()), name
    wide = loaded.vae.decoder.mid_block.resnets[0].conv1.weight
    assert wide.is_contiguous(memory_format=torch.channels_last)


def test_what_makes_the_picture_and_what_looks_have_each_its_precision(published: Path) -> None:
    found = models.load(published, dtype=torch.bfloat16)
    kinds = {name: {parameter.dtype for parameter in network.parameters()} for name, network in networks(found).items()}
    assert {name for name, dtypes in kinds.items() if dtypes == {torch.bfloat16}} == {"unet", "vae"}
    assert {name for name, dtypes in kinds.items() if dtypes == {torch.float32}} == {"whisper", "pose", "detector", "parser"}
    with torch.inference_mode():
        made = found.unet(torch.randn(1, 8, 32, 32).bfloat16(), torch.randn(1, 50, 384).bfloat16())
    assert (made.shape, made.dtype) == ((1, 4, 32, 32), torch.bfloat16)


def test_the_unet_is_diffusers_own_at_step_0(published: Path, loaded: models.Models) -> None:
    network = diffusers.UNet2DConditionModel.from_config(checkpoints.UNET).eval()
    network.load_state_dict(torch.load(published / "musetalkV15" / "unet.pth"))
    latents, speech = torch.randn(2, 8, 32, 32), torch.randn(2, 50, 384)
    with torch.inference_mode():
        wanted = network(latents, torch.tensor([0]), encoder_hidden_states=speech).sample
        found = loaded.unet(latents, speech)
    assert float((found - wanted).abs().max() / wanted.std()) < 1e-5


def test_the_vae_is_diffusers_own_from_the_same_folder(published: Path, loaded: models.Models) -> None:
    network = diffusers.AutoencoderKL.from_pretrained(published / "sd-vae", use_safetensors=False).eval()
    pictures, latents = torch.rand(1, 3, 256, 256) * 2 - 1, torch.randn(1, 4, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(
            loaded.vae.encode(pictures).latent_dist.mean, network.encode(pictures).latent_dist.mean, rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(loaded.vae.decode(latents).sample, network.decode(latents).sample, rtol=1e-4, atol=1e-4)
    assert loaded.vae.config.scaling_factor == 0.18215


def test_whisper_is_the_encoder_of_the_whole(published: Path, loaded: models.Models) -> None:
    config = transformers.WhisperConfig.from_dict(checkpoints.WHISPER)
    whole = transformers.WhisperForConditionalGeneration(config).eval()
    whole.load_state_dict(torch.load(published / "whisper" / "pytorch_model.bin"))
    heard = torch.randn(1, 80, 3000)
    with torch.inference_mode():
        wanted = whole.model.encoder(heard, output_hidden_states=True).hidden_states
        found = loaded.whisper(heard, output_hidden_states=True).hidden_states
    assert len(found) == 5
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("name", "shape"), [("pose", (1, 3, 384, 288)), ("parser", (1, 3, 256, 256))])
def test_norms_within_convolutions_change_nothing(copied: Path, name: str, shape: tuple[int, ...]) -> None:
    network, path = {
        "pose": (scrambled(DWPose(4)), copied / "dwpose" / "dw-ll_ucoco_384.pth"),
        "parser": (scrambled(BiSeNet(4)), copied / "face-parse-bisent" / "79999_iter.pth"),
    }[name]
    path.unlink()
    torch.save(network.state_dict(), path)
    pictures = torch.randn(shape)
    with torch.inference_mode():
        wanted, found = network(pictures), getattr(models.load(copied), name)(pictures)
    for one, other in zip(*((value if isinstance(value, tuple) else (value,)) for value in (found, wanted)), strict=True):
        assert float((one - other).abs().max() / other.std()) < 1e-4


def test_the_other_version_has_its_own_unet(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, seed=1, version="1.0")
    assert models.load(tmp_path, "1.0").version == "1.0"
    assert models.missing(tmp_path, "1.0") == []
    assert [line.split(":")[0] for line in models.missing(tmp_path, "1.5")] == [str(tmp_path / "musetalkV15" / "unet.pth")]


# ---- what is said of a file that is not right ------------------------------------------------------------------------------


def refused(folder: Path) -> str:
    with pytest.raises(EngineFailed) as raised:
        models.load(folder)
    assert "\n" not in raised.value.message
    return raised.value.message


def test_missing_files_are_listed_each_with_its_size_and_the_command(tmp_path: Path) -> None:
    lines = models.missing(tmp_path)
    assert len(lines) == 6
    told = "3,400,074,924 bytes are expected; `worker models pull musetalk` fetches it"
    assert lines[0] == f"{tmp_path}/musetalkV15/unet.pth: is missing; {told}"
    assert refused(tmp_path) == lines[0] + " (6 files are missing)"
    assert "about 89,843,000 bytes" in next(line for line in lines if "s3fd" in line)


def test_a_missing_configuration_is_missing(copied: Path) -> None:
    (copied / "sd-vae" / "config.json").unlink()
    assert refused(copied).startswith(f"{copied}/sd-vae/config.json: is missing; 547 bytes are expected; ")


def test_a_file_that_is_cut_off_is_named_with_its_size_and_the_command(copied: Path) -> None:
    path = copied / "musetalkV15" / "unet.pth"
    short = path.read_bytes()[:100_000]
    path.unlink()
    path.write_bytes(short)
    told = "3,400,074,924 bytes are expected; `worker models pull musetalk` fetches it"
    assert refused(copied) == f"{path}: is not a complete checkpoint (100,000 bytes); {told}"


@pytest.mark.parametrize(
    ("broken", "other"),
    [
        ("dwpose/dw-ll_ucoco_384.pth", "s3fd/s3fd-619a316812.pth"),
        ("s3fd/s3fd-619a316812.pth", "dwpose/dw-ll_ucoco_384.pth"),
        ("face-parse-bisent/79999_iter.pth", "s3fd/s3fd-619a316812.pth"),
        ("sd-vae/diffusion_pytorch_model.bin", "musetalkV15/unet.pth"),
        ("whisper/pytorch_model.bin", "musetalkV15/unet.pth"),
        ("musetalkV15/unet.pth", "sd-vae/diffusion_pytorch_model.bin"),
    ],
)
def test_another_networks_file_is_refused_in_one_line(copied: Path, broken: str, other: str) -> None:
    (copied / broken).unlink()
    shutil.copyfile(copied / other, copied / broken)
    message = refused(copied)
    assert message.startswith(f"{copied / broken}: is not the expected file: ")
    assert message.endswith("`worker models pull musetalk` fetches it")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"<html>", b"\xff\xfe{}", b"[" * 100_000])
def test_a_configuration_that_is_not_one_is_refused_with_its_own_size(copied: Path, content: bytes) -> None:
    path = copied / "sd-vae" / "config.json"
    path.unlink()
    path.write_bytes(content)
    message = refused(copied)
    assert message.startswith(f"{path}: is not ")
    assert message.endswith("; 547 bytes are expected; `worker models pull musetalk` fetches it")


def test_a_configuration_that_cannot_be_read_is_said_to_be_that(copied: Path) -> None:
    path = copied / "sd-vae" / "config.json"
    path.unlink()
    path.symlink_to("/proc/self/mem")  # a file that is there, and whose first byte nobody may read
    assert refused(copied).startswith(f"{path}: cannot be read (input/output error); 547 bytes are expected; ")


def test_a_unet_that_the_walk_does_not_know_is_refused(copied: Path) -> None:
    path = copied / "musetalkV15" / "musetalk.json"
    path.unlink()
    path.write_text(json.dumps(checkpoints.UNET | {"class_embed_type": "timestep"}))
    assert "class_embed_type=timestep" in refused(copied)


@pytest.mark.parametrize(
    ("config", "change"),
    [
        ("musetalkV15/musetalk.json", {"block_out_channels": "x"}),
        ("musetalkV15/musetalk.json", {"down_block_types": ["Nope"] * 4}),
        ("musetalkV15/musetalk.json", {"down_block_types": 5}),
        ("musetalkV15/musetalk.json", {"norm_num_groups": 0}),
        ("musetalkV15/musetalk.json", {"act_fn": "none"}),
        ("musetalkV15/musetalk.json", {"in_channels": -1}),
        ("sd-vae/config.json", {"block_out_channels": []}),
        ("sd-vae/config.json", {"norm_num_groups": 7}),
        ("whisper/config.json", {"d_model": "x"}),
        ("whisper/config.json", {"encoder_attention_heads": 5}),
        ("whisper/config.json", {"activation_function": "none"}),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else Path(given).parent.name,
)
def test_a_configuration_that_no_network_can_have_is_named_in_one_line(
    copied: Path, config: str, change: dict[str, Any]
) -> None:
    message = refused(changed(copied / config, change, copied))
    assert message.startswith(f"{copied / config}: is not the expected file: no network can be built from it (")
    assert message.endswith("`worker models pull musetalk` fetches it")


@pytest.mark.parametrize("scale", ["x", 0, -1, True, None, [1], math.inf, math.nan])
def test_a_scale_of_the_latents_that_is_no_number_above_0_is_refused(copied: Path, scale: Any) -> None:
    path = copied / "sd-vae" / "config.json"
    message = refused(changed(path, {"scaling_factor": scale}, copied))
    assert message.startswith(f"{path}: is not the expected file: scaling_factor is {str(scale)!r}, must be a positive number")


def changed(path: Path, change: dict[str, Any], folder: Path) -> Path:
    """Other values in a configuration; returns the folder of all."""
    config = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps(config | change))
    return folder


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
