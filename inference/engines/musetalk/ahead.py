"""Runs one pipeline step in its own thread, slightly ahead of its consumer.

Steps are nested iterators: decoding, then the networks, then the writer. Each `Ahead` buffers at most `depth` items, so memory
is bounded. What a step raises is raised in its consumer. Closing the last step closes them all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: Seconds between two calls of `waiting` while no item is ready.
WAITING_S = 0.1

_END: Any = object()


class Ahead(Generic[T]):
    """An iterator over the items of `source`, which runs in a thread named `name`; leaving the context ends the thread.

    waiting is called repeatedly until the next item is ready; exceptions from it propagate.
    """

    def __init__(self, source: Iterator[T], depth: int, name: str, waiting: Callable[[], None] | None = None) -> None:
        self._source, self._waiting = source, waiting
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._coming: deque[Future[T]] = deque(self._pool.submit(next, source, _END) for _ in range(depth))

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if not self._coming:
            raise StopIteration
        item = self._wait(self._coming.popleft())
        if item is _END:
            self._coming.clear()
            raise StopIteration
        self._coming.append(self._pool.submit(next, self._source, _END))
        return item

    def _wait(self, coming: Future[T]) -> T:
        while self._waiting is not None and not coming.done():
            self._waiting()
            try:
                return coming.result(timeout=WAITING_S)
            except NotYet:
                if coming.done():  # the step itself raised a timeout
                    raise
        return coming.result()

    def close(self) -> None:
        """Let the step finish its current item, close it in its own thread, and wait for that."""
        for future in self._coming:
            future.cancel()
        self._coming.clear()
        close = getattr(self._source, "close", None)
        if close is not None:
            self._pool.submit(close)
        self._pool.shutdown(wait=True)

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
