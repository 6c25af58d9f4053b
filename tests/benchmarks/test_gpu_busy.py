"""The busy share is the driver's, in a process of its own that sees a made-up driver library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from settings import child_environment
from tests.fakes import nvml

#: Prints the readings of a second: of the card asked for, and of one that is not there.
CHILD = """
import json, sys, time
from benchmarks import gpu_busy
with gpu_busy.sampled(sys.argv[1]) as found, gpu_busy.sampled("GPU-none") as nothing:
    time.sleep(1)
print(json.dumps([found, nothing]))
"""


@pytest.mark.skipif(nvml.compiler() is None, reason="needs a C compiler")
def test_the_busy_share_is_the_drivers_of_that_card(tmp_path: Path) -> None:
    library, state = nvml.build(tmp_path), tmp_path / "gpu"
    nvml.write_state(state, {"count": 2, "0.utilization_gpu": 7, "1.utilization_gpu": 93, "1.uuid": "GPU-second"})
    environment = child_environment(**nvml.environment(library, state))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "GPU-second"], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    found, nothing = json.loads(done.stdout)
    assert set(found) == {93}
    assert nothing == []
