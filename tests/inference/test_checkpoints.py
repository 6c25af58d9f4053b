"""Every kind of file that weights were published in is read to the same tensors, and nothing in it is ever run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from errors import EngineFailed  # noqa: E402
from inference.engines import checkpoints  # noqa: E402
from tests.fakes.checkpoints import trained  # noqa: E402

STATE = {"conv.weight": torch.arange(24.0).view(2, 3, 2, 2), "conv.bias": torch.tensor([1.0, 2.0]), "steps": torch.tensor(7)}


FETCHED = "fetch it again"


def same(found: dict[str, Any], wanted: dict[str, Any] = STATE) -> bool:
    return list(found) == list(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("legacy", [False, True])
def test_both_of_torchs_own_forms_are_read(tmp_path: Path, legacy: bool) -> None:
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert same(checkpoints.read(tmp_path / "w.pth", FETCHED))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_training_runs_objects_are_left_out(tmp_path: Path, legacy: bool) -> None:
    trained(tmp_path / "w.pth", STATE, legacy=legacy)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pth", weights_only=True)
    assert same(checkpoints.read(tmp_path / "w.pth", FETCHED))


def test_parameters_and_views_are_read_as_tensors(tmp_path: Path) -> None:
    whole = torch.arange(12.0)
    parameter = torch.nn.Parameter(torch.ones(2, dtype=torch.half))
    trained(tmp_path / "w.pth", {"view": whole[4:8].view(2, 2), "parameter": parameter})
    found = checkpoints.read(tmp_path / "w.pth", FETCHED)
    assert same(found, {"view": whole[4:8].view(2, 2), "parameter": torch.ones(2, dtype=torch.half)})
    assert not any(tensor.requires_grad for tensor in found.values())


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in STATE.items()}, tmp_path / "w.safetensors")
    found = checkpoints.read(tmp_path / "w.safetensors", FETCHED)
    assert same(found, {name: STATE[name] for name in found})
    assert set(found) == set(STATE)


def test_a_wrappers_prefix_is_taken_away(tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in STATE.items()}}, tmp_path / "w.pth")
    assert same(checkpoints.read(tmp_path / "w.pth", FETCHED))


def test_old_names_of_the_vaes_attention_become_todays(tmp_path: Path) -> None:
    square = torch.arange(4.0).view(2, 2)
    old = {f"decoder.mid_block.attentions.0.{name}.weight": square for name in ("query", "key", "value")}
    old |= {"decoder.mid_block.attentions.0.proj_attn.weight": square.view(2, 2, 1, 1)}  # as some files have it
    old |= {"decoder.mid_block.attentions.0.query.bias": square[0], "decoder.mid_block.attentions.0.group_norm.bias": square[0]}
    torch.save(old, tmp_path / "w.bin")
    found = checkpoints.read(tmp_path / "w.bin", FETCHED)
    names = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_q.bias", "group_norm.bias")
    assert list(found) == [f"decoder.mid_block.attentions.0.{name}" for name in names]
    assert found["decoder.mid_block.attentions.0.to_out.0.weight"].shape == (2, 2)


class Hostile:
    """What an attacker puts beside the tensors: a call that any plain unpickling makes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_that_a_file_says_is_run(tmp_path: Path, legacy: bool) -> None:
    content = {"state_dict": STATE, "extra": [Hostile(tmp_path / "made"), {Hostile(tmp_path / "made"): 1}]}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert same(checkpoints.read(tmp_path / "w.pth", FETCHED))
    assert not (tmp_path / "made").exists()


# ---- files that are not what they should be --------------------------------------------------------------------------------


def written(path: Path, kind: str) -> Path:
    """A good file of one of the kinds."""
    if kind == "safetensors":
        save_file({"a": torch.zeros(4000)}, path)
    else:
        torch.save({"a": torch.zeros(4000)}, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_that_is_cut_off_is_refused_in_one_line(tmp_path: Path, kind: str, share: float) -> None:
    path = written(tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth"), kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(EngineFailed) as raised:
        checkpoints.read(path, FETCHED)
    assert raised.value.message == f"{path}: is not a complete checkpoint ({int(len(whole) * share):,} bytes); fetch it again"


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>Sign in to the hub</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:7ebf\nsize 3400074924\n",
        bytes(range(256)) * 40,
        b"PK\x05\x06" + bytes(18),  # an empty zip
        pickle.dumps({"a": 1}),
        b"\x80\x02.",
    ],
    ids=["page", "pointer", "noise", "zip", "pickle", "nothing"],
)
@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors"])
def test_another_file_by_that_name_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EngineFailed) as raised:
        checkpoints.read(tmp_path / name, FETCHED)
    assert raised.value.message.startswith(f"{tmp_path / name}: is not a complete checkpoint ({len(content):,} bytes); ")
    assert raised.value.message.endswith("fetch it again")
    assert "\n" not in raised.value.message


def test_a_file_that_is_empty_or_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    for name, said in (("empty.pth", "is empty"), ("none.pth", "is missing"), ("none.safetensors", "is missing")):
        with pytest.raises(EngineFailed) as raised:
            checkpoints.read(tmp_path / name, FETCHED)
        assert raised.value.message == f"{tmp_path / name}: {said}; fetch it again"


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_that_may_not_be_read_is_said_to_be_that(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"folder.{ending}").mkdir()
    (tmp_path / "file").touch()
    for name, said in ((f"folder.{ending}", "is a directory"), (f"file/w.{ending}", "not a directory")):
        with pytest.raises(EngineFailed) as raised:
            checkpoints.read(tmp_path / name, FETCHED)
        assert raised.value.message == f"{tmp_path / name}: cannot be read ({said}); fetch it again"


@pytest.mark.parametrize("content", [[], {}, {"state_dict": {}}, {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_tensors_by_name_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(EngineFailed, match="contains no tensors"):
        checkpoints.read(tmp_path / "w.pth", FETCHED)
