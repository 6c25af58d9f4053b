"""`worker models …`: list an engine's weights, download them, verify them, convert them to a faster format."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import click

from cli.answer import EXIT_FAILED, EXIT_USAGE, Failure, act_as_worker, load_settings, say, with_json
from cli.up import CHECKOUT
from errors import InvalidInput, JobError
from settings import Settings
from weights import manifest
from weights.manifest import File
from weights.pull import Outcome, Ways
from weights.pull import pull as pull_files
from weights.verify import Verdict, look, needed, stood_for
from weights.verify import verify as verify_files

#: Seconds between two lines about how far it is.
LINE_EVERY_S = 5.0

engine_argument = click.argument("engine", required=False, type=click.Choice(sorted(manifest.ENGINES)))


@click.group()
def models() -> None:
    """Manage an engine's weights under MODELS_DIR. The default engine is that of the ENGINE setting."""


@models.command()
@engine_argument
@click.option("--all", "everything", is_flag=True, help="Also files that only other versions of the engine need.")
@click.option("--mirror", metavar="URL", help="A mirror to try first.  [default: MODELS_MIRROR]")
@with_json
def pull(engine: str | None, everything: bool, mirror: str | None, as_json: bool) -> None:
    """Download missing files: four at once, with resume, verified by SHA-256.

    An interrupted download is kept, and the next pull resumes it. Complete files are verified, not downloaded again.
    """
    settings = load_settings(**({"MODELS_MIRROR": mirror} if mirror else {}))
    act_as_worker(settings)
    chosen = manifest.chosen(settings.FASTWAN_DECODER)
    offered = manifest.ENGINES[_engine(engine, settings)]
    files = [file for file in offered if everything or not file.optional or file.path in chosen]
    ways = Ways(mirror=settings.MODELS_MIRROR, allow_private=settings.ALLOW_PRIVATE_URLS)
    try:
        outcomes = pull_files(settings.models_dir, files, ways, Lines(files).heard)
    except InvalidInput as error:
        raise Failure(error.message, EXIT_USAGE) from None
    except JobError as error:
        raise Failure(error.message, EXIT_FAILED) from None
    except OSError as error:
        raise Failure(f"MODELS_DIR={settings.models_dir}: {(error.strerror or str(error)).lower()}", EXIT_FAILED) from None
    failed = [outcome for outcome in outcomes if outcome.state in ("failed", "stopped")]
    text = "\n".join(_outcome_line(outcome) for outcome in outcomes)
    say(text, {"folder": str(settings.models_dir), "files": [asdict(outcome) for outcome in outcomes]}, as_json)
    if failed:
        raise Failure(f"{len(failed)} of {len(files)} files could not be downloaded", EXIT_FAILED)


@models.command()
@engine_argument
@with_json
def verify(engine: str | None, as_json: bool) -> None:
    """Read every file and compare its SHA-256; exits with 1 if a needed file is missing or wrong."""
    settings = load_settings()
    engine = _engine(engine, settings)
    verdicts = verify_files(settings.models_dir, engine)
    lacking = needed(verdicts, engine, manifest.chosen(settings.FASTWAN_DECODER))
    text = "\n".join(_verdict_line(verdict) for verdict in verdicts)
    data = {"folder": str(settings.models_dir), "ok": not lacking, "files": [asdict(verdict) for verdict in verdicts]}
    say(text, data, as_json)
    if lacking:
        raise Failure(f"{len(lacking)} files that {engine} needs are missing or wrong", EXIT_FAILED)


@models.command()
@engine_argument
@with_json
def convert(engine: str | None, as_json: bool) -> None:
    """Convert the downloaded files to safetensors: half the size and load time. The originals may then be deleted.

    Runs in a separate process, which needs torch.
    """
    settings = load_settings()
    act_as_worker(settings)
    engine = _engine(engine, settings)
    if engine not in manifest.CONVERTED:
        line = f"{engine}: is published as safetensors already; nothing to convert"
        say(line, {"folder": str(settings.models_dir), "files": []}, as_json)
        return
    if importlib.util.find_spec("torch") is None:
        raise Failure("converting needs torch, which is not installed; run worker setup --engine", EXIT_FAILED)
    command = [sys.executable, "-m", f"inference.engines.{engine}.convert", str(settings.models_dir)]
    done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{engine}: the conversion failed", EXIT_FAILED)
    folder, made = settings.models_dir / manifest.CONVERTED[engine], json.loads(done.stdout)
    say(f"wrote {len(made)} files to {folder}", {"folder": str(folder), "files": made}, as_json)


@models.command("list")
@engine_argument
@with_json
def listed(engine: str | None, as_json: bool) -> None:
    """List the files an engine needs, their sources, and which exist, by name and size only."""
    settings = load_settings()
    engine, folder = _engine(engine, settings), settings.models_dir
    files, converted = manifest.ENGINES[engine], stood_for(look(folder, engine))
    rows = [
        asdict(file) | {"origin": file.origin, "there": _is_there(folder, file) or file.path in converted} for file in files
    ]
    text = "\n".join(_file_line(file, bool(row["there"])) for file, row in zip(files, rows, strict=True))
    say(text, {"folder": str(folder), "files": rows}, as_json)


class Lines:
    """A line every few seconds on standard error: the progress of each download and of all of them."""

    def __init__(self, files: list[File]) -> None:
        self._lock = threading.Lock()
        self._total_bytes = sum(file.expected_bytes for file in files)
        self._there: dict[str, int] = {}
        self._began: dict[str, int] = {}
        self._since = self._said = time.monotonic()

    def heard(self, path: str, done_bytes: int, total_bytes: int) -> None:
        with self._lock:
            self._began.setdefault(path, done_bytes)
            self._there[path] = done_bytes
            now = time.monotonic()
            if now - self._said < LINE_EVERY_S:
                return
            self._said = now
            came = sum(there - self._began[name] for name, there in self._there.items())
            speed = max(came, 0) / (now - self._since)
        share = f"{done_bytes / 1e6:,.0f} of {total_bytes / 1e6:,.0f} MB"
        click.echo(f"{path}: {share}; {speed / 1e6:.1f} MB/s in all, of {self._total_bytes / 1e9:.1f} GB", err=True)


def _engine(engine: str | None, settings: Settings) -> str:
    name = engine or settings.ENGINE
    if name not in manifest.ENGINES:
        raise Failure(f"{name}: has no list of weights; engines that have one: {', '.join(manifest.ENGINES)}", EXIT_USAGE)
    return name


def _is_there(folder: Path, file: File) -> bool:
    try:
        size_bytes = (folder / file.path).stat().st_size
    except OSError:
        return False
    return file.size_bytes is None or size_bytes == file.size_bytes


def _outcome_line(outcome: Outcome) -> str:
    if outcome.state == "fetched":
        return f"fetched  {outcome.path}  {outcome.size_bytes:,} bytes in {outcome.seconds:.1f} s from {outcome.source}"
    return f"{outcome.state:8} {outcome.path}" + (f"  {outcome.said}" if outcome.said else "")


def _verdict_line(verdict: Verdict) -> str:
    return f"{verdict.state:8} {verdict.path}  {verdict.said or f'{verdict.size_bytes:,} bytes'}"


def _file_line(file: File, there: bool) -> str:
    size = f"{file.size_bytes:,}" if file.size_bytes else f"about {file.about_bytes:,}"
    remarks = ["optional"] if file.optional else []
    remarks += [file.note] if file.note else []
    return f"{'there  ' if there else 'missing'}  {file.path}  {size} bytes" + (f"  ({'; '.join(remarks)})" if remarks else "")
