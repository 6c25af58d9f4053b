"""On Vast the outside's address of each port is said, and what should not be open there."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.conftest import Run

BASE = {"ENGINE": "preview", "DATA_LIMIT_GB": "0.1", "PUBLIC_IPADDR": "192.0.2.7", "HTTP_PORT": "18000", "ADMIN_PORT": "18080"}


def findings(worker: Run, **variables: str) -> list[dict[str, Any]]:
    data = json.loads(worker("doctor", "--json", **(BASE | variables)).stdout)
    return [check for check in data["checks"] if check["name"] == "Vast"]


def test_nothing_is_said_of_vast_elsewhere(worker: Run) -> None:
    assert findings(worker) == []


def test_each_mapped_port_is_said_as_the_internet_has_it(worker: Run) -> None:
    ports = {"VAST_TCP_PORT_18000": "40123", "VAST_TCP_PORT_22": "40122", "API_TOKEN": "a-long-token-of-mine"}
    (found,) = findings(worker, **ports)
    assert found["level"] == "ok"
    assert found["lines"] == [
        "port 22 is http://192.0.2.7:40122",
        "port 18000 (jobs and probes) is http://192.0.2.7:40123",
    ]
    (v6,) = findings(worker, **ports, PUBLIC_IPADDR="2001:db8::7")
    assert v6["lines"][0] == "port 22 is http://[2001:db8::7]:40122"


def test_jobs_from_anybody_and_a_password_in_the_open_are_warned_about(worker: Run) -> None:
    ports = {"VAST_TCP_PORT_18000": "40123", "VAST_TCP_PORT_18080": "40180"}
    _, jobs, inside = findings(worker, **ports)
    assert (jobs["level"], jobs["said"]) == ("warn", "anyone can submit jobs at http://192.0.2.7:40123/generate")
    assert (inside["level"], "ssh -L 18080:127.0.0.1:18080" in inside["said"]) == ("ok", True)
    _, page = findings(worker, **ports, ADMIN_HOST="0.0.0.0", API_TOKEN="a-long-token-of-mine")
    assert (page["level"], page["said"].split(" ")[0]) == ("warn", "http://192.0.2.7:40180")
    behind = {"ADMIN_HOST": "0.0.0.0", "ADMIN_TRUSTED_PROXY": "1", "API_TOKEN": "a-long-token-of-mine"}
    assert len(findings(worker, **ports, **behind)) == 1
