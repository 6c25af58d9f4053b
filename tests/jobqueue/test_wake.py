"""Wake-ups between processes and threads."""

from __future__ import annotations

import gc
import os
import secrets
import threading
import time

from jobqueue.wake import Bell

LONG_S = 20.0


def waiting(bell: Bell, mark: int) -> threading.Thread:
    thread = threading.Thread(target=bell.wait, args=(mark, LONG_S), daemon=True)
    thread.start()
    return thread


def test_what_rang_before_the_wait_is_not_missed() -> None:
    instance = secrets.token_hex(4)
    ours, other = Bell(instance, "inference"), Bell(instance)
    mark = ours.mark()
    other.poke("inference")
    ours.wait(mark, LONG_S)
    assert ours.mark() != mark


def test_all_loops_of_a_program_wake_at_one_poke() -> None:
    instance = secrets.token_hex(4)
    ours, other = Bell(instance, "poller"), Bell(instance)
    mark = ours.mark()
    threads = [waiting(ours, mark) for _ in range(4)]
    other.poke("poller")
    for thread in threads:
        thread.join(LONG_S / 2)
    assert not any(thread.is_alive() for thread in threads)


def test_a_loop_takes_over_the_watch_when_the_watcher_goes() -> None:
    instance = secrets.token_hex(4)
    ours, other = Bell(instance, "poller"), Bell(instance)
    mark = ours.mark()
    brief = threading.Thread(target=ours.wait, args=(mark, 0.1))
    brief.start()
    patient = waiting(ours, mark)
    brief.join(LONG_S)
    other.poke("poller")
    patient.join(LONG_S / 2)
    assert not patient.is_alive()


def test_a_ring_from_within_wakes_the_one_that_watches() -> None:
    ours = Bell(secrets.token_hex(4), "uploader")
    thread = waiting(ours, ours.mark())
    time.sleep(0.05)
    ours.ring()
    thread.join(LONG_S / 2)
    assert not thread.is_alive()


def test_a_flood_of_pokes_wakes_once_and_then_leaves_in_peace() -> None:
    instance = secrets.token_hex(4)
    ours, other = Bell(instance, "api"), Bell(instance)
    for _ in range(5000):
        other.poke("api")
    mark = ours.mark()
    ours.wait(mark, LONG_S)
    after = ours.mark()
    ours.wait(after, 0.05)
    assert ours.mark() == after


def test_without_a_ring_the_wait_ends_by_itself() -> None:
    ours = Bell(secrets.token_hex(4), "api")
    mark = ours.mark()
    ours.wait(mark, 0.05)
    assert ours.mark() == mark


def test_poking_who_is_not_there_is_no_error() -> None:
    Bell(secrets.token_hex(4)).poke("inference", "uploader")


def test_a_bell_that_is_dropped_leaves_no_handle_open() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        Bell("nobody")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) < before + 10
