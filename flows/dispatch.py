"""Who gets the next kernel: venues side by side, within the desk's kernels and a cycle's time.

A kernel that is free goes to the venue that has the fewest, and of several venues none has all.
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
from urllib.parse import quote

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

    venue: str

    def is_ready(self, *, late: bool) -> bool:
        """Whether a job could start now. late: the time is over, so nothing new begins but what
        brings to an end what was begun."""

    def take(self, *, late: bool) -> Job | None:
        """The job that starts now; None when what was ready turns out not to be."""

    def is_handed_out(self, *, late: bool) -> bool:
        """Whether all that others could have to wait for has been started."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that is somebody's, until its locks are released."""

    locks: tuple[FileLock, ...]

    def give_back(self) -> None:
        for lock in self.locks:
            lock.release()


class Kernels:
    """The desk's kernels, shared by every process that runs pages for it: a lock each, which the
    system releases when its holder dies.

    venues: how many share them. Where there are several, none has all kernels, whatever processes
    work for it: should it hang, the others have one.
    """

    def __init__(self, settings: DeskSettings, venues: int = 1) -> None:
        self._folder = settings.home / "run" / "locks"
        self.count = settings.kernels
        self._of_each = self.count if venues < 2 else max(1, self.count - 1)

    def take(self, venue: str) -> Kernel | None:
        """A kernel for that venue, None while there is none."""
        share = self._take_one(f"venue-{quote(venue, safe='')}", self._of_each)
        if share is None:
            return None
        kernel = self._take_one("kernel", self.count)
        if kernel is None:
            share.release()
            return None
        return Kernel((kernel, share))

    def _take_one(self, kind: str, count: int) -> FileLock | None:
        locks = (make_lock(self._folder / f"{kind}-{number}.lock") for number in range(count))
        return next(filter(try_lock, locks), None)


def make_lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return FileLock(path)


def try_lock(
    lock: FileLock, patience: float = 0.0, given_up: Callable[[], bool] | None = None
) -> bool:
    """Take a lock unless somebody has it for longer than so many seconds, or until it is given
    up."""
    try:
        lock.acquire(timeout=patience, cancel_check=given_up)
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
    kernel: Kernel


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
            short_of_kernels = self._start_what_can()
            if not planning or self._late:
                self._tell_when_handed_out()
            pending, patience = {*planning, *self._running}, self._patience(short_of_kernels)
            if not pending:
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
        """Start jobs while there are kernels; whether some job waits for one."""
        while ready := self._ready(late := self._late):
            if not any(self._start(work, late) for work in sorted(ready, key=self._claims_of)):
                return True
        return False

    def _start(self, work: Work, late: bool) -> bool:
        """Start a venue's next job; whether there was a kernel for it."""
        kernel = self._kernels.take(work.venue)
        if kernel is None:
            return False
        self._turns[work] = next(self._count)
        job = work.take(late=late)
        if job is None:
            kernel.give_back()
        else:
            self._running[_submit(self._pages, job.call)] = _Running(work, job, kernel)
        return True

    def _claims_of(self, work: Work) -> tuple[int, int]:
        """The kernels that a venue has, and, of those that have as many, when it last got one."""
        held = sum(one.work is work for one in self._running.values())
        return held, self._turns.get(work, -1)

    def _end(self, future: Future[None]) -> None:
        ended = self._running.pop(future)
        ended.kernel.give_back()
        ended.job.ended(future.exception())

    def _tell_when_handed_out(self) -> None:
        late = self._late
        if not self._told and all(work.is_handed_out(late=late) for work in self._works):
            self._told = True
            self._handed_out()

    def _patience(self, short_of_kernels: bool) -> float | None:
        """Seconds to wait for something to end; None: however long it takes."""
        if short_of_kernels:  # another process may give one back
            return _LOOK
        if self._until is None or self._late:
            return None
        # Never all of it at once: a machine that slept finds its clock ahead.
        return min(5.0, max(0.0, (self._until - utc_now()).total_seconds()))


def _submit(pool: ThreadPoolExecutor, call: Callable[[], T]) -> Future[T]:
    """In the context of the caller, which is where Prefect keeps whose task it is."""
    return pool.submit(contextvars.copy_context().run, call)
