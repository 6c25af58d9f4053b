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
from doctor.start import SHM, SMALLEST_SHM_BYTES
from errors import EngineFailed
from media.write import choose_encoder
from telemetry.disk import held_bytes, least_free_bytes

#: What the write test writes, in one piece, and the speed below which it is said to be slow.
WRITTEN_BYTES = 16 * 2**20
SLOW_BYTES_PER_S = 20e6
#: File systems over a network, on which SQLite's locks cannot be relied on.
FAR = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "ceph", "fuse.s3fs", "fuse.rclone")


def shared_memory(now: Situation) -> list[Finding]:
    """Nothing of ours needs more than the default; engines of one's own may."""
    try:
        total = shutil.disk_usage(SHM).total
    except OSError:
        return [Finding(name="shared memory", level="warn", said=f"{SHM} is not there", do="mount a tmpfs there")]
    said = f"{SHM} has {total >> 20} MB"
    if total < SMALLEST_SHM_BYTES:
        return [Finding(name="shared memory", level="warn", said=said, do="start the container with --shm-size=1g")]
    return [Finding(name="shared memory", level="ok", said=said)]


def disk(now: Situation) -> list[Finding]:
    """DATA_DIR: where it lies, what is free, and whether what is written there can be read again."""
    data_dir = now.settings.data_dir
    folder = next(path for path in (data_dir, *data_dir.parents) if path.is_dir())
    kind = file_system(folder)
    if kind in FAR:
        do = "put DATA_DIR on a disk of this machine: the queue's file would be damaged there"
        return [Finding(name="disk", level="fail", said=f"DATA_DIR={data_dir} lies on a network ({kind})", do=do)]
    usage = shutil.disk_usage(folder)
    try:
        speed = _written(folder)
    except OSError as error:
        said = f"DATA_DIR={data_dir}: a file could not be written and read again ({error.strerror or error})"
        return [Finding(name="disk", level="fail", said=said, do=f"user {os.getuid()} must be able to write to {folder}")]
    said = f"{data_dir}: {usage.free / 1e9:.1f} GB free, written at {speed / 1e6:.0f} MB/s"
    if short := too_little(usage.total, usage.free, held_bytes(data_dir), now.settings.DATA_LIMIT_GB):
        return [Finding(name="disk", level=short[0], said=said, do=short[1])]
    if speed < SLOW_BYTES_PER_S:
        return [Finding(name="disk", level="warn", said=said, do="that is slow for videos; use a local SSD")]
    return [Finding(name="disk", level="ok", said=said)]


def too_little(total_bytes: int, free_bytes: int, held_bytes: int, limit_gb: float) -> tuple[Level, str] | None:
    """How bad it is that so little is free, and what to do about it; None if it is enough. held_bytes: what DATA_DIR has."""
    if free_bytes < least_free_bytes(total_bytes):
        return "fail", "make room; no job is claimed while so little is free"
    if free_bytes + held_bytes < limit_gb * 1e9:
        return "warn", f"DATA_LIMIT_GB={limit_gb:g} is more than there is room for; make room, or set it lower"
    return None


def _written(folder: Path) -> float:
    """Write, sync, read and remove a file; bytes a second of the writing. Raises OSError."""
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
            raise OSError("other bytes came back than were written")
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return WRITTEN_BYTES / max(took_s, 1e-6)


def file_system(folder: Path) -> str:
    """The kind of file system that a folder lies on, in the kernel's word; "" where it does not say."""
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:
        return ""
    holding = [mount for mount in reversed(mounts) if folder.resolve().is_relative_to(mount.mountpoint)]  # the last is on top
    return max(holding, key=lambda mount: len(mount.mountpoint)).fstype if holding else ""


def encoder(now: Situation) -> list[Finding]:
    """What finished videos are encoded with."""
    try:
        name = choose_encoder(1280, 720, Fraction(25))
    except EngineFailed as error:
        return [Finding(name="encoder", level="fail", said=error.message, do="install the packages anew: worker setup")]
    said = f"H.264 by {name}" + ("" if name.endswith("nvenc") or not now.cards else "; this card or its driver has no NVENC")
    return [Finding(name="encoder", level="ok", said=said)]
