"""The market's own orders: synthetic levels around the price, a pure function of the moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

from tradelib.paper.counts import (
    NOISE_BITS,
    UNIT,
    best_price,
    level_amount,
    level_gap,
)
from tradelib.paper.instruments import EXACT, Instrument
from tradelib.paper.orders import BUY

_MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """64 well-stirred bits from any integer (the splitmix64 finaliser)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


@dataclass(frozen=True)
class Shape:
    """How the market's book looks.

    spread_bp: between best bid and best ask, in basis points of the price.
    gap_bp: between two levels, one tick at least.
    top: size of the best level, as a share of what a candle of the base timeframe trades.
    growth: how much larger each further level is, as a share of the top.
    levels: levels on each side; beyond them there is nothing.
    """

    spread_bp: Decimal = Decimal(0)
    gap_bp: Decimal = Decimal(1)
    top: Decimal = Decimal("0.05")
    growth: Decimal = Decimal("0.15")
    levels: int = 100

    @cached_property
    def shares(self) -> Shares:
        """The same as whole counts."""
        half, gap = self.spread_bp / 20000, self.gap_bp / 10000
        return Shares(*(to_counts(each) for each in (half, gap, self.top, self.growth)))


class Shares(NamedTuple):
    """A shape's parts in counts of 1e-8: half the spread and the gap between levels, of the price;
    the top level's size, of the volume; how a level grows, of the top."""

    half_spread: int
    gap: int
    top: int
    growth: int


EXACT_SHAPE = Shape()


@dataclass(frozen=True, slots=True)
class Liquidity:
    """The market's orders in one symbol at one moment.

    price: last price; volume: what a candle usually trades, base units; salt: differs by moment.
    """

    instrument: Instrument
    shape: Shape
    price: Decimal
    volume: Decimal
    salt: int

    def levels(self, side: str, beyond: Decimal | None = None) -> Iterator[tuple[Decimal, Decimal]]:
        """(price, amount) of the market's bids (BUY) or asks (SELL), best first.

        beyond: leaves out those that are better than this price, and ends as many later.
        """
        shares, rising = self.shape.shares, -1 if side == BUY else 1
        tick, lot = to_counts(self.instrument.tick), to_counts(self.instrument.step)
        last, volume = to_counts(self.price), to_counts(self.volume)
        best = best_price(last, shares.half_spread, tick, rising)
        gap = level_gap(last, shares.gap, tick) * rising
        first = 0 if beyond is None else max(0, -((best - to_counts(beyond)) // gap))
        for rank in range(first, first + self.shape.levels):
            price = best + gap * rank
            if price <= 0:
                return
            noise = level_noise(self.salt, rank * 2 + (side == BUY))
            amount = level_amount(volume, shares.top, shares.growth, rank, noise, lot)
            yield from_counts(price), from_counts(amount)


def level_noise(salt: int, place: int) -> int:
    """NOISE_BITS bits that differ by moment and level. place: twice the rank, one more for bids."""
    return mix(salt ^ place) >> (64 - NOISE_BITS)


def moment_salt(market_salt: int, step: int, symbol: str) -> int:
    """A symbol's salt in the so-and-so-many-th base candle since 1970."""
    number = int.from_bytes(symbol.encode()[:8].ljust(8, b"\0"), "little")
    return mix(market_salt ^ mix(step) ^ mix(number))


def to_counts(value: Decimal) -> int:
    """As whole counts of 1e-8, the nearest."""
    return int(EXACT.multiply(value, UNIT).to_integral_value())


def from_counts(count: int) -> Decimal:
    return Decimal(count).scaleb(-8, EXACT)
