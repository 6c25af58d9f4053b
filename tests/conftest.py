"""What several test processes at once (`./worker test`) need to get on together."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """One thread a process for arithmetic, here and in what it starts: more would spin for one another on cores that are not
    there. Before anybody imports torch or numpy."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The checks of the whole code first: without a cache they take longest, and nobody should wait for them at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/test_lint.py"))
