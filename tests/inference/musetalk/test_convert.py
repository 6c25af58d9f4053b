"""The converted folder: loads to the same networks, is listed, mapped, and never half there."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")
safe_open = pytest.importorskip("safetensors").safe_open

from errors import EngineFailed  # noqa: E402
from inference.engines.musetalk import models  # noqa: E402
from inference.engines.musetalk.convert import convert  # noqa: E402
from tests.fakes import checkpoints  # noqa: E402
from weights import sums  # noqa: E402

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = checkpoints.write(tmp_path_factory.mktemp("models"), seed=3)
    convert(folder)
    return folder


def test_the_converted_files_load_to_the_same_networks(published: Path, tmp_path: Path) -> None:
    before, after = models.load(checkpoints.write(tmp_path, seed=3)), models.load(published / "musetalk-fp16")
    latents, speech = torch.randn(1, 8, 32, 32), torch.randn(1, 50, 384)
    with torch.inference_mode():
        wanted, found = before.unet(latents, speech), after.unet(latents, speech)
        assert float((wanted - found).abs().mean() / wanted.std()) < 2e-3
        for name in ("pose", "detector", "parser"):
            one, other = getattr(before, name).state_dict(), getattr(after, name).state_dict()
            assert all(torch.equal(one[key], other[key]) for key in one), name
    assert {parameter.dtype for parameter in after.unet.parameters()} == {torch.float32}, "as asked for, not as stored"


def test_the_converted_files_come_before_the_published_ones(published: Path) -> None:
    unet = published / "musetalkV15" / "unet.pth"
    kept = unet.read_bytes()
    unet.unlink()
    assert models.missing(published) == []
    assert models.load(published).version == "1.5"
    unet.write_bytes(kept)


def test_only_what_makes_the_picture_is_halved(published: Path) -> None:
    kinds = {}
    for path in (published / "musetalk-fp16").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            kinds[path.stem] = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 - not a dictionary
    assert {name for name, dtypes in kinds.items() if dtypes == {torch.float16}} == {"unet-1.5", "vae"}
    assert {name for name, dtypes in kinds.items() if dtypes == {torch.float32}} == {"whisper", "pose", "detector", "parser"}


def test_what_16_bits_cannot_hold_stays_in_32(tmp_path: Path) -> None:
    checkpoints.write(tmp_path)
    path = tmp_path / "sd-vae" / "diffusion_pytorch_model.bin"
    state = torch.load(path)
    state["decoder.conv_in.bias"][0] = 1e6
    torch.save(state, path)
    convert(tmp_path)
    assert float(models.load(tmp_path).vae.decoder.conv_in.bias[0]) == 1e6


def test_every_converted_file_is_in_the_list_of_hashes(published: Path) -> None:
    folder = published / "musetalk-fp16"
    listed = sums.read(folder / "SHA256SUMS")
    assert set(listed) == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in listed.items())


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_who_may_read_other_files_may_read_the_converted_ones(tmp_path: Path, mask: int, mode: int) -> None:
    checkpoints.write(tmp_path)
    before = os.umask(mask)
    try:
        convert(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "musetalk-fp16").iterdir()}
    assert modes == dict.fromkeys(modes, mode)


def test_a_broken_converted_file_says_how_to_write_it_anew(tmp_path: Path) -> None:
    checkpoints.write(tmp_path)
    convert(tmp_path)
    path = tmp_path / "musetalk-fp16" / "vae.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(EngineFailed) as raised:
        models.load(tmp_path)
    told = "is not a complete checkpoint (5,000 bytes); `worker models convert musetalk` writes it again"
    assert raised.value.message == f"{path}: {told}"
    convert(tmp_path)
    assert models.load(tmp_path).version == "1.5"


def test_a_missing_or_wrong_file_ends_the_program_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "inference.engines.musetalk.convert", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{tmp_path}/musetalkV15/unet.pth: is missing; 3,400,074,924 bytes are expected; ")
    assert done.stderr.count("\n") == 1


def test_the_program_prints_the_hashes_as_json(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, version="1.0")
    command = [sys.executable, "-m", "inference.engines.musetalk.convert", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == sums.read(tmp_path / "musetalk-fp16" / "SHA256SUMS")
    assert models.missing(tmp_path / "musetalk-fp16", "1.0") == []
