"""What the settings were at the last start, as they may be shown; and what of a job may be named from afar."""

from __future__ import annotations

import json
from typing import Any

import settings as settings_module
from jobqueue import clock
from jobqueue.database import Database
from settings import Settings


def remember(settings: Settings, database: Database) -> None:
    """Keep how the settings are shown now; if they differ from what is kept, that becomes what was before."""
    now = json.dumps(settings_module.shown(settings))
    kept = _kept(database)
    if kept.get("settings now", {}).get("value") == now:
        return

    def statements(connection: Any) -> None:
        sql = "insert or replace into control values (?, ?, ?)"
        if "settings now" in kept:
            connection.execute(sql, ("settings before", kept["settings now"]["value"], kept["settings now"]["updated_at"]))
        connection.execute(sql, ("settings now", now, clock.utc()))

    database.write(statements)


def changes(database: Database) -> tuple[str | None, list[tuple[str, str, str]]]:
    """Since when the settings are as they are, and what was otherwise before: name, old and new value."""
    kept = _kept(database)
    if not {"settings before", "settings now"} <= kept.keys():
        return None, []
    old, new = (json.loads(kept[name]["value"]) for name in ("settings before", "settings now"))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return kept["settings now"]["updated_at"], [(name, old.get(name, "none"), new.get(name, "none")) for name in names]


def only_links(payload: dict[str, Any]) -> dict[str, Any]:
    """A payload without paths of files: who asks from afar may name no file of this machine. Raises ValueError."""
    for name, value in payload.items():
        if name.endswith("_url") and value and not str(value).startswith(("http://", "https://")):
            raise ValueError(f"{name}: must be an http:// or https:// link")
    return payload


def _kept(database: Database) -> dict[str, Any]:
    rows = database.read("select name, value, updated_at from control where name in ('settings now', 'settings before')")
    return {row["name"]: row for row in rows}
