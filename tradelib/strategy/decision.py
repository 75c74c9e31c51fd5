"""The decision step: one pure function that live trading calls and research compiles.

`decide` speaks only of numbers and NamedTuples of numbers, calls nothing and imports nothing, so
that `numba.njit(decide)` gives the same floats, bit for bit, as plain Python does. Long only, on a
spot market. A signal is a score at or beyond its threshold. Times are milliseconds since 1970 at
which candles close; amounts are base units; prices are quote per base; equity and cash are quote.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from pydantic import Field, model_validator

from tradelib.errors import InvalidInput
from tradelib.strategy.params import Params

FROZEN, COOL, WARM, HOT = range(4)
TEMPERATURES = ("FROZEN", "COOL", "WARM", "HOT")

(
    WARMING_UP,
    NO_PRICE,
    NO_SIGNAL,
    NOTHING_TO_SELL,
    CONFIRMING,
    COOLING_DOWN,
    LARGE_ENOUGH,
    NO_CASH,
    BUY_SIGNAL,
    SELL_SIGNAL,
    STOP_LOSS,
) = range(11)
_REASONS = (
    "warming up",
    "no usable price",
    "no signal",
    "nothing to sell",
    "signal not confirmed yet",
    "cooling down after the last trade",
    "position is large enough",
    "no cash left",
    "confirmed buy signal",
    "confirmed sell signal",
    "stop loss",
)

NEVER_MS = -(2**53)
"""A time before every other: no trade yet. Exact in JSON readers that know only doubles."""


class DecisionParams(Params):
    """How a score becomes a trade. Fractions are of equity unless they say otherwise."""

    buy_threshold: float = Field(0.3, gt=0, le=1, description="score (0…1) from which to buy")
    sell_threshold: float = Field(-0.3, ge=-1, lt=0, description="score (-1…0) to sell at or below")
    confirmation_minutes: float = Field(
        5.0, ge=0, le=100_000, description="market minutes a signal must persist; 0: at once"
    )
    cooldown_minutes: float = Field(
        15.0, ge=0, le=100_000, description="market minutes without signals after a trade"
    )
    hot_from: float = Field(
        0.2, ge=0, le=1, description="distance beyond the threshold from which a signal is HOT"
    )
    warm_from: float = Field(
        0.1, ge=0, le=1, description="distance beyond the threshold from which it is WARM"
    )
    hot_size: float = Field(0.25, ge=0, le=1, description="position when HOT, fraction of equity")
    warm_size: float = Field(0.15, ge=0, le=1, description="position when WARM, fraction of equity")
    cool_size: float = Field(0.08, ge=0, le=1, description="position when COOL, fraction of equity")
    smallest_step: float = Field(
        0.02, gt=0, le=1, description="least purchase worth its fee, fraction of equity"
    )
    stop_loss: float = Field(
        0.1, gt=0, le=1, description="fall below the entry price that sells all, a fraction; 1: off"
    )

    @model_validator(mode="after")
    def _ordered(self) -> DecisionParams:
        if self.warm_from > self.hot_from:
            raise InvalidInput(
                f"warm_from = {self.warm_from:g} must not exceed hot_from = {self.hot_from:g}."
            )
        if not self.cool_size <= self.warm_size <= self.hot_size:
            raise InvalidInput(
                f"Sizes must not fall with temperature; cool_size, warm_size, hot_size are "
                f"{self.cool_size:g}, {self.warm_size:g}, {self.hot_size:g}."
            )
        return self

    def step(self) -> StepParams:
        """The same parameters as the numbers that `decide` takes."""
        return StepParams(
            self.buy_threshold,
            self.sell_threshold,
            round(self.confirmation_minutes * 60_000),
            round(self.cooldown_minutes * 60_000),
            self.hot_from,
            self.warm_from,
            self.hot_size,
            self.warm_size,
            self.cool_size,
            self.smallest_step,
            self.stop_loss,
        )


class StepParams(NamedTuple):
    """`DecisionParams` as numbers; times in milliseconds."""

    buy_threshold: float
    sell_threshold: float
    confirmation_ms: int
    cooldown_ms: int
    hot_from: float
    warm_from: float
    hot_size: float
    warm_size: float
    cool_size: float
    smallest_step: float
    stop_loss: float


class DecisionState(NamedTuple):
    """All that the step remembers from candle to candle.

    pending: side of the signal that is on, 1 buy, -1 sell, 0 none; pending_since_ms: close of the
    candle that showed it first. amount: position in base units, never negative; entry_price: the
    mean price it was bought at, 0 without a position.
    """

    pending: int = 0
    pending_since_ms: int = NEVER_MS
    last_trade_ms: int = NEVER_MS
    amount: float = 0.0
    entry_price: float = 0.0

    def to_json(self) -> str:
        """Text that `from_json` reads back exactly."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> DecisionState:
        """The state that `to_json` wrote; InvalidInput for anything else."""
        try:
            values = dict(json.loads(text))
            ordered = [values.pop(name) for name in cls._fields]
            if values:
                raise ValueError(f"unknown {', '.join(values)}")
            return cls(*map(int, ordered[:3]), *map(float, ordered[3:]))
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInput(f"Decision state {text[:200]!r} cannot be read.") from error


