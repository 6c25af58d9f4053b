"""A whole worker under supervisord, started anew whenever it ends, as `docker run --restart=always` does."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil

import settings as settings_module

ROOT = Path(__file__).resolve().parents[2]


def copy_of_the_tree(target: Path, changes: dict[str, tuple[str, str]]) -> Path:
    """A checkout with some lines changed: {file: (old, new)}. A change that does not apply fails the test."""
    ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "data", "models", ".*_cache")
    shutil.copytree(ROOT, target, ignore=ignored)
    for name, (old, new) in changes.items():
        text = (target / name).read_text()
        assert old in text, f"{name} has no {old!r} any more; the mutant must follow the code"
        (target / name).write_text(text.replace(old, new))
    return target


class Worker:
    """`worker up` in `folder`, with these variables; `tree` is the checkout that it runs from."""

    def __init__(self, folder: Path, variables: dict[str, str], tree: Path = ROOT) -> None:
        self.folder, self.tree = folder, tree
        self._short = tempfile.TemporaryDirectory(prefix="t", dir="/tmp")  # a socket's path has 108 bytes
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.environment = {
            **kept,
            "DATA_DIR": str(folder / "data"),
            "TMPDIR": self._short.name,
            "PYTHONPATH": str(tree),
            "PYTHONUNBUFFERED": "1",
            "ADMIN_ENABLED": "0",
            "ALLOW_PRIVATE_URLS": "1",
            **variables,
        }
        digest = settings_module.load(self.environment).run_dir.name
        self.run_dir = Path(self._short.name) / digest
        self.restarts = -1
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_up, name="restart=always", daemon=True)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "worker.log"

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        self._over.set()
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._thread.join(90)
        return self._process.returncode if self._process.returncode is not None else -1

    def pull_the_plug(self) -> None:
        """SIGKILL to every process of the worker at once."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()

    def _keep_up(self) -> None:
        while not self._over.is_set():
            self.restarts += 1
            with self.log.open("ab") as log:
                command = [sys.executable, "-m", "cli", "up"]
                self._process = subprocess.Popen(command, cwd=self.tree, env=self.environment, stdout=log, stderr=log)
            self._process.wait()
            self._over.wait(0.2)
