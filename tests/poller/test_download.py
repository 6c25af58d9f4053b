"""`poller.download` against servers on loopback that misbehave in every way a link can."""

from __future__ import annotations

import errno
import gc
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from errors import Cancelled, InvalidInput, JobError, Unavailable, Unreachable
from poller.download import Downloaded, download
from poller.transfer import Limits, Transfer
from settings import child_environment
from tests.fakes.file_server import Answer, FileServer, Handler, chunked, drip, redirect, silence, status, whole

BODY = os.urandom(300_000)
LIMITS = Limits(max_bytes=1_000_000, tries=3, total_s=30, pause_s=0.01, allow_private=True)
SECRET = "/clip.mp4?X-Signature=s3cr3t"


def get(url: str, target: Path, limits: Limits = LIMITS, go_on: Callable[[], None] = lambda: None) -> Downloaded:
    return download(url, target, limits, field="video_url", go_on=go_on)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "video"


def left(target: Path) -> list[str]:
    return sorted(file.name for file in target.parent.iterdir())


# ---- good answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_file_comes_whole_and_nothing_else_stays(target: Path, host: str) -> None:
    with FileServer([whole(BODY)], host) as server:
        got = get(server.url(), target)
    assert target.read_bytes() == BODY
    assert left(target) == ["video"]
    assert (got.size_bytes, got.received_bytes) == (len(BODY), len(BODY))
    assert got.speed_mbps > 0
    assert server.seen[0].headers["Accept-Encoding"] == "identity"
    assert server.seen[0].headers["Host"] in server.url()


def test_a_file_without_a_told_length_comes_whole(target: Path) -> None:
    with FileServer([chunked([BODY[:1000], BODY[1000:]])]) as server:
        assert get(server.url(), target).size_bytes == len(BODY)
    assert target.read_bytes() == BODY


def test_redirects_are_followed_and_relative_ones_too(target: Path) -> None:
    with FileServer([redirect("/other?a=1"), redirect("third", 307), whole(BODY)]) as server:
        get(server.url("/a/clip"), target)
    assert [seen.path for seen in server.seen] == ["/a/clip", "/other?a=1", "/third"]


def test_proxies_of_the_environment_are_not_used(target: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from poller.download import download\n"
        "from poller.transfer import Limits\n"
        "download(sys.argv[1], Path(sys.argv[2]), Limits(max_bytes=10**6, tries=1, allow_private=True), field='video_url',\n"
        "         go_on=lambda: None)"
    )
    proxy = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
    with FileServer([whole(BODY)]) as server:
        subprocess.run([sys.executable, "-c", program, server.url(), str(target)], env=child_environment(**proxy), check=True)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("bad", [status(404), status(500), redirect("ftp://x/y"), chunked([]), whole(BODY)])
def test_a_download_that_fails_leaves_neither_connection_nor_memory_behind(target: Path, bad: Answer) -> None:
    def transfers() -> int:
        gc.collect()
        return sum(type(kept) is Transfer for kept in gc.get_objects())

    limits, before = replace(LIMITS, tries=2, max_bytes=1000), transfers()
    with FileServer([bad]) as server:
        for _ in range(5):
            with pytest.raises(JobError):
                get(server.url(), target, limits)
        assert transfers() == before
        assert not [line for line in psutil.Process().net_connections() if line.raddr and line.raddr.port == server.port]


# ---- broken connections ----------------------------------------------------------------------------------------------


def test_a_cut_connection_is_resumed_where_it_broke(target: Path) -> None:
    with FileServer([whole(BODY, cut_after=100_000), whole(BODY)]) as server:
        got = get(server.url(), target)
    assert target.read_bytes() == BODY
    assert (server.seen[1].headers["Range"], server.seen[1].headers["If-Range"]) == ("bytes=100000-", '"v1"')
    assert got.received_bytes == len(BODY)


def test_a_file_that_changed_in_between_starts_again(target: Path) -> None:
    other = os.urandom(200_000)
    with FileServer([whole(BODY, cut_after=100_000), whole(other, etag='"v2"')]) as server:
        assert get(server.url(), target).size_bytes == len(other)
    assert target.read_bytes() == other


