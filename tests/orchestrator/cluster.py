"""A PostgreSQL server of the tests' own, from the programs of the distribution, with a password and on loopback only."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

import service
from tests.patience import free_port, until

PASSWORD = "not/for@logs"
IN_URL = "not%2Ffor%40logs"


@dataclass
class Cluster:
    programs: Path
    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, name: str = "postgres") -> str:
        return f"postgresql://postgres:{IN_URL}@127.0.0.1:{self.port}/{name}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{next(self.numbers)}"
        self.run("postgres", f"create database {name}")
        return self.url(name)

    def run(self, name: str, sql: str) -> list[Any]:
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """On the same port as before, if there was one."""
        self.port = self.port or free_port()
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = [str(self.programs / "postgres"), "-D", str(self.folder), *options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, preexec_fn=service.die_with_parent, cwd="/", **_user())
        until(lambda: self.process and (self.process.poll() is not None or self._answers()))
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT: as after a crash."""
        if self.process:
            self.process.send_signal(how)
            self.process.wait(20)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url()).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running(programs: Path) -> Iterator[Cluster]:
    above = Path(tempfile.mkdtemp(prefix="orchestrator-"))  # not below tmp_path, which another user cannot enter
    try:
        cluster = Cluster(programs, above / "data")
        secret = above / "password"
        secret.write_text(PASSWORD)
        if owner := _user():
            for path in (above, secret):
                shutil.chown(path, owner["user"], owner["group"])
        initdb = [str(programs / "initdb"), "-D", str(cluster.folder), "--username=postgres", f"--pwfile={secret}"]
        options = ["--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run([*initdb, *options], check=True, stdout=subprocess.DEVNULL, cwd=above, **_user())
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(above)


def programs() -> Path | None:
    """The folder of initdb and postgres. On PATH there may be a link to only one of them."""
    on_path = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    for folder in (*on_path, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def _user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
