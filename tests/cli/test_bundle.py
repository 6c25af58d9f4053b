"""`worker bundle` makes what the page makes: shown, masked, and never over somebody's file."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

from operations import Operator
from tests.admin import world
from tests.admin.program import ROOT
from tests.admin.program import running as running_page
from tests.cli.conftest import Run
from tests.cli.test_operate import fail
from tests.jobqueue.test_outbox import RUNNING
from tests.patience import PATIENCE_S

MADE = ["doctor.json", "status.json", "versions.json", "settings.json", "jobs.json", "audit.json"]
TOKEN = "a token that was made here"


def fill(data_dir: Path, operator: Operator) -> None:
    """A queue, a token of the page's own, and a log that says it."""
    (data_dir / "admin_token").write_text(TOKEN + "\n")
    world.say(data_dir, f"log in with {TOKEN}", name="admin")
    operator.pause(f"ask for {TOKEN} or app-key-secret")


def test_a_bundle_is_listed_written_and_holds_no_secret(worker: Run, operator: Operator, folder: Path) -> None:
    fill(folder / "data", operator)
    keys = {"B2_KEY_ID": "key-id-0001", "B2_APP_KEY": "app-key-secret", "B2_BUCKET_NAME": "videos", "ENGINE": "preview"}
    done = worker("bundle", "-o", "b.zip", **keys)
    assert (done.returncode, done.stderr) == (0, "")
    archive = zipfile.ZipFile(folder / "b.zip")
    assert archive.namelist() == [*MADE, "logs/admin.txt"]
    assert [line.split()[-1] for line in done.stdout.splitlines()[:-1]] == archive.namelist()
    assert done.stdout.splitlines()[-1].endswith("packed as b.zip; review it before you send it")
    for name in archive.namelist():
        for secret in (TOKEN, "app-key-secret", "key-id-0001"):
            assert secret not in archive.read(name).decode(), name
    assert stat.S_IMODE((folder / "b.zip").stat().st_mode) == 0o600
    assert json.loads(archive.read("doctor.json"))["checks"]


def test_what_a_server_repeats_of_links_is_left_out(worker: Run, operator: Operator, folder: Path) -> None:
    fail(operator)
    event, _ = operator.outbox.due()[0]
    words = '{"input":"https://files.example/voice.wav?sig=1","loc":"video_url"}'
    operator.outbox.keep(replace(RUNNING, job="job-1", status=422, words=words))
    operator.outbox.again(event, f"progress: HTTP 422: {words}", 60)
    worker("bundle", "-o", "b.zip")
    (job,) = json.loads(zipfile.ZipFile(folder / "b.zip").read("jobs.json"))
    assert job["reports"][0]["words"] == '{"input":"(a link)","loc":"video_url"}'
    assert job["history"][-1]["answer"] == 'progress: HTTP 422: {"input":"(a link)","loc":"video_url"}'
    assert job["history"][0]["answer"] is None


def test_a_list_writes_nothing(worker: Run, operator: Operator, folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    done = worker("bundle", "--list", "--json")
    data = json.loads(done.stdout)
    assert (done.returncode, data["file"], list(data["contents"])) == (0, None, MADE)
    assert all(size > 0 for size in data["contents"].values())
    assert sorted(path.name for path in folder.iterdir()) == before


def test_without_a_name_it_is_called_after_the_day(worker: Run, operator: Operator, folder: Path) -> None:
    done = worker("bundle", "--json")
    (found,) = folder.glob("worker-20*.zip")
    assert json.loads(done.stdout)["file"] == str(found)


def test_nobodys_file_is_written_over(worker: Run, operator: Operator, folder: Path) -> None:
    (folder / "mine.zip").write_text("mine")
    done = worker("bundle", "-o", "mine.zip")
    assert (done.returncode, done.stderr) == (5, "mine.zip: exists already; choose another file with -o\n")
    assert (folder / "mine.zip").read_text() == "mine"
    done = worker("bundle", "-o", "no/where.zip")
    assert (done.returncode, done.stderr.split(" (")[0]) == (5, "no/where.zip: cannot be written")


def test_of_a_folder_without_a_queue_nothing_is_left(worker: Run, folder: Path) -> None:
    done = worker("bundle", "-o", "b.zip")
    assert done.returncode == 1
    assert not (folder / "b.zip").exists()


def test_it_goes_to_standard_output_alone_if_asked_to(operator: Operator, folder: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "DATA_DIR": str(folder / "data"), "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "cli", "bundle", "-o", "-"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, timeout=60, check=False)
    assert zipfile.ZipFile(io.BytesIO(done.stdout)).namelist() == MADE
    assert b"doctor.json" in done.stderr
    refused = subprocess.run([*command, "--json"], cwd=ROOT, env=environ, capture_output=True, timeout=60, check=False)
    assert (refused.returncode, refused.stdout) == (2, b"")


def test_the_page_makes_the_same(worker: Run, operator: Operator, folder: Path) -> None:
    world.say(folder / "data", "all is well")
    with running_page(folder / "data") as page:
        answer = page.log_in().get(f"{page.url}/export/bundle.zip", timeout=PATIENCE_S)
    worker("bundle", "-o", "b.zip")
    there, here = zipfile.ZipFile(io.BytesIO(answer.content)), zipfile.ZipFile(folder / "b.zip")
    assert there.namelist() == here.namelist()
    for name in ("jobs.json", "versions.json", "logs/inference.txt"):
        assert there.read(name) == here.read(name), name
