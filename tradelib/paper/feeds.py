"""The market's streams: which there are, and what each has to tell as market time goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tradelib.paper import events, replies
from tradelib.paper.candles import INTERVALS, interval_end, interval_ms, interval_start
from tradelib.paper.depths import Depth, Levels
from tradelib.paper.events import Event
from tradelib.paper.exchange import Exchange
from tradelib.paper.market import PRINTS, Day, Print

_MOST_KLINES = 1000
_SECOND = 1000


class Moment:
    """The market at a time up to which the streams tell. Each thing is looked up once; the books
    are always those of the present."""

    def __init__(self, exchange: Exchange, now: int) -> None:
        self.exchange, self.now = exchange, now
        self._depths: dict[str, Depth] = {}
        self._days: dict[str, Day | None] = {}

    def depth(self, symbol: str) -> Depth:
        if symbol not in self._depths:
            self.exchange.advance(symbol)
            self._depths[symbol] = self.exchange.depth(symbol)
        return self._depths[symbol]

    def day(self, symbol: str) -> Day | None:
        if symbol not in self._days:
            self._days[symbol] = self.exchange.tape.day(symbol, self.now)
        return self._days[symbol]


class Feed:
    """What one stream has to tell.

    route: what kind of message, as the rules of faults name it. symbol: '' when it is about all.
    every: ms of the wall between two messages about the present, where the market runs.
    """

    route: str
    every = 0

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol

    def greet(self, moment: Moment) -> Iterator[Event | list[Event]]:
        """What somebody who begins to listen is told at once, as it would be within a second."""
        return iter(())

    def past(self, moment: Moment) -> Iterator[Event]:
        """All that happened since the last time and will not change any more."""
        return iter(())

    def present(self, moment: Moment) -> Iterator[Event | list[Event]]:
        """What is so now, if it was not so the last time."""
        return iter(())


class TradeFeed(Feed):
    def __init__(self, symbol: str, moment: Moment, route: str) -> None:
        super().__init__(symbol)
        self.route = f"STREAM {route}"
        self._write = events.trade if route == "trade" else events.aggregate_trade
        found = moment.exchange.tape.last_prints(symbol, 1, moment.now)
        self._last = found[-1].id if found else -1

    def past(self, moment: Moment) -> Iterator[Event]:
        for each in self._news(moment):
            self._last = each.id
            yield self._write(self.symbol, each)

    def _news(self, moment: Moment) -> list[Print]:
        """By id and not by time: a live market's candle may come late."""
        tape = moment.exchange.tape
        start = max(self._last // PRINTS * tape.step, tape.market.span[0])
        found = tape.prints(self.symbol, start, moment.now, moment.now)
        return [each for each in found if each.id > self._last]


class KlineFeed(Feed):
    route = "STREAM kline"
    every = 2 * _SECOND

    def __init__(self, symbol: str, moment: Moment, interval: str) -> None:
        super().__init__(symbol)
        self.interval = interval
        self._start = interval_start(moment.now, interval)
        self._told: list[Any] = []

    def greet(self, moment: Moment) -> Iterator[Event]:
        return self._write(moment, self._rows(moment)[-1:], False)

    def past(self, moment: Moment) -> Iterator[Event]:
        while True:
            rows = self._rows(moment)
            closed = [row for row in rows if self._is_closed(moment, row, rows)]
            yield from self._write(moment, closed, True)
            if closed:
                self._start = interval_end(closed[-1][0], self.interval)
            if len(rows) < _MOST_KLINES:
                return

    def present(self, moment: Moment) -> Iterator[Event]:
        rows = self._rows(moment)
        forming = [row for row in rows[:1] if not self._is_closed(moment, row, rows)]
        if forming and forming != self._told:
            self._told = forming
            yield from self._write(moment, forming, False)

    def _rows(self, moment: Moment) -> list[list[Any]]:
        candles = moment.exchange.tape.klines(
            self.symbol, self.interval, self._start, None, _MOST_KLINES, moment.now
        )
        return replies.kline_rows(candles, self.interval)

    def _is_closed(self, moment: Moment, row: list[Any], rows: list[list[Any]]) -> bool:
        """A live market's last candle may still change after its end."""
        is_over = interval_end(row[0], self.interval) <= moment.now
        return is_over and not (moment.exchange.tape.market.is_live and row is rows[-1])

    def _write(self, moment: Moment, rows: list[list[Any]], closed: bool) -> Iterator[Event]:
        step = moment.exchange.tape.step
        for row in rows:
            yield events.kline(self.symbol, self.interval, row, moment.now, step, closed)


class TickerFeed(Feed):
    """The last 24 hours. symbols: of one, or of all in one message."""

    every = _SECOND

    def __init__(self, symbols: list[str], kind: str, is_array: bool) -> None:
        super().__init__("" if is_array else symbols[0])
        self.route = f"STREAM {kind}"
        self._symbols, self._kind, self._is_array = symbols, kind, is_array
        self._told: list[Event] = []

    def greet(self, moment: Moment) -> Iterator[Event | list[Event]]:
        return self._write(self._rows(moment))

    def present(self, moment: Moment) -> Iterator[Event | list[Event]]:
        rows = self._rows(moment)
        if rows != self._told:
            self._told = rows
            yield from self._write(rows)

    def _write(self, rows: list[Event]) -> Iterator[Event | list[Event]]:
        if rows:
            yield rows if self._is_array else rows[0]

    def _rows(self, moment: Moment) -> list[Event]:
        return [row for row in (self._row(moment, each) for each in self._symbols) if row]

    def _row(self, moment: Moment, symbol: str) -> Event | None:
        day = moment.day(symbol)
        if day is None:
            return None
        if self._kind == "miniTicker":
            return events.mini_ticker(symbol, day, moment.now)
        return events.ticker(symbol, day, moment.depth(symbol), moment.now)


class BookTickerFeed(Feed):
    route = "STREAM bookTicker"

    def __init__(self, symbol: str, moment: Moment) -> None:
        super().__init__(symbol)
        self._told = _best(moment.depth(symbol))

    def greet(self, moment: Moment) -> Iterator[Event]:
        yield events.book_ticker(self.symbol, moment.depth(self.symbol))

    def present(self, moment: Moment) -> Iterator[Event]:
        depth = moment.depth(self.symbol)
        if _best(depth) != self._told:
            self._told = _best(depth)
            yield events.book_ticker(self.symbol, depth)


def _best(depth: Depth) -> tuple[Levels, Levels]:
    return depth.bids[:1], depth.asks[:1]


class DepthFeed(Feed):
    """Changes of the book. Each update begins where the last one ended."""

    route = "STREAM depth"

    def __init__(self, symbol: str, moment: Moment, every: int) -> None:
        super().__init__(symbol)
        self.every = every
        self._told = moment.depth(symbol).number
        self._changes = moment.exchange.follow_depth(symbol)

    def present(self, moment: Moment) -> Iterator[Event]:
        depth = moment.depth(self.symbol)
        if depth.number != self._told:
            numbers, self._told = (self._told + 1, depth.number), depth.number
            yield events.depth_update(self.symbol, numbers, self._changes.take(depth), moment.now)


class PartialDepthFeed(Feed):
    """The best levels of the book, whole."""

    route = "STREAM depth"

    def __init__(self, symbol: str, levels: int, every: int) -> None:
        super().__init__(symbol)
        self.every, self._levels, self._told = every, levels, -1

    def greet(self, moment: Moment) -> Iterator[Event]:
        yield self._write(moment.depth(self.symbol))

    def present(self, moment: Moment) -> Iterator[Event]:
        depth = moment.depth(self.symbol)
        if depth.number != self._told:
            self._told = depth.number
            yield self._write(depth)

    def _write(self, depth: Depth) -> Event:
        return replies.depth(depth.number, depth.bids[: self._levels], depth.asks[: self._levels])


_OF_ALL = re.compile(r"!(?P<kind>ticker|miniTicker)@arr")
_OF_ONE = re.compile(
    r"(?P<symbol>[a-z0-9_.-]{1,20})@(?:(?P<kind>ticker|miniTicker|bookTicker|trade|aggTrade)"
    r"|kline_(?P<interval>\w+)|depth(?P<levels>5|10|20)?(?:@(?P<every>100|1000)ms)?)"
)


def open_feed(name: str, moment: Moment) -> Feed | None:
    """The stream of that name; None when there is none."""
    known = moment.exchange.tape.instruments
    if of_all := _OF_ALL.fullmatch(name):
        return TickerFeed(list(known), of_all["kind"], True)
    asked = _OF_ONE.fullmatch(name)
    if asked is None or asked["symbol"].upper() not in known:
        return None
    symbol, kind = asked["symbol"].upper(), asked["kind"]
    if asked["interval"]:
        is_served = _is_served(asked["interval"], moment.exchange.tape.step)
        return KlineFeed(symbol, moment, asked["interval"]) if is_served else None
    if kind in ("trade", "aggTrade"):
        return TradeFeed(symbol, moment, kind)
    if kind == "bookTicker":
        return BookTickerFeed(symbol, moment)
    if kind:
        return TickerFeed([symbol], kind, False)
    every = int(asked["every"] or _SECOND)
    if asked["levels"]:
        return PartialDepthFeed(symbol, int(asked["levels"]), every)
    return DepthFeed(symbol, moment, every)


def _is_served(interval: str, step: int) -> bool:
    return interval in INTERVALS and interval_ms(interval) % step == 0
