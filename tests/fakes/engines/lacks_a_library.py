"""Needs a library that is not installed, as the GPU engines do where torch is not."""

from __future__ import annotations

import a_library_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401

from tests.fakes.engines import copies


class Engine(copies.Engine):
    name = "lacks_a_library"
