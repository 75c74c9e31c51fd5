"""A market that follows a real exchange, through whatever fetches candles as ccxt does.

The source is asked in the background; what came last stands until something newer comes. Between
two answers the price went to whatever new extreme the candle shows, and then to its close.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from decimal import Decimal

import numpy as np

from tradelib.errors import VenueUnavailable
from tradelib.paper.candles import Candles
from tradelib.paper.clock import Wall, wall_ms
from tradelib.paper.config import OHLCVSource
from tradelib.paper.engine import Leg
from tradelib.paper.instruments import derive_instrument
from tradelib.paper.liquidity import EXACT_SHAPE, Shape
from tradelib.paper.market import Tape

_HISTORY = 1000
_FAR = 253_402_300_800_000  # the year 10000, in ms: a live market has no last candle
_KEPT_LEGS = 10_000
PAUSE = 2.0  # seconds between two rounds of questions


class LiveMarket:
    """Candles of the present."""

    is_live = True
    salt = 0

    def __init__(
        self,
        source: OHLCVSource,
        symbols: Sequence[str],
        timeframe: str = "1m",
        shape: Shape = EXACT_SHAPE,
        wall: Wall = wall_ms,
    ) -> None:
        self.base, self.shape, self._source, self._wall = timeframe, shape, source, wall
        self._pairs = {each.replace("/", ""): each for each in symbols}
        self._asking = threading.Lock()
        self._stopped = threading.Event()
        self._longer: dict[tuple[str, str], Candles] = {}
        self._candles = {each: self._fetch(each, timeframe) for each in self._pairs}
        self._legs: dict[str, deque[Leg]] = {each: deque(maxlen=_KEPT_LEGS) for each in self._pairs}
        self.instruments = tuple(
            derive_instrument(pair, self._candles[symbol]) for symbol, pair in self._pairs.items()
        )
        self._decimals = {
            each.symbol: max(0, -each.tick.as_tuple().exponent) for each in self.instruments
        }
        self.identity = f"live market, {timeframe} of {', '.join(sorted(self._pairs))}"

    @property
    def span(self) -> tuple[int, int]:
        return min(int(each.time[0]) for each in self._candles.values()), _FAR

    def candles(self, symbol: str, start: int, end: int) -> Candles:
        return self._candles[symbol].between(start, end)

    def aggregated(self, symbol: str, interval: str, start: int, end: int) -> Candles:
        """Longer candles reach further back than what the base candles at hand could make."""
        key = (symbol, interval)
        if key not in self._longer:
            self._longer[key] = self._fetch(symbol, interval)
        return self._longer[key].between(start, end)

    def moves(self, symbol: str, since: int, now: int) -> list[Leg]:
        """How the price went after `since` and up to `now`, in ms."""
        return [each for each in tuple(self._legs[symbol]) if since < each.end_time <= now]

    # Asking.

    def _fetch(self, symbol: str, timeframe: str, since: int | None = None) -> Candles:
        pair = self._pairs[symbol]
        try:
            with self._asking:
                rows = self._source.fetch_ohlcv(pair, timeframe, since, _HISTORY)
        except Exception as error:  # the source may raise anything at all
            raise VenueUnavailable(
                f"No {timeframe} candles of {pair} came from the exchange that the paper market "
                f"follows ({type(error).__name__}); check the network."
            ) from error
        if not rows and since is None:
            raise VenueUnavailable(f"The exchange has no {timeframe} candles of {pair}.")
        columns = np.array(rows, dtype=float).reshape(-1, 6).T
        return Candles(columns[0].astype(np.int64), *columns[1:])

    def refresh(self) -> None:
        """Asks once for each symbol and notes how the price moved."""
        for symbol in self._pairs:
            known = self._candles[symbol]
            fresh = self._fetch(symbol, self.base, int(known.time[-1]))
            if len(fresh):
                self._legs[symbol].extend(self._legs_between(symbol, known, fresh))
                self._candles[symbol] = _merged(known, fresh)
        for (symbol, interval), known in list(self._longer.items()):
            fresh = self._fetch(symbol, interval, int(known.time[-1]))
            if len(fresh):
                self._longer[symbol, interval] = _merged(known, fresh)

    def _legs_between(self, symbol: str, known: Candles, fresh: Candles) -> Iterator[Leg]:
        now, price, row = self._wall(), float(known.close[-1]), known[-1:]
        for number in range(len(fresh)):
            new = fresh[number : number + 1]
            is_same = new.time[0] == row.time[0]
            stops = [] if is_same else [float(new.open[0])]
            seen_high = float(row.high[0]) if is_same else float(new.open[0])
            seen_low = float(row.low[0]) if is_same else float(new.open[0])
            stops += [float(new.high[0])] if new.high[0] > seen_high else []
            stops += [float(new.low[0])] if new.low[0] < seen_low else []
            stops.append(float(new.close[0]))
            volume = float(new.volume[0]) - (float(row.volume[0]) if is_same else 0.0)
            for stop in stops:
                yield Leg(
                    self._to_price(symbol, price),
                    self._to_price(symbol, stop),
                    Decimal(f"{max(volume, 0) / len(stops):.8f}"),
                    now,
                    now,
                )
                price = stop
            row = new

    def _to_price(self, symbol: str, value: float) -> Decimal:
        return Decimal(f"{value:.{self._decimals[symbol]}f}")

    def start(self) -> None:
        """Begins to ask in the background."""
        threading.Thread(target=self._run, name="paper-live-market", daemon=True).start()

    def _run(self) -> None:
        was_lost = False
        while not self._stopped.wait(PAUSE):
            try:
                self.refresh()
                was_lost = False
            except VenueUnavailable as error:
                if not was_lost:
                    print(f"{time.strftime('%H:%M:%S')} {error}", file=sys.stderr)
                was_lost = True

    def stop(self) -> None:
        self._stopped.set()


def _merged(known: Candles, fresh: Candles) -> Candles:
    """The newer candles replace those they overlap."""
    return Candles.concatenate([known.between(0, int(fresh.time[0])), fresh])


class LiveTape(Tape):
    """The tape of a live market: moves are what was seen, not what a candle will show."""

    market: LiveMarket

    def _aggregated(self, symbol: str, interval: str, start: int, end: int, now: int) -> Candles:
        if interval == self.market.base:
            return self.base_candles(symbol, start, end, now)
        return self.market.aggregated(symbol, interval, start, min(end, now + 1))

    def first_touch(self, symbol: str, since: int, now: int, low: float, high: float) -> int | None:
        return since if self.market.moves(symbol, since, now) else None

    def legs(self, symbol: str, since: int, now: int) -> Iterator[Leg]:
        yield from self.market.moves(symbol, since, now)
