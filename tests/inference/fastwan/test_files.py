"""The published repository as files: found under either name, and refused in one line when something is wrong with it."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from errors import EngineFailed, OutOfMemory  # noqa: E402
from inference.engines.fastwan import layout, models  # noqa: E402
from inference.engines.fastwan.eight import Linear8  # noqa: E402
from inference.engines.fastwan.engine import Engine  # noqa: E402
from tests.fakes import fastwan  # noqa: E402
from tests.inference.fastwan.runs import BESIDE  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    shutil.copytree(repository, tmp_path / "models")
    return tmp_path / "models"


def home(folder: Path) -> Path:
    return folder / layout.FOLDERS[0]


def test_nothing_is_missing_from_the_published_layout(repository: Path) -> None:
    assert Engine().missing(repository) == []


@pytest.mark.parametrize("name", [layout.FOLDERS[1], "."])
def test_the_other_repository_and_the_folder_itself_are_accepted(repository: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(home(repository), tmp_path / "models" / name, dirs_exist_ok=True)
    assert Engine().missing(tmp_path / "models") == []


def test_without_any_file_each_network_is_named_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    lines = Engine().missing(tmp_path)
    assert len(lines) == 4
    assert all("is missing" in line and "worker models pull fastwan" in line for line in lines)


def lose(path: str) -> Callable[[Path], None]:
    return lambda folder: (home(folder) / path).unlink()


def cut(path: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        file = home(folder) / path
        file.write_bytes(file.read_bytes()[:-100])

    return do


def fill(path: str, content: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (home(folder) / path).write_text(content)

    return do


def folder(path: str) -> Callable[[Path], None]:
    """Something that no user may read as a file."""

    def do(models_: Path) -> None:
        (home(models_) / path).unlink()
        (home(models_) / path).mkdir()

    return do


def alone(path: str) -> Callable[[Path], None]:
    """The tokenizer in its other form only."""

    def do(folder: Path) -> None:
        (home(folder) / "tokenizer/tokenizer.json").rename(home(folder) / path)

    return do


def index(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Another weight_map in the text encoder's index."""

    def do(models_: Path) -> None:
        path = home(models_) / INDEX
        found = json.loads(path.read_text())
        path.write_text(json.dumps(found | {"weight_map": change(found["weight_map"])}))

    return do


def header(content: str) -> Callable[[Path], None]:
    """A file of the transformer's weights that is this header alone."""

    def do(models_: Path) -> None:
        (home(models_) / TRANSFORMER).write_bytes(len(content).to_bytes(8, "little") + content.encode())

    return do


def ends_at(end: str) -> Callable[[Path], None]:
    return header(f'{{"a": {{"dtype": "F32", "shape": [1], "data_offsets": [0, {end}]}}}}')


INDEX = "text_encoder/model.safetensors.index.json"
SHARD = "text_encoder/model-00002-of-00004.safetensors"
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lose(SHARD), f"{SHARD}: is missing"),
        (cut(SHARD), f"{SHARD}: has "),
        (fill(SHARD, "<html>not found</html>"), f"{SHARD}: is not a safetensors file (22 bytes)"),
        (cut("vae/diffusion_pytorch_model.safetensors"), "vae/diffusion_pytorch_model.safetensors: has "),
        (lose(TRANSFORMER), f"{TRANSFORMER}: is missing"),
        (lose("transformer/config.json"), "transformer/config.json: is missing"),
        (fill("text_encoder/config.json", "{"), "text_encoder/config.json: is not JSON"),
        (fill("vae/config.json", "[]"), "vae/config.json: is not a JSON object"),
        (folder("vae/config.json"), "vae/config.json: cannot be read (is a directory)"),
        (folder(TRANSFORMER), f"{TRANSFORMER}: cannot be read (is a directory)"),
        (lose("tokenizer/tokenizer.json"), "tokenizer/tokenizer.json: is missing"),
        (cut("tokenizer/tokenizer.json"), "tokenizer/tokenizer.json: is not JSON"),
        (alone("tokenizer/spiece.model"), "tokenizer/tokenizer.json: is missing"),
        (index(list), f"{INDEX}: has no weight_map that names files"),
        (index(lambda named: {}), f"{INDEX}: has no weight_map that names files"),
        (fill(INDEX, "{}"), f"{INDEX}: has no weight_map that names files"),
        (index(lambda named: named | {"x": 5}), f"{INDEX}: names 5, may only name files in its own folder"),
        (index(lambda named: named | {"x": None}), f"{INDEX}: names None, may"),
        (index(lambda named: named | {"x": "/etc/hosts"}), f"{INDEX}: names '/etc/hosts', may"),
        (index(lambda named: named | {"x": "../../../a"}), f"{INDEX}: names '../../../a', may"),
        (index(lambda named: named | {"x": ""}), f"{INDEX}: names '', may"),
        (index(lambda named: named | {"x": "."}), f"{INDEX}: names '.', may"),
        (index(lambda named: named | {"x": "a\0b"}), f"{INDEX}: names 'a\\x00b', may"),
        (index(lambda named: named | {"x": "a" * 5000}), f"{INDEX}: names 'aaa"),
        (index(lambda named: dict(list(named.items())[:1])), f"{INDEX}: names 1 of 4 files"),
        (header("[" * 200_000), f"{TRANSFORMER}: is not a safetensors file (200,008 bytes)"),
        (fill("vae/config.json", "[" * 200_000), "vae/config.json: is not JSON"),
        (ends_at('"9"'), f"{TRANSFORMER}: is not a safetensors file"),
        (ends_at("0.0"), f"{TRANSFORMER}: is not a safetensors file"),
        (ends_at("NaN"), f"{TRANSFORMER}: is not a safetensors file"),
        (ends_at("-5"), f"{TRANSFORMER}: is not a safetensors file"),
        (ends_at("9" * 4000), f"{TRANSFORMER}: is not a safetensors file"),
    ],
)
def test_a_file_that_is_missing_or_cut_short_is_named_in_one_line(
    copy: Path, spoil: Callable[[Path], None], named: str
) -> None:
    spoil(copy)
    (line,) = Engine().missing(copy)
    assert named in line
    assert len(line) < 500
    assert "worker models pull fastwan" in line
    with pytest.raises(EngineFailed) as caught:
        models.load(copy, "cpu", torch.float32, BESIDE)
    assert caught.value.message == line


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"added_tokens": 1}'),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[" * 200_000),
        ("tokenizer_config.json", '{"added_tokens_decoder": 1}'),
    ],
)
def test_a_tokenizer_that_is_none_is_an_error_in_one_line(copy: Path, file: str, content: str) -> None:
    (home(copy) / "tokenizer" / file).write_text(content)
    with pytest.raises(EngineFailed, match=r"tokenizer.*worker models pull fastwan") as caught:
        models.load(copy, "cpu", torch.float32, BESIDE)
    assert "\n" not in caught.value.message


