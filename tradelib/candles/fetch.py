"""Bring the store up to date: ask a venue for what is missing, and for nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import pandas as pd

from tradelib.candles.schema import Gap
from tradelib.candles.store import CandleStore
from tradelib.clock import floor_time, timeframe_ms
from tradelib.errors import DeskError

PAGE = 1000
"""Most candles to ask for in one request."""


class CandleSource(Protocol):
    """Whatever answers with candles; a venue's client does.

    candle_page: most candles that it gives at a time; PAGE where it does not say.
    """

    def fetch_ohlcv(self, symbol: str, timeframe: str, since: datetime, limit: int) -> pd.DataFrame:
        """At most `limit` candles that open at or after `since`, oldest first, as a candle frame;
        the last may still be forming."""
        ...


@dataclass(frozen=True)
class FetchReport:
    """What fetching one symbol did.

    requested: candles asked for, gaps' included. open_gaps: holes that stay unexplained;
    recorded_gaps: holes in which the venue turned out to have no candles. last_close and age:
    of the newest stored candle, None without one. error: what stopped this symbol, else None.
    """

    symbol: str
    requested: int = 0
    added: int = 0
    revised: int = 0
    open_gaps: tuple[Gap, ...] = ()
    recorded_gaps: tuple[Gap, ...] = ()
    last_close: datetime | None = None
    age: timedelta | None = None
    error: DeskError | None = None


def fetch_candles(
    source: CandleSource,
    store: CandleStore,
    venue: str,
    symbols: Iterable[str],
    timeframe: str,
    *,
    as_of: datetime,
    history: int,
) -> list[FetchReport]:
    """Fetch every symbol's candles that closed by `as_of` and are not stored yet.

    history: candles to fetch for a series that has none yet, and how far back holes are filled.
    One symbol's error does not stop the others: its report carries it.
    """
    return [
        _SeriesFetch(source, store, venue, symbol, timeframe, as_of, history).run()
        for symbol in symbols
    ]


def iterate_pages(
    source: CandleSource, symbol: str, timeframe: str, since: datetime, end: datetime
) -> Iterator[tuple[int, pd.DataFrame]]:
    """The source's candles that open from `since` to before `end`, page by page, each with the
    number asked for. Candles from `end` on may come with them."""
    step = timedelta(milliseconds=timeframe_ms(timeframe))
    most = min(PAGE, getattr(source, "candle_page", PAGE))
    while since < end:
        limit = min(most, -(-(end - since) // step))
        page = source.fetch_ohlcv(symbol, timeframe, since, limit)
        yield limit, page
        told = len(page) and page.index[-1] >= since
        # Beyond the whole page when the venue had nothing in it.
        since = page.index[-1].to_pydatetime() + step if told else since + limit * step


class _SeriesFetch:
    """One symbol's fetch and its running count."""

    def __init__(
        self,
        source: CandleSource,
        store: CandleStore,
        venue: str,
        symbol: str,
        timeframe: str,
        as_of: datetime,
        history: int,
    ) -> None:
        self.source, self.store, self.as_of = source, store, as_of
        self.name = (venue, symbol, timeframe)
        self.step = timedelta(milliseconds=timeframe_ms(timeframe))
        self.end = floor_time(as_of, timeframe)
        self.start = self.end - history * self.step
        self.requested = self.added = self.revised = 0
        self.recorded: list[Gap] = []

    def run(self) -> FetchReport:
        error = None
        try:
            self.fetch_range(self.begin(), self.end)
            self.close_gaps()
        except DeskError as stopped:
            error = stopped
        return self.report(error)

    def begin(self) -> datetime:
        """Where to ask from. The newest stored candle is asked for once more, with those that
        follow it: a venue that corrects one mostly does so soon."""
        newest = self.store.last_close(*self.name)
        if newest is None:
            return self.start
        return newest - self.step if newest < self.end else newest

    def fetch_range(self, since: datetime, end: datetime) -> None:
        """Fetch and store the candles that open from `since` to before `end`, page by page."""
        for limit, page in iterate_pages(self.source, *self.name[1:], since, end):
            self.requested += limit
            appended = self.store.append(*self.name, page, as_of=self.as_of)
            self.added += appended.added
            self.revised += appended.revised

    def close_gaps(self) -> None:
        """Ask once more for every hole; what the venue does not have is recorded as its own."""
        holes = self.gaps()
        for gap in holes:
            self.fetch_range(gap.start, gap.end)
        if holes:
            self.recorded = self.gaps()
            self.store.record_gaps(*self.name, self.recorded)

    def gaps(self) -> list[Gap]:
        return self.store.gaps(*self.name, start=self.start, end=self.end)

    def report(self, error: DeskError | None) -> FetchReport:
        symbol = self.name[1]
        counts = (self.requested, self.added, self.revised)
        try:
            last = self.store.last_close(*self.name, as_of=self.as_of)
            gaps = tuple(self.gaps()) if error else ()
        except DeskError as unreadable:
            return FetchReport(symbol, *counts, error=error or unreadable)
        age = self.as_of - last if last else None
        return FetchReport(symbol, *counts, gaps, tuple(self.recorded), last, age, error)
