"""How many pictures go through the networks at once: as many as the memory holds, found out by trying."""

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
    """`size` pictures fit at once, as far as is known; it is halved when they did not, and stays so."""

    def __init__(self, size: int) -> None:
        self.size = size

    def parts(self, count: int, work: Callable[[slice], T]) -> list[T]:
        """What `work` gives for 0 … count - 1 in parts of `size`; a part that does not fit is done again in halves.

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
        """For what is around the parts: where that does not fit it cannot be done again at once, but the job's next attempt has
        half as many pictures at once. Raises OutOfMemory."""
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
