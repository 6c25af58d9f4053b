"""`worker models`: what is asked of it ends in files that are right, or in one line and an exit code."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.cli.conftest import CHECKOUT, Run
from tests.fakes.file_server import FileServer, status
from tests.fakes.hub import Hub, cut, send, wrong
from weights import manifest


@pytest.mark.parametrize("command", ["pull", "verify", "convert", "list"])
def test_every_command_explains_itself_and_speaks_json(worker: Run, command: str) -> None:
    done = worker("models", command, "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout
    assert done.stdout.startswith(f"Usage: worker models {command}")


def test_the_list_says_what_is_needed_and_what_is_there(worker: Run, folder: Path) -> None:
    (folder / "models" / "sd-vae").mkdir(parents=True)
    (folder / "models" / "sd-vae" / "config.json").write_bytes(bytes(547))
    rows = json.loads(worker("models", "list", "--json").stdout)["files"]
    assert [row["path"] for row in rows] == [file.path for file in manifest.MUSETALK]
    assert {row["path"] for row in rows if row["there"]} == {"sd-vae/config.json"}
    assert rows[1]["size_bytes"] == 3_400_074_924
    assert rows[1]["origin"].startswith("https://huggingface.co/TMElyralab/MuseTalk/resolve/")
    text = worker("models", "list", "musetalk").stdout
    assert "missing  musetalkV15/unet.pth  3,400,074,924 bytes\n" in text
    assert "(optional; size and hash are in no public list" in text


def test_the_list_counts_a_network_that_was_converted_as_there(worker: Run, folder: Path) -> None:
    (folder / "models" / "musetalk-fp16").mkdir(parents=True)
    (folder / "models" / "musetalk-fp16" / "pose.safetensors").write_bytes(b"abc")
    (folder / "models" / "musetalk-fp16" / "SHA256SUMS").write_text(f"{'ab' * 32}  pose.safetensors\n")
    rows = json.loads(worker("models", "list", "--json").stdout)["files"]
    assert {row["path"] for row in rows if row["there"]} == {"dwpose/dw-ll_ucoco_384.pth"}


def test_an_engine_without_weights_is_refused(worker: Run) -> None:
    done = worker("models", "verify", ENGINE="preview")
    assert (done.returncode, done.stderr) == (2, "preview: has no list of weights; engines that have one: musetalk, fastwan\n")
    assert worker("models", "pull", "nothing").returncode == 2


def test_verify_names_what_is_missing_or_wrong_and_ends_with_1(worker: Run, folder: Path) -> None:
    (folder / "models" / "sd-vae").mkdir(parents=True)
    (folder / "models" / "sd-vae" / "config.json").write_bytes(bytes(547))
    done = worker("models", "verify")
    assert done.returncode == 1
    assert "missing  musetalkV15/unet.pth  is missing; `worker models pull` fetches it\n" in done.stdout
    assert "wrong    sd-vae/config.json  has the wrong checksum (SHA-256 " in done.stdout
    assert done.stderr == "10 files that musetalk needs are missing or wrong\n"
    data = json.loads(worker("models", "verify", "--json").stdout)
    assert data["ok"] is False
    assert {file["path"]: file["state"] for file in data["files"]}["sd-vae/config.json"] == "wrong"


def test_a_mirror_that_is_not_allowed_is_refused(worker: Run) -> None:
    done = worker("models", "pull", "--mirror", "http://mirror.example")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("MODELS_MIRROR=http://mirror.example: must be https")


def test_a_mirror_that_is_no_address_is_refused_with_the_variable(worker: Run) -> None:
    done = worker("models", "pull", MODELS_MIRROR="somewhere")
    assert done.returncode == 2
    assert done.stderr.startswith("MODELS_MIRROR=somewhere: must be an http:// or https:// address")


#: The command line with a manifest of one small file, since the real ones are gigabytes.
PROGRAM = """
import sys
from weights import manifest
manifest.ENGINES["musetalk"] = (manifest.File(path="net/w.bin", url=sys.argv[1], size_bytes=3, sha256=sys.argv[2]),)
from cli.__main__ import main
main(sys.argv[3:], prog_name="worker")
"""


def test_pull_and_verify_end_to_end(folder: Path) -> None:
    def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "MODELS_DIR": str(folder / "models")}
        command = [sys.executable, "-c", PROGRAM, url, hashlib.sha256(b"abc").hexdigest(), "models", *arguments]
        return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    with FileServer([lambda handler: send(handler, b"abc")]) as server:
        done = run(server.url("/w.bin"), "pull")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("fetched  net/w.bin  3 bytes in ")
        assert (folder / "models" / "net" / "w.bin").read_bytes() == b"abc"
        again = json.loads(run(server.url("/w.bin"), "pull", "--json").stdout)
        assert [file["state"] for file in again["files"]] == ["there"]
        assert len(server.seen) == 1
        assert run(server.url("/w.bin"), "verify").stdout == "good     net/w.bin  3 bytes\n"
    (folder / "models" / "net" / "w.bin").unlink()
    with FileServer([status(404)]) as server:
        done = run(server.url("/w.bin"), "pull")
        assert (done.returncode, done.stderr) == (1, "1 of 1 files could not be downloaded\n")
        assert done.stdout == "failed   net/w.bin  net/w.bin: no source has it: 127.0.0.1 answered 404\n"


#: The command line with FastWan's files as small as the stand-in hub has them.
SMALL_FASTWAN = """
import json, sys
from weights import manifest
manifest.ENGINES["fastwan"] = tuple(manifest.File(**file) for file in json.loads(sys.argv[1]))
from cli.__main__ import main
main(sys.argv[2:], prog_name="worker")
"""


def test_fastwans_repository_is_pulled_and_verified_whole(folder: Path) -> None:
    def run(mirror: str, *arguments: str, decoder: str = "full") -> subprocess.CompletedProcess[str]:
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "MODELS_DIR": str(folder / "models")}
        environ |= {"FASTWAN_DECODER": decoder}
        command = [sys.executable, "-c", SMALL_FASTWAN, json.dumps(files), "models", *arguments]
        environ |= {"ENGINE": "fastwan", "MODELS_MIRROR": mirror}
        return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    first = manifest.FASTWAN[0]
    with Hub(repository=first.repository or "", revision=first.revision or "") as hub:
        files = [
            asdict(hub.keep(file.path.encode(), file.name or file.path)) | {"path": file.path, "optional": file.optional}
            for file in manifest.FASTWAN
        ]
        hub.faults["transformer/diffusion_pytorch_model.safetensors"] = [cut(10), wrong]
        pulled = run(hub.url, "pull", "--json")
        assert pulled.returncode == 0, pulled.stderr
        assert {file["state"] for file in json.loads(pulled.stdout)["files"]} == {"fetched"}
        verified = run(hub.url, "verify", "fastwan")
        assert (verified.returncode, verified.stdout.count("good ")) == (0, 15)
        shard = folder / "models" / manifest.FASTWAN_FOLDERS[0] / "text_encoder" / "model-00002-of-00003.safetensors"
        whole = shard.read_bytes()
        shard.write_bytes(whole[:-1])
        cut_short = run(hub.url, "verify")
        assert cut_short.returncode == 1
        said = f"has {len(whole) - 1} bytes, expected {len(whole)}; `worker models pull` fetches it"
        assert f"model-00002-of-00003.safetensors  {said}\n" in cut_short.stdout
        assert run(hub.url, "pull").returncode == 0
        assert run(hub.url, "verify").returncode == 0
        assert run(hub.url, "verify", decoder="tiny").returncode == 1
        tiny = run(hub.url, "pull", decoder="tiny")
        assert (tiny.returncode, tiny.stdout.count("fetched ")) == (0, 1), tiny.stdout
        assert run(hub.url, "verify", decoder="tiny").returncode == 0


def test_fastwan_needs_no_converting(worker: Run) -> None:
    done = worker("models", "convert", "fastwan")
    line = "fastwan: is published as safetensors already; nothing to convert\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, line, "")


@pytest.mark.slow
def test_convert_says_in_one_line_what_it_lacks(worker: Run, folder: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    done = worker("models", "convert")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"{folder}/models/musetalkV15/unet.pth: is missing; 3,400,074,924 bytes are expected; ")
    assert lines[1:] == ["musetalk: the conversion failed"]
