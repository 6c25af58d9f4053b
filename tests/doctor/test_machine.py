"""The machine under the worker, as it is seen."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from doctor import machine


def test_a_folder_on_a_network_is_known_by_the_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a b", "proc/self"):
        (tmp_path / folder).mkdir(parents=True)
    mounts = f"/dev/sda1 / ext4 rw 0 0\ndisk {tmp_path}/a\\040b xfs rw 0 0\nserver:/x {tmp_path}/a\\040b nfs4 rw 0 0\n"
    (tmp_path / "proc/self/mounts").write_text(mounts)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))
    assert machine.file_system(tmp_path / "a b") == "nfs4"
    assert machine.file_system(tmp_path) == "ext4"
    (tmp_path / "proc/self/mounts").unlink()
    assert machine.file_system(tmp_path) == ""


@pytest.mark.parametrize(
    ("free_gb", "held_gb", "level"),
    [(0.9, 30, "fail"), (1.5, 18, "warn"), (1.5, 18.5, None), (20.0, 0, None), (19.9, 0, "warn")],
)
def test_a_disk_has_too_little_where_nothing_is_claimed_or_the_limit_does_not_fit(
    free_gb: float, held_gb: float, level: str | None
) -> None:
    short = machine.too_little(10**12, int(free_gb * 1e9), int(held_gb * 1e9), 20)
    assert (short and short[0]) == level


def test_a_small_disk_is_held_to_a_part_of_it() -> None:
    assert machine.too_little(4 * 10**9, 3 * 10**8, 0, 0.1) is None
    assert (machine.too_little(4 * 10**9, 10**8, 0, 0.1) or ("",))[0] == "fail"
