"""The page's mark of what it shows: it must change with everything, and only then."""

from __future__ import annotations

from jobqueue import glance
from jobqueue.control import Control
from jobqueue.job import FETCH, GENERATE
from jobqueue.outbox import Outbox
from jobqueue.queue import Queue
from tests.jobqueue.conftest import arrival, ready
from tests.jobqueue.test_outbox import RUNNING


def test_the_version_stays_while_nothing_happens(queue: Queue) -> None:
    queue.add(arrival())
    assert glance.version(queue.database) == glance.version(queue.database)


def test_the_version_changes_with_all_that_a_page_shows(queue: Queue, control: Control, outbox: Outbox) -> None:
    seen = [glance.version(queue.database).moves]

    def changed() -> None:
        seen.append(glance.version(queue.database).moves)
        assert len(set(seen)) == len(seen), f"step {len(seen)} was not noticed"

    queue.add(arrival())
    changed()
    job = queue.take(FETCH, "poller/test")
    assert job is not None
    changed()
    queue.cancel(job.id, "why")
    changed()
    queue.cancelled(job, "why")
    changed()
    event, _ = outbox.due()[0]
    outbox.again(event, "503", 0)
    changed()
    outbox.sent(event, "200")
    changed()
    control.put_up("paused", "a reason", "test")
    changed()
    control.note("test", "look", None, None, "done")
    changed()


def test_the_version_stays_when_a_program_says_how_it_is(queue: Queue, control: Control) -> None:
    before = glance.version(queue.database)
    control.publish("poller", {"gpus": []})
    assert glance.version(queue.database) == before


def test_a_report_of_a_running_job_changes_the_mark_of_its_own_page_only(queue: Queue, outbox: Outbox) -> None:
    queue.add(arrival())
    before, told = glance.version(queue.database), glance.told(queue.database, "a")
    outbox.keep(RUNNING)
    assert glance.version(queue.database) == before
    assert glance.told(queue.database, "a") != told
    assert glance.told(queue.database, "b") is None


def test_how_far_the_job_on_the_gpu_is(queue: Queue) -> None:
    assert glance.running(queue.database) is None
    ready(queue)
    job = queue.take(GENERATE, "inference/1")
    assert job
    before = glance.version(queue.database)
    queue.progress(job, "inferring", 0.5)
    assert glance.running(queue.database) == 0.5
    after = glance.version(queue.database)
    assert (after.moves == before.moves, after.progress == before.progress) == (True, False)


def test_the_seconds_of_a_job_are_counted_by_state_in_its_newest_round(queue: Queue) -> None:
    ready(queue)
    assert queue.newest()[0].id == "a"
    queue.cancel("a", "why")
    queue.retry("a")
    queue.cancel("a", "why")
    (spent,) = glance.spent(queue.database, ["a", "unknown"]).values()
    assert set(spent) == {"claimed", "all"}
    assert spent["all"] == spent["claimed"] >= 0


def test_ends_are_counted_since_a_time(queue: Queue) -> None:
    queue.add(arrival())
    queue.cancel("a", "why")
    assert glance.ended(queue.database, "2000-01-01T00:00:00.000Z") == {"cancelled": 1}
    assert glance.ended(queue.database, "2999-01-01T00:00:00.000Z") == {}


def test_a_login_code_works_once_and_in_its_time(control: Control) -> None:
    control.offer_login("hash", until_s=100.0)
    assert not control.use_login("other", now_s=50.0)
    assert not control.use_login("hash", now_s=100.0)
    assert control.use_login("hash", now_s=50.0)
    assert not control.use_login("hash", now_s=50.0)
