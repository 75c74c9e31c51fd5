"""Who gets the next kernel: venues side by side, within the desk's kernels and a cycle's time.

A kernel that is free goes to the venue that has the fewest, so that one that is slow costs another
only the kernels that it holds, and holds one alone until it has answered.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import FileLock, Timeout

from tradelib.clock import utc_now
from tradelib.settings import DeskSettings

T = TypeVar("T")

# Seconds between two looks at kernels that another process holds, and at the time.
_LOOK = 0.25


@dataclass(frozen=True)
class Job:
    """What takes one kernel until it ends: a page, or a bot's pages one after the other.

    call raises when it failed; ended hears how, in the thread that dispatches.
    """

    call: Callable[[], None]
    ended: Callable[[BaseException | None], None]


class Work(Protocol):
    """What there is to do at one venue, in its order."""

    def is_ready(self, *, late: bool) -> bool:
        """Whether a job could start now. late: the time is over, so nothing new begins but what
        brings to an end what was begun."""

    def take(self, *, late: bool) -> Job | None:
        """The job that starts now; None when what was ready turns out not to be."""

    def is_handed_out(self, *, late: bool) -> bool:
        """Whether all that others could have to wait for has been started."""


class Kernels:
    """The desk's kernels, shared by every process that runs pages for it: a lock each, which the
    system releases when its holder dies."""

    def __init__(self, settings: DeskSettings) -> None:
        folder = settings.home / "run" / "kernels"
        self._free = [make_lock(folder / f"{number}.lock") for number in range(settings.kernels)]
        self.count = settings.kernels

    def take(self) -> FileLock | None:
        """A kernel that is free, None when none is."""
        for lock in self._free:
            if try_lock(lock):
                self._free.remove(lock)
                return lock
        return None

    def give_back(self, lock: FileLock) -> None:
        lock.release()
        self._free.append(lock)

    @property
    def all_are_mine(self) -> bool:
        """Whether this process holds them all, so that one is free only when a job ends."""
        return not self._free


def make_lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return FileLock(path)


def try_lock(lock: FileLock, patience: float = 0.0) -> bool:
    """Take a lock unless somebody has it for longer than so many seconds."""
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        return False
    return True


def dispatch(
    plans: Sequence[Callable[[], Work | None]],
    kernels: Kernels,
    *,
    until: datetime | None = None,
    handed_out: Callable[[], None] = lambda: None,
) -> None:
    """Make every plan, each in a thread of its own, and do its work as soon as it is there.

    plans: what finds the work at a venue, None where there is none. until: when nothing new begins
    any more. handed_out: called once, as soon as all has been started that others could have to
    wait for; what runs then is awaited all the same.
    """
    with (
        ThreadPoolExecutor(max(1, len(plans)), "plan") as planners,
        ThreadPoolExecutor(kernels.count, "page") as pages,
    ):
        _Dispatch(kernels, until, handed_out, planners, pages).run(plans)


@dataclass(frozen=True)
class _Running:
    work: Work
    job: Job
    kernel: FileLock


class _Dispatch:
    def __init__(
        self,
        kernels: Kernels,
        until: datetime | None,
        handed_out: Callable[[], None],
        planners: ThreadPoolExecutor,
        pages: ThreadPoolExecutor,
    ) -> None:
        self._kernels, self._until, self._handed_out = kernels, until, handed_out
        self._planners, self._pages = planners, pages
        self._works: list[Work] = []
        self._running: dict[Future[None], _Running] = {}
        self._turns: dict[Work, int] = {}
        self._count = count()
        self._told = False

    def run(self, plans: Iterable[Callable[[], Work | None]]) -> None:
        planning = {_submit(self._planners, plan) for plan in plans}
        while planning or self._running or self._ready(self._late):
            waits_for_others = self._start_what_can()
            if not planning or self._late:
                self._tell_when_handed_out()
            pending, patience = {*planning, *self._running}, self._patience(waits_for_others)
            if not pending:  # every kernel is another process's
                time.sleep(_LOOK)
            done, _ = wait(pending, patience, FIRST_COMPLETED)
            for future in done & planning:
                work = future.result()
                if work is not None:
                    self._works.append(work)
            planning -= done
            for future in done & self._running.keys():
                self._end(future)
        self._tell_when_handed_out()

    @property
    def _late(self) -> bool:
        return self._until is not None and utc_now() >= self._until

    def _ready(self, late: bool) -> list[Work]:
        return [work for work in self._works if work.is_ready(late=late)]

    def _start_what_can(self) -> bool:
        """Start jobs while there are kernels; whether one waits for a kernel that another process
        holds."""
        while ready := self._ready(late := self._late):
            kernel = self._kernels.take()
            if kernel is None:
                return not self._kernels.all_are_mine
            work = min(ready, key=self._claims_of)
            self._turns[work] = next(self._count)
            job = work.take(late=late)
            if job is None:
                self._kernels.give_back(kernel)
            else:
                self._running[_submit(self._pages, job.call)] = _Running(work, job, kernel)
        return False

    def _claims_of(self, work: Work) -> tuple[int, int]:
        """The kernels that a venue has, and, of those that have as many, when it last got one."""
        held = sum(one.work is work for one in self._running.values())
        return held, self._turns.get(work, -1)

    def _end(self, future: Future[None]) -> None:
        ended = self._running.pop(future)
        self._kernels.give_back(ended.kernel)
        ended.job.ended(future.exception())

    def _tell_when_handed_out(self) -> None:
        late = self._late
        if not self._told and all(work.is_handed_out(late=late) for work in self._works):
            self._told = True
            self._handed_out()

    def _patience(self, waits_for_others: bool) -> float | None:
        """Seconds to wait for something to end; None: however long it takes."""
        if waits_for_others:
            return _LOOK
        if self._until is None or self._late:
            return None
        # Never all of it at once: a machine that slept finds its clock ahead.
        return min(5.0, max(0.0, (self._until - utc_now()).total_seconds()))


def _submit(pool: ThreadPoolExecutor, call: Callable[[], T]) -> Future[T]:
    """In the context of the caller, which is where Prefect keeps whose task it is."""
    return pool.submit(contextvars.copy_context().run, call)
