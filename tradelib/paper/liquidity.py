"""The market's own orders: synthetic levels around the price, a pure function of the moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import count

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

    def best(self, side: str) -> Decimal:
        """The market's best bid (side BUY) or ask (SELL)."""
        half = self.price * self.shape.spread_bp / 20000
        tick = self.instrument.tick
        if side == BUY:
            ticks = ((self.price - half) / tick).to_integral_value(ROUND_FLOOR)
        else:
            ticks = ((self.price + half) / tick).to_integral_value(ROUND_CEILING)
        return max(tick, EXACT.multiply(ticks, tick))

    def levels(self, side: str) -> Iterator[tuple[Decimal, Decimal]]:
        """(price, amount) of the market's bids (BUY) or asks (SELL), best first."""
        best = self.best(side)
        gap = self.instrument.round_price(self.price * self.shape.gap_bp / 10000)
        gap = max(gap, self.instrument.tick) * (-1 if side == BUY else 1)
        for rank in count():
            price = best + gap * rank
            if rank >= self.shape.levels or price <= 0:
                return
            yield price, self._amount(side, rank)

    def _amount(self, side: str, rank: int) -> Decimal:
        """Between a half and one and a half of the rank's usual size; one lot at least."""
        noise = Decimal(mix(self.salt ^ (rank * 2 + (side == BUY))) >> 44) / (1 << 20)
        size = self.volume * self.shape.top * (1 + self.shape.growth * rank)
        lots = self.instrument.floor_amount(size * (noise + Decimal("0.5")))
        return max(lots, self.instrument.step)
