from __future__ import annotations

import socket
from pathlib import Path

import pytest
import requests

from tests.api.program import Api

VIDEO = bytes(range(256)) * 40


@pytest.fixture
def video(api: Api) -> str:
    folder = api.data_dir / "outputs" / "avatar"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "j1.mp4").write_bytes(VIDEO)
    (folder / "j1.json").write_text("{}")
    return "/outputs/avatar/j1.mp4"


def test_a_video_is_sent_whole_with_its_type(api: Api, video: str) -> None:
    answer = api.get(video)
    assert (answer.status_code, answer.content) == (200, VIDEO)
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "first", "last"), [("bytes=100-199", 100, 199), ("bytes=-10", 10230, 10239), ("bytes=5-", 5, 10239)]
)
def test_a_part_of_a_video_is_sent(api: Api, video: str, asked: str, first: int, last: int) -> None:
    answer = api.get(video, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, VIDEO[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(VIDEO)}"


def test_a_range_beyond_the_end_is_refused(api: Api, video: str) -> None:
    answer = api.get(video, headers={"Range": "bytes=99999-"})
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{len(VIDEO)}")


def test_a_head_request_and_one_for_what_is_known_get_no_body(api: Api, video: str) -> None:
    head = requests.head(api.url(video), timeout=10)
    known = api.get(video, headers={"If-None-Match": head.headers["ETag"]})
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(VIDEO)), b"")
    assert (known.status_code, known.content) == (304, b"")


def test_many_requests_one_after_another_do_not_use_up_the_places(api: Api, video: str) -> None:
    asked = [{"Range": "bytes=0-0"}, {"Range": "bytes=99999-"}, {}, {"If-None-Match": "*"}] * 5
    assert {api.get(video, headers=headers).status_code for headers in asked} <= {200, 206, 304, 416}
    assert api.get(video).status_code == 200


@pytest.mark.parametrize(
    "path", ["", "nothing.mp4", "avatar", "../jobs.db", "%2e%2e/jobs.db", "avatar/../../jobs.db", "a%00.mp4", "/etc/passwd"]
)
def test_nothing_else_can_be_reached(api: Api, video: str, path: str) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:  # no client that tidies the path up
        client.sendall(f"GET /outputs/{path} HTTP/1.0\r\n\r\n".encode())
        assert client.recv(100).split()[1] in (b"404", b"308")


def test_a_link_out_of_the_folder_is_not_followed(api: Api, video: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_text("secret")
    link = api.data_dir / "outputs" / "link.mp4"
    link.symlink_to(secret)
    folder = api.data_dir / "outputs" / "folder"
    folder.symlink_to(tmp_path)
    assert [api.get(f"/outputs/{name}").status_code for name in ("link.mp4", "folder/secret.mp4")] == [404, 404]
