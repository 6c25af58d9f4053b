"""A setting as it may be shown."""

from __future__ import annotations

from pathlib import Path

import pytest

import settings
from support import setting


@pytest.mark.parametrize("value", ["super\nsecret", "tab\there", "bell\x07"])
def test_a_value_of_more_than_one_line_is_refused_without_saying_it(value: str) -> None:
    with pytest.raises(settings.SettingsError) as refused:
        settings.load({"INTERNAL_API_KEY": value})
    said = "INTERNAL_API_KEY: contains a line break or another control character; must be one line of text"
    assert str(refused.value) == said


@pytest.mark.parametrize("value", ["inf", "1e400", "nan"])
@pytest.mark.parametrize("name", ["MAX_INPUT_MB", "DATA_LIMIT_GB", "AVATAR_CACHE_GB", "JOB_TIMEOUT_SEC"])
def test_a_limit_is_a_number(name: str, value: str) -> None:
    with pytest.raises(settings.SettingsError, match=f"{name}={value}: input should be a finite number"):
        settings.load({name: value})


def test_a_setting_says_its_value_source_default_and_meaning(tmp_path: Path) -> None:
    (tmp_path / "worker_id").write_text("kept-name\n")
    (tmp_path / "admin_token").write_text("a token of our own\n")
    environ = {"DATA_DIR": str(tmp_path), "POLL_INTERVAL_SEC": "2", "HTTP_PORT": "8000", "API_TOKEN": "a-very-long-token-x7"}
    rows = {row.name: row for row in setting.all_of(settings.load(environ))}
    assert list(rows) == list(settings.Settings.model_fields)
    poll = rows["POLL_INTERVAL_SEC"]
    assert (poll.value, poll.source, poll.default, poll.differs) == ("2.0", "env", "5", True)
    assert poll.meaning == "Seconds between claims while the worker has capacity."
    assert (rows["HTTP_PORT"].source, rows["HTTP_PORT"].differs) == ("env", False)
    assert (rows["KEEP_DAYS"].source, rows["KEEP_DAYS"].value) == ("default", "7")
    assert (rows["WORKER_ID"].source, rows["WORKER_ID"].value) == ("file worker_id", "kept-name")
    assert (rows["ADMIN_PASSWORD"].source, rows["ADMIN_PASSWORD"].value) == ("file admin_token", "set")
    assert rows["API_TOKEN"].value == "set, ends in x7"
    assert all(row.meaning for row in rows.values())
