"""Streamed candles into the store, without a hole and without a value that was not final.

A candle is kept as it was streamed only where the venue called it closed and it follows the newest
stored one. In every other case (the first look, a message that was lost, a connection that was
cut) the venue is asked by REST, as if there were no stream.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pandas as pd

from tradelib.candles.fetch import CandleSource, fetch_candles
from tradelib.candles.store import CandleStore
from tradelib.clock import timeframe_ms
from tradelib.venue.streams import Series

log = logging.getLogger(__name__)


@dataclass
class CandleKeeper:
    """Keeps the stored candles of one venue's series as new as its streams and REST tell.

    history: candles to fetch for a series that has none. on_close: hears, once per candle, of a
    series and of when its newest stored candle closed. Not for several threads at once.
    """

    venue: str
    source: CandleSource
    store: CandleStore
    history: Callable[[Series], int]
    on_close: Callable[[Series, datetime], None]
    streamed: int = 0
    asked: int = 0
    _closes: dict[Series, datetime] = field(default_factory=dict)

    def take_closed(self, series: Series, candle: pd.DataFrame) -> None:
        """A candle that the venue called closed."""
        opened = candle.index[-1].to_pydatetime()
        closed, last = opened + _length(series), self.last_close(series)
        if last is not None and closed < last:
            return  # told late
        if closed == last:
            # It was asked for a moment ago, when the venue's history may not have had its last
            # trades yet; what is the same already is left as it is.
            self.store.append(self.venue, series.symbol, series.timeframe, candle, as_of=closed)
            return
        if last != opened:
            self.ask(series, closed)
            return
        self.store.append(self.venue, series.symbol, series.timeframe, candle, as_of=closed)
        self.streamed += 1
        self._note(series, closed)

    def take_forming(self, series: Series, opened: datetime) -> None:
        """Candles up to this one's opening have closed; those that did not come are asked for."""
        last = self.last_close(series)
        if last is None or last < opened:
            self.ask(series, opened)

    def ask(self, series: Series, as_of: datetime) -> bool:
        """Bring a series up to date by REST; whether it brought anything. Raises what the venue
        and the store raise."""
        before = self.last_close(series)
        (report,) = fetch_candles(
            self.source, self.store, self.venue, [series.symbol], series.timeframe,
            as_of=as_of, history=self.history(series),
        )  # fmt: skip
        self.asked += 1
        if report.error is not None:
            raise report.error
        if report.last_close is None or report.last_close == before:
            return False
        self._note(series, report.last_close)
        return True

    def overdue(self, series: Iterable[Series], now: datetime) -> list[Series]:
        """Those of which a candle has closed that is not stored, by the venue's clock."""
        return [one for one in series if not self.is_current(one, now)]

    def is_current(self, series: Series, now: datetime) -> bool:
        """Whether the candles that closed by then are stored."""
        last = self.last_close(series)
        return last is not None and now < last + _length(series)

    def last_close(self, series: Series) -> datetime | None:
        """When the newest stored candle closed. Another process may store some too, which only
        means that what is known here is asked for once more."""
        if series not in self._closes:
            last = self.store.last_close(self.venue, series.symbol, series.timeframe)
            if last is None:
                return None
            self._closes[series] = last
        return self._closes[series]

    def _note(self, series: Series, closed: datetime) -> None:
        self._closes[series] = closed
        self.on_close(series, closed)


def _length(series: Series) -> timedelta:
    return timedelta(milliseconds=timeframe_ms(series.timeframe))
