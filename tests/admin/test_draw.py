"""Lines and bars as paths."""

from __future__ import annotations

from admin import draw


def test_a_line_goes_from_left_to_right_and_stops_at_a_gap() -> None:
    assert draw.line([0, 50, None, 100], 100) == "M0.0 23.0L33.3 12.0M100.0 1.0"
    assert draw.line([], 100) == draw.line([None, None], 100) == ""
    assert draw.line([5], 0) == "M0.0 1.0h1"
    assert draw.line([-5, 500], 100) == "M0.0 23.0L100.0 1.0"


def test_bars_are_stacked_and_a_failure_is_always_seen() -> None:
    good, bad = draw.bars([(1, 0), (0, 0), (999, 1)], width=30, height=40)
    assert good.count("M") == 2
    assert bad.count("M") == 1
    assert "v-1.5" in bad
    assert draw.bars([]) == ("", "")
