"""The system that the demo shows: all programs under supervisord on this machine, with an orchestrator and free ports."""

from __future__ import annotations

import contextlib
import http.server
import json
import secrets
import socket
import subprocess
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli import checks
from cli.answer import EXIT_FAILED, Failure, act_as_worker, load_settings
from cli.up import command, environment
from service import die_with_parent
from settings import Settings

#: How long the programs may take to end, in seconds.
STOP_S = 90.0
#: What a user's environment may say about a real fleet and its store; the demo sets it aside.
ASIDE = ("B2_KEY_ID", "B2_APP_KEY", "B2_BUCKET_NAME", "BUFFER_WORKER_ID", "WORKER_TYPE", "KILL_AT")

Job = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The running system, seen from outside."""

    settings: Settings
    first: subprocess.Popen[bytes]
    orchestrator: str
    console: Path

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Job:
        """One request to the orchestrator, as a customer makes it."""
        key = {"X-Internal-API-Key": self.settings.INTERNAL_API_KEY or "", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.orchestrator + path, data, key)  # noqa: S310 - our own loopback address
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return dict(json.load(answer))

    def check_alive(self) -> None:
        code = self.first.poll()
        if code is not None:
            with self.console.open(errors="replace") as lines:
                last = "".join(deque(lines, maxlen=8)).strip()
            raise Failure(f"the worker exited with code {code}:\n{last}", EXIT_FAILED)


@contextlib.contextmanager
def running(data: str | None) -> Iterator[Demo]:
    """All programs under supervisord, as a child of this process; none is left at the end."""
    changes = _environment(data)
    settings = load_settings(**changes)
    act_as_worker(settings, owner=True)
    checks.make_ready(settings)
    console = settings.data_dir / "logs" / "console.out"
    console.parent.mkdir(exist_ok=True)
    with console.open("wb") as out:
        first = subprocess.Popen(
            command(settings),
            env=environment(settings, **changes),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield Demo(settings=settings, first=first, orchestrator=settings.orchestrator_url or "", console=console)
    finally:
        first.terminate()
        try:
            first.wait(STOP_S)
        except subprocess.TimeoutExpired:
            first.kill()
            first.wait()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder's files at a loopback address, as a customer's links would be."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _environment(data: str | None) -> dict[str, str | None]:
    """The demo's settings; variables of a real fleet and its store in the user's environment are ignored."""
    admin_port = 8080 if _is_free(8080) else _free_port()
    aside: dict[str, str | None] = dict.fromkeys(ASIDE)
    asked = load_settings(**{**aside, "WORKER_MODE": "queue"})
    orchestrator_port = _free_port()
    return aside | {
        "DATA_DIR": str(Path(data).absolute() if data else asked.data_dir / "demo"),
        "ENGINE": _engine(asked),
        "WORKER_MODE": "main",
        "PROVIDER": "local",
        "ORCHESTRATOR_BASE_URL": f"http://127.0.0.1:{orchestrator_port}",
        "INTERNAL_API_KEY": secrets.token_urlsafe(24),
        "ALLOW_PRIVATE_URLS": "1",
        "POLL_INTERVAL_SEC": "1",
        "HEARTBEAT_INTERVAL_SEC": "2",
        "HTTP_PORT": str(_free_port()),
        "ADMIN_ENABLED": "1",
        "ADMIN_HOST": "127.0.0.1",
        "ADMIN_PORT": str(admin_port),
        "ADMIN_PASSWORD": asked.ADMIN_PASSWORD or secrets.token_urlsafe(12),
        "WORKER_ORCHESTRATOR": "true",
        "WORKER_ORCHESTRATOR_PORT": str(orchestrator_port),
    }


def _engine(asked: Settings) -> str:
    """An engine of the user's own, or MuseTalk if its UNet is there, as it is published or converted, or preview."""
    if "." in asked.ENGINE:
        return asked.ENGINE
    there = any((asked.models_dir / "musetalkV15" / name).is_file() for name in ("unet.pth", "unet.safetensors"))
    return "musetalk" if there else "preview"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
