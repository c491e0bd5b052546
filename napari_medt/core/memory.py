"""How much memory a process may take: containers, batch systems and `ulimit` often allow less than the computer has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc/self")


def allowed(free: int) -> int:
    """How many bytes this process may still take.

    Parameters
    ----------
    free
        What is free on the computer.

    Returns
    -------
    int
        That, or what is left of the least of the limits set for this process, where there are any.
    """
    return max(0, min([free, *_left_in_groups(), *_left_of_addresses()]))


def _left_in_groups() -> Iterator[int]:
    """What is left in the control groups of Linux that this process is in, of either version."""
    try:
        lines = (_PROC / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            home, limit, used, prefix = _GROUPS, "memory.max", "memory.current", ""
        elif "memory" in kinds.split(","):
            home, limit, used, prefix = _GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        else:
            continue
        inner = home / path.lstrip("/")
        for group in (inner, *inner.parents):  # what a group may take, all within it may take together
            if group.is_relative_to(home) and (left := _left(group, limit, used, prefix)) is not None:
                yield left


def _left(group: Path, limit: str, used: str, prefix: str) -> int | None:
    """What is left in one group; pages of files count as free, since they are given up when memory is short."""
    try:
        most, now = int((group / limit).read_text()), int((group / used).read_text())
        pairs = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        files = sum(int(size) for name, size in pairs if name in (f"{prefix}active_file", f"{prefix}inactive_file"))
    except (OSError, ValueError):  # no such group here, or `max`, which is no limit
        return None
    return most - now + files


def _left_of_addresses() -> Iterator[int]:
    """What `ulimit -v` leaves."""
    try:
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            yield most - int((_PROC / "statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # other systems
        return
