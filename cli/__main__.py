"""`worker …`: the command line. Commands are grouped by kind, one file each; the README gives an overview."""

from __future__ import annotations

import click

from cli import bench, bundle, demo, doctor, look, models, operate, setup, testing, token, up


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """A GPU worker that makes videos. Settings come from the environment; docs/settings.md lists them.

    Exit codes: 0 success, 1 failure, 2 wrong usage or settings, 4 not found, 5 refused.
    """


for command in (
    *(setup.setup, up.up, demo.demo, testing.test, look.status, look.jobs, operate.pause, operate.resume, operate.drain),
    *(operate.retry, operate.cancel, operate.delete_files, operate.submit, operate.restart, operate.login_url, token.token),
    *(look.audit, look.logs, models.models, doctor.doctor, bench.bench, bundle.bundle),
):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="worker")
