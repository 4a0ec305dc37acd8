"""What a process and its children cost: CPU time and memory, from the Linux kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
_CPUCLOCK_SCHED = 2


class Gone(Exception):
    """A measured process ended while it was measured."""


def family(pid: int) -> list[int]:
    """``pid`` and all its descendants. Raises Gone if there is no such process."""
    if not (PROC / str(pid)).exists():
        raise Gone(f"there is no process {pid}")
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += children.get(member, ())
    return found


def threads(pid: int) -> list[int]:
    """The thread ids of a process, its own first."""
    return sorted(int(entry.name) for entry in (PROC / str(pid) / "task").iterdir())


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of all threads, dead ones included, in seconds.

    This is utime + stime of ``/proc/<pid>/stat``, read from the process's CPU clock: the same
    account in nanoseconds instead of ticks of 10 ms, which are too coarse for a short run. Where
    that clock cannot be read, the ticks have to do. Raises Gone.
    """
    return sum(map(_cpu_of, pids))


def _cpu_of(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return stat_seconds(pid)


def stat_seconds(pid: int) -> float:
    """utime + stime as ``/proc/<pid>/stat`` shows them. Raises Gone."""
    fields = _stat(pid)
    if not fields:
        raise Gone(f"process {pid} has ended")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """The fields after the command's name; empty when the process is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def resident_kb(pids: Iterable[int], *, peak: bool = False) -> int:
    """Resident memory in KiB: now, or the most since ``forget_peak``."""
    name = "VmHWM:" if peak else "VmRSS:"
    return sum(_status_kb(pid, name) for pid in pids)


def forget_peak(pids: Iterable[int]) -> None:
    """Start a new peak (see proc(5), clear_refs)."""
    for pid in pids:
        (PROC / str(pid) / "clear_refs").write_text("5")


def _status_kb(pid: int, name: str) -> int:
    try:
        text = (PROC / str(pid) / "status").read_text()
    except OSError as error:
        raise Gone(f"process {pid} has ended") from error
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))
