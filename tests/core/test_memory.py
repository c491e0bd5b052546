"""What containers and batch systems allow counts, not only what the computer has."""

from __future__ import annotations

import subprocess
import sys

import pytest

from napari_medt.core import memory

GB = 10**9


@pytest.mark.parametrize("version", [1, 2])
def test_the_least_limit_of_all_groups_counts(tmp_path, monkeypatch, version):
    home = tmp_path / "groups" / ("memory" if version == 1 else "")
    limit, used = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    )
    prefix = "total_" if version == 1 else ""
    for path, most in (("", "max" if version == 2 else str(2**63 - 4096)), ("job", 6 * GB), ("job/step", 9 * GB)):
        group = home / path
        group.mkdir(parents=True, exist_ok=True)
        (group / limit).write_text(f"{most}\n")
        (group / used).write_text(f"{3 * GB}\n")
        (group / "memory.stat").write_text(f"{prefix}active_file {GB}\n{prefix}inactive_file {GB}\nanon 7\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cgroup").write_text("4:memory,other:/job/step\n" if version == 1 else "0::/job/step\n")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    assert memory.allowed(100 * GB) == 5 * GB
    assert memory.allowed(GB) == GB


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is of Linux")
def test_ulimit_counts():
    code = "from napari_medt.core.memory import allowed; print(allowed(10**12))"
    command = ["bash", "-c", f"ulimit -v 4000000; exec '{sys.executable}' -c '{code}'"]
    left = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 2 * GB < left < 4.1 * GB