def test_no_text_encoder_is_said(copy: Path) -> None:
    shutil.rmtree(home(copy) / "text_encoder")
    (line,) = Engine().missing(copy)
    assert "text_encoder/config.json: is missing" in line


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("transformer", "in_channels", 36),
        ("transformer", "image_dim", 1280),
        ("transformer", "qk_norm", "rms_norm"),
        ("transformer", "cross_attn_norm", False),
        ("vae", "z_dim", 16),
        ("vae", "latents_mean", [0.0] * 3),
        ("vae", "latents_mean", [float("nan")] * 48),
        ("vae", "latents_mean", None),
        ("vae", "latents_std", [0.0] * 48),
        ("vae", "latents_std", ["1"] * 48),
        ("vae", "latents_std", 1),
    ],
)
def test_another_model_is_refused_by_what_differs(copy: Path, name: str, field: str, value: Any) -> None:
    configure(copy, name, field, value)
    with pytest.raises(EngineFailed, match=f"{name}/config.json: {field} is {re.escape(str(value)[:80])}, must be"):
        models.load(copy, "cpu", torch.float32, BESIDE)


def configure(folder: Path, name: str, field: str, value: Any) -> None:
    path = home(folder) / name / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))


def test_a_network_with_other_tensors_is_refused(copy: Path) -> None:
    configure(copy, "transformer", "num_layers", 4)
    said = r"transformer/config\.json: does not match the weights beside it: \d+ tensors missing \(blocks\.3"
    with pytest.raises(EngineFailed, match=said):
        models.load(copy, "cpu", torch.float32, BESIDE)


def test_weights_that_no_memory_can_hold_are_said_to_be_too_large(copy: Path) -> None:
    size = 1 << 42
    header = json.dumps({"proj_out.weight": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    with (home(copy) / TRANSFORMER).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # nothing is written: the file is one hole
    with pytest.raises(OutOfMemory, match="does not fit in memory with the plan cpu"):
        models.load(copy, "cpu", torch.float32, BESIDE)


def test_weights_of_a_sparse_attention_are_said_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fastwan.write(tmp_path, gates=True)
    with caplog.at_level(logging.WARNING):
        loaded = models.load(tmp_path, "cpu", torch.float32, BESIDE)
    assert "dense attention is used" in caplog.text
    assert not any("gate" in name for name, _ in loaded.transformer.named_parameters())


def test_the_precision_is_that_of_the_published_loader(repository: Path) -> None:
    loaded = models.load(repository, "cpu", torch.bfloat16, BESIDE)
    kinds = {name: tensor.dtype for name, tensor in loaded.transformer.named_parameters()}
    wide = {name for name, kind in kinds.items() if kind == torch.float32}
    assert {name for name in kinds if any(part in name for part in models.IN_32_BITS)} == wide
    assert loaded.vae.encoder.conv_in.weight.dtype == torch.float32
    assert loaded.vae.decoder.conv_in.weight.dtype == torch.bfloat16


def test_slabs_hold_what_is_put_into_them_one_after_the_other() -> None:
    slabs = models.Slabs(pin=False)
    given = [torch.randn(3, 5).to(kind) for kind in (torch.bfloat16, torch.float32)] + [torch.ones(1, dtype=torch.bfloat16)]
    kept = [slabs.pinned(each) for each in given]
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(kept, given, strict=True))
    assert len({each.untyped_storage().data_ptr() for each in kept}) == 1
    assert [each.data_ptr() - kept[0].data_ptr() for each in kept] == [0, 256, 512]


def test_eight_bits_change_the_embeddings_a_little(repository: Path) -> None:
    from inference.engines.fastwan import text

    whole = models.load(repository, "cpu", torch.float32, replace(BESIDE, text="card"))
    less = models.load(repository, "cpu", torch.float32, replace(BESIDE, text="card8"))
    assert sum(isinstance(module, Linear8) for module in less.text.modules()) == 2 * 7
    expected, got = (text.embed(each, "a person smiles") for each in (whole, less))
    assert 0 < float((got - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize(("version", "warned"), [(None, False), (90701, False), (91002, True), (91501, False), (92000, False)])
def test_a_cudnn_that_cannot_decode_is_warned_of(version: int | None, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        models.warn_of_cudnn(version)
    assert ("cuDNN 9.10 decodes incorrectly" in caplog.text) is warned
