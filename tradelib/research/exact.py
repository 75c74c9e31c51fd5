"""Quotients of large whole numbers without a rounding on the way: pairs of floats.

A pair (high, low) stands for high + low, 106 bits, as in T. J. Dekker, A floating-point technique
for extending the available precision, 1971. Plain functions of numbers that run compiled as they
are. Live trading sizes orders with decimals of 28 digits, 93 bits: `whole_below` takes what lies
closer than that under a whole number for it, as decimals do.
"""

from __future__ import annotations

from math import floor

from tradelib.paper.counts import UNIT, rest_of_times, times

_SPLIT = 134_217_729.0  # 2**27 + 1: halves a float's bits
_NEARLY = 1e-28
_UNIT = float(UNIT)
_EXACT_FLOAT = 2**53
_FEW = 2**26

Pair = tuple[float, float]


def pair_of(count: int) -> Pair:
    """A whole number below 2**63, exactly."""
    high = float(count)
    return high, float(count - int(high))


def product(left: float, right: float) -> Pair:
    """The product of two floats, exactly."""
    high = left * right
    shift = _SPLIT * left
    left_high = shift - (shift - left)
    left_low = left - left_high
    shift = _SPLIT * right
    right_high = shift - (shift - right)
    right_low = right - right_high
    low = ((left_high * right_high - high) + left_high * right_low + left_low * right_high) + (
        left_low * right_low
    )
    return high, low


def joined(high: float, low: float) -> Pair:
    """The sum of two floats, the first the larger, exactly."""
    both = high + low
    return both, low - (both - high)


def multiplied(left: Pair, right: Pair) -> Pair:
    """The product of two pairs."""
    high, low = product(left[0], right[0])
    return joined(high, low + (left[0] * right[1] + left[1] * right[0]))


def added(left: Pair, right: Pair) -> Pair:
    """The sum of two pairs."""
    high = left[0] + right[0]
    part = high - left[0]
    low = (left[0] - (high - part)) + (right[0] - part)
    return joined(high, low + (left[1] + right[1]))


def divided(left: Pair, right: Pair) -> Pair:
    """The quotient of two pairs; its high float is the exact quotient, rounded once."""
    first = left[0] / right[0]
    back = multiplied((first, 0.0), right)
    rest = added(left, (-back[0], -back[1]))
    second = rest[0] / right[0]
    back = multiplied((second, 0.0), right)
    rest = added(rest, (-back[0], -back[1]))
    high, low = joined(first, second)
    return joined(high, low + rest[0] / right[0])


def over(part: int, whole: int) -> float:
    """part / whole, rounded once, as Python divides ints of any size."""
    if part < _EXACT_FLOAT and whole < _EXACT_FLOAT:
        return part / whole
    return divided(pair_of(part), pair_of(whole))[0]


def equity_of(cash: int, held: int, price: int) -> float:
    """cash + held * price, counts all, in units and rounded once."""
    counts = cash + times(held, price)
    if not _FEW <= counts < _EXACT_FLOAT:
        return divided(worth(cash, held, price), (_UNIT * _UNIT, 0.0))[0]
    # The quotient and, divided once more, what it lacks.
    first = counts / _UNIT
    high, low = product(first, _UNIT)
    return first + (((counts - high) - low) + rest_of_times(held, price) / _UNIT) / _UNIT


def worth(cash: int, held: int, price: int) -> Pair:
    """cash + held * price, counts all, in 1e-16."""
    high = pair_of(cash + times(held, price))
    low = float(rest_of_times(held, price))
    return added(multiplied(high, (_UNIT, 0.0)), (low, 0.0))


def is_below(left: Pair, right: Pair) -> bool:
    """Whether left < right, where 28 digits tell them apart."""
    return added(left, (-right[0], -right[1]))[0] < -abs(right[0]) * _NEARLY


def whole_below(pair: Pair) -> int:
    """The largest whole number not above, where 28 digits tell them apart; below 2**63."""
    high, low = joined(pair[0], pair[1] + pair[0] * _NEARLY)
    whole = floor(high)
    return whole + floor(low) if whole == high else whole


def as_written(value: float) -> Pair:
    """The decimal that a float from 1e-6 to 1 is written as: 0.08 is 8/100, which no float is."""
    if not 1e-6 <= value <= 1.0:
        return value, 0.0
    scale = 1e15
    while value * scale < 1e14:
        scale *= 10.0
    # The fewest digits that tell it from its neighbours; 17 always do.
    for _ in range(3):
        high, low = product(value, scale)
        whole = floor(high)
        written = joined(float(whole), float(floor((high - float(whole)) + low + 0.5)))
        found = divided(written, (scale, 0.0))
        if found[0] == value:
            return found
        scale *= 10.0
    return value, 0.0
