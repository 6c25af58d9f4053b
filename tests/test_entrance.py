"""What opens the page is unlike anything that was before, and nobody but its owner may read it."""

from __future__ import annotations

from pathlib import Path

from entrance import ALPHABET, kept_token, login_hash, make_token, new_code


def test_a_token_is_new_each_time_and_its_owners_alone(tmp_path: Path) -> None:
    assert kept_token(tmp_path) is None
    tokens = {make_token(tmp_path) for _ in range(3)}
    assert len(tokens) == 3
    assert kept_token(tmp_path) in tokens
    assert {len(token) for token in tokens} == {32}
    assert [(file.name, file.stat().st_mode & 0o777) for file in tmp_path.iterdir()] == [("admin_token", 0o600)]


def test_an_empty_file_is_no_token(tmp_path: Path) -> None:
    (tmp_path / "admin_token").write_text(" \n")
    assert kept_token(tmp_path) is None


def test_a_code_is_the_same_however_it_is_typed() -> None:
    code = new_code()
    assert set(code.replace("-", "")) <= set(ALPHABET)
    assert login_hash(code) == login_hash(code.lower().replace("-", " ")) != login_hash(new_code())
