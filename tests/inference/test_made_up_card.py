"""The made-up card refuses what a card refuses, and is as late as a card is; else it would prove nothing about engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

if torch.cuda.is_available():
    pytest.skip("there is a real card", allow_module_level=True)

from tests.fakes import made_up_card  # noqa: E402


@pytest.fixture
def card() -> Iterator[Any]:
    with made_up_card.inserted(total_bytes=10**6) as found:
        yield found


def test_numbers_go_to_the_card_and_come_back(card: Any) -> None:
    there = torch.arange(6.0).to("cuda:0").view(2, 3)
    there[1, 1:] += torch.ones(2, device="cuda")
    assert there.device == torch.device("cuda:0")
    assert (there @ there.T).cpu().tolist() == [[5, 17], [17, 70]]
    with pytest.raises(RuntimeError, match="numpy"):
        there.numpy()


def test_arguments_on_two_devices_are_refused(card: Any) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device="cuda:0") + torch.ones(3)
    assert (torch.ones(3, device="cuda:0") * torch.tensor(2.0)).sum().item() == 6


def test_products_of_two_precisions_are_refused(card: Any) -> None:
    with pytest.raises(RuntimeError, match="same dtype"):
        torch.nn.functional.linear(torch.ones(2, 2, device="cuda:0"), torch.ones(2, 2, device="cuda:0").half())


def test_memory_is_counted_given_back_and_runs_out(card: Any) -> None:
    large = torch.zeros(100_000, device="cuda:0")
    part = large[:10]
    assert torch.cuda.memory_allocated() == 400_000
    with pytest.raises(torch.OutOfMemoryError):
        torch.zeros(200_000, device="cuda:0")
    del large
    assert torch.cuda.memory_allocated() == 400_000
    del part
    assert torch.cuda.memory_allocated() == 0
    assert torch.cuda.max_memory_allocated() == torch.cuda.memory_reserved() == 400_000
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == torch.cuda.max_memory_reserved() == 0
    assert torch.cuda.mem_get_info() == (free_bytes + 400_000, total_bytes)


def test_a_late_copy_to_the_host_is_rubbish_until_somebody_has_waited(card: Any) -> None:
    host, arrived = torch.zeros(3, pin_memory=True), torch.cuda.Event()
    host.copy_(torch.ones(3, device="cuda:0"), non_blocking=True)
    arrived.record()
    assert host.tolist() != [1, 1, 1]
    arrived.synchronize()
    assert host.tolist() == [1, 1, 1]
    assert card.waits == []


def test_pinned_memory_must_be_left_alone_until_it_has_arrived(card: Any) -> None:
    host = torch.zeros(3, pin_memory=True)
    there = host.to("cuda:0", non_blocking=True)
    host.fill_(1)
    with pytest.raises(RuntimeError, match="pinned memory"):
        torch.cuda.synchronize()
    assert there.sum().item() == 0


def test_memory_that_another_stream_may_still_write_is_refused(card: Any) -> None:
    beside = torch.cuda.Stream()
    with torch.cuda.stream(beside):
        made = torch.ones(3, device="cuda:0")
    with pytest.raises(RuntimeError, match="may still be at"):
        made + 1
    torch.cuda.current_stream().wait_stream(beside)
    assert (made + 1).sum().item() == 6


def test_memory_that_is_freed_under_another_stream_is_complained_of(card: Any) -> None:
    for record in (True, False):
        made, beside = torch.ones(3, device="cuda:0"), torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            made + 1
        if record:
            made.record_stream(beside)
        del made
        assert len(card.time.complaints) == (0 if record else 1)


def test_a_graph_does_its_work_again_with_the_same_memory(card: Any) -> None:
    given, graph = torch.zeros(3, device="cuda:0"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = (given + 1) * 2
    assert made.cpu().tolist() != [2, 2, 2]
    for number in (1, 5):
        given.fill_(number)
        graph.replay()
        assert made.cpu().tolist() == [2 * number + 2] * 3


def test_nothing_may_wait_while_a_graph_is_captured(card: Any) -> None:
    given = torch.zeros(3, device="cuda:0")
    with pytest.raises(RuntimeError, match="capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        given.sum().item()
    with pytest.raises(RuntimeError, match="capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.ones(3).to("cuda:0")
    assert given.sum().item() == 0