def test_a_server_that_ignores_range_starts_again(target: Path) -> None:
    with FileServer([whole(BODY, cut_after=100_000), whole(BODY, ranges=False)]) as server:
        get(server.url(), target)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_without_a_strong_mark_of_the_version_nothing_is_continued(target: Path, etag: str | None) -> None:
    with FileServer([whole(BODY, etag=etag, cut_after=100_000), whole(BODY, etag=etag)]) as server:
        get(server.url(), target)
    assert server.seen[1].headers["Range"] is None
    assert target.read_bytes() == BODY


def test_the_date_of_a_file_serves_as_its_mark(target: Path) -> None:
    date = "Mon, 01 Jan 2024 00:00:00 GMT"

    def half(handler: Handler) -> None:
        handler.head(200, Content_Length=len(BODY), Last_Modified=date)
        handler.wfile.write(BODY[:1000])
        handler.hang_up()

    with FileServer([half, whole(BODY, etag=date)]) as server:
        get(server.url(), target)
    assert server.seen[1].headers["If-Range"] == date
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(
    "content_range", ["bytes 0-299999/300000", "bytes 100000-299999/400000", "bytes 99999-299998/300000", "lines 1-2/3", ""]
)
def test_the_wrong_part_of_a_file_is_refused_and_the_file_begun_anew(target: Path, content_range: str) -> None:
    def wrong(handler: Handler) -> None:
        handler.head(206, Content_Length=200_000, Content_Range=content_range, ETag='"v1"')
        handler.wfile.write(b"x" * 200_000)

    with FileServer([whole(BODY, cut_after=100_000), wrong, whole(BODY)]) as server:
        get(server.url(), target)
    assert server.seen[2].headers["Range"] is None
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("said", ["bytes 0-299999/300000", "bytes 100000-299999/300000"])
def test_a_part_without_a_length_is_held_to_its_range(target: Path, said: str) -> None:
    def short(handler: Handler) -> None:
        handler.head(206, Transfer_Encoding="chunked", Content_Range=said, ETag='"v1"')
        handler.wfile.write(b"3\r\nxxx\r\n0\r\n\r\n" if said.startswith("bytes 0-") else b"0\r\n\r\n")

    with FileServer([whole(BODY, cut_after=100_000), short, whole(BODY)]) as server:
        get(server.url(), target)
    assert target.read_bytes() == BODY


def test_a_part_that_the_server_cannot_continue_is_begun_anew(target: Path) -> None:
    with FileServer([whole(BODY, cut_after=100_000), status(416, Content_Range="bytes */7"), whole(BODY)]) as server:
        get(server.url(), target)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(
    "bad", [whole(BODY, cut_after=10), chunked([BODY[:10]], ends=False), lambda handler: handler.hang_up(), status(500)]
)
def test_a_link_that_always_breaks_is_unreachable_after_its_tries(target: Path, bad: Answer) -> None:
    with FileServer([bad]) as server, pytest.raises(Unreachable, match=r"^video_url: 127\.0\.0\.1 .*tried 3 times") as raised:
        get(server.url(), target)
    assert len(server.seen) == 3
    assert raised.value.retryable
    assert raised.value.stage == "download"
    assert not target.exists()


def test_tries_that_bring_the_file_forward_are_not_counted(target: Path) -> None:
    body = os.urandom(6 * 2**20)
    with FileServer([whole(body, cut_after=5 * 2**18)]) as server:
        get(server.url(), target, replace(LIMITS, max_bytes=10**7, tries=2))
    assert len(server.seen) == 5
    assert target.read_bytes() == body


def test_a_dead_process_leaves_a_part_that_the_next_goes_on_with(target: Path) -> None:
    with FileServer([whole(BODY, cut_after=100_000), whole(BODY)]) as server:
        with pytest.raises(Unreachable, match="tried once"):
            get(server.url(), target, replace(LIMITS, tries=1))
        assert left(target) == ["video.part", "video.part.json"]
        got = get(server.url(), target)
    assert (got.size_bytes, got.received_bytes) == (len(BODY), len(BODY) - 100_000)
    assert target.read_bytes() == BODY


def test_the_part_of_another_link_is_not_continued(target: Path) -> None:
    with FileServer([whole(BODY, cut_after=100_000), whole(BODY)]) as server:
        with pytest.raises(Unreachable):
            get(server.url("/one"), target, replace(LIMITS, tries=1))
        get(server.url("/two"), target)
    assert server.seen[1].headers["Range"] is None
    assert target.read_bytes() == BODY


