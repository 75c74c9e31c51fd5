"""What a market must tell, and what can be known of it at a moment (the Tape).

A market is a source of base candles per symbol. A replayed one (seeded, files) knows whole
candles in advance, and the tape shows only what has happened by a given time: inside a candle the
price goes open, nearer extreme, farther extreme, close, in three equal spans of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import numpy as np

from tradelib.clock import timeframe_ms
from tradelib.paper.candles import DAY, Candles, interval_end, interval_start
from tradelib.paper.engine import Leg
from tradelib.paper.instruments import Instrument
from tradelib.paper.liquidity import Liquidity, Shape, moment_salt

PRINTS = 4  # public trades that the tape makes of each candle
RECENT = 24  # candles whose mean volume sets the depth of the book
_BLOCK = 2048  # candles read at once when a long stretch is searched


class Market(Protocol):
    """A source of base candles.

    identity: text that is the same when, and only when, the same candles come again.
    span: open time of the first candle and close time of the last that may be played, in ms.
    is_live: candles come in as they happen; the last one still changes.
    """

    instruments: tuple[Instrument, ...]
    base: str
    identity: str
    salt: int
    shape: Shape
    is_live: bool

    @property
    def span(self) -> tuple[int, int]: ...

    def candles(self, symbol: str, start: int, end: int) -> Candles:
        """Base candles that open from `start` (ms) to before `end`, as far as there are any."""
        ...

    def aggregated(self, symbol: str, interval: str, start: int, end: int) -> Candles:
        """Candles of `interval` made of the base candles from `start` to before `end`, both on
        the interval's grid."""
        ...


