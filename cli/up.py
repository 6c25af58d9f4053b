"""`worker up`: runs the checks, then becomes the container's first process. The image's entry point."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from cli import checks
from cli.answer import act_as_worker, load_settings
from jobqueue import spool
from settings import Settings, child_environment, secret_values
from telemetry import logs

log = logging.getLogger(__name__)

CHECKOUT = Path(__file__).resolve().parent.parent


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Log as JSON, like LOG_FORMAT=json.")
def up(as_json: bool) -> NoReturn:
    """Run the worker in the foreground until SIGTERM or Ctrl-C, configured by environment variables.

    Exits with 0 when stopped or drained, 2 if a setting must be corrected, 70 if a program could not be started; the last
    line says why.
    """
    changes = {"LOG_FORMAT": "json"} if as_json else {}
    settings = load_settings(**changes)
    act_as_worker(settings, owner=True)
    warnings = checks.make_ready(settings)
    logs.set_up("worker", settings.LOG_FORMAT, settings.data_dir / "logs", secret_values(settings))
    for warning in warnings:
        log.warning("%s", warning)
    sys.stdout.flush()
    os.execve(sys.executable, command(settings), environment(settings, **changes))  # noqa: S606 - our own interpreter


def command(settings: Settings) -> list[str]:
    """What to execute: the first process, with what it needs of the settings."""
    folders = ["--data", str(settings.data_dir), "--run", str(settings.run_dir)]
    configuration = str(CHECKOUT / "supervisord.conf")
    return [sys.executable, "-m", "guard.pid1", "-c", configuration, *folders, "--log-format", settings.LOG_FORMAT]


def environment(settings: Settings, **changes: str | None) -> dict[str, str]:
    """The programs' environment: ours, and what supervisord.conf asks for. `changes` come from the demo."""
    path = child_environment().get("PYTHONPATH", "").split(os.pathsep)
    # numbered as NVML numbers them; the engine takes the first
    cards = {} if settings.GPUS == "all" else {"CUDA_VISIBLE_DEVICES": settings.GPUS, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    ours: dict[str, str | None] = {
        **cards,
        "DATA_DIR": str(settings.data_dir),
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *(part for part in path if part and part != str(CHECKOUT))]),
        "PYTHONSAFEPATH": "1",  # a file called queue.py in the user's folder must not become ours
        "PYTHONUNBUFFERED": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(spool.cache(settings.data_dir) / "compiled"),  # outlives the container
        "TRITON_CACHE_DIR": str(spool.cache(settings.data_dir) / "compiled" / "triton"),
        "WORKER_PYTHON": sys.executable,
        "WORKER_RUN_DIR": str(settings.run_dir),
        "WORKER_LOG_FORMAT": settings.LOG_FORMAT,
        "WORKER_ADMIN": str(settings.admin_enabled).lower(),
        "WORKER_ORCHESTRATOR": "false",
        "WORKER_ORCHESTRATOR_PORT": "8090",
        "WORKER_ORCHESTRATOR_DATA": str(settings.data_dir / "orchestrator"),
    }
    return child_environment(**(ours | changes))