def test_a_part_that_was_whole_already_only_gets_its_name(target: Path) -> None:
    with FileServer([whole(BODY, cut_after=100_000)]) as server:
        with pytest.raises(Unreachable):
            get(server.url(), target, replace(LIMITS, tries=1))
        target.with_name("video.part").write_bytes(BODY)
        assert get(server.url(), target).received_bytes == 0
        assert len(server.seen) == 1
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"link": 1, "note": {"x": 1}}', b"\xff"])
def test_a_note_that_cannot_be_read_means_a_fresh_start(target: Path, note: bytes) -> None:
    target.with_name("video.part").write_bytes(b"rubbish")
    target.with_name("video.part.json").write_bytes(note)
    with FileServer([whole(BODY)]) as server:
        get(server.url(), target)
    assert target.read_bytes() == BODY
    assert left(target) == ["video"]


# ---- answers that are no file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451, 204, 300])
def test_a_refusal_is_the_senders_fault_at_once(target: Path, code: int) -> None:
    with FileServer([status(code)]) as server, pytest.raises(InvalidInput, match=rf"video_url: 127.0.0.1 answered {code} "):
        get(server.url(), target)
    assert len(server.seen) == 1


def test_a_dead_link_is_called_dead(target: Path) -> None:
    with FileServer([status(404)]) as server, pytest.raises(InvalidInput, match="404 Not Found; the link is dead or expired"):
        get(server.url(), target)


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_passing_fault_is_tried_again(target: Path, code: int) -> None:
    with FileServer([status(code), whole(BODY)]) as server:
        get(server.url(), target)
    assert len(server.seen) == 2


