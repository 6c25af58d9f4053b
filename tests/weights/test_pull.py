"""Weights arrive whole and right from a hub that breaks off, lies, redirects and comes back, and not at all otherwise."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from errors import InvalidInput, Unavailable
from tests.fakes.file_server import FileServer, status
from tests.fakes.hub import REPOSITORY, REVISION, Hub, cut, from_the_start, other, wrong
from weights import sums
from weights.manifest import File
from weights.pull import Outcome, Ways, check_room, pull, sources
from weights.transfer import CHUNK_BYTES
from weights.verify import check

BODY = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


def ways(hub: Hub, **changes: Any) -> Ways:
    return replace(Ways(mirror=hub.url, pause_s=0.01, max_pause_s=0.05), **changes)


def one(folder: Path, file: File, how: Ways) -> Outcome:
    [outcome] = pull(folder, [file], how)
    return outcome


def parts(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.part")]


def test_a_file_comes_whole_over_the_hubs_redirect(hub: Hub, tmp_path: Path) -> None:
    outcome = one(tmp_path, hub.keep(BODY), ways(hub))
    assert (outcome.state, outcome.size_bytes, outcome.source) == ("fetched", len(BODY), "127.0.0.1")
    assert (tmp_path / "net" / "weights.bin").read_bytes() == BODY
    assert hub.asked[0].path == f"/{REPOSITORY}/resolve/{REVISION}/net/weights.bin"
    assert parts(tmp_path) == []


def test_a_file_that_is_there_and_right_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    file = hub.keep(BODY)
    one(tmp_path, file, ways(hub))
    assert one(tmp_path, file, ways(hub)).state == "there"
    assert len(hub.seen) == 1


def test_a_file_whose_converted_one_is_good_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    file = replace(hub.keep(BODY), path="dwpose/dw-ll_ucoco_384.pth", size_bytes=10**15)  # for which there is no room
    (tmp_path / "musetalk-fp16").mkdir()
    (tmp_path / "musetalk-fp16" / "pose.safetensors").write_bytes(b"abc")
    sums.write(tmp_path / "musetalk-fp16" / "SHA256SUMS", {"pose.safetensors": hashlib.sha256(b"abc").hexdigest()})
    outcome = one(tmp_path, file, ways(hub))
    assert (outcome.state, outcome.said) == ("there", "converted: musetalk-fp16/pose.safetensors")
    (tmp_path / "musetalk-fp16" / "pose.safetensors").write_bytes(b"abd")
    assert one(tmp_path, replace(file, size_bytes=len(BODY)), ways(hub)).state == "fetched"


def test_a_file_that_is_there_and_wrong_is_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    file = hub.keep(BODY)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "weights.bin").write_bytes(bytes(len(BODY)))
    assert one(tmp_path, file, ways(hub)).state == "fetched"
    assert (tmp_path / "net" / "weights.bin").read_bytes() == BODY


def test_a_connection_that_breaks_off_is_gone_on_from_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    file = hub.keep(BODY)
    hub.faults[file.path] = [cut(20 * CHUNK_BYTES), status(503), cut(0), cut(10 * CHUNK_BYTES)]
    assert one(tmp_path, file, ways(hub)).state == "fetched"
    assert (tmp_path / file.path).read_bytes() == BODY
    ranges = [seen.headers.get("Range") for seen in hub.seen]
    assert ranges == [None, *(f"bytes={count * CHUNK_BYTES}-" for count in (20, 20, 20, 30))]


def test_the_part_of_an_earlier_process_is_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    file = hub.keep(BODY)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "weights.bin.part").write_bytes(BODY[:2_000_000])
    assert one(tmp_path, file, ways(hub)).state == "fetched"
    assert [seen.headers.get("Range") for seen in hub.seen] == ["bytes=2000000-"]
    assert (tmp_path / file.path).read_bytes() == BODY


def test_a_part_that_is_already_whole_only_gets_its_name(hub: Hub, tmp_path: Path) -> None:
    file = hub.keep(BODY)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "weights.bin.part").write_bytes(BODY)
    assert one(tmp_path, file, ways(hub)).state == "fetched"
    assert (tmp_path / file.path).read_bytes() == BODY


@pytest.mark.parametrize("part", [bytes(1_000_000), BODY + b"more", bytes(len(BODY))], ids=["start", "longer", "as long"])
def test_a_part_of_something_else_is_thrown_away(hub: Hub, tmp_path: Path, part: bytes) -> None:
    file = hub.keep(BODY)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "weights.bin.part").write_bytes(part)
    assert one(tmp_path, file, ways(hub)).state == "fetched"
    assert (tmp_path / file.path).read_bytes() == BODY


def test_a_server_that_knows_no_ranges_is_heard_from_the_start(hub: Hub, tmp_path: Path) -> None:
    file = hub.keep(BODY)
    hub.faults[file.path] = [cut(1_000_000), from_the_start]
    assert one(tmp_path, file, ways(hub)).state == "fetched"
    assert (tmp_path / file.path).read_bytes() == BODY


@pytest.mark.parametrize("fault", [wrong, other(b"<html>Sign in</html>"), other(BODY + b"x")], ids=["bit", "page", "longer"])
def test_wrong_bytes_are_fetched_once_more(hub: Hub, tmp_path: Path, fault: Any) -> None:
    file = hub.keep(BODY)
    hub.faults[file.path] = [fault]
    assert one(tmp_path, file, ways(hub)).state == "fetched"
    assert (tmp_path / file.path).read_bytes() == BODY


def test_bytes_that_stay_wrong_never_become_the_file(hub: Hub, tmp_path: Path) -> None:
    file = replace(hub.keep(BODY), url=hub.url + "/nowhere", repository=None)
    hub.faults[file.path] = [wrong] * 9
    outcome = one(tmp_path, file, ways(hub, mirror=f"{hub.url}/{REPOSITORY}/resolve/{REVISION}"))
    assert outcome.state == "failed"
    right, found = (hashlib.sha256(body).hexdigest()[:12] for body in (BODY, BODY[:-1] + bytes([BODY[-1] ^ 1])))
    told = f"sent the wrong file: 3,000,000 bytes, SHA-256 {found}…; expected SHA-256 {right}…"
    assert outcome.said == f"net/weights.bin: no source has it: 127.0.0.1 {told}, 127.0.0.1 answered 404"
    assert len(hub.seen) == 2
    assert not (tmp_path / file.path).exists()


def test_a_server_that_stays_down_is_given_up_after_some_tries(hub: Hub, tmp_path: Path) -> None:
    file = hub.keep(BODY)
    hub.faults[file.path] = [status(503)] * 20
    outcome = one(tmp_path, at_the_hub_alone(hub, file), ways(hub, mirror=None, tries=3))
    told = "net/weights.bin: no source has it: 127.0.0.1 answered 503 (tried 3 times)"
    assert (outcome.state, outcome.said) == ("failed", told)
    assert len(hub.seen) == 3


def at_the_hub_alone(hub: Hub, file: File) -> File:
    return replace(file, repository=None, url=f"{hub.url}/{REPOSITORY}/resolve/{REVISION}/{file.path}")


def test_a_mirror_that_is_down_does_not_hide_the_origin(hub: Hub, tmp_path: Path) -> None:
    file = at_the_hub_alone(hub, hub.keep(BODY))
    assert one(tmp_path, file, ways(hub, mirror="http://127.0.0.1:9", tries=2)).state == "fetched"
    with FileServer([status(503)]) as mirror:
        file = replace(at_the_hub_alone(hub, hub.keep(BODY, "net/2.bin")), repository=REPOSITORY)
        assert one(tmp_path, file, ways(hub, mirror=mirror.url(""), tries=3)).state == "fetched"
        assert len(mirror.seen) == 3  # no more of them for another path there


@pytest.mark.parametrize(
    ("code", "headers"),
    [
        (200, {"X_Linked_Size": "9" * 5000}),
        (500, {"Retry_After": "9" * 5000}),
        (302, {"Location": "http://[bad"}),
        (302, {"Location": "http://a:99999999/x"}),
        (302, {"Location": "http://.."}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_makes_no_sense_ends_one_file_and_not_the_pull(
    hub: Hub, tmp_path: Path, code: int, headers: dict[str, str]
) -> None:
    bad, good = (at_the_hub_alone(hub, hub.keep(BODY[:1000], name)) for name in ("net/1.bin", "net/2.bin"))
    hub.faults[bad.path] = [status(code, **headers)] * 9
    how = ways(hub, mirror=None, tries=2, allow_private=True)
    assert [outcome.state for outcome in pull(tmp_path, [bad, good], how)] == ["failed", "fetched"]


def test_a_slow_way_is_not_given_up_while_it_leads_on(hub: Hub, tmp_path: Path) -> None:
    body = random.Random(2).randbytes(7_000_000)
    file = hub.keep(body)
    hub.faults[file.path] = [cut(1_100_000)] * 6
    assert one(tmp_path, file, ways(hub, tries=2)).state == "fetched"
    assert len(hub.seen) == 7


def test_one_file_that_fails_does_not_end_the_others(hub: Hub, tmp_path: Path) -> None:
    files = [at_the_hub_alone(hub, hub.keep(BODY[:1000], f"net/{number}.bin")) for number in range(9)]
    hub.faults["net/4.bin"] = [status(500)] * 20
    outcomes = pull(tmp_path, files, ways(hub, mirror=None, tries=2))
    assert [outcome.path for outcome in outcomes] == [file.path for file in files]
    assert {outcome.path for outcome in outcomes if outcome.state != "fetched"} == {"net/4.bin"}


def test_four_files_come_at_once(hub: Hub, tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=20)

    def met(handler: Any) -> None:
        together.wait()
        from_the_start(handler)

    files = [hub.keep(BODY[:1000], f"net/{number}.bin") for number in range(4)]
    hub.faults = {file.path: [met] for file in files}
    assert {outcome.state for outcome in pull(tmp_path, files, ways(hub))} == {"fetched"}


def test_a_file_that_no_list_knows_is_held_to_the_hubs_own_hash(hub: Hub, tmp_path: Path) -> None:
    file = hub.keep(BODY, listed=False)
    hub.faults[file.path] = [wrong]
    outcome = one(tmp_path, file, ways(hub))
    assert (outcome.state, len(hub.seen)) == ("fetched", 2)
    assert sums.read(tmp_path / "fetched.sha256") == {file.path: hashlib.sha256(BODY).hexdigest()}
    assert check(tmp_path, file).state == "good"
    (tmp_path / file.path).write_bytes(b"x")
    assert check(tmp_path, file).state == "wrong"


def test_a_mirror_may_hold_the_files_as_they_lie_under_models_dir(hub: Hub, tmp_path: Path) -> None:
    file = replace(hub.keep(BODY), repository="other/model", url="http://127.0.0.1:9/never")
    outcome = one(tmp_path, file, ways(hub, mirror=f"{hub.url}/{REPOSITORY}/resolve/{REVISION}"))
    assert outcome.state == "fetched"
    assert [seen.path.split("?")[0] for seen in hub.asked] == [
        f"/{REPOSITORY}/resolve/{REVISION}/other/model/resolve/{REVISION}/net/weights.bin",
        f"/{REPOSITORY}/resolve/{REVISION}/net/weights.bin",
    ]


def test_what_the_mirror_does_not_have_is_asked_of_its_origin(hub: Hub, tmp_path: Path) -> None:
    file = replace(hub.keep(BODY), repository=None)
    origin = f"{hub.url}/{REPOSITORY}/resolve/{REVISION}/net/weights.bin"
    assert sources(file, "https://mirror.example") == ["https://mirror.example/net/weights.bin", file.origin]
    assert one(tmp_path, replace(file, url=origin), ways(hub, mirror=hub.url + "/empty")).state == "fetched"


def test_a_mirror_that_is_not_allowed_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"MODELS_MIRROR=http://mirror\.example: must be https"):
        pull(tmp_path, [], Ways(mirror="http://mirror.example"))


def test_a_redirect_to_where_links_may_not_lead_is_not_followed(hub: Hub, tmp_path: Path) -> None:
    with Hub(redirects=False) as plain:
        file = plain.keep(BODY)
        plain.faults[file.path] = [status(302, Location="http://10.0.0.1/secret?token=x")]
        outcome = one(tmp_path, file, ways(plain))
    assert outcome.state == "failed"
    assert outcome.said.startswith("http://10.0.0.1/secret: must be https")


def test_two_processes_do_not_write_one_file(hub: Hub, tmp_path: Path) -> None:
    file = hub.keep(BODY)
    held, go_on = threading.Event(), threading.Event()

    def waits(handler: Any) -> None:
        held.set()
        go_on.wait(20)
        from_the_start(handler)

    hub.faults[file.path] = [waits]
    first: list[Outcome] = []
    thread = threading.Thread(target=lambda: first.append(one(tmp_path, file, ways(hub))))
    thread.start()
    assert held.wait(20)
    second = one(tmp_path, file, ways(hub))
    go_on.set()
    thread.join(20)
    assert second.state == "failed"
    assert second.said.endswith("weights.bin.part: another process is fetching it")
    assert first[0].state == "fetched"


def test_a_disk_without_room_is_said_before_anything_is_asked(hub: Hub, tmp_path: Path) -> None:
    file = replace(hub.keep(BODY), size_bytes=10**15)
    with pytest.raises(Unavailable, match=r"GB free; 1000000\.0 GB are still to be downloaded"):
        check_room(tmp_path, [file])
    with pytest.raises(Unavailable):
        pull(tmp_path, [file], ways(hub))
    assert hub.asked == []


def test_progress_tells_bytes_there_and_in_all(hub: Hub, tmp_path: Path) -> None:
    file = hub.keep(BODY)
    heard: list[tuple[str, int, int]] = []
    pull(tmp_path, [file], ways(hub), lambda *told: heard.append(told))
    assert heard[-1] == (file.path, len(BODY), len(BODY))
    assert [done for _, done, _ in heard] == sorted(done for _, done, _ in heard)


def test_a_server_that_asks_for_patience_gets_it(hub: Hub, tmp_path: Path) -> None:
    file = hub.keep(BODY)
    hub.faults[file.path] = [status(429, Retry_After=1)]
    began = time.monotonic()
    assert one(tmp_path, file, ways(hub, max_pause_s=5.0)).state == "fetched"
    assert time.monotonic() - began >= 1
