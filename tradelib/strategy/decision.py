"""The decision step: one pure function that live trading calls and research compiles.

`decide` speaks only of numbers and NamedTuples of numbers, calls nothing and imports nothing, so
that `numba.njit(decide)` gives the same floats, bit for bit, as plain Python does. Long only, on a
spot market. A signal is a score at or beyond its threshold. Times are milliseconds since 1970 at
which candles close; amounts are base units; prices are quote per base; equity and cash are quote.
"""

from __future__ import annotations

import json
from typing import Literal, NamedTuple

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
    PLAN_COMPLETE,
    TOO_NEAR,
    CANNOT_AFFORD,
) = range(14)
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
    "all entries of the plan are made",
    "price has not moved far enough for the next entry",
    "cannot afford an order",
)

SINGLE, EQUAL, PYRAMID_UP, PYRAMID_DOWN, ADAPTIVE = range(5)
EntryPlan = Literal["single", "equal", "pyramid_up", "pyramid_down", "adaptive"]
ENTRY_PLANS: tuple[EntryPlan, ...] = (
    "single", "equal", "pyramid_up", "pyramid_down", "adaptive",
)  # fmt: skip

NEVER_MS = -(2**53)
"""A time before every other: no trade yet. Exact in JSON readers that know only doubles."""


class DecisionParams(Params):
    """How a score becomes a trade. Fractions are of equity unless they say otherwise.

    entry_plan tells how a position is built. Every entry waits for a confirmed signal and for the
    cooldown, and is worth smallest_step or more; together they never cost more than the
    temperature's size.
        single        up to the size of the signal's temperature at once, and again whenever that
                      has grown
        equal         `tranches` equal parts, each where the price is lower by the spacing
        pyramid_up    parts that grow as 1, 2, 3, …, each where the price is lower
        pyramid_down  parts that shrink as …, 3, 2, 1, each where the price is higher
        adaptive      one part first; then, whichever way the price has moved, as many equal parts
                      as it has moved spacings
    A spacing of 0 asks nothing of the price. With a size of 0.24, three tranches and a spacing of
    0.02, pyramid_up buys for 0.04, 0.08 and 0.12 of equity; adaptive for 0.08 and, where the price
    has moved by 0.03, for 0.12.
    """

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

    entry_plan: EntryPlan = Field("single", description="how a position is built; see above")
    tranches: int = Field(3, ge=1, le=50, description="entries of a plan; `single` counts none")
    tranche_spacing: float = Field(
        0.02, ge=0, lt=1, description="move of the price from one entry to the next, a fraction"
    )

    @property
    def entries(self) -> int:
        """How many entries make a position whole."""
        return 1 if self.entry_plan == "single" else self.tranches

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
            ENTRY_PLANS.index(self.entry_plan),
            self.tranches,
            self.tranche_spacing,
        )


class StepParams(NamedTuple):
    """`DecisionParams` as numbers; times in milliseconds, entry_plan by its place in
    ENTRY_PLANS."""

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
    entry_plan: int
    tranches: int
    tranche_spacing: float


class DecisionState(NamedTuple):
    """All that the step remembers from candle to candle.

    pending: side of the signal that is on, 1 buy, -1 sell, 0 none; pending_since_ms: close of the
    candle that showed it first. amount: position in base units, never negative; entry_price: the
    mean price it was bought at, tranches: in how many purchases, last_entry: the price of the
    newest of them; 0 without a position.
    """

    pending: int = 0
    pending_since_ms: int = NEVER_MS
    last_trade_ms: int = NEVER_MS
    amount: float = 0.0
    entry_price: float = 0.0
    tranches: int = 0
    last_entry: float = 0.0

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
            return cls(*(type(zero)(value) for zero, value in zip(cls(), ordered, strict=True)))
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
    A buy fills the position up to that size, by the parts of the entry plan if there is one; a
    sell gives up all of it. The stop comes first and waits for nothing, not even for a score; a
    new entry must then be confirmed afresh.
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

    # How far the price has moved the plan's way since the last entry, and the next part's share.
    moved, share, count, spacing = 0.0, 1.0, params.tranches, params.tranche_spacing
    if state.tranches > 0 and state.last_entry > 0.0:
        moved = price / state.last_entry - 1.0
    if params.entry_plan == EQUAL:
        moved, share = -moved, 1.0 / count
    elif params.entry_plan == PYRAMID_UP:
        moved, share = -moved, 2.0 * (state.tranches + 1) / (count * (count + 1))
    elif params.entry_plan == PYRAMID_DOWN:
        share = 2.0 * (count - state.tranches) / (count * (count + 1))
    elif params.entry_plan == ADAPTIVE:
        moved, share = abs(moved), 1.0 / count
        if state.tranches > 0 and spacing > 0.0:
            share = share * max(1.0, moved / spacing)

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
    elif params.entry_plan != SINGLE and state.tranches >= params.tranches:
        reason = PLAN_COMPLETE
    elif params.entry_plan != SINGLE and state.tranches > 0 and 0.0 < spacing > moved:
        reason = TOO_NEAR
    else:
        # A plan counts what it paid: a price that falls makes no room for more than the size.
        worth = price if params.entry_plan == SINGLE else max(price, state.entry_price)
        missing = size - state.amount * worth / equity
        if missing < params.smallest_step:
            reason = LARGE_ENOUGH
        else:
            part = max(size * share, params.smallest_step)
            fraction = min(missing, cash / equity)
            if params.entry_plan != SINGLE:
                fraction = min(part, fraction)
            action, reason = 1, BUY_SIGNAL

    remembered = DecisionState(
        side,
        since,
        state.last_trade_ms,
        state.amount,
        state.entry_price,
        state.tranches,
        state.last_entry,
    )
    return remembered, Decision(action, fraction, temperature, reason)


def after_fill(
    state: DecisionState, side: int, amount: float, price: float, time_ms: int
) -> DecisionState:
    """The state after a fill of `amount` base units (positive, net of fees in base) at `price`.

    side: 1 bought, one tranche more, -1 sold. The entry price is the mean of the purchases,
    weighted by amount. What is left after a sale is gone with it when it is rounding, a billionth
    of the position.
    """
    held, entry = state.amount, state.entry_price
    tranches, last = state.tranches, state.last_entry
    if side > 0:
        entry = (held * entry + amount * price) / (held + amount)
        held = held + amount
        tranches, last = tranches + 1, price
    else:
        left = held - amount
        held = left if left > held * 1e-9 else 0.0
        entry = entry if held > 0.0 else 0.0
        tranches, last = (tranches, last) if held > 0.0 else (0, 0.0)
    return DecisionState(
        state.pending, state.pending_since_ms, time_ms, held, entry, tranches, last
    )


def reason_text(code: int) -> str:
    """The reason of a decision in words."""
    if not 0 <= code < len(_REASONS):
        raise InvalidInput(f"There is no decision reason {code}; codes are 0…{len(_REASONS) - 1}.")
    return _REASONS[code]
