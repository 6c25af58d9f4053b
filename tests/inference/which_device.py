"""What inference would compute on here: of a worker that stands alone, of its preview engine, of a worker of a fleet."""

from __future__ import annotations

from errors import EngineFailed
from inference.__main__ import find_device
from settings import load

for name, orchestrator in (("musetalk", {}), ("preview", {}), ("musetalk", {"ORCHESTRATOR_BASE_URL": "http://127.0.0.1:9"})):
    try:
        device, warning = find_device(name, load({"ENGINE": name, **orchestrator}))
        print(f"{device}, {warning}")
    except EngineFailed as error:
        print(f"refused: {error.message}")
