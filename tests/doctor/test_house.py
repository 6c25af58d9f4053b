"""The worker's own house, as it is seen."""

from __future__ import annotations

import settings
from doctor import house
from doctor.finding import Situation
from supervision import Program


def test_a_program_that_will_not_come_by_itself_fails() -> None:
    up = Program(name="api", state="RUNNING", pid=7, up_s=5.0)
    down = Program(name="inference", state="FATAL", pid=None, up_s=0.0, why="Exited too quickly")
    now = Situation(settings=settings.load({"ENGINE": "preview"}), cards=[], programs=[up, down])
    (found,) = house.programs(now)
    assert (found.name, found.level, found.said) == ("inference", "fail", "fatal: Exited too quickly")
    assert found.do == "worker logs inference"
    now = Situation(settings=settings.load({"ENGINE": "preview"}), cards=[], programs=[up])
    assert [each.said for each in house.programs(now)] == ["running: api"]
