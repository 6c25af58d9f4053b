"""Which user the commands run as: in a container started as root, everything runs and writes files as WORKER_USER.

This includes commands typed in the container: the worker could not delete files that they left owned by root.
"""

from __future__ import annotations

import contextlib
import os
import pwd

from settings import Settings, SettingsError


def become(settings: Settings) -> None:
    """If this is root and another user is wanted, become that user for good. Raises SettingsError with one line."""
    user = _wanted(settings)
    if user is None:
        return
    try:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    except OSError as error:
        line = f"WORKER_USER={user.pw_name}: root cannot switch to this user here ({error.strerror}); start the container as "
        raise SettingsError(line + f"it (--user {user.pw_name}), or grant it the capabilities SETUID and SETGID") from None


def give_folder(settings: Settings) -> None:
    """Give DATA_DIR to the wanted user, as far as root may; that user checks afterwards whether it is writable.

    Of the files in it, only those that a worker created change owner: a volume may hold other people's.
    """
    user = _wanted(settings)
    if user is None:
        return
    with contextlib.suppress(OSError):
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        if settings.data_dir.stat().st_uid == user.pw_uid:
            return
        files = settings.data_dir.rglob("*") if settings.database.exists() else ()
        for path in (*files, settings.data_dir):  # itself at the end: what was broken off is done again
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _wanted(settings: Settings) -> pwd.struct_passwd | None:
    """The user to become; None if this is not root, or nobody else is wanted."""
    if settings.WORKER_USER is None or os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam(settings.WORKER_USER)
    except KeyError:
        raise SettingsError(f"WORKER_USER={settings.WORKER_USER}: must be a user name of this system") from None
