"""`worker setup`: what is installed; the `worker` script has installed it before this runs."""

from __future__ import annotations

import platform
import sys

import click

from cli.answer import say, with_json
from settings import VERSION
from telemetry import host

#: What says most about an installation, by the name of its distribution.
TELLING = ("supervisor", "apsw", "av", "opencv-python-headless", "b2sdk", "torch", "diffusers", "transformers", "pytest")


@click.command()
@click.option("--engine", is_flag=True, help="Install torch and what the GPU engines need, too (some gigabytes).")
@with_json
def setup(engine: bool, as_json: bool) -> None:
    """Install what the worker needs, in .venv, and say what is there. Every other command does so on first use."""
    found = {name: version for name in TELLING if (version := host.installed(name)) is not None}
    lines = [f"worker {VERSION}, Python {platform.python_version()} in {sys.prefix}"]
    lines += [f"  {name} {version}" for name, version in found.items()]
    if "torch" not in found:
        lines.append("  no torch: the preview engine only; worker setup --engine installs it")
    say("\n".join(lines), {"version": VERSION, "python": platform.python_version(), "packages": found}, as_json)
