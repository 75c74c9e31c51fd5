"""The processes that a page's kernel started, wherever they went: in its session or in one of their
own, with their parents alive or not."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tradelib.services.processes import kill

# Names a page's processes in their environment, which they hand on.
MARK_ENV = "DESK_PAGE"
# Run in a cold kernel, it does what ADOPT_ENV makes a warm one do.
ADOPT = "__import__('ctypes').CDLL(None).prctl(36, 1)" if sys.platform == "linux" else ""
# Looks that may each find what was started during the one before.
_LOOKS = 5


@dataclass(frozen=True)
class _Seen:
    """A process as /proc/<pid>/stat tells it. born: in the system's ticks since it started."""

    pid: int
    parent: int
    group: int
    session: int
    born: int


@dataclass(frozen=True)
class Family:
    """kernel: its process id, also of its session. born: as `_Seen` has it. mark: what MARK_ENV is
    in its environment."""

    kernel: int
    born: int
    mark: str

    @classmethod
    def of(cls, kernel: int, mark: str) -> Family:
        seen = _look_at(kernel) if sys.platform == "linux" else None
        return cls(kernel, seen.born if seen else 0, mark)

    def find(self) -> list[psutil.Process]:
        """Its living members but the kernel. Those that left its session are known by the kernel
        while it lives, and by the mark."""
        if sys.platform != "linux":
            with suppress(psutil.Error):
                return psutil.Process(self.kernel).children(recursive=True)
            return []
        # Nobody is older than who started them.
        younger = [one for one in _look_around() if one.born >= self.born]
        found = {self.kernel} | {one.pid for one in younger if self._knows(one)}
        while more := {one.pid for one in younger if one.parent in found} - found:
            found |= more
        return [process for pid in found - {self.kernel} for process in _process(pid)]

    def _knows(self, one: _Seen) -> bool:
        if self.kernel in (one.group, one.session):
            return True
        with suppress(OSError):  # ended meanwhile, or somebody else's
            environment = Path(f"/proc/{one.pid}/environ").read_bytes()
            return f"{MARK_ENV}={self.mark}".encode() in environment.split(b"\0")
        return False

    def end(self, known: list[psutil.Process]) -> None:
        """Kill `known`, and look again until nobody is left."""
        for _ in range(_LOOKS):
            if not known:
                return
            kill(known)
            known = self.find()


def _process(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return [process]
    return []


def _look_around() -> list[_Seen]:
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [seen for pid in pids if (seen := _look_at(pid))]


def _look_at(pid: int) -> _Seen | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, the command, is in brackets and may hold spaces.
            told = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return _Seen(pid, int(told[1]), int(told[2]), int(told[3]), int(told[19]))
