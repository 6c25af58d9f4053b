"""The machine under the worker, as it is seen."""

from __future__ import annotations

from pathlib import Path

from doctor import machine


def test_a_folder_on_a_network_is_known_by_the_mounts(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path}/a\\040b nfs4 rw 0 0\n")
    assert machine.file_system(tmp_path / "a b", mounts) == "nfs4"
    assert machine.file_system(tmp_path, mounts) == "ext4"
    assert machine.file_system(tmp_path, tmp_path / "none") == ""
