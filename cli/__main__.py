"""`worker …`: the command line. Commands are grouped by kind, one file each; the README gives an overview."""

from __future__ import annotations

import importlib

import click

#: The module of each command. Only the one that is called is imported: all of them together take half a second.
COMMANDS = {
    **{"setup": "setup", "up": "up", "demo": "demo", "test": "testing", "doctor": "doctor", "bench": "bench"},
    **dict.fromkeys(("status", "jobs", "audit"), "look"),
    **dict.fromkeys(("pause", "resume", "drain", "retry", "cancel", "restart"), "operate"),
    **dict.fromkeys(("submit", "delete-files", "login-url"), "operate"),
    **{"logs": "logs", "models": "models", "token": "token", "bundle": "bundle"},
}


class Commands(click.Group):
    """COMMANDS as a click group."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        found = getattr(importlib.import_module(f"cli.{COMMANDS[name]}"), name.replace("-", "_"))
        assert isinstance(found, click.Command)  # noqa: S101
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """A GPU worker that makes videos. Settings come from the environment; docs/settings.md lists them.

    Exit codes: 0 success, 1 failure, 2 wrong usage or settings, 4 not found, 5 refused.
    """


if __name__ == "__main__":
    main(prog_name="worker")
