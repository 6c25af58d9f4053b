"""Its card refuses its kernels when it warms up: torch was not built for such a card."""

from __future__ import annotations

from tests.fakes.engines import copies


class Engine(copies.Engine):
    name = "fails_on_its_card"

    def warm_up(self) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")
