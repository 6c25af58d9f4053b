"""`admin.access`: what is counted of those who want to come in. Log-ins themselves are in test_security.py."""

from __future__ import annotations

from admin.access import Refusals


def test_of_an_hours_refusals_the_first_have_a_row_and_then_fewer_and_fewer() -> None:
    refusals = Refusals()
    rows = {number: said for number in range(1, 3601) if (said := refusals.said(number - 1.0)) is not None}  # one a second
    assert list(rows) == [*range(1, 11), 20, 40, 80, 160, 320, 640, 1280, 2560]
    assert (rows[1], rows[20]) == ("refused", "refused, as were 19 others within the hour")
    assert refusals.said(3600.0) == "refused"
