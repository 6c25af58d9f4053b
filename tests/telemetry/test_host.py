"""`telemetry.host` on this machine, and under control groups written as the kernel writes them."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from telemetry import host

MIB = 2**20


def group(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


def version_2(limit: str = "max", quota: str = "max") -> dict[str, str]:
    stat = f"anon 1\ninactive_file {10 * MIB}\nactive_file 2\n"
    return {"memory.max": f"{limit}\n", "memory.current": f"{60 * MIB}\n", "memory.stat": stat, "cpu.max": f"{quota} 100000\n"}


def version_1(limit: int, quota: int) -> dict[str, str]:
    stat = f"inactive_file 1\ntotal_inactive_file {10 * MIB}\n"
    memory = {
        "memory/memory.limit_in_bytes": f"{limit}\n",
        "memory/memory.usage_in_bytes": f"{60 * MIB}\n",
        "memory/memory.stat": stat,
    }
    return memory | {"cpu/cpu.cfs_quota_us": f"{quota}\n", "cpu/cpu.cfs_period_us": "100000\n"}


def test_system_info_has_the_keys_of_the_protocol_and_is_json(tmp_path: Path) -> None:
    info = host.system_info(tmp_path, 93.456)
    assert list(info) == ["cpu_cores_physical", "cpu_cores_logical", "cpu_model", "ram_total_gb", "ram_available_gb",
                          "disk_total_gb", "disk_free_gb", "download_speed_mbps"]  # fmt: skip
    assert json.loads(json.dumps(info)) == info
    assert info["download_speed_mbps"] == 93.46
    assert 0 < info["ram_available_gb"] <= info["ram_total_gb"]
    assert 1 <= info["cpu_cores_physical"] <= info["cpu_cores_logical"]


def test_the_disk_is_that_of_the_data_folder_even_before_it_exists(tmp_path: Path) -> None:
    info = host.system_info(tmp_path / "not" / "yet", None)
    assert info["disk_total_gb"] == round(psutil.disk_usage(str(tmp_path)).total / host.GB, 2)
    assert info["download_speed_mbps"] is None


@pytest.mark.parametrize("files", [version_2(limit=str(100 * MIB)), version_1(limit=100 * MIB, quota=-1)])
def test_a_containers_memory_limit_counts(tmp_path: Path, files: dict[str, str]) -> None:
    assert host.memory_bytes(group(tmp_path, files)) == (100 * MIB, 50 * MIB)


@pytest.mark.parametrize("files", [{}, version_2(), version_1(limit=2**63 - 4096, quota=-1)])
def test_without_a_limit_the_machine_counts(tmp_path: Path, files: dict[str, str]) -> None:
    cgroup = group(tmp_path, files)
    assert host.memory_bytes(cgroup)[0] == psutil.virtual_memory().total
    assert host.usable_cores(cgroup) == host.usable_cores()


@pytest.mark.parametrize("files", [version_2(quota="50000"), version_1(limit=2**63 - 4096, quota=50000)])
def test_a_containers_share_of_the_processor_is_rounded_up_to_a_core(tmp_path: Path, files: dict[str, str]) -> None:
    assert host.usable_cores(group(tmp_path, files)) == 1