@dataclass(frozen=True)
class Day:
    """The last 24 hours of one symbol."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    open_time: int
    first_id: int
    last_id: int


@dataclass(frozen=True)
class Print:
    """One public trade. amount in base units."""

    id: int
    price: Decimal
    amount: Decimal
    time: int
    buyer_is_maker: bool


class Tape:
    """The market as it stands at any time; every answer is a pure function of that time."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.instruments = {each.symbol: each for each in market.instruments}
        self.step = timeframe_ms(market.base)
        self._places = {symbol: _decimals(each.tick) for symbol, each in self.instruments.items()}

    # Candles.

    def base_candles(self, symbol: str, start: int, end: int, now: int) -> Candles:
        """Base candles from `start` to before `end` as known at `now`, the forming one last."""
        known = self.market.candles(symbol, start, min(end, now + 1))
        if self.market.is_live or not len(known) or known.time[-1] + self.step <= now:
            return known
        return Candles.concatenate([known[:-1], self._forming(symbol, known[-1:], now)])

    def klines(
        self, symbol: str, interval: str, start: int | None, end: int | None, limit: int, now: int
    ) -> Candles:
        """At most `limit` candles of `interval`: the first from `start`, else the last to `end`.

        start, end: bounds of open times, inclusive, in ms.
        """
        last = min(now, end if end is not None else now)
        first, _ = self.market.span
        if start is not None:
            return self._klines_from(symbol, interval, max(start, first), last, limit, now)
        return self._klines_to(symbol, interval, first, last, limit, now)

    def _klines_from(
        self, symbol: str, interval: str, start: int, last: int, limit: int, now: int
    ) -> Candles:
        begin = interval_start(start, interval)
        if begin < start and start > self.market.span[0]:
            begin = interval_end(begin, interval)
        parts: list[Candles] = []
        missing = limit
        # A stretch without candles may lie anywhere, so the window moves on until it is full.
        while missing > 0 and begin <= last:
            end = _forward(begin, interval, missing)
            part = self._aggregated(symbol, interval, begin, min(end, last + 1), now)[:missing]
            parts.append(part)
            missing -= len(part)
            begin = end
        return Candles.concatenate(parts)

    def _klines_to(
        self, symbol: str, interval: str, first: int, last: int, limit: int, now: int
    ) -> Candles:
        parts: list[Candles] = []
        missing, end = limit, last + 1
        while missing > 0 and end > first:
            begin = max(
                _backward(interval_start(end - 1, interval), interval, missing - 1),
                interval_start(first, interval),
            )
            part = self._aggregated(symbol, interval, begin, end, now)[-missing:]
            parts.insert(0, part)
            missing -= len(part)
            end = begin
        return Candles.concatenate(parts)

    def _aggregated(self, symbol: str, interval: str, start: int, end: int, now: int) -> Candles:
        """Whole candles from the market's own aggregate, and the forming one from its parts.

        Candles opening before `end`; the last may still be forming at `now`."""
        if end <= start:
            return Candles.empty()
        if interval == self.market.base:
            return self.base_candles(symbol, start, end, now)
        forming = interval_start(now, interval)
        stop = interval_end(interval_start(end - 1, interval), interval)
        whole = self.market.aggregated(symbol, interval, start, min(stop, forming))
        if forming >= stop or forming < start:
            return whole
        tail = self.base_candles(symbol, forming, now + 1, now).aggregate(interval)
        return Candles.concatenate([whole, tail])

    def _forming(self, symbol: str, candle: Candles, now: int) -> Candles:
        """What is known at `now` of a candle that has not closed."""
        start = int(candle.time[0])
        points = list(self._points(candle))
        passed = (now - start) * 3 / self.step
        whole = int(passed)
        here = points[whole] + (points[whole + 1] - points[whole]) * (passed - whole)
        here = round(here, self._places[symbol])
        seen = [*points[: whole + 1], here]
        volume = float(candle.volume[0]) * (now - start) / self.step
        return Candles(
            candle.time,
            candle.open,
            np.array([max(seen)]),
            np.array([min(seen)]),
            np.array([here]),
            np.array([round(volume, 8)]),
        )

    def _points(self, candle: Candles) -> tuple[float, float, float, float]:
        """Open, the two extremes in the order they are met, close: a rising candle dips first."""
        o, h, l, c = (float(column[0]) for column in candle.columns[1:5])  # noqa: E741
        return (o, l, h, c) if c >= o else (o, h, l, c)

    # Prices.

    def price(self, symbol: str, now: int) -> Decimal | None:
        """The last price at `now`; None before the symbol's first candle."""
        last = self._last_candles(symbol, now, 1)
        return self.to_price(symbol, float(last.close[-1])) if len(last) else None

    def to_price(self, symbol: str, value: float) -> Decimal:
        return Decimal(f"{value:.{self._places[symbol]}f}")

    def liquidity(self, symbol: str, now: int) -> Liquidity | None:
        """The market's own orders at `now`."""
        recent = self._last_candles(symbol, now, RECENT + 1)
        if not len(recent):
            return None
        closed = recent.volume[recent.time + self.step <= now]
        if not len(closed):  # at the very first candle its own size must do
            closed = self.market.candles(symbol, int(recent.time[-1]), now + 1).volume
        volume = float(closed.mean())
        index = int(now) // self.step
        salt = moment_salt(self.market.salt, index, symbol)
        return Liquidity(
            self.instruments[symbol],
            self.market.shape,
            self.to_price(symbol, float(recent.close[-1])),
            Decimal(f"{volume:.8f}"),
            salt,
        )

    def _last_candles(self, symbol: str, now: int, count: int) -> Candles:
        """The last `count` base candles that opened by `now`, across any gap."""
        first, _ = self.market.span
        reach, end = count * self.step, now // self.step * self.step + self.step
        while True:
            start = end - reach
            found = self.base_candles(symbol, start, end, now)[-count:]
            if len(found) == count or start <= first:
                return found
            reach *= 8

    # Movement.

    def first_touch(self, symbol: str, since: int, now: int, low: float, high: float) -> int | None:
        """The open time of the first candle, of those that hold times from `since` to `now`,
        that reaches down to `low` or up to `high`."""
        begin = since // self.step * self.step
        while begin <= now:
            end = begin + _BLOCK * self.step
            block = self.market.candles(symbol, begin, min(end, now + 1))
            rows = np.flatnonzero((block.low <= low) | (block.high >= high))
            if len(rows):
                return int(block.time[rows[0]])
            begin = end
        return None

    def legs(self, symbol: str, since: int, now: int) -> Iterator[Leg]:
        """How the price went from `since` to `now`, both in ms."""
        block = self.market.candles(symbol, since // self.step * self.step, now + 1)
        for row in range(len(block)):
            yield from self._candle_legs(symbol, block[row : row + 1], since, now)

    def _candle_legs(self, symbol: str, candle: Candles, since: int, now: int) -> Iterator[Leg]:
        start = int(candle.time[0])
        points = self._points(candle)
        third = self.step / 3
        for number in range(3):
            begins, ends = start + number * third, start + (number + 1) * third
            then, until = max(begins, since), min(ends, now)
            if until <= then and not (begins == then == until):
                continue
            here, there = points[number], points[number + 1]
            yield Leg(
                self.to_price(symbol, here + (there - here) * (then - begins) / third),
                self.to_price(symbol, here + (there - here) * (until - begins) / third),
                Decimal(f"{float(candle.volume[0]) * (until - then) / self.step:.8f}"),
                int(then),
                int(until),
            )

    # Statistics.

    def day(self, symbol: str, now: int) -> Day | None:
        """The 24 hours to `now`."""
        window = self.base_candles(symbol, now - DAY + 1, now + 1, now)
        if not len(window):
            window = self._last_candles(symbol, now, 1)
        if not len(window):
            return None
        typical = (window.high + window.low + window.close) / 3
        first, last = int(window.time[0]) // self.step, int(window.time[-1]) // self.step
        return Day(
            self.to_price(symbol, float(window.open[0])),
            self.to_price(symbol, float(window.high.max())),
            self.to_price(symbol, float(window.low.min())),
            self.to_price(symbol, float(window.close[-1])),
            Decimal(f"{float(window.volume.sum()):.8f}"),
            Decimal(f"{float((window.volume * typical).sum()):.8f}"),
            max(now - DAY, int(window.time[0])),
            first * PRINTS,
            last * PRINTS + PRINTS - 1,
        )

    def prints(self, symbol: str, start: int, end: int, now: int) -> list[Print]:
        """Public trades from `start` to `end`, both inclusive, in ms: four of each candle."""
        first = start // self.step * self.step
        block = self.market.candles(symbol, first, min(end, now) + 1)
        found: list[Print] = []
        for row in range(len(block)):
            found += self._prints_of(symbol, block[row : row + 1])
        return [each for each in found if start <= each.time <= min(end, now)]

    def last_prints(self, symbol: str, count: int, now: int) -> list[Print]:
        recent = self._last_candles(symbol, now, count // PRINTS + 2)
        return self.prints(symbol, int(recent.time[0]) if len(recent) else now, now, now)[-count:]

    def prints_from(self, symbol: str, number: int, count: int, now: int) -> list[Print]:
        """The first `count` public trades whose id is `number` or more."""
        start = max(number // PRINTS * self.step, self.market.span[0])
        candles = self.klines(symbol, self.market.base, start, None, count // PRINTS + 2, now)
        if not len(candles):
            return []
        found = self.prints(symbol, start, int(candles.time[-1]) + self.step - 1, now)
        return [each for each in found if each.id >= number][:count]

    def _prints_of(self, symbol: str, candle: Candles) -> list[Print]:
        start, points = int(candle.time[0]), self._points(candle)
        amount = Decimal(f"{float(candle.volume[0]) / PRINTS:.8f}")
        return [
            Print(
                start // self.step * PRINTS + rank,
                self.to_price(symbol, price),
                amount,
                min(start + rank * self.step // 3, start + self.step - 1),
                points[max(rank - 1, 0)] > price,
            )
            for rank, price in enumerate(points)
        ]


def _decimals(tick: Decimal) -> int:
    return max(0, -tick.normalize().as_tuple().exponent)


def _forward(start: int, interval: str, count: int) -> int:
    if interval != "1M":
        return start + count * (interval_end(start, interval) - start)
    month = np.datetime64(start, "ms").astype("datetime64[M]") + count
    return int(month.astype("datetime64[ms]").astype(np.int64))


def _backward(start: int, interval: str, count: int) -> int:
    return _forward(start, interval, -count)