def test_retry_after_is_honoured(target: Path) -> None:
    with FileServer([status(429, Retry_After=1), whole(BODY)]) as server:
        began = time.monotonic()
        get(server.url(), target)
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("said", ["3600", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_retry_after_beyond_the_limit_is_not_waited_for(target: Path, said: str) -> None:
    with FileServer([status(503, Retry_After=said)]) as server, pytest.raises(Unreachable, match="asked to wait"):
        get(server.url(), target)
    assert len(server.seen) == 1


def test_an_empty_file_is_the_senders_fault(target: Path) -> None:
    with FileServer([whole(b"")]) as server, pytest.raises(InvalidInput, match="sent an empty file"):
        get(server.url(), target)
    assert left(target) == []


def test_a_compressed_answer_is_refused(target: Path) -> None:
    def gzip(handler: Handler) -> None:
        handler.head(200, Content_Length=3, Content_Encoding="gzip")

    with FileServer([gzip]) as server, pytest.raises(InvalidInput, match="'gzip'"):
        get(server.url(), target)


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_a_file_that_says_it_is_too_large_is_refused_before_a_byte_is_kept(target: Path) -> None:
    with FileServer([drip(b"xx", 0, length=5_000_000)]) as server, pytest.raises(InvalidInput, match=r"5.0 MB, at most 1 MB"):
        get(server.url(), target)
    assert left(target) == []


def test_a_file_that_turns_out_too_large_is_cut_and_removed(target: Path) -> None:
    with FileServer([chunked([BODY] * 10)]) as server, pytest.raises(InvalidInput, match="is larger, at most 1 MB"):
        get(server.url(), target)
    assert left(target) == []


def test_a_stalled_connection_is_a_broken_one(target: Path) -> None:
    limits = replace(LIMITS, tries=2, window_s=0.5, min_bytes_per_s=1000)
    slow = drip(BODY, 0.05)
    with FileServer([slow, whole(BODY)]) as server:
        get(server.url(), target, limits)
    assert target.read_bytes() == BODY
    with FileServer([slow]) as server, pytest.raises(Unreachable, match="less than 1000 bytes per second"):
        get(server.url(), target.with_name("other"), limits)


def test_the_whole_may_not_take_longer_than_the_limit(target: Path) -> None:
    limits = replace(LIMITS, total_s=0.5)
    with FileServer([drip(BODY, 0.05)]) as server, pytest.raises(Unavailable, match=r"took longer than 0\.5 s"):
        get(server.url(), target, limits)


def test_a_silent_server_is_given_up(target: Path) -> None:
    limits = replace(LIMITS, tries=2, read_timeout_s=0.3)
    with FileServer([silence]) as server, pytest.raises(Unreachable, match=r"was silent for 0.3 s \(tried 2 times\)"):
        get(server.url(), target, limits)


def test_a_redirect_with_an_endless_body_costs_nothing(target: Path) -> None:
    def endless(handler: Handler) -> None:
        handler.head(302, Location="/real", Content_Length=10**12)
        while True:
            handler.wfile.write(b"x" * 65536)

    with FileServer([endless, whole(BODY)]) as server:
        get(server.url(), target)
    assert target.read_bytes() == BODY


def test_redirects_without_end_are_refused(target: Path) -> None:
    with FileServer([redirect("/again")]) as server, pytest.raises(InvalidInput, match="more than 5 redirects"):
        get(server.url(), target)
    assert len(server.seen) == 6


# ---- cancel ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [silence, drip(BODY, 0.05), status(503, Retry_After=20)])
def test_cancel_is_obeyed_long_before_the_server_speaks(target: Path, answer: Answer) -> None:
    with FileServer([answer]) as server:
        asked_at: list[float] = []

        def go_on() -> None:
            if server.seen:
                asked_at.append(time.monotonic())
                raise Cancelled

        with pytest.raises(Cancelled):
            get(server.url(), target, go_on=go_on)
        assert time.monotonic() - asked_at[0] < 5  # a fifth of a second, and a busy machine; the server takes 20
    assert not target.exists()


# ---- where links may lead --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433"])
def test_a_private_host_is_refused_and_never_spoken_to(target: Path, host: str) -> None:
    with FileServer([whole(BODY)]) as server:
        with pytest.raises(InvalidInput, match=f"video_url: {host} is not on the public internet"):
            get(server.url(host=host), target, replace(LIMITS, allow_private=False))
        assert server.seen == []


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://[fd00:ec2::254]/", "http://[::ffff:127.0.0.1]/"])
def test_a_metadata_address_is_refused(target: Path, url: str) -> None:
    with pytest.raises(InvalidInput, match="not on the public internet"):
        get(url, target, replace(LIMITS, allow_private=False))


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://example.com/", "http://user:pw@example.com/", "http://[::1/", "//"]
)
def test_a_redirect_is_held_to_the_same_rules_as_a_link(target: Path, to: str) -> None:
    with FileServer([redirect(to)]) as server, pytest.raises(InvalidInput):
        get(server.url(), target)


def test_a_name_that_does_not_exist_is_a_dead_link(target: Path) -> None:
    offline = False
    try:
        socket.getaddrinfo("no-such-host.invalid", 80)
    except socket.gaierror as error:
        offline = error.errno == socket.EAI_AGAIN
    with pytest.raises(Unavailable if offline else InvalidInput, match=r"^video_url: no-such-host\.invalid "):
        get("http://no-such-host.invalid/clip.mp4", target)


def test_a_refused_connection_is_unreachable(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    refused = os.strerror(errno.ECONNREFUSED).lower()
    with pytest.raises(Unreachable, match=rf"127.0.0.1 could not be reached: {refused} \(tried 3 times\)"):
        get(f"http://127.0.0.1:{port}/", target)


# ---- TLS -------------------------------------------------------------------------------------------------------------


def test_tls_is_asked_for_by_name_and_a_certificate_must_hold(target: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    names: list[str | None] = []
    context.sni_callback = lambda connection, name, _: names.append(name)

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with pytest.raises(ssl.SSLError), connection:
            context.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        with pytest.raises(InvalidInput, match="localhost has an invalid certificate: self") as raised:
            get(f"https://localhost:{server.getsockname()[1]}{SECRET}", target)
        thread.join(10)
    assert names == ["localhost"]
    assert "s3cr3t" not in "".join(traceback.format_exception(raised.value))


# ---- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [status(404), status(500), whole(BODY, cut_after=9), redirect("http://[" + SECRET), silence])
def test_no_message_log_line_or_trace_holds_a_links_query(
    target: Path, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with FileServer([answer]) as server, pytest.raises(JobError) as raised:
        get(server.url(SECRET), target, replace(LIMITS, tries=2, read_timeout_s=0.3))
    said = "".join(traceback.format_exception(raised.value)) + repr(raised.value.details) + caplog.text
    assert "s3cr3t" not in said
    assert "clip.mp4" not in said


def test_a_disk_that_takes_nothing_is_this_workers_fault(target: Path) -> None:
    target.parent.joinpath("video.part").mkdir()
    with FileServer([whole(BODY)]) as server, pytest.raises(Unavailable, match="could not be saved on this worker's disk"):
        get(server.url(), target)
