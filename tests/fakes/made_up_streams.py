"""Streams, events and graphs of the made-up card: everything runs at once, and vector clocks say what might not have yet.

A stream's clock holds how much of every stream's work is over before its own next work begins; the host has one, too. Memory
remembers who wrote and who read it last. Work that touches memory without having waited for them gets a RuntimeError, where
a true card would give wrong numbers, sometimes.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

#: The host's place among the streams; the one that is there without being made is 0.
HOST = -1

Clock = dict[int, int]


@dataclass(eq=False)
class Home:
    """A piece of the card's memory: the stream that took it; its last write, and the reads since, as stream: count."""

    taken_on: int
    written: Clock = field(default_factory=dict)
    read: Clock = field(default_factory=dict)
    recorded: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Step:
    """A piece of work that a graph does again, and the memory that it reads and writes."""

    again: Callable[[], object]
    read: list[Home]
    written: list[Home]
    made: list[torch.Tensor]


class Time:
    """The clocks, the stream that is current in each thread, copies that are under way, the capture that is going on."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.capture: Capture | None = None
        self._clocks: dict[int, Clock] = {0: {}, HOST: {}}
        self._here = threading.local()
        self._lock = threading.RLock()
        self._under_way: list[tuple[int, int, Callable[[], object]]] = []
        self._numbers = itertools.count(1)

    def new_stream(self) -> int:
        number = next(self._numbers)
        self._clocks[number] = {}
        return number

    def stream(self) -> int:
        return getattr(self._here, "stream", 0)

    @contextmanager
    def on(self, stream: int) -> Iterator[None]:
        before, self._here.stream = self.stream(), stream
        try:
            yield
        finally:
            self._here.stream = before

    # ---- memory

    def used(
        self,
        read: Iterable[Home],
        written: Iterable[Home],
        what: str,
        again: Callable[[], object] | None = None,
        made: Iterable[torch.Tensor] = (),
    ) -> None:
        """The current stream does some work. `again`: how a graph does it once more; `made`: where it puts what is new.
        Raises RuntimeError for memory that another stream may still be at."""
        read, written, stream = list(read), list(written), self.stream()
        with self._lock:
            if self.capture is not None and again is not None and stream == self.capture.stream:
                self.capture.steps.append(Step(again, read, written, list(made)))
                return
            clock = self._clocks[stream]
            _join(clock, self._clocks[HOST])
            clock[stream] = clock.get(stream, 0) + 1
            for home in read:
                self._check(home.written, stream, what)
                home.read[stream] = clock[stream]
            for home in written:
                self._check(home.written, stream, what)
                self._check(home.read, stream, what)
                home.written, home.read = {stream: clock[stream]}, {}

    def _check(self, last: Clock, stream: int, what: str) -> None:
        for other, count in last.items():
            if self._clocks[stream].get(other, 0) < count:
                raise RuntimeError(f"{what} on stream {stream}: stream {other} may still be at this memory")

    def left(self, home: Home) -> None:
        """Nobody holds this memory any more: it may be given to the stream that took it at once."""
        with self._lock:
            clock = {**self._clocks[home.taken_on]}
            _join(clock, self._clocks[HOST])
            for other, count in (*home.written.items(), *home.read.items()):
                if clock.get(other, 0) < count and other not in home.recorded:
                    self.complaints.append(f"memory of stream {home.taken_on} was freed while stream {other} may be at it")

    # ---- waiting

    def seen(self, stream: int) -> Clock:
        with self._lock:
            return dict(self._clocks[stream])

    def wait(self, who: int, seen: Clock) -> None:
        """`who` does nothing more before what was `seen` is over."""
        with self._lock:
            _join(self._clocks[who], seen)
            if who == HOST:
                clock = self._clocks[HOST]
                over = [each for each in self._under_way if clock.get(each[0], 0) >= each[1]]
                self._under_way = [each for each in self._under_way if each not in over]
                with torch.inference_mode():  # which may write to any tensor
                    for *_, arrive in over:
                        arrive()

    def host_waits(self, streams: Iterable[int] | None, why: str) -> None:
        """For these streams, or for all. Raises RuntimeError while a graph is captured."""
        self.refuse_in_capture(why)
        for stream in list(self._clocks) if streams is None else streams:
            self.wait(HOST, self.seen(stream))

    def refuse_in_capture(self, why: str) -> None:
        """What waits for the card, or takes memory beside torch's own, may not be done by anybody meanwhile."""
        if self.capture is not None and (self.capture.mode == "global" or self.capture.thread == threading.get_ident()):
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {why}")

    def under_way(self, arrive: Callable[[], object]) -> None:
        """A copy that has just begun on the current stream; `arrive` is called when the host has waited for it."""
        with self._lock:
            stream = self.stream()
            self._under_way.append((stream, self._clocks[stream].get(stream, 0), arrive))


