from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from guard import outside
from guard.outside import Outside

LINE = "x" * 199 + "\n"


def pipe() -> tuple[int, int]:
    return os.pipe()


def terminal() -> tuple[int, int]:
    reader, writer = os.openpty()
    return reader, writer


@pytest.fixture(params=[pipe, terminal])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    made: Callable[[], tuple[int, int]] = request.param
    reader, writer = made()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read_all(reader: int) -> str:
    os.set_blocking(reader, False)
    found = b""
    while True:
        try:
            found += os.read(reader, 65536)
        except BlockingIOError:
            return found.decode().replace("\r\n", "\n")


def test_a_line_that_nobody_reads_holds_nothing_up(ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "PATIENCE_S", 0.1)
    reader, writer = ends
    out, began = Outside(writer), time.monotonic()
    for _ in range(2000):  # six times what a pipe holds
        out.write(LINE)
    assert time.monotonic() - began < 5
    assert os.get_blocking(writer)  # others share it
    early = read_all(reader)
    out.write("it goes on\n")
    late = read_all(reader)
    assert early.startswith(LINE)
    left_out = int(late.split(" lines were left out here")[0])
    assert 0 <= 2000 - left_out - early.count(LINE) <= 1  # half a line may have gone out
    assert late.endswith("are in DATA_DIR/logs\nit goes on\n")


def test_a_reader_that_is_only_slow_gets_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "PATIENCE_S", 10)
    reader, writer = os.pipe()
    out = Outside(writer)
    if os.fork() == 0:
        os.close(reader)
        for number in range(3000):
            out.write(f"{number:0199}\n")
        os._exit(0)
    os.close(writer)
    found = b""
    while piece := os.read(reader, 8192):
        found += piece
        time.sleep(0.001)
    os.close(reader)
    os.wait()
    assert [int(line) for line in found.splitlines()] == list(range(3000))


def test_a_reader_that_is_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    Outside(writer).write(LINE)
    os.close(writer)
