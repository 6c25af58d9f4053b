"""`worker bundle`: the page's support bundle on the command line. What is in it is `support.bundle`'s business."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from cli.answer import EXIT_REFUSED, EXIT_USAGE, Failure, open_worker, say, with_json
from doctor.examination import examine
from settings import Settings, secret_values
from support import bundle as support_bundle
from support import setting
from telemetry.logs import masker


@click.command()
@click.option("-o", "--output", metavar="FILE", help="Output file, - for standard output.  [default: worker-DATE.zip]")
@click.option("--list", "only_list", is_flag=True, help="Only list the contents; write nothing.")
@with_json
def bundle(output: str | None, only_list: bool, as_json: bool) -> None:
    """Make a zip for support, the same as on the page; works whether or not the worker is running.

    It has the doctor's findings, status, versions, settings, recent jobs, audit trail and logs. Secrets from this shell's
    environment, signed links and customers' addresses are left out; review it before you send it.
    """
    if output == "-" and as_json:
        raise Failure("-o -: the zip goes to standard output; omit --json", EXIT_USAGE)
    with contextlib.ExitStack() as stack:
        # opened as the caller, who may write here; then this process becomes WORKER_USER
        name = output or support_bundle.file_name()
        file = None if only_list else stack.enter_context(_begun(name))
        worker = open_worker()
        mask = masker(_secrets(worker.settings))
        texts = support_bundle.contents(worker.settings, worker.operator, mask, examine(worker.settings))
        sizes = {path: len(text.encode()) for path, text in texts.items()}
        lines = [f"{size / 1000:9.1f} kB  {path}" for path, size in sizes.items()]
        data = {"file": None if only_list else str(Path(name).absolute()), "contents": sizes}
        if file is None:
            say("\n".join(lines), data, as_json)
            return
        packed = support_bundle.packed(texts)
        file.write(packed)
    lines.append(f"{len(packed) / 1000:9.1f} kB  in all, packed as {name}; review it before you send it")
    if output == "-":
        click.echo("\n".join(lines), err=True)
    else:
        say("\n".join(lines), data, as_json)


@contextlib.contextmanager
def _begun(name: str) -> Iterator[BinaryIO]:
    """The file to write, new and readable by its owner only; deleted again on failure."""
    if name == "-":
        yield sys.stdout.buffer
        return
    try:
        file = os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except FileExistsError:
        raise Failure(f"{name}: exists already; choose another file with -o", EXIT_REFUSED) from None
    except OSError as error:
        raise Failure(f"{name}: cannot be written ({error.strerror}); choose another file with -o", EXIT_REFUSED) from None
    try:
        with file:
            yield file
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _secrets(settings: Settings) -> list[str]:
    """What must be redacted: the environment's secrets, and the page's generated token, if any."""
    kept: list[str] = []
    with contextlib.suppress(OSError):
        kept = [(settings.data_dir / setting.FILES["ADMIN_PASSWORD"]).read_text().strip()]
    return [*secret_values(settings), *kept]
