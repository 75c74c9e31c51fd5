"""Money, amounts and prices as whole numbers of 1e-8, and the market's book in them.

Each function takes and gives ints alone and calls only its like, so that research can compile the
very formulas by which the exchange makes its book. Shares are counted in 1e-8 too: 0.001 is
100_000. Sums below 2**63, some 92 billion units, are exact in both.
"""

from __future__ import annotations

UNIT = 10**8
"""How many counts make one unit: the exchange keeps eight decimals."""

NOISE_BITS = 20
"""A level's noise is a whole number of this many bits; half of them makes it its usual size."""


def times(left: int, right: int) -> int:
    """left * right, both and the product in counts, cut to a whole count. Neither is negative."""
    whole, part = left // UNIT, left % UNIT
    more, rest = right // UNIT, right % UNIT
    return whole * right + part * more + part * rest // UNIT


def rest_of_times(left: int, right: int) -> int:
    """What `times` cuts off, in 1e-16."""
    return (left % UNIT) * (right % UNIT) % UNIT


def best_price(price: int, half_spread: int, tick: int, rising: int) -> int:
    """The best ask (rising 1) or bid (-1) around a price, on the tick and away from it."""
    half = times(price, half_spread) + (1 if rest_of_times(price, half_spread) > 0 else 0)
    # The ask is the bid of falling numbers: whole ticks below -price - half.
    return max(tick, (-(price * rising) - half) // tick * tick * -rising)


def level_gap(price: int, gap: int, tick: int) -> int:
    """Between two levels: a share of the price, on the nearest tick, one tick at least."""
    ticks, rest = price * gap // (tick * UNIT), price * gap % (tick * UNIT)
    if 2 * rest > tick * UNIT or (2 * rest == tick * UNIT and ticks % 2 == 1):
        ticks += 1
    return max(ticks, 1) * tick


def level_amount(volume: int, top: int, growth: int, rank: int, noise: int, lot: int) -> int:
    """What stands at a level, best first from rank 0: whole lots, one at least.

    volume: what a candle usually trades. top: of that, the best level's usual share; growth: by
    how much of the top each further one is larger. noise: NOISE_BITS bits; makes it between a half
    and one and a half of the usual size.
    """
    usual = times(times(volume, top), UNIT + growth * rank)
    scale = 1 << NOISE_BITS
    stirred = noise + scale // 2
    size = usual // scale * stirred + usual % scale * stirred // scale
    return max(size // lot * lot, lot)
