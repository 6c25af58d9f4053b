"""A job handed in by form: files go to disk as they arrive, parameters become what they are, refusals leave nothing behind."""

from __future__ import annotations

import html
import re
import socket
from pathlib import Path
from typing import Any, get_args

import pytest
import requests

from admin import fields
from inference.engines.musetalk import cycle, params
from jobqueue import intake
from operations import incoming
from tests.admin.program import Admin, running
from tests.patience import PATIENCE_S, until

LINKS = {"video_url": "https://media.example/v.mp4", "audio_url": "https://media.example/a.wav"}


def send(admin: Admin, browser: requests.Session, files: dict[str, Any] | None = None, **fields_: str) -> requests.Response:
    data = {"csrf": admin.form_token(browser), **fields_}
    parts = files or {"video_url_file": ("", b"")}
    return browser.post(f"{admin.url}/submit", data=data, files=parts, allow_redirects=False, timeout=PATIENCE_S)


def refusal(answer: requests.Response) -> str:
    assert answer.status_code == 400, answer.text
    found = re.search(r'role="alert">([^<]*)<', answer.text)
    assert found
    return html.unescape(found[1])


def left(admin: Admin) -> list[Path]:
    folder = incoming(admin.data_dir)
    return list(folder.iterdir()) if folder.exists() else []


def test_files_and_links_become_a_job(data_dir: Path) -> None:
    with running(data_dir) as own:
        browser, video = own.log_in(), b"video" * 400_000
        answer = send(own, browser, {"video_url_file": ("face.mp4", video)}, audio_url=LINKS["audio_url"], resolution="256x256")
        assert answer.status_code == 303, answer.text
        job = own.queue.get(answer.headers["Location"].rsplit("/", 1)[1])
        assert job
        kept = Path(job.inputs["video_url"].removeprefix("file://"))
        assert (kept.parent, kept.read_bytes()) == (incoming(data_dir), video)
        assert kept.stat().st_mode & 0o077 == 0
        assert (job.inputs["audio_url"], job.inputs["resolution"], job.source) == (LINKS["audio_url"], "256x256", "local")
        assert left(own) == [kept]
        assert own.control.notes(1)[0]["action"] == "submit"


def test_parameters_become_what_they_are(data_dir: Path) -> None:
    with running(data_dir) as own:
        said = {"version": "1.0", "bbox_shift": "-7", "smooth": "no", "face": "2", "params": '{"left_cheek_width": 80}'}
        answer = send(own, own.log_in(), None, **LINKS, **said)
        job = own.queue.get(answer.headers["Location"].rsplit("/", 1)[1])
        assert job
        assert job.params == {"left_cheek_width": 80, "version": "1.0", "bbox_shift": -7, "smooth": False, "face": 2}
        assert params.read(job.params)


def test_a_fastwan_job_has_its_own_fields(data_dir: Path) -> None:
    with running(data_dir, ENGINE="fastwan") as own:
        said = {"prompt": "she smiles", "num_frames": "81", "seed": "-1", "fit": "auto"}
        answer = send(own, own.log_in(), None, image_url="https://media.example/i.png", **said)
        job = own.queue.get(answer.headers["Location"].rsplit("/", 1)[1])
        assert job
        assert (job.inputs["num_frames"], job.inputs["seed"], job.params) == (81, -1, {"fit": "auto"})