class Decision(NamedTuple):
    """What to do now.

    action: 1 buy, -1 sell, 0 hold. fraction: of equity to spend on a buy, of the position to sell
    on a sell, 0 on hold. temperature and reason: codes, told by TEMPERATURES and `reason_text`.
    """

    action: int
    fraction: float
    temperature: int
    reason: int


def decide(
    state: DecisionState,
    score: float,
    price: float,
    time_ms: int,
    equity: float,
    cash: float,
    params: StepParams,
) -> tuple[DecisionState, Decision]:
    """The decision at the close `time_ms` of a candle whose close is `price`.

    A signal trades once it has been on for the confirmation's time and the cooldown is over; its
    distance beyond the threshold tells its temperature, and that the size of the position to hold.
    A buy fills the position up to that size, a sell gives up all of it. The stop comes first and
    waits for nothing, not even for a score; a new entry must then be confirmed afresh.
    """
    side, beyond = 0, -1.0
    if score >= params.buy_threshold:
        side, beyond = 1, score - params.buy_threshold
    elif score <= params.sell_threshold:
        side, beyond = -1, params.sell_threshold - score

    temperature, size = FROZEN, 0.0
    if side != 0 and beyond >= params.hot_from:
        temperature, size = HOT, params.hot_size
    elif side != 0 and beyond >= params.warm_from:
        temperature, size = WARM, params.warm_size
    elif side != 0:
        temperature, size = COOL, params.cool_size

    since = state.pending_since_ms
    if side == 0:
        since = NEVER_MS
    elif side != state.pending:
        since = time_ms

    action, fraction, reason = 0, 0.0, NO_SIGNAL
    if not (price > 0.0 and price < float("inf")):
        reason = NO_PRICE
    elif state.amount > 0.0 and price <= state.entry_price * (1.0 - params.stop_loss):
        action, fraction, reason = -1, 1.0, STOP_LOSS
        side, since = 0, NEVER_MS
    elif score != score:
        reason = WARMING_UP
    elif side == 0:
        reason = NO_SIGNAL
    elif side < 0 and state.amount <= 0.0:
        reason = NOTHING_TO_SELL
    elif time_ms - since < params.confirmation_ms:
        reason = CONFIRMING
    elif time_ms - state.last_trade_ms < params.cooldown_ms:
        reason = COOLING_DOWN
    elif side < 0:
        action, fraction, reason = -1, 1.0, SELL_SIGNAL
    elif not (equity > 0.0 and cash >= params.smallest_step * equity):
        reason = NO_CASH
    elif size - state.amount * price / equity < params.smallest_step:
        reason = LARGE_ENOUGH
    else:
        fraction = min(size - state.amount * price / equity, cash / equity)
        action, reason = 1, BUY_SIGNAL

    remembered = DecisionState(side, since, state.last_trade_ms, state.amount, state.entry_price)
    return remembered, Decision(action, fraction, temperature, reason)


def after_fill(
    state: DecisionState, side: int, amount: float, price: float, time_ms: int
) -> DecisionState:
    """The state after a fill of `amount` base units (positive, net of fees in base) at `price`.

    side: 1 bought, -1 sold. The entry price is the mean of the purchases, weighted by amount.
    What is left after a sale is gone with it when it is rounding, a billionth of the position.
    """
    held, entry = state.amount, state.entry_price
    if side > 0:
        entry = (held * entry + amount * price) / (held + amount)
        held = held + amount
    else:
        left = held - amount
        held = left if left > held * 1e-9 else 0.0
        entry = entry if held > 0.0 else 0.0
    return DecisionState(state.pending, state.pending_since_ms, time_ms, held, entry)


def reason_text(code: int) -> str:
    """The reason of a decision in words."""
    if not 0 <= code < len(_REASONS):
        raise InvalidInput(f"There is no decision reason {code}; codes are 0…{len(_REASONS) - 1}.")
    return _REASONS[code]
