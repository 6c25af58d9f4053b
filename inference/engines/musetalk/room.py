"""The batch size for the networks: as many pictures as fit in memory, found by trying."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from errors import OutOfMemory
from inference.engines import card

log = logging.getLogger(__name__)

T = TypeVar("T")


class Room:
    """`size` pictures are believed to fit at once; it is halved for good when they do not."""

    def __init__(self, size: int) -> None:
        self.size = size

    def parts(self, count: int, work: Callable[[slice], T]) -> list[T]:
        """The results of `work` for 0 … count - 1 in parts of `size`; a part that does not fit is retried in halves.

        Raises OutOfMemory if not even one picture fits.
        """
        made: list[T] = []
        first = 0
        while first < count:
            part = slice(first, min(first + self.size, count))
            try:
                made.append(work(part))
            except RuntimeError as error:
                if not card.is_full(error):
                    raise
                self._halve(error)
            else:
                first = part.stop
        return made

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """For the work around the parts: if that runs out of memory it cannot be retried right away, but the job's next attempt
        runs with half the batch size. Raises OutOfMemory."""
        try:
            yield
        except RuntimeError as error:
            if not card.is_full(error):
                raise
            self._halve(error)
            raise OutOfMemory("the GPU ran out of memory") from error

    def _halve(self, error: RuntimeError) -> None:
        if self.size == 1:
            raise OutOfMemory("the GPU does not have enough free memory for a single frame") from error
        self.size = max(1, self.size // 2)
        log.warning("out of memory: at most %d frames per batch from now on", self.size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