@dataclass
class Capture:
    """A graph that is being captured: on which stream, by which thread, and how strict."""

    stream: int
    thread: int
    mode: str
    steps: list[Step] = field(default_factory=list)


def stand_ins(time: Time) -> dict[str, object]:
    """What torch.cuda offers of this, by name."""

    class Stream:
        def __init__(self, device: object = None, priority: int = 0, number: int | None = None) -> None:
            self.number = time.new_stream() if number is None else number
            self.device, self.cuda_stream = torch.device("cuda:0"), self.number

        def wait_stream(self, other: Stream) -> None:
            time.wait(self.number, time.seen(other.number))

        def wait_event(self, event: Event) -> None:
            time.wait(self.number, event.seen)

        def record_event(self, event: Event | None = None) -> Event:
            event = event or Event()
            event.record(self)
            return event

        def synchronize(self) -> None:
            time.host_waits([self.number], "Stream.synchronize")

    class Event:
        def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
            self.seen: Clock = {}

        def record(self, stream: Stream | None = None) -> None:
            self.seen = time.seen(time.stream() if stream is None else stream.number)

        def wait(self, stream: Stream | None = None) -> None:
            time.wait(time.stream() if stream is None else stream.number, self.seen)

        def synchronize(self) -> None:
            time.refuse_in_capture("Event.synchronize")
            time.wait(HOST, self.seen)

    class CUDAGraph:
        def __init__(self) -> None:
            self.steps: list[Step] = []

        def replay(self) -> None:
            time.refuse_in_capture("replay")
            with torch.inference_mode():
                for step in self.steps:
                    time.used(step.read, step.written, "replay")
                    step.again()

    @contextmanager
    def stream(wanted: Stream | None) -> Iterator[None]:
        with time.on(time.stream() if wanted is None else wanted.number):
            yield

    @contextmanager
    def graph(
        made: CUDAGraph, pool: object = None, stream: Stream | None = None, capture_error_mode: str = "global"
    ) -> Iterator[None]:
        time.host_waits(None, "torch.cuda.graph")
        with time.on(time.new_stream() if stream is None else stream.number):
            time.capture = capture = Capture(time.stream(), threading.get_ident(), capture_error_mode)
            try:
                yield
            finally:
                time.capture = None
        made.steps = capture.steps
        for step in made.steps:  # nothing has been worked out yet
            for each in step.made:
                each.fill_(113)

    return {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": CUDAGraph,
        "stream": stream,
        "graph": graph,
        "graph_pool_handle": lambda: (0, 0),
        "current_stream": lambda device=None: Stream(number=time.stream()),
        "default_stream": lambda device=None: Stream(number=0),
        "is_current_stream_capturing": lambda: time.capture is not None,
        "synchronize": lambda device=None: time.host_waits(None, "torch.cuda.synchronize"),
    }


def _join(clock: Clock, other: Clock) -> None:
    for stream, count in other.items():
        clock[stream] = max(clock.get(stream, 0), count)
