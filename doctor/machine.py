"""The machine under the worker: shared memory, the disk, the video encoder."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from fractions import Fraction
from pathlib import Path

import psutil

from doctor.finding import Finding, Level, Situation
from doctor.start import MIN_SHM_BYTES, SHM
from errors import EngineFailed
from media.write import choose_encoder
from telemetry.disk import held_bytes, min_free_bytes

#: The size of the write test, and the speed below which the disk counts as slow.
WRITTEN_BYTES = 16 * 2**20
SLOW_BYTES_PER_S = 20e6
#: Network file systems, where SQLite's locks are unreliable.
FAR = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "ceph", "fuse.s3fs", "fuse.rclone")


def shared_memory(now: Situation) -> list[Finding]:
    """Our engines need no more than the default; custom ones may."""
    try:
        total = shutil.disk_usage(SHM).total
    except OSError:
        return [Finding(name="shared memory", level="warn", said=f"{SHM} does not exist", do="mount a tmpfs there")]
    said = f"{SHM} has {total >> 20} MB"
    if total < MIN_SHM_BYTES:
        return [Finding(name="shared memory", level="warn", said=said, do="start the container with --shm-size=1g")]
    return [Finding(name="shared memory", level="ok", said=said)]


def disk(now: Situation) -> list[Finding]:
    """DATA_DIR: its file system, its free space, and whether a written file can be read back."""
    data_dir = now.settings.data_dir
    folder = next(path for path in (data_dir, *data_dir.parents) if path.is_dir())
    kind = file_system(folder)
    if kind in FAR:
        do = "put DATA_DIR on a local disk: on a network share the queue's file would be damaged"
        return [Finding(name="disk", level="fail", said=f"DATA_DIR={data_dir} is on a network file system ({kind})", do=do)]
    usage = shutil.disk_usage(folder)
    try:
        speed = _written(folder)
    except OSError as error:
        said = f"DATA_DIR={data_dir}: a file could not be written and read back ({error.strerror or error})"
        return [Finding(name="disk", level="fail", said=said, do=f"user {os.getuid()} must be able to write to {folder}")]
    said = f"{data_dir}: {usage.free / 1e9:.1f} GB free, write speed {speed / 1e6:.0f} MB/s"
    if short := too_little(usage.total, usage.free, held_bytes(data_dir), now.settings.DATA_LIMIT_GB):
        return [Finding(name="disk", level=short[0], said=said, do=short[1])]
    if speed < SLOW_BYTES_PER_S:
        return [Finding(name="disk", level="warn", said=said, do="too slow for videos; use a local SSD")]
    return [Finding(name="disk", level="ok", said=said)]


def too_little(total_bytes: int, free_bytes: int, held_bytes: int, limit_gb: float) -> tuple[Level, str] | None:
    """The level if free space is low, and what to do; None if there is enough. held_bytes: the size of DATA_DIR."""
    if free_bytes < min_free_bytes(total_bytes):
        return "fail", "free some space; no job is claimed until then"
    if free_bytes + held_bytes < limit_gb * 1e9:
        return "warn", f"DATA_LIMIT_GB={limit_gb:g} is more than the disk can hold; free some space, or set it lower"
    return None


def _written(folder: Path) -> float:
    """Write, sync, read and delete a file; returns the write speed in bytes per second. Raises OSError."""
    probe = folder / f".doctor-{os.getpid()}"
    content = os.urandom(2**20) * (WRITTEN_BYTES // 2**20)
    try:
        began = time.monotonic()
        with probe.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        took_s = time.monotonic() - began
        if probe.read_bytes() != content:
            raise OSError("the bytes read differ from those written")
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return WRITTEN_BYTES / max(took_s, 1e-6)


def file_system(folder: Path) -> str:
    """The kernel's name of the file system that a folder is on; "" if unknown."""
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:
        return ""
    holding = [mount for mount in reversed(mounts) if folder.resolve().is_relative_to(mount.mountpoint)]  # the last is on top
    return max(holding, key=lambda mount: len(mount.mountpoint)).fstype if holding else ""


def encoder(now: Situation) -> list[Finding]:
    """The encoder of finished videos."""
    try:
        name = choose_encoder(1280, 720, Fraction(25))
    except EngineFailed as error:
        return [Finding(name="encoder", level="fail", said=error.message, do="reinstall the packages: worker setup")]
    said = f"H.264 by {name}" + ("" if name.endswith("nvenc") or not now.cards else "; this card or its driver has no NVENC")
    return [Finding(name="encoder", level="ok", said=said)]
