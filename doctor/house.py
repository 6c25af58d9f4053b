"""The worker's own house: weights, queue, programs, ports. Reads only; the queue is opened by its one door."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import answers
from doctor import start
from doctor.finding import Finding, Level, Situation
from jobqueue import soundness
from jobqueue.control import STALE_S, Control
from jobqueue.database import Database, DatabaseError
from jobqueue.migrations import WrongDatabase, check_version
from settings import Settings
from telemetry import xid
from weights import manifest, verify

#: A write-ahead log larger than this is not being folded in: somebody reads for too long.
LARGE_LOG_BYTES = 256 * 2**20
#: Files that are named one by one.
MOST_LINES = 5
#: MuseTalk's files that older variables may name.
UNET, UNET_CONFIG = "musetalkV15/unet.pth", "musetalkV15/musetalk.json"
NAMED_BY = "MUSETALK_UNET_MODEL_PATH or MUSETALK_UNET_CONFIG names it"
#: How long an error that the driver reported is told of, in seconds.
REPORTED_S = 86400.0
#: How long a program may take until it answers.
STARTS_S = 30.0
#: States of a program in which it will not come by itself.
DOWN = ("FATAL", "UNKNOWN", "EXITED", "BACKOFF")


def weights(now: Situation) -> list[Finding]:
    """Whether the engine's files are there, by name and size."""
    engine, folder = now.settings.ENGINE, now.settings.models_dir
    if engine not in manifest.ENGINES:
        return []
    named = _named(now.settings) if engine == "musetalk" else {}
    lacking = verify.needed(verify.look(folder, engine), engine, manifest.chosen(now.settings.FASTWAN_DECODER))
    lacking = [verdict for verdict in lacking if verdict.path not in named]
    lacking += [
        verify.Verdict(str(path), "missing", f"is missing: {NAMED_BY}") for path in named.values() if not path.is_file()
    ]
    if not lacking:
        said = f"{engine}'s are all in {folder}, by size; `worker models verify` reads every byte"
        return [Finding(name="weights", level="ok", said=said)]
    said = f"{len(lacking)} files that {engine} needs are missing or wrong in {folder}"
    lines = [f"{verdict.path} {verdict.said.split(';')[0]}" for verdict in lacking]
    lines = [*lines[:MOST_LINES], *([f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else [])]
    return [Finding(name="weights", level="fail", said=said, do=f"worker models pull {engine}", lines=tuple(lines))]


def _named(settings: Settings) -> dict[str, Path]:
    """MuseTalk's files that older variables name, or that lie beside such a one, by those that they stand for."""
    weights, config = settings.MUSETALK_UNET_MODEL_PATH, settings.MUSETALK_UNET_CONFIG
    names = [Path(path).name for path in manifest.places(UNET_CONFIG)]
    beside = [weights.absolute().parent / name for name in names] if weights and not config else []
    config = config or next((path for path in beside if path.is_file()), None)
    return {name: path.absolute() for name, path in ((UNET, weights), (UNET_CONFIG, config)) if path}


def queue(now: Situation) -> list[Finding]:
    """The queue's file: does it open, is it sound, and what was put up in it."""
    path = now.settings.database
    if not path.exists():
        return [Finding(name="queue", level="ok", said=f"{path} is not there yet; the first start makes it")]
    try:
        check_version(path)
        database = Database(path)
        faults = soundness.faults(database)
        flags, said = Control(database).flags(), Control(database).published()
    except (WrongDatabase, DatabaseError, OSError, RuntimeError) as error:
        do = "a start puts a damaged file aside and begins a new one; keep a copy of the folder first"
        return [Finding(name="queue", level="fail", said=f"{path}: {error}", do=do)]
    if faults:
        do = "stop the worker, keep a copy of the folder, then start: a damaged file is put aside"
        return [Finding(name="queue", level="fail", said=f"{path} is damaged", do=do, lines=tuple(faults))]
    heard = [*_reports(said), *(_links(said) if now.programs else [])]
    return [_log(path), *(_flag(name, flag) for name, flag in flags.items()), *heard]


def _log(path: Path) -> Finding:
    log = soundness.log_bytes(path)
    said = f"{path.stat().st_size / 1e6:.1f} MB and sound, its log {log / 1e6:.1f} MB"
    if log > LARGE_LOG_BYTES:
        return Finding(
            name="queue", level="warn", said=said, do="restart the worker: a program keeps the log from being folded in"
        )
    return Finding(name="queue", level="ok", said=said)


def _flag(name: str, flag: dict[str, Any]) -> Finding:
    said = f"since {flag.get('at')} by {flag.get('by')}: {flag.get('reason') or 'no reason given'}"
    return Finding(
        name=name, level="warn", said=said, do="worker resume" if name in ("paused", "draining") else "worker status"
    )


def _reports(said: dict[str, Any]) -> list[Finding]:
    """Errors that the driver reported in the last day: the poller has heard them, and nobody can ask for them later."""
    heard = [card for card in said.get("poller", {}).get("gpu_health") or [] if card.get("xid")]
    return [_report(card) for card in heard if _ago_s(card["xid"]["at"]) < REPORTED_S]


def _report(card: dict[str, Any]) -> Finding:
    code, at = card["xid"]["code"], card["xid"]["at"]
    told = xid.meaning(code)
    level: Level = "ok" if told.harmless else "warn"
    return Finding(name=f"GPU {card['index']}", level=level, said=f"XID {code} at {at}: {told.said}", do=told.do)


def _ago_s(at: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()


def _links(said: dict[str, Any]) -> list[Finding]:
    """What the running programs themselves see of the orchestrator and the store: with their keys, unlike us."""
    fresh = {program: body for program, body in said.items() if body["age_s"] < STALE_S}
    seen = {
        "heartbeats": (fresh.get("poller", {}).get("orchestrator") or {}, "worker logs poller"),
        "uploads": (fresh.get("uploader", {}), "worker logs uploader"),
    }
    return [
        Finding(name=name, level="fail", said=str(link.get("error") or "it does not answer"), do=do)
        for name, (link, do) in seen.items()
        if link.get("ok") is False
    ]


def programs(now: Situation) -> list[Finding]:
    """What supervisord says of each program."""
    if now.programs is None:
        return [Finding(name="programs", level="ok", said="the worker does not run; worker up starts it")]
    down = [program for program in now.programs if program.state in DOWN]
    if down:
        return [
            Finding(name=each.name, level="fail", said=f"{each.state.lower()}: {each.why}", do=f"worker logs {each.name}")
            for each in down
        ]
    running = ", ".join(program.name for program in now.programs if program.state == "RUNNING")
    return [Finding(name="programs", level="ok", said=f"run: {running or 'none yet'}"), *_otherwise(now)]


def _otherwise(now: Situation) -> list[Finding]:
    """A shell that has other variables than the worker was started with, as ssh on some platforms does, sees another worker."""
    here, there = {"engine": now.settings.ENGINE, "mode": now.settings.mode}, answers.started(now.settings)
    others = [name for name in here if there.get(name, here[name]) != here[name]]
    if not others:
        return []
    said = "; ".join(f"{name} {there[name]}, here {here[name]}" for name in others)
    do = "set the worker's own variables here before you believe the other lines"
    return [Finding(name="settings", level="warn", said=f"the worker was started with {said}", do=do)]


def ports(now: Situation) -> list[Finding]:
    """Without a worker, whether its ports are free; with one, what it answers."""
    settings = now.settings
    if now.programs is None:
        if fault := start.fault_of_ports(settings):
            return [Finding(name="ports", level="fail", said=fault, do="end that program, or choose another port")]
        page = f" and {settings.ADMIN_PORT}" if settings.admin_enabled else ""
        return [Finding(name="ports", level="ok", said=f"{settings.HTTP_PORT}{page} free")]
    url = f"http://127.0.0.1:{answers.started(now.settings).get('http_port', settings.HTTP_PORT)}/health"
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5):
            return [Finding(name="ports", level="ok", said=f"{url} answers 200")]
    except urllib.error.HTTPError as error:
        said = f"{url} answers {error.code}: {error.read(300).decode(errors='replace')}"
    except OSError as error:
        said = f"{url} does not answer ({getattr(error, 'reason', error)})"
        if any(program.name == "api" and program.up_s < STARTS_S for program in now.programs):
            return [Finding(name="ports", level="warn", said=said, do="it has only just started: ask again")]
    return [Finding(name="ports", level="fail", said=said, do="worker status; worker logs api")]
