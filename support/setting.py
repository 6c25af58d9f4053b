"""The settings in a form that may be shown: value, source, default, meaning; a secret only as set or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import settings as settings_module
from settings import Settings

#: The files under DATA_DIR with generated values.
FILES = {"WORKER_ID": "worker_id", "ADMIN_PASSWORD": "admin_token"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    name: str
    value: str
    #: env, file or default.
    source: str
    default: str
    meaning: str
    #: Whether it differs from the default.
    differs: bool


def all_of(settings: Settings) -> list[Setting]:
    """Every setting, in the order of docs/settings.md."""
    values, defaults, meanings = settings_module.shown(settings), Settings.model_fields, settings_module.meanings()
    return [_setting(settings, name, values[name], defaults[name].default, meanings.get(name, "")) for name in values]


def _setting(settings: Settings, name: str, value: str, default: Any, meaning: str) -> Setting:
    given = name in settings.model_fields_set
    file = settings.data_dir / FILES[name] if name in FILES else None
    kept = not given and file is not None and file.is_file()
    if kept:
        value = "set" if name in settings_module.SECRETS else settings.worker_id
    return Setting(
        name=name,
        value=value,
        source="env" if given else f"file {FILES[name]}" if kept else "default",
        default="" if default in (None, ()) else str(default),
        meaning=meaning,
        differs=given and getattr(settings, name) != default,
    )
