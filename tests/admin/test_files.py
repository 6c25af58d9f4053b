"""Videos on the page: in part, of the right kind, from the job's own place and no other."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import requests

from admin import files
from jobqueue import spool
from tests.admin.program import Admin, add_done
from tests.patience import PATIENCE_S, until


@pytest.fixture(scope="module", autouse=True)
def job(admin: Admin) -> Path:
    add_done(admin.queue, admin.data_dir, "j1")
    return spool.folder(admin.data_dir, "j1")


def get(admin: Admin, browser: requests.Session, kind: str, job_id: str = "j1", **headers: str) -> requests.Response:
    return browser.get(f"{admin.url}/jobs/{job_id}/files/{kind}", headers=headers, timeout=PATIENCE_S)


@pytest.mark.parametrize(("kind", "type_"), [("output", "video/mp4"), ("video", "video/mp4"), ("audio", "audio/wav")])
def test_files_are_whole_and_named_by_their_content(admin: Admin, browser: requests.Session, kind: str, type_: str) -> None:
    answer = get(admin, browser, kind)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == type_
    assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    path = spool.output_file(admin.data_dir, "j1") if kind == "output" else spool.input_file(admin.data_dir, "j1", kind)
    assert answer.content == path.read_bytes()


def test_a_part_is_sent_as_a_part(admin: Admin, browser: requests.Session, job: Path) -> None:
    whole = (job / "output.mp4").read_bytes()
    answer = get(admin, browser, "output", Range="bytes=10-19")
    assert (answer.status_code, answer.content) == (206, whole[10:20])
    assert answer.headers["Content-Range"] == f"bytes 10-19/{len(whole)}"
    assert get(admin, browser, "output", Range=f"bytes={len(whole)}-").status_code == 416
    assert get(admin, browser, "output", **{"If-None-Match": answer.headers["ETag"]}).status_code == 304


def test_a_player_gets_a_large_video_piece_by_piece_and_a_download_all_of_it(admin: Admin, browser: requests.Session) -> None:
    """A player that is paused in the middle of a long answer would keep one of the few places."""
    add_done(admin.queue, admin.data_dir, "heavy")
    content = os.urandom(files.PIECE * 2 + 5)
    spool.output_file(admin.data_dir, "heavy").write_bytes(content)
    seen = b""
    while len(seen) < len(content):
        part = get(admin, browser, "output", job_id="heavy", Range=f"bytes={len(seen)}-")
        assert part.status_code == 206
        last = min(len(seen) + files.PIECE, len(content)) - 1
        assert part.headers["Content-Range"] == f"bytes {len(seen)}-{last}/{len(content)}"
        seen += part.content
    assert seen == content
    assert get(admin, browser, "output", job_id="heavy", Range="bytes=-7").content == content[-7:]
    rest = get(admin, browser, "output?download=1", job_id="heavy", Range="bytes=9-")
    assert rest.content == content[9:]
    assert rest.headers["Content-Disposition"] == "attachment"


def test_a_place_is_given_back_whatever_became_of_the_answer(admin: Admin, browser: requests.Session) -> None:
    for asked in ("bytes=0-1", "bytes=999999999-", "nonsense", "bytes=0-"):
        for _ in range(files.MAX_READERS + 1):
            assert get(admin, browser, "output", Range=asked).status_code in (200, 206, 416)


@pytest.mark.parametrize("kind", ["image", "../jobs.db", "..%2f..%2fjobs.db", "output.mp4", "", "admin_token"])
def test_only_known_kinds_of_known_jobs_are_sent(admin: Admin, browser: requests.Session, kind: str) -> None:
    assert get(admin, browser, kind).status_code == 404
    assert get(admin, browser, "output", job_id="nobody").status_code == 404


def test_a_link_is_never_followed(admin: Admin, browser: requests.Session, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    add_done(admin.queue, admin.data_dir, "linked")
    output = spool.output_file(admin.data_dir, "linked")
    output.unlink()
    output.symlink_to(secret)
    assert get(admin, browser, "output", job_id="linked").status_code == 404
    add_done(admin.queue, admin.data_dir, "moved")
    folder = spool.folder(admin.data_dir, "moved")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert get(admin, browser, "output", job_id="moved").status_code == 404


def test_a_pipe_or_a_folder_is_not_a_file(admin: Admin, browser: requests.Session) -> None:
    for job_id, make in (("piped", os.mkfifo), ("foldered", os.mkdir)):
        add_done(admin.queue, admin.data_dir, job_id)
        output = spool.output_file(admin.data_dir, job_id)
        output.unlink()
        make(output)
        assert get(admin, browser, "output", job_id=job_id).status_code == 404


def test_a_strangers_page_is_handed_over_and_never_shown(admin: Admin, browser: requests.Session) -> None:
    add_done(admin.queue, admin.data_dir, "page")
    spool.input_file(admin.data_dir, "page", "video_url").write_text("<script>alert(1)</script>")
    answer = get(admin, browser, "video", job_id="page")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == "attachment"


def test_the_finished_video_is_found_in_the_local_store_too(admin: Admin, browser: requests.Session) -> None:
    job = add_done(admin.queue, admin.data_dir, "stored")
    kept = admin.data_dir / "outputs" / "videos" / "stored.mp4"
    kept.parent.mkdir(parents=True)
    spool.output_file(admin.data_dir, "stored").rename(kept)
    assert get(admin, browser, "output", job_id="stored").status_code == 404  # its row names no object
    _name_object(admin, job.id, "videos/stored.mp4")
    assert get(admin, browser, "output", job_id="stored").content == kept.read_bytes()
    _name_object(admin, job.id, "../jobs.db")
    assert get(admin, browser, "output", job_id="stored").status_code == 404


def test_readers_that_stop_reading_leave_room_for_the_page(admin: Admin, browser: requests.Session) -> None:
    add_done(admin.queue, admin.data_dir, "large")
    output = spool.output_file(admin.data_dir, "large")
    with output.open("r+b") as file:
        file.truncate(64 * 1024 * 1024)
    cookie = next(iter(browser.cookies))
    request = f"GET /jobs/large/files/output HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie.name}={cookie.value}\r\n\r\n"
    port = int(admin.url.rsplit(":", 1)[1])
    readers = []
    try:
        for _ in range(files.MAX_READERS):
            reader = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
            reader.sendall(request.encode())
            assert reader.recv(12) == b"HTTP/1.1 200"
            readers.append(reader)
        assert get(admin, browser, "output").status_code == 200  # small: it needs no place
        refused = browser.get(f"{admin.url}/jobs/large/files/output", headers={"Range": "bytes=0-99"}, timeout=PATIENCE_S)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert browser.get(f"{admin.url}/", timeout=PATIENCE_S).status_code == 200
    finally:
        for reader in readers:
            reader.close()
    until(lambda: get(admin, browser, "output").status_code == 200)


def _name_object(admin: Admin, job_id: str, name: str) -> None:
    sql = "update job set result = json_set(result, '$.b2_file_name', ?) where id = ?"
    admin.queue.database.write(lambda connection: connection.execute(sql, (name, job_id)).fetchall())
