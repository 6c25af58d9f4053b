"""`worker setup`: what is installed; the `worker` script has installed it before this runs."""

from __future__ import annotations

import platform
import sys

import click

from cli.answer import say, with_json
from settings import VERSION
from telemetry import host

#: The distributions that say most about an installation.
TELLING = ("supervisor", "apsw", "av", "opencv-python-headless", "b2sdk", "torch", "diffusers", "transformers", "pytest")


@click.command()
@click.option("--engine", is_flag=True, help="Also install torch and the packages of the GPU engines (several gigabytes).")
@with_json
def setup(engine: bool, as_json: bool) -> None:
    """Install the worker's packages in .venv and list them. Every other command does this on first use."""
    found = {name: version for name in TELLING if (version := host.installed(name)) is not None}
    lines = [f"worker {VERSION}, Python {platform.python_version()} in {sys.prefix}"]
    lines += [f"  {name} {version}" for name, version in found.items()]
    if "torch" not in found:
        lines.append("  no torch: only the preview engine works; worker setup --engine installs it")
    say("\n".join(lines), {"version": VERSION, "python": platform.python_version(), "packages": found}, as_json)
