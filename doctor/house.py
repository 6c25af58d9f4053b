"""Checks of the worker itself: weights, queue, programs, ports. Read-only; the queue is opened through its own module."""

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

#: A write-ahead log larger than this is not being checkpointed: some reader holds it for too long.
LARGE_LOG_BYTES = 256 * 2**20
#: Files that are listed individually.
MAX_LINES = 5
#: MuseTalk's files that deprecated variables may name.
UNET, UNET_CONFIG = "musetalkV15/unet.pth", "musetalkV15/musetalk.json"
NAMED_BY = "set by MUSETALK_UNET_MODEL_PATH or MUSETALK_UNET_CONFIG"
#: How long an error reported by the driver is shown, in seconds.
REPORTED_S = 86400.0
#: How long a program may take to answer.
STARTS_S = 30.0
#: States that a program does not leave by itself.
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
        said = f"all files of {engine} are in {folder}, by size; `worker models verify` reads every byte"
        return [Finding(name="weights", level="ok", said=said)]
    said = f"{len(lacking)} files that {engine} needs are missing or wrong in {folder}"
    lines = [f"{verdict.path} {verdict.said.split(';')[0]}" for verdict in lacking]
    lines = [*lines[:MAX_LINES], *([f"and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else [])]
    return [Finding(name="weights", level="fail", said=said, do=f"worker models pull {engine}", lines=tuple(lines))]


def _named(settings: Settings) -> dict[str, Path]:
    """MuseTalk's files named by deprecated variables, or next to such a file, keyed by the files they replace."""
    weights, config = settings.MUSETALK_UNET_MODEL_PATH, settings.MUSETALK_UNET_CONFIG
    names = [Path(path).name for path in manifest.places(UNET_CONFIG)]
    beside = [weights.absolute().parent / name for name in names] if weights and not config else []
    config = config or next((path for path in beside if path.is_file()), None)
    return {name: path.absolute() for name, path in ((UNET, weights), (UNET_CONFIG, config)) if path}


def queue(now: Situation) -> list[Finding]:
    """The queue's file: whether it opens, whether it is intact, and its flags."""
    path = now.settings.database
    if not path.exists():
        return [Finding(name="queue", level="ok", said=f"{path} does not exist yet; the first start creates it")]
    try:
        check_version(path)
        database = Database(path)
        faults = soundness.faults(database)
        flags, said = Control(database).flags(), Control(database).published()
    except (WrongDatabase, DatabaseError, OSError, RuntimeError) as error:
        do = "a start sets a damaged file aside and creates a new one; copy the folder first"
        return [Finding(name="queue", level="fail", said=f"{path}: {error}", do=do)]
    if faults:
        do = "stop the worker, copy the folder, then start: a damaged file is set aside"
        return [Finding(name="queue", level="fail", said=f"{path} is damaged", do=do, lines=tuple(faults))]
    heard = [*_reports(said), *(_links(said) if now.programs else [])]
    return [_log(path), *(_flag(name, flag) for name, flag in flags.items()), *heard]


def _log(path: Path) -> Finding:
    log = soundness.log_bytes(path)
    said = f"{path.stat().st_size / 1e6:.1f} MB, intact; its log {log / 1e6:.1f} MB"
    if log > LARGE_LOG_BYTES:
        return Finding(
            name="queue", level="warn", said=said, do="restart the worker: a program prevents the log from being checkpointed"
        )
    return Finding(name="queue", level="ok", said=said)


def _flag(name: str, flag: dict[str, Any]) -> Finding:
    said = f"since {flag.get('at')} by {flag.get('by')}: {flag.get('reason') or 'no reason given'}"
    return Finding(
        name=name, level="warn", said=said, do="worker resume" if name in ("paused", "draining") else "worker status"
    )


def _reports(said: dict[str, Any]) -> list[Finding]:
    """Errors that the driver reported in the last day: the poller recorded them; they cannot be queried later."""
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
    """What the running programs see of the orchestrator and the store: with their keys, unlike the doctor."""
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
    """The state of each program according to supervisord."""
    if now.programs is None:
        return [Finding(name="programs", level="ok", said="the worker is not running; worker up starts it")]
    down = [program for program in now.programs if program.state in DOWN]
    if down:
        return [
            Finding(name=each.name, level="fail", said=f"{each.state.lower()}: {each.why}", do=f"worker logs {each.name}")
            for each in down
        ]
    running = ", ".join(program.name for program in now.programs if program.state == "RUNNING")
    return [Finding(name="programs", level="ok", said=f"running: {running or 'none yet'}"), *_otherwise(now)]


def _otherwise(now: Situation) -> list[Finding]:
    """A shell with different variables than the worker's, as with ssh on some platforms, examines a different worker."""
    here, there = {"engine": now.settings.ENGINE, "mode": now.settings.mode}, answers.started(now.settings)
    others = [name for name in here if there.get(name, here[name]) != here[name]]
    if not others:
        return []
    said = "; ".join(f"{name} {there[name]}, here {here[name]}" for name in others)
    do = "set the worker's own variables in this shell; until then the other lines may be wrong"
    return [Finding(name="settings", level="warn", said=f"the worker was started with {said}", do=do)]


def ports(now: Situation) -> list[Finding]:
    """Whether the ports are free; if the worker is running, what it answers."""
    settings = now.settings
    if now.programs is None:
        if fault := start.fault_of_ports(settings):
            return [Finding(name="ports", level="fail", said=fault, do="stop that program, or choose another port")]
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
            return [Finding(name="ports", level="warn", said=said, do="it has just started: try again")]
    return [Finding(name="ports", level="fail", said=said, do="worker status; worker logs api")]
