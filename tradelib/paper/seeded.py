"""The offline market: years of one-minute candles that follow from a seed alone.

Two layers. The backbone holds one level per day and symbol for the whole span, made in one go: a
mean-reverting sum of a common factor and an own part, with regimes of volatility and jumps. A day
is then filled with minutes by a bridge from its level to the next, from a stream of random numbers
of its own (seed, symbol, day), so that any day costs the same and nothing depends on what was
asked before.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from tradelib.clock import parse_time, to_ms
from tradelib.paper.candles import DAY, MINUTE, Candles, interval_ms
from tradelib.paper.instruments import Instrument
from tradelib.paper.liquidity import Shape

FIRST = "2010-01-01T00:00:00Z"
LAST = "2045-01-01T00:00:00Z"
MINUTES = 1440
_FIRST_DAY = to_ms(parse_time(FIRST)) // DAY
_LAST_DAY = to_ms(parse_time(LAST)) // DAY
_FACTOR = "factor"
# Levels are pulled back to their mean with a half-life of about a year, so that no price of
# any year is absurd.
_PULL = 0.5 ** (1 / 365)
# Days kept as minutes, as hours, and of the common factor.
_BLOCKS, _HOURS, _FACTOR_DAYS = 256, 20_000, 2_000


@dataclass(frozen=True)
class Coin:
    """How one symbol moves.

    price: its mean level in USDT. volume: USDT that change hands in a usual minute.
    beta: its share in the common factor. own: daily volatility of its own, a fraction.
    """

    name: str
    price: float
    tick: str
    step: str
    volume: float
    beta: float
    own: float

    @property
    def instrument(self) -> Instrument:
        return Instrument(self.name, "USDT", Decimal(self.tick), Decimal(self.step))


COINS = (
    Coin("BTC", 60000, "0.01", "0.00001", 900_000, 1.0, 0.008),
    Coin("ETH", 3000, "0.01", "0.0001", 500_000, 1.2, 0.015),
    Coin("SOL", 120, "0.01", "0.001", 200_000, 1.4, 0.03),
    Coin("ADA", 0.6, "0.0001", "0.1", 60_000, 1.2, 0.025),
    Coin("DOT", 8, "0.001", "0.01", 40_000, 1.2, 0.025),
    Coin("XRP", 0.8, "0.0001", "0.1", 150_000, 1.0, 0.03),
    Coin("DOGE", 0.15, "0.00001", "1", 90_000, 1.2, 0.035),
    Coin("LTC", 100, "0.01", "0.001", 50_000, 1.0, 0.02),
    Coin("LINK", 15, "0.001", "0.01", 40_000, 1.2, 0.025),
    Coin("AVAX", 35, "0.001", "0.01", 40_000, 1.3, 0.03),
)
_FACTOR_VOLATILITY = 0.024  # per day
USUAL_SHAPE = Shape(spread_bp=Decimal(1))


@dataclass(frozen=True)
class Backbone:
    """Per day: log level at its start, volatility during it, and a jump within it (log)."""

    level: np.ndarray
    volatility: np.ndarray
    jump: np.ndarray


class SeededMarket:
    """Ten coins against USDT, minute by minute, the same for a seed whatever is asked first."""

    base = "1m"
    is_live = False

    def __init__(self, seed: int, shape: Shape = USUAL_SHAPE) -> None:
        self.seed, self.shape = seed, shape
        self.identity = f"seeded market, seed {seed}"
        self.salt = int.from_bytes(_digest(seed, "book")[:8], "little")
        self.instruments = tuple(coin.instrument for coin in COINS)
        self._coins = {coin.instrument.symbol: coin for coin in COINS}
        self._minutes: OrderedDict[tuple[str, int], Candles] = OrderedDict()
        self._hours: OrderedDict[tuple[str, int], Candles] = OrderedDict()
        self._factor_days: OrderedDict[int, np.ndarray] = OrderedDict()

    @property
    def span(self) -> tuple[int, int]:
        return _FIRST_DAY * DAY, _LAST_DAY * DAY

    def candles(self, symbol: str, start: int, end: int) -> Candles:
        days = self._days(start, end)
        return _joined([self._day(symbol, day) for day in days], start, end)

    def aggregated(self, symbol: str, interval: str, start: int, end: int) -> Candles:
        if interval_ms(interval) < 60 * MINUTE:
            return self.candles(symbol, start, end).aggregate(interval)
        hours = [self._day_hours(symbol, day) for day in self._days(start, end)]
        return _joined(hours, start, end).aggregate(interval)

    def _days(self, start: int, end: int) -> range:
        return range(max(start // DAY, _FIRST_DAY), min(-(-end // DAY), _LAST_DAY))

    # The backbone.

    def _backbone(self, name: str) -> Backbone:
        if name == _FACTOR:
            return _wander(self.seed, name, _FACTOR_VOLATILITY, jumps=0.01)
        return _wander(self.seed, name, self._coins[name].own, jumps=0.006)

    # One day.

    def _day(self, symbol: str, day: int) -> Candles:
        return _cached(self._minutes, (symbol, day), _BLOCKS, lambda: self._make(symbol, day))

    def _day_hours(self, symbol: str, day: int) -> Candles:
        return _cached(
            self._hours, (symbol, day), _HOURS, lambda: self._day(symbol, day).aggregate("1h")
        )

    def _factor_day(self, day: int) -> np.ndarray:
        return _cached(
            self._factor_days,
            day,
            _FACTOR_DAYS,
            lambda: self._path(_FACTOR, day, _stream(self.seed, _FACTOR, day)),
        )

    def _path(self, name: str, day: int, random: np.random.Generator) -> np.ndarray:
        """Log levels at the day's 1441 minute bounds: a bridge between two days' levels."""
        backbone, row = self._backbone(name), day - _FIRST_DAY
        start, end = backbone.level[row], backbone.level[row + 1]
        deviation = backbone.volatility[row] / np.sqrt(MINUTES) * _season() * _bursts(random)
        steps = deviation * random.standard_normal(MINUTES).clip(-5, 5)
        minute = int(random.integers(MINUTES))
        steps[minute] += backbone.jump[row]
        walked = np.r_[0.0, np.cumsum(steps)]
        variance = np.r_[0.0, np.cumsum(deviation**2)]
        return start + walked + variance / variance[-1] * (end - start - walked[-1])

    def _make(self, symbol: str, day: int) -> Candles:
        coin = self._coins[symbol]
        random = _stream(self.seed, symbol, day)
        path = np.log(coin.price) + coin.beta * self._factor_day(day)
        path = path + self._path(symbol, day, random)
        wicks = np.abs(random.standard_normal((2, MINUTES)))
        slips, turnover = random.standard_normal((2, MINUTES))
        moves = np.diff(path)
        usual = _usual_move(coin) * _season()
        here = np.sqrt(np.convolve(moves**2, np.ones(15) / 15, "same")) + 1e-9
        # The first trade of a minute is a hair away from the last of the one before.
        opens = path[:-1] + slips.clip(-3, 3) * 1e-5
        closes = path[1:]
        highs = np.maximum(opens, closes) + wicks[0] * here * 0.4
        lows = np.minimum(opens, closes) - wicks[1] * here * 0.4
        restless = (here / usual) ** 0.8 * (0.4 + np.abs(moves) / here)
        notional = coin.volume * _season() * restless * np.exp(0.5 * turnover - 0.125)
        return _rounded(coin, day, opens, highs, lows, closes, notional)


# Many exchanges of one seed may open in a process, and nobody changes a backbone.
@lru_cache(maxsize=64)
def _wander(seed: int, name: str, volatility: float, jumps: float) -> Backbone:
    """One mean-reverting path over all days. jumps: their probability per day."""
    random = _stream(seed, name, -1)
    days = _LAST_DAY - _FIRST_DAY + 1
    sigma = volatility * _regimes(random, days)
    sizes = random.normal(0, 2.5 * volatility, days).clip(-0.15, 0.15)
    jump = np.where(random.random(days) < jumps, sizes, 0.0)
    moves = sigma * random.standard_normal(days).clip(-4, 4) + jump
    level = _remembering(_PULL, np.r_[0.0, moves[:-1]])
    return Backbone(level, sigma, jump)


def _rounded(
    coin: Coin,
    day: int,
    opens: np.ndarray,
    highs: np.ndarray,
    lows: np.ndarray,
    closes: np.ndarray,
    notional: np.ndarray,
) -> Candles:
    """Log prices to prices on the tick, turnover to whole lots."""
    tick, places = float(coin.tick), max(0, -Decimal(coin.tick).as_tuple().exponent)
    step, lots = float(coin.step), max(0, -Decimal(coin.step).as_tuple().exponent)
    o, h, low, c = (
        np.round(np.maximum(np.rint(np.exp(each) / tick), 1) * tick, places)
        for each in (opens, highs, lows, closes)
    )
    volume = np.round(np.maximum(np.rint(notional / c / step), 1) * step, lots)
    time = day * DAY + np.arange(MINUTES, dtype=np.int64) * MINUTE
    return Candles(time, o, h, low, c, volume)


def _usual_move(coin: Coin) -> float:
    """A coin's standard deviation per minute in calm times."""
    daily = np.hypot(coin.beta * _FACTOR_VOLATILITY, coin.own)
    return float(daily / np.sqrt(MINUTES))


