"""`worker token` shows and replaces the password that the worker made; one that somebody else keeps it leaves alone."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import requests

from answers import started_file
from entrance import kept_token, make_token
from operations import Operator
from settings import load
from tests.admin import world
from tests.admin.program import running
from tests.cli.conftest import Run
from tests.patience import PATIENCE_S


def test_the_token_is_shown_on_demand_and_that_is_noted(worker: Run, operator: Operator, folder: Path) -> None:
    none = worker("token", "show")
    assert (none.returncode, none.stdout) == (4, "")
    assert "no token yet" in none.stderr
    token = make_token(folder / "data")
    assert worker("token", "show").stdout == token + "\n"
    assert json.loads(worker("token", "show", "--json").stdout) == {"token": token}
    assert [note["result"] for note in operator.control.notes()] == ["done", "done", "nothing to do"]
    assert operator.control.notes()[0]["action"] == "show the token"
    assert token not in str(operator.control.notes())


def test_a_running_page_takes_the_new_token_at_once_and_the_old_one_no_more(
    worker: Run, operator: Operator, folder: Path
) -> None:
    data_dir = folder / "data"
    with running(data_dir, ADMIN_PASSWORD="") as page:
        old = kept_token(data_dir) or ""
        browser, link = page.log_in(old), operator.login_link(page.url)
        done = worker("token", "rotate")
        assert (done.returncode, done.stderr) == (0, "")
        new = worker("token", "show").stdout.strip()
        assert new != old
        assert old not in done.stdout
        assert new not in done.stdout
        assert (data_dir / "admin_token").stat().st_mode & 0o777 == 0o600
        assert browser.get(f"{page.url}/", allow_redirects=False, timeout=PATIENCE_S).status_code == 303
        assert page.control.sessions() == []
        for secret in (old, link.rsplit("=")[1]):
            refused = requests.post(f"{page.url}/login", {"password": secret}, headers={"Origin": page.url}, timeout=PATIENCE_S)
            assert refused.status_code == 403
        page.log_in(new)
        for secret, status in ((old, 401), (new, 200)):
            head = {"Authorization": f"Bearer {secret}"}
            assert requests.get(f"{page.url}/api/v1/status", headers=head, timeout=PATIENCE_S).status_code == status
    notes = [(note["actor"].split(":")[0], note["action"], note["result"]) for note in operator.control.notes(20, "replace")]
    assert notes == [("cli", "replace the token", "done")]


def test_a_password_of_the_environment_is_left_alone(worker: Run, operator: Operator, folder: Path) -> None:
    token = make_token(folder / "data")
    for action in ("show", "rotate"):
        done = worker("token", action, ADMIN_PASSWORD="a long password")
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr.startswith("the page's password is ADMIN_PASSWORD in the worker's environment: change it there")
        assert "a long password" not in done.stderr
    assert kept_token(folder / "data") == token
    assert operator.control.notes() == []


def test_a_shell_without_the_workers_variables_is_told_of_its_password_too(
    worker: Run, operator: Operator, folder: Path
) -> None:
    data_dir = folder / "data"
    with world.supervisord(data_dir, {"admin": "steady.py"}):
        started_file(load({"DATA_DIR": str(data_dir)})).write_text(json.dumps({"page_secret": "ADMIN_PASSWORD"}))
        assert worker("token", "rotate", TMPDIR=tempfile.gettempdir()).returncode == 5
