"""The B2 store against a server that speaks B2, faults included, through an unmodified b2sdk."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from errors import Cancelled, Unavailable
from tests.fakes import b2
from tests.patience import until
from uploader.stores import StoreRefused
from uploader.stores.b2 import ANSWER_S, UPLOAD_TRIES, B2Store


@pytest.fixture
def server() -> Iterator[b2.Store]:
    with b2.serving() as store:
        yield store


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "output.mp4"
    path.write_bytes(b"a video" * 1000)
    return path


def store_at(server: b2.Store, **changes: str) -> B2Store:
    given = {"key_id": server.key_id, "app_key": server.app_key, "bucket": server.bucket, "realm": server.url}
    return B2Store(**{**given, **changes}, part_size_bytes=b2.MIN_PART_BYTES)


def put(store: B2Store, path: Path, name: str = "avatar/outputs/a.mp4") -> str:
    return store.put(path, name, "video/mp4", sha1(path), lambda done, total: None).url


def sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def test_an_object_is_stored_confirmed_and_named_by_the_accounts_own_address(server: b2.Store, video: Path) -> None:
    store = store_at(server)
    store.check()
    assert put(store, video) == f"{server.url}/file/videos/avatar/outputs/a.mp4"
    assert server.objects() == {"avatar/outputs/a.mp4": (7000, sha1(video))}
    assert server.versions["avatar/outputs/a.mp4"].content_type == "video/mp4"


def test_a_file_that_cannot_be_read_is_not_the_stores_fault(server: b2.Store, video: Path) -> None:
    store = store_at(server)
    with pytest.raises(Unavailable, match="from this machine's disk: it is gone"):
        store.put(video, "a.mp4", "video/mp4", sha1(video), lambda done, total: video.unlink(missing_ok=True))


def test_a_large_file_goes_in_parts_and_is_confirmed_whole(server: b2.Store, tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(bytes(range(256)) * 4000)
    put(store_at(server), path)
    assert server.objects()["avatar/outputs/a.mp4"] == (path.stat().st_size, sha1(path))
    assert server.calls.count("upload_part") > 1


@pytest.mark.parametrize("fault", ["503", "cut", "expired"])
def test_a_fault_that_passes_does_not_cost_the_upload(server: b2.Store, video: Path, fault: str) -> None:
    server.next_faults(fault)
    put(store_at(server), video)
    assert server.objects()["avatar/outputs/a.mp4"][1] == sha1(video)


def test_an_upload_whose_answer_was_lost_is_not_sent_again_by_the_next_try(server: b2.Store, video: Path) -> None:
    server.next_faults(*["lose_answer"] * 5)
    with pytest.raises(Unavailable):
        put(store_at(server), video)
    sent = server.calls.count("upload_file")
    put(store_at(server), video)
    assert server.calls.count("upload_file") == sent


def test_a_store_that_says_yes_and_keeps_nothing_is_found_out(server: b2.Store, video: Path) -> None:
    server.next_faults("lie")
    with pytest.raises(Unavailable, match="holds nothing"):
        put(store_at(server), video)


def test_a_name_that_holds_other_bytes_gets_the_new_ones(server: b2.Store, video: Path) -> None:
    put(store_at(server), video)
    video.write_bytes(b"another round")
    put(store_at(server), video)
    assert server.objects()["avatar/outputs/a.mp4"] == (13, sha1(video))


def test_a_failed_large_upload_leaves_nothing_unfinished_on_the_server(server: b2.Store, tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(bytes(1_000_000))
    server.faults(p_503=1.0)
    with pytest.raises(Unavailable):
        put(store_at(server), path)
    assert server.large == {}


def test_a_cancel_ends_the_upload_and_what_was_begun(server: b2.Store, tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(bytes(1_000_000))
    server.pause_s = 0.3

    def cancel(done: int, total: int) -> None:
        if server.large:
            raise Cancelled("not wanted")

    with pytest.raises(Cancelled, match="not wanted"):
        store_at(server).put(path, "a.mp4", "video/mp4", sha1(path), cancel)
    until(lambda: not server.large)
    assert server.objects() == {}


@pytest.mark.parametrize("call", ["upload_file", "b2_get_upload_url", "b2_authorize_account"])
def test_a_cancel_is_seen_although_the_store_is_silent(server: b2.Store, video: Path, call: str) -> None:
    server.mute = {call}

    def cancel(done: int, total: int) -> None:
        if call in server.calls:
            raise Cancelled("not wanted")

    began = time.monotonic()
    with pytest.raises(Cancelled):
        store_at(server).put(video, "a.mp4", "video/mp4", sha1(video), cancel)
    assert time.monotonic() - began < ANSWER_S / 2  # not b2sdk's time limit ended it


def test_pauses_between_tries_are_left_to_the_caller(server: b2.Store, video: Path) -> None:
    server.faults(p_503=1.0)
    with pytest.raises(Unavailable):
        put(store_at(server), video)
    assert server.calls.count("upload_file") == UPLOAD_TRIES


def test_what_a_dead_process_left_of_this_name_is_cancelled_and_nothing_else(server: b2.Store, tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(bytes(1_000_000))
    for file_id, name in (("dead", "a.mp4"), ("a neighbour's", "a.mp4.mp4")):
        server.large[file_id] = b2.Large(file_id, name, "video/mp4", {"large_file_sha1": "0" * 40})
    put(store_at(server), path, "a.mp4")
    server.faults(p_503=1.0)
    with pytest.raises(Unavailable):
        put(store_at(server), path, "b.mp4")
    assert list(server.large) == ["a neighbour's"]


def test_a_full_account_says_so(server: b2.Store, video: Path) -> None:
    server.next_faults("cap")
    with pytest.raises(Unavailable, match="cap is reached"):
        put(store_at(server), video)


@pytest.mark.parametrize(
    ("changes", "variable"),
    [({"app_key": "K00-wrong-secret"}, "B2_APP_KEY"), ({"bucket": "nobodys"}, "B2_BUCKET_NAME=nobodys")],
)
def test_bad_credentials_are_refused_with_the_variable_and_never_shown(
    server: b2.Store, changes: dict[str, str], variable: str
) -> None:
    with pytest.raises(StoreRefused) as refused:
        store_at(server, **changes).check()
    assert variable in str(refused.value)
    assert "wrong-secret" not in str(refused.value)


@pytest.mark.parametrize(("capability", "word"), [("writeFiles", "no write permission"), ("readFiles", "no read permission")])
def test_a_key_that_may_not_do_what_is_needed_is_refused_at_start(server: b2.Store, capability: str, word: str) -> None:
    server.capabilities.remove(capability)
    with pytest.raises(StoreRefused, match=f"B2_APP_KEY.*{word}"):
        store_at(server).check()


def test_a_key_that_may_only_read_and_write_is_enough(server: b2.Store, tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(bytes(1_000_000))
    server.capabilities = ["listBuckets", "readFiles", "writeFiles"]
    put(store_at(server), path)
    assert server.objects()["avatar/outputs/a.mp4"] == (1_000_000, sha1(path))


def test_a_page_in_the_stores_place_is_not_taken_for_it(server: b2.Store) -> None:
    server.page = b"<html>please log in</html>"
    with pytest.raises(Unavailable, match="has no B2 API"):
        store_at(server).check()


def test_a_store_that_is_down_may_come_back(video: Path) -> None:
    down = B2Store(key_id="k", app_key="a", bucket="b", realm="http://127.0.0.1:9")
    with pytest.raises(Unavailable):
        down.check()


@pytest.mark.parametrize("name", ["a b.mp4", "ümläut.mp4", "50%.mp4", "a+b.mp4"])
def test_odd_names_make_links_that_work(server: b2.Store, video: Path, name: str) -> None:
    import urllib.request

    url = put(store_at(server), video, name)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == video.read_bytes()


def test_the_sidecar_is_json(server: b2.Store) -> None:
    store_at(server).put_json("a.json", {"frames": 3})
    assert server.versions["a.json"].content_type == "application/json"
