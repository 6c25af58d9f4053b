"""What lies under MODELS_DIR is judged byte for byte, and only what an engine needs stands against it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from weights import manifest, sums
from weights.manifest import File
from weights.verify import Verdict, check, look, needed, verify

FILE = File(path="net/w.bin", size_bytes=3, sha256=hashlib.sha256(b"abc").hexdigest(), url="https://hub.example/w.bin")


def put(folder: Path, path: str, content: bytes) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)


def test_the_right_bytes_are_good(tmp_path: Path) -> None:
    put(tmp_path, FILE.path, b"abc")
    assert check(tmp_path, FILE) == Verdict(FILE.path, "good", "", 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"ab", "has 2 bytes, expected 3; `worker models pull` fetches it"),
        (b"abd", "has the wrong checksum (SHA-256 a52d159f262b…, expected ba7816bf8f01…); `worker models pull` fetches it"),
    ],
)
def test_other_bytes_are_wrong_and_the_line_says_what_to_do(tmp_path: Path, content: bytes, said: str) -> None:
    put(tmp_path, FILE.path, content)
    assert check(tmp_path, FILE) == Verdict(FILE.path, "wrong", said, len(content))


def test_every_byte_read_is_told(tmp_path: Path) -> None:
    put(tmp_path, FILE.path, b"abc")
    heard: list[int] = []
    check(tmp_path, FILE, heard.append)
    assert sum(heard) == 3


def test_a_converted_file_is_held_to_its_list(tmp_path: Path) -> None:
    put(tmp_path, "musetalk-fp16/vae.safetensors", b"abc")
    put(tmp_path, "musetalk-fp16/unet-1.5.safetensors", b"other")
    listed = {
        name: hashlib.sha256(b"abc").hexdigest() for name in ("vae.safetensors", "unet-1.5.safetensors", "pose.safetensors")
    }
    sums.write(tmp_path / "musetalk-fp16" / "SHA256SUMS", listed)
    states = {verdict.path: verdict for verdict in verify(tmp_path, "musetalk")}
    assert states["musetalk-fp16/vae.safetensors"].state == "good"
    assert states["musetalk-fp16/pose.safetensors"].state == "missing"
    assert states["musetalk-fp16/unet-1.5.safetensors"].state == "wrong"
    assert states["musetalk-fp16/unet-1.5.safetensors"].said.endswith("`worker models convert musetalk` writes it")


def test_an_engine_does_not_need_what_is_optional_or_converted(tmp_path: Path) -> None:
    verdicts = verify(tmp_path, "musetalk")
    assert {verdict.state for verdict in verdicts} == {"missing"}
    lacking = {verdict.path for verdict in needed(verdicts, "musetalk")}
    assert "musetalkV15/unet.pth" in lacking
    assert "musetalk/pytorch_model.bin" not in lacking
    written = convert(tmp_path)
    for judge in (verify, look):
        verdicts = judge(tmp_path, "musetalk")
        assert needed(verdicts, "musetalk") == []
        told = {verdict.path for verdict in verdicts if verdict.state == "missing"}
        assert told == {"musetalk/pytorch_model.bin", "musetalk/musetalk.json"}
    put(tmp_path, "sd-vae/config.json", b"{}")
    assert [verdict.path for verdict in needed(verify(tmp_path, "musetalk"), "musetalk")] == ["sd-vae/config.json"]
    (tmp_path / "sd-vae/config.json").unlink()
    put(tmp_path, "musetalk-fp16/vae.json", b"abd")
    lacking = {verdict.path for verdict in needed(verify(tmp_path, "musetalk"), "musetalk")}
    assert lacking == {"musetalk-fp16/vae.json", "sd-vae/config.json", "sd-vae/diffusion_pytorch_model.bin"}
    sums.write(tmp_path / "musetalk-fp16" / "SHA256SUMS", {name: written[name] for name in written if "vae" not in name})
    assert len(needed(verify(tmp_path, "musetalk"), "musetalk")) == 2  # a network's files that are nowhere are needed


def convert(folder: Path) -> dict[str, str]:
    """What converting MuseTalk 1.5 writes; returns its list."""
    paths = {path for published, written in manifest.BECOMES.items() for path in written if "1.0" not in path}
    for path in paths:
        put(folder, path, b"abc")
    listed = {Path(path).name: hashlib.sha256(b"abc").hexdigest() for path in paths}
    sums.write(folder / "musetalk-fp16" / "SHA256SUMS", listed)
    return listed


def test_what_stands_for_a_published_file_is_what_the_engine_reads_instead() -> None:
    from inference.engines.musetalk import layout

    for name, part in layout.PARTS.items():
        names = [f"{name}.safetensors", *([f"{name}.json"] if part.configs else [])]
        for path in (part.weights[0], *part.configs[:1]):
            assert manifest.BECOMES[path] == tuple(f"{layout.CONVERTED}/{each}" for each in names)
    assert set(manifest.BECOMES) == {file.path for file in manifest.MUSETALK}


def test_a_look_tells_by_size_alone(tmp_path: Path) -> None:
    put(tmp_path, "sd-vae/config.json", bytes(547))
    put(tmp_path, "whisper/config.json", b"{}")
    (tmp_path / "musetalk-fp16").mkdir()
    sums.write(tmp_path / "musetalk-fp16" / "SHA256SUMS", {"vae.safetensors": "ab" * 32})
    seen = {verdict.path: verdict.state for verdict in look(tmp_path, "musetalk")}
    assert seen["sd-vae/config.json"] == "good"
    assert seen["whisper/config.json"] == "wrong"
    assert seen["musetalk-fp16/vae.safetensors"] == seen["musetalkV15/unet.pth"] == "missing"


def test_fastwans_other_repository_is_accepted_where_it_is_there(tmp_path: Path) -> None:
    pulled, other = manifest.FASTWAN_FOLDERS
    assert len(needed(verify(tmp_path, "fastwan"), "fastwan")) == 15
    put(tmp_path, f"{other}/transformer/config.json", b"{}")
    verdicts = verify(tmp_path, "fastwan")
    assert Verdict(f"{other}/transformer/config.json", "unknown", "no hash is known for it", 2) in verdicts
    assert needed(verdicts, "fastwan") == []
    put(tmp_path, f"{pulled}/vae/config.json", b"{}")
    assert [verdict.path for verdict in needed(verify(tmp_path, "fastwan"), "fastwan")] == [f"{pulled}/vae/config.json"]


@pytest.mark.parametrize("other", ["sd-vae/diffusion_pytorch_model.safetensors", "sd-vae-ft-mse/diffusion_pytorch_model.bin"])
def test_a_file_by_its_older_name_is_not_missing(tmp_path: Path, other: str) -> None:
    put(tmp_path, other, b"abc")
    for verdicts in (look(tmp_path, "musetalk"), verify(tmp_path, "musetalk")):
        assert Verdict(other, "unknown", "no hash is known for it", 3) in verdicts
        lacking = {verdict.path for verdict in needed(verdicts, "musetalk")}
        assert "sd-vae/diffusion_pytorch_model.bin" not in lacking
        assert "sd-vae/config.json" in lacking


def test_lists_of_hashes_are_those_of_sha256sum(tmp_path: Path) -> None:
    digest = "ab" * 32
    (tmp_path / "list").write_text(f"{digest}  a.bin\n{digest.upper()} *b b.bin\n# a remark\n\n")
    assert sums.read(tmp_path / "list") == {"a.bin": digest, "b b.bin": digest}
    sums.write(tmp_path / "list", {"b": digest, "a": digest})
    assert (tmp_path / "list").read_text() == f"{digest}  a\n{digest}  b\n"
    assert sums.read(tmp_path / "none") == {}


# ---- the manifest ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [*manifest.MUSETALK, *manifest.FASTWAN], ids=lambda file: file.path)
def test_every_file_says_where_it_is_and_what_is_not_known_of_it(file: File) -> None:
    assert file.origin.startswith("https://")
    assert file.expected_bytes > 0
    assert not Path(file.path).is_absolute()
    assert ".." not in file.path
    if file.repository:
        assert len(file.revision or "") == 40
        assert file.origin == f"https://huggingface.co/{file.repository}/resolve/{file.revision}/{file.name}"
    if file.sha256 is None or file.size_bytes is None:
        assert file.note
    assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32


def test_fastwan_is_the_published_repository_whole() -> None:
    *published, tiny = manifest.FASTWAN
    assert len(published) == 15
    assert sum(file.size_bytes or 0 for file in published) == 24_201_770_562
    assert {file.path.split("/")[0] for file in published} == {manifest.FASTWAN_FOLDERS[0]}
    assert all(file.sha256 for file in manifest.FASTWAN)
    assert (tiny.path, tiny.optional) == (manifest.TINY, True)


def test_the_tiny_decoder_is_needed_only_where_it_is_chosen(tmp_path: Path) -> None:
    (other := tmp_path / manifest.FASTWAN_FOLDERS[1]).mkdir()
    (other / "config.json").write_text("{}")
    verdicts = verify(tmp_path, "fastwan")
    assert needed(verdicts, "fastwan", manifest.chosen("full")) == []
    (lacking,) = needed(verdicts, "fastwan", manifest.chosen("tiny"))
    assert lacking.path == manifest.TINY


def test_other_places_are_of_files_that_are_pulled() -> None:
    assert all(manifest.by_path(path) for path in manifest.ELSEWHERE)
    assert not any(manifest.by_path(path) for others in manifest.ELSEWHERE.values() for path in others)


def test_paths_are_named_once() -> None:
    paths = [file.path for files in manifest.ENGINES.values() for file in files]
    assert len(paths) == len(set(paths))
    assert manifest.by_path("musetalkV15/unet.pth") in manifest.MUSETALK
    assert manifest.by_path("nowhere") is None
