"""docker or podman, whichever can run containers here, and the options that it needs for that."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace

#: How long anything may take, in seconds; a build may have gigabytes to fetch.
PATIENCE_S, BUILD_S = 120.0, 3600.0
#: Open files and processes that a container may have where its limits must be named.
ENOUGH = 16384


class Cannot(Exception):
    """The image cannot be tried out on this machine; the reason."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A command, and what it is told besides: always, when it builds, when it runs something."""

    command: tuple[str, ...]
    build: tuple[str, ...] = ()
    run: tuple[str, ...] = ()

    def __call__(self, *arguments: str, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Do one thing and wait for it. stdout and stderr are kept."""
        command = [*self.command, *arguments]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False)


def find(wanted: str | None, base: str, build: Sequence[str], run: Sequence[str], *, pull: bool) -> Tool:
    """The first tool that can run the base image. Raises Cannot with what each of them said."""
    said = []
    for tool in _candidates(wanted):
        name = " ".join(tool.command)
        if not shutil.which(tool.command[0]):
            said.append(f"{name}: is not installed")
            continue
        tool = replace(tool, build=(*tool.build, *build), run=(*tool.run, *run))
        if tool("image", "inspect", base).returncode and (not pull or tool("pull", base, timeout_s=BUILD_S).returncode):
            said.append(f"{name}: has no image {base}" + ("" if pull else ", and without --pull none is downloaded"))
            continue
        done = tool("run", "--rm", "--network=none", *tool.run, "--entrypoint=python3", base, "--version")
        if done.returncode == 0:
            return tool
        said.append(f"{name}: cannot run a container ({(done.stderr.strip().splitlines() or ['no reason given'])[-1]})")
    raise Cannot("; ".join(said))


def _candidates(wanted: str | None) -> list[Tool]:
    """What may be there. The last one is podman in a container itself, where limits cannot be raised nor groups managed."""
    limits = [
        f"--ulimit={name}={most}:{most}"
        for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
        for own in resource.getrlimit(kind)[1:]
        for most in [ENOUGH if own == resource.RLIM_INFINITY else min(own, ENOUGH)]
    ]
    podman = Tool(command=("podman",), build=("--format=docker",))
    nested = Tool(
        command=("podman", f"--runtime={shutil.which('runc') or 'runc'}", "--cgroup-manager=cgroupfs"),
        build=(*podman.build, "--isolation=chroot", "--network=host"),
        run=tuple(limits),
    )
    return [tool for tool in (Tool(command=("docker",)), podman, nested) if wanted in (None, tool.command[0])]