def test_what_the_form_offers_is_what_the_engine_knows() -> None:
    assert {field.name for field in fields.PARAMS["musetalk"]} == set(params.READERS)
    kinds: dict[str, Any] = {"version": params.Version, "fit": params.Fit, "parsing_mode": params.ParsingMode}
    kinds |= {"loop": cycle.Loop, "tail": cycle.Tail, "no_face": params.NoFace}
    offered = {field.name: field for field in fields.PARAMS["musetalk"]}
    for name, kind in kinds.items():
        assert set(offered[name].choices) == set(get_args(kind))
    assert {field.name: set(field.choices) for field in fields.PARAMS["fastwan"]} == {"fit": {"crop", "auto"}}
    without_effect = {"steps", "guidance_scale", "negative_prompt"}
    for shape, own in fields.OWN.items():
        assert {field.name for field in own} | {*intake.LINKS[shape], "musetalk_job_id", "params"} == {
            "musetalk_job_id",
            *intake.LINKS[shape],
            *(set(intake._CHECKS[shape]) - without_effect),
        }
        assert set(intake.LINKS[shape]) <= set(fields.MEDIA)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "video_url: is missing"),
        ({**LINKS, "video_url": "file:///etc/passwd"}, "video_url: must be an http:// or https:// link, or choose a file"),
        ({**LINKS, "audio_url": "/etc/passwd"}, "audio_url: must be an http:// or https:// link, or choose a file"),
        ({**LINKS, "resolution": "<b>big"}, "resolution: must look like 512x512"),
        ({**LINKS, "bbox_shift": "x<b>"}, "bbox_shift: got 'x<b>'; must be a whole number"),
        ({**LINKS, "params": "{"}, "params: is not valid JSON"),
        ({**LINKS, "params": "[1]"}, "params: must be an object"),
        ({**LINKS, "params": "[" * 60_000}, "params: is not valid JSON"),
    ],
)
def test_what_makes_no_sense_is_refused_and_what_was_typed_stays(
    admin: Admin, browser: requests.Session, said: dict[str, str], words: str
) -> None:
    answer = send(admin, browser, {"video_url_file": ("", b"")}, **said)
    assert words in refusal(answer)
    for value in said.values():
        assert html.escape(value, quote=False)[:100] in answer.text.replace("&#34;", '"').replace("&#39;", "'")
    assert admin.queue.counts() == {}
    assert left(admin) == []


def test_a_refused_form_leaves_no_file(admin: Admin, browser: requests.Session) -> None:
    file = {"video_url_file": ("../../evil.mp4", b"video"), "audio_url_file": ("a.wav", b"sound")}
    assert "resolution" in refusal(send(admin, browser, file, resolution="big"))
    assert "both a file and a link" in refusal(send(admin, browser, file, audio_url=LINKS["audio_url"]))
    assert "must be a file of at most" in refusal(
        send(admin, browser, {"video_url_file": ("v.mp4", b"")}, **{"audio_url": LINKS["audio_url"]})
    )
    assert left(admin) == []


def test_a_file_that_is_too_large_is_refused(data_dir: Path) -> None:
    with running(data_dir, MAX_INPUT_MB="1") as own:
        browser = own.log_in()
        file = {"video_url_file": ("v.mp4", b"x" * 1_200_000), "audio_url_file": ("a.wav", b"sound")}
        assert "video_url: 1.2 MB; must be a file of at most 1 MB" in refusal(send(own, browser, file))
        much = send(own, browser, {"video_url_file": ("v.mp4", b"x" * 4_000_000)})
        assert much.status_code == 413
        assert "The request is larger than this page accepts (3.0 MB)" in html.unescape(much.text)
        assert left(own) == []


def test_a_form_that_is_not_ours_leaves_no_file(admin: Admin, browser: requests.Session) -> None:
    file = {"video_url_file": ("v.mp4", b"video")}
    for data, headers in (({"csrf": "0" * 64}, {}), ({"csrf": "x"}, {"Origin": "https://evil.example"})):
        answer = browser.post(f"{admin.url}/submit", data=data, files=file, headers=headers, timeout=PATIENCE_S)
        assert answer.status_code == 403
    nobody = requests.post(
        f"{admin.url}/submit", files=file, headers={"Origin": admin.url}, allow_redirects=False, timeout=PATIENCE_S
    )
    assert nobody.status_code == 303
    assert left(admin) == []


def test_an_upload_that_breaks_off_leaves_no_file(admin: Admin, browser: requests.Session) -> None:
    host, port = admin.url.removeprefix("http://").split(":")
    cookie = "; ".join(f"{found.name}={found.value}" for found in browser.cookies)
    head = (
        f"POST /submit HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {admin.url}\r\nCookie: {cookie}\r\nContent-Length: 900000\r\n"
    )
    part = '--b\r\nContent-Disposition: form-data; name="video_url_file"; filename="v.mp4"\r\n\r\n'
    with socket.create_connection((host, int(port))) as peer:
        peer.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n{part}".encode() + b"x" * 300_000)
        until(lambda: left(admin))
    until(lambda: left(admin) == [])
