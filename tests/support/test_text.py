"""Texts as they may be shown anywhere."""

from __future__ import annotations

import pytest

from support.text import cell


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_cell_begins_like_a_formula(text: str) -> None:
    assert cell(text).startswith("'")
    assert cell("plain") == "plain"
