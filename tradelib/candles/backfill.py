"""Years of candles for many symbols: asked for in parallel, and what is stored never again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd

from tradelib.candles.fetch import PAGE, CandleSource, iterate_pages
from tradelib.candles.schema import Gap
from tradelib.candles.store import CandleStore
from tradelib.clock import floor_time, timeframe_ms
from tradelib.errors import DeskError, InvalidInput

_BLOCK_PAGES = 10
# A hole younger than this may be the venue's delay; an older one that it does not fill is its own.
_SETTLED = timedelta(days=1)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BackfillReport:
    """What a backfill did for one symbol, counted in candles but for `requests`.

    recorded: holes in which the venue turned out to have none. missing: what is not stored and
    not explained after all. error: what stopped this symbol, else None.
    """

    symbol: str
    requests: int = 0
    added: int = 0
    revised: int = 0
    recorded: int = 0
    missing: int = 0
    error: DeskError | None = None


def backfill_candles(
    open_source: Callable[[], CandleSource],
    store: CandleStore,
    venue: str,
    symbols: Sequence[str],
    timeframe: str,
    *,
    since: datetime,
    as_of: datetime,
    jobs: int = 1,
    again: bool = False,
    on_progress: Progress = lambda done, of: None,
) -> list[BackfillReport]:
    """Store the candles of every symbol from `since` on that closed by `as_of`.

    open_source: makes a source for one thread, which is closed in the end if it can be; so many
    as `jobs` ask side by side, each for a symbol of its own. What is stored is not asked for,
    unless `again`, which finds what the venue has changed since. Each ten pages are stored at
    once, so that a backfill that is killed goes on where it was. on_progress: hears of candles
    done, and of how many. One symbol's error does not stop the others: its report carries it.
    """
    step = timedelta(milliseconds=timeframe_ms(timeframe))
    start, end = floor_time(since, timeframe), floor_time(as_of, timeframe)
    start += step if start < since else timedelta()
    if start >= end:
        raise InvalidInput(
            f"There is no closed candle of {timeframe} from {since:%F %T}Z to {as_of:%F %T}Z; "
            "begin earlier."
        )
    work = _Work(open_source, on_progress)
    tasks = [
        _SeriesBackfill(work, store, (venue, symbol, timeframe), start, end, as_of, again)
        for symbol in dict.fromkeys(symbols)
    ]
    with ThreadPoolExecutor(jobs, thread_name_prefix="backfill") as pool:
        futures: list[Future[BackfillReport]] = [pool.submit(task.run) for task in tasks]
        try:
            wait(futures)
        except BaseException:
            work.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            work.close()  # one that waits for its part of a rate budget does so no longer
    return [future.result() for future in futures]


class _Work:
    """What the threads of a backfill share: their sources, the count, and the word to stop."""

    def __init__(self, open_source: Callable[[], CandleSource], on_progress: Progress) -> None:
        self.stopped = threading.Event()
        self._open, self._on_progress = open_source, on_progress
        self._own = threading.local()
        self._opened: list[CandleSource] = []
        self._lock = threading.Lock()
        self._done = self._of = 0

    @property
    def source(self) -> CandleSource:
        if not hasattr(self._own, "source"):
            self._own.source = self._open()
            self._opened.append(self._own.source)
        return self._own.source

    def close(self) -> None:
        for source in self._opened:
            getattr(source, "close", lambda: None)()

    def count(self, done: int = 0, more: int = 0) -> None:
        with self._lock:
            self._done, self._of = self._done + done, self._of + more
            self._on_progress(self._done, self._of)


class _Stopped(Exception):
    """Somebody has ended the whole backfill."""


class _SeriesBackfill:
    """One symbol's backfill and its running count."""

    def __init__(
        self,
        work: _Work,
        store: CandleStore,
        name: tuple[str, str, str],
        start: datetime,
        end: datetime,
        as_of: datetime,
        again: bool,
    ) -> None:
        self.work, self.store, self.name = work, store, name
        self.start, self.end, self.as_of, self.again = start, end, as_of, again
        self.step = timedelta(milliseconds=timeframe_ms(name[2]))
        self.requests = self.added = self.revised = self.recorded = 0
        self.unread: DeskError | None = None
        self.wanted: list[Gap] = []
        try:
            self.wanted = [self.gap(start, end)] if again else self.missing(start, end)
        except DeskError as unreadable:
            self.unread = unreadable
        work.count(more=sum(gap.missing for gap in self.wanted))

    def run(self) -> BackfillReport:
        error = self.unread
        try:
            if not error:
                self.fill()
        except DeskError as stopped:
            error = stopped
        except _Stopped:
            pass
        counts = (self.requests, self.added, self.revised, self.recorded)
        return BackfillReport(self.name[1], *counts, self.still_missing(), error)

    def still_missing(self) -> int:
        try:
            return sum(gap.missing for gap in self.missing(self.start, self.end))
        except DeskError:  # it is what the report tells already
            return 0

    def fill(self) -> None:
        self.skip_what_never_was()
        newest = self.store.last_close(*self.name)
        # The newest of what is older than all that is stored comes first: it joins on to it, and
        # nothing is late. What is newer joins on at the other end.
        for gap in reversed([*self.parts(newest, newer=False)]):
            for start, end in reversed([*self.blocks(gap)]):
                self.fill_block(start, end)
        for gap in self.parts(newest, newer=True):
            for start, end in self.blocks(gap):
                self.fill_block(start, end)

    def parts(self, newest: datetime | None, *, newer: bool) -> Iterator[Gap]:
        """What is wanted from the newest stored close on, or before it."""
        for gap in self.wanted:
            edge = min(max(newest or gap.end, gap.start), gap.end)
            part = self.gap(edge, gap.end) if newer else self.gap(gap.start, edge)
            if part.missing:
                yield part

    def skip_what_never_was(self) -> None:
        """One question spares the walk through the years before a symbol was listed."""
        gap = self.wanted[0] if self.wanted else None
        if gap is None or gap.start > self.start or gap.missing <= PAGE:
            return
        self.requests += 1
        page = self.work.source.fetch_ohlcv(*self.name[1:], self.start, 1)
        if page.empty:
            return
        first = min(page.index[0].to_pydatetime(), gap.end, self.settled)
        if first > gap.start:
            self.record(self.missing(gap.start, first))
            self.wanted[0] = self.gap(first, gap.end)
            self.work.count(done=(first - gap.start) // self.step)

    def blocks(self, gap: Gap) -> Iterator[tuple[datetime, datetime]]:
        page = min(PAGE, getattr(self.work.source, "candle_page", PAGE))
        length = self.step * page * _BLOCK_PAGES
        start = gap.start
        while start < gap.end:
            yield start, min(start + length, gap.end)
            start += length

    def fill_block(self, start: datetime, end: datetime) -> None:
        frames = []
        for _, page in iterate_pages(self.work.source, *self.name[1:], start, end):
            self.requests += 1
            frames.append(page[(page.index >= start) & (page.index < end)])
            if self.work.stopped.is_set():
                break
        if len(found := pd.concat(frames)):
            appended = self.store.append(*self.name, found, as_of=self.as_of)
            self.added += appended.added
            self.revised += appended.revised
        if self.work.stopped.is_set():
            raise _Stopped
        # What the venue was asked for and did not give, it does not have.
        newest = self.store.last_close(*self.name) or self.settled
        self.record(self.missing(start, min(end, max(self.settled, newest))))
        self.work.count(done=(end - start) // self.step)

    @property
    def settled(self) -> datetime:
        return floor_time(self.end - _SETTLED, self.name[2])

    def record(self, gaps: Iterable[Gap]) -> None:
        gaps = [*gaps]
        self.store.record_gaps(*self.name, gaps)
        self.recorded += sum(gap.missing for gap in gaps)

    def missing(self, start: datetime, end: datetime) -> list[Gap]:
        return self.store.missing(*self.name, start, end) if start < end else []

    def gap(self, start: datetime, end: datetime) -> Gap:
        return Gap(start, end, (end - start) // self.step)
