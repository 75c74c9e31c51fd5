"""The rebalancing step: one pure function that live trading calls and research compiles.

`rebalance` speaks only of numbers and arrays with one number per symbol, so that
`numba.njit(rebalance)` gives the same floats, bit for bit, as plain Python does. Long only, on a
spot market. Amounts are base units, prices quote per base, equity and cash quote; times are
milliseconds since 1970 at which candles close.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field

from tradelib.errors import InvalidInput
from tradelib.strategy.params import Params

(
    WARMING_UP,
    NO_PRICE,
    NO_EQUITY,
    WITHIN_BAND,
    COOLING_DOWN,
    TOO_SMALL,
    NO_CASH,
    REBALANCING,
) = range(8)
_REASONS = (
    "warming up",
    "no usable price",
    "no equity",
    "every weight is near its target",
    "rebalanced too recently",
    "no step is large enough",
    "no cash left",
    "rebalancing to the targets",
)


class RebalanceParams(Params):
    """When weights that have drifted are brought back, and how far. Fractions are of equity.

    Nothing happens while every weight is within the band around its target; as soon as one is
    not, all are brought to their targets, but for steps that are too small. A symbol whose target
    is 0 is sold as soon as it is worth a step, and whole.
    """

    band: float = Field(
        0.05, ge=0, lt=1, description="distance of a weight from its target that is let be"
    )
    smallest_step: float = Field(
        0.02, gt=0, le=1, description="least purchase or sale worth its fee, fraction of equity"
    )
    interval_minutes: float = Field(
        60.0, ge=0, le=10_000_000, description="market minutes from the last trade to the next"
    )
    cash_reserve: float = Field(
        0.06, ge=0, lt=1, description="cash that purchases leave, fraction of equity"
    )

    def step(self) -> RebalanceStep:
        """The same parameters as the numbers that `rebalance` takes."""
        return RebalanceStep(
            self.band, self.smallest_step, round(self.interval_minutes * 60_000), self.cash_reserve
        )


class RebalanceStep(NamedTuple):
    """`RebalanceParams` as numbers; time in milliseconds."""

    band: float
    smallest_step: float
    interval_ms: int
    cash_reserve: float


def rebalance(
    amounts: np.ndarray,
    prices: np.ndarray,
    weights: np.ndarray,
    equity: float,
    cash: float,
    time_ms: int,
    last_trade_ms: int,
    params: RebalanceStep,
) -> tuple[np.ndarray, np.ndarray, int]:
    """What to do with each symbol at the close `time_ms`.

    amounts, prices, weights: what is held, its close and the target weight, by symbol.

    Returns actions (1 buy, -1 sell, 0 leave), fractions (of equity to spend on a buy, of what is
    held to sell on a sell) and the reason's code. Purchases get what the cash and the sales give,
    less the reserve; where that is too little, each the same share of its wish.
    """
    count = len(weights)
    actions, fractions = np.zeros(count, np.int64), np.zeros(count)
    shares = np.zeros(count)
    if not (equity > 0.0 and equity < np.inf):
        return actions, fractions, NO_EQUITY
    due = False
    for i in range(count):
        if not (prices[i] > 0.0 and prices[i] < np.inf):
            return actions, fractions, NO_PRICE
        if weights[i] != weights[i]:
            return actions, fractions, WARMING_UP
        shares[i] = amounts[i] * prices[i] / equity
        off = abs(shares[i] - weights[i])
        if off > params.band or (weights[i] == 0.0 and off >= params.smallest_step):
            due = True
    if not due:
        return actions, fractions, WITHIN_BAND
    if time_ms - last_trade_ms < params.interval_ms:
        return actions, fractions, COOLING_DOWN

    free, wanted, sells = cash / equity - params.cash_reserve, 0.0, 0
    for i in range(count):
        excess = shares[i] - weights[i]
        if excess >= params.smallest_step:
            # Nothing must be left of what is given up, not even by rounding.
            actions[i], fractions[i] = -1, excess / shares[i] if weights[i] > 0.0 else 1.0
        elif -excess >= params.smallest_step:
            actions[i], fractions[i] = 1, -excess
            wanted += -excess
        if actions[i] < 0:
            free, sells = free + shares[i] * fractions[i], sells + 1
    if wanted == 0.0 and sells == 0:
        return actions, fractions, TOO_SMALL

    scale, buys = max(min(free / wanted, 1.0), 0.0) if wanted > 0.0 else 0.0, 0
    for i in range(count):
        if actions[i] > 0:
            fractions[i] = fractions[i] * scale
            if fractions[i] < params.smallest_step:
                actions[i], fractions[i] = 0, 0.0
            else:
                buys += 1
    return actions, fractions, REBALANCING if buys + sells > 0 else NO_CASH


def rebalance_reason(code: int) -> str:
    """The reason of a rebalancing, or of none, in words."""
    if not 0 <= code < len(_REASONS):
        raise InvalidInput(f"There is no reason {code}; codes are 0…{len(_REASONS) - 1}.")
    return _REASONS[code]
