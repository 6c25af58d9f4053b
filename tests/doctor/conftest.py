"""The command line's fixtures: an examination is asked for through it, in a process of its own."""

from __future__ import annotations

from tests.cli.conftest import folder, operator, worker

__all__ = ["folder", "operator", "worker"]