def _season() -> np.ndarray:
    """How lively each minute of the day is; 1 on average: quiet in Asia's night, busiest when
    Europe and America both trade (about 15:00 UTC)."""
    return _SEASON


_angle = 2 * np.pi * (np.arange(MINUTES) / MINUTES - 15 / 24)
_SEASON = 1 + 0.35 * np.cos(_angle) + 0.1 * np.cos(2 * _angle)


def _regimes(random: np.random.Generator, days: int) -> np.ndarray:
    """A factor on volatility per day: slow tides and faster clusters, 0.3 to 3."""
    tide, cluster = (
        _remembering(memory, np.sqrt(1 - memory**2) * random.standard_normal(days))
        for memory in (0.985, 0.8)
    )
    return np.exp(0.35 * tide + 0.25 * cluster).clip(0.3, 3)


def _bursts(random: np.random.Generator) -> np.ndarray:
    """A factor on volatility per minute: restless and calm stretches of about an hour."""
    knots = random.standard_normal(MINUTES // 40 + 1)
    return np.exp(0.5 * np.interp(np.arange(MINUTES), np.arange(len(knots)) * 40, knots))


def _remembering(memory: float, news: np.ndarray) -> np.ndarray:
    """Each value is the one before, less what is forgotten, and the news."""
    return np.array(list(accumulate(news.tolist(), lambda past, new: memory * past + new)))


def _digest(seed: int, name: str, day: int = 0) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}/{day}".encode(), digest_size=16).digest()


def _stream(seed: int, name: str, day: int) -> np.random.Generator:
    """Random numbers that depend on nothing but these three."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(_digest(seed, name, day), "little")))


def _joined(parts: list[Candles], start: int, end: int) -> Candles:
    return Candles.concatenate(parts).between(start, end)


def _cached(cache: OrderedDict, key: Any, size: int, make: Callable[[], Any]) -> Any:
    """The value of a bounded cache, made when it is not there."""
    if key in cache:
        cache.move_to_end(key)
        return cache[key]
    value = cache[key] = make()
    if len(cache) > size:
        cache.popitem(last=False)
    return value
