"""A bot's steps held against a backtest as research computes it, value for value.

It is for steps that began where the backtest begins: with the first of its candles, its cash and
nothing held. What a bot did from any other state on, `parity` holds against what is expected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

from tradelib.clock import timeframe_ms
from tradelib.research.backtest import Backtest
from tradelib.trading.decisions import ACTIONS
from tradelib.trading.live_steps import LiveStep
from tradelib.trading.orders import EXACT, ZERO
from tradelib.trading.parity import SAME_SCORE

# A mean of many prices is told as a sum of floats; what was paid per unit is exact.
_SAME_MEAN = 1e-12


@dataclass(frozen=True)
class Mismatch:
    """A value at a candle's close that is not the backtest's."""

    close: datetime
    what: str
    live: str
    backtest: str


@dataclass(frozen=True)
class Comparison:
    """Every decision, order, fill, fee and worth of a bot beside a backtest's.

    orders: those that were made, refused: of them, those that came to nothing. equity, backtest:
    the account's worth at the last close on both sides, in quote currency.
    """

    candles: int
    decisions: int
    orders: int
    refused: int
    fills: int
    equity: float
    backtest: float
    mismatches: tuple[Mismatch, ...]

    @property
    def agrees(self) -> bool:
        return not self.mismatches


def hold_against(live: Sequence[LiveStep], tested: Backtest) -> Comparison:
    """A bot's steps beside the backtest of the same candles."""
    orders = [step.order for step in live if step.order is not None]
    last = live[-1].inputs if live else None
    return Comparison(
        candles=len(tested.candles),
        decisions=len(live),
        orders=len(orders),
        refused=sum(not step.fills for step in live if step.order is not None),
        fills=sum(len(step.fills) for step in live),
        equity=float(last.equity) if last else math.nan,
        backtest=float(tested.equity.iloc[-1]),
        mismatches=tuple(find_mismatches(live, tested)),
    )


def find_mismatches(live: Sequence[LiveStep], tested: Backtest) -> list[Mismatch]:
    """Every value of a bot's steps that is not the backtest's. What the last decision led to is
    left out: a backtest does not know the next open."""
    length = timedelta(milliseconds=timeframe_ms(tested.timeframe))
    steps = {step.close: step for step in live}
    orders = _orders(tested)
    found: list[Mismatch] = []
    for row, expected in enumerate(_decisions(tested)):
        close = tested.candles.index[row].to_pydatetime() + length
        step = steps.pop(close, None)
        if step is None:
            found.append(Mismatch(close, "candle", "missed", str(expected["action"])))
            continue
        pairs = _pair(_decided(step), expected)
        if row + 1 < len(tested.candles):
            pairs |= _pair(_ordered(step), orders.get(row, {}))
        found += [
            Mismatch(close, what, str(there), str(here))
            for what, (there, here) in pairs.items()
            if not _same(what, there, here)
        ]
    return found + [Mismatch(one.close, "candle", "decided", "none") for one in steps.values()]


_Values = dict[str, Any]


def _pair(live: _Values, tested: _Values) -> dict[str, tuple[Any, Any]]:
    names = [*live, *(name for name in tested if name not in live)]
    return {name: (live.get(name), tested.get(name)) for name in names}


def _same(what: str, live: Any, tested: Any) -> bool:
    if what == "score":
        if live is None or tested is None or math.isnan(tested):
            return live is None  # nobody looked, or the strategy warms up
        return abs(live - tested) <= SAME_SCORE
    if what == "price" and live is not None and tested is not None:
        return math.isclose(live, tested, rel_tol=_SAME_MEAN, abs_tol=0)
    return bool(live == tested)


def _decisions(tested: Backtest) -> Iterator[_Values]:
    columns = tested.decisions
    rows = zip(
        columns["action"].tolist(), columns["fraction"].tolist(), columns["temperature"].tolist(),
        columns["reason"].tolist(), tested.scores["score"].tolist(), tested.equity.tolist(),
        strict=True,
    )  # fmt: skip
    for action, fraction, temperature, reason, score, equity in rows:
        yield {
            "action": ACTIONS[action],
            "fraction": fraction,
            "temperature": temperature,
            "reason": reason,
            "score": score,
            "equity": equity,
        }


def _decided(step: LiveStep) -> _Values:
    decision, score = step.decision, step.score
    return {
        "action": decision.action,
        "fraction": float(decision.fraction),
        "temperature": decision.temperature,
        # It says how much cash there is.
        "reason": decision.reason.partition(":")[0],
        "score": None if score is None or score.score is None else float(score.score),
        "equity": float(step.inputs.equity) if step.inputs else None,
    }


def _orders(tested: Backtest) -> dict[int, _Values]:
    """What the backtest's orders came to, by the row that they were decided at."""
    place = {opened: row for row, opened in enumerate(tested.candles.index)}
    paid = tested.done[:, 2].tolist()
    found: dict[int, _Values] = {}
    for one in tested.refused.itertuples():
        found[place[one.decided_on]] = {"amount": _exact(one.amount), "refused": True}
    for one in tested.trades.itertuples():
        fee = one.fee_base if one.side > 0 else one.fee
        found[place[one.decided_on]] = {
            "amount": _exact(one.amount),
            "price": one.price,
            "value": paid[place[one.Index]],
            "fee": _exact(fee),
        }
    return found


def _ordered(step: LiveStep) -> _Values:
    order = step.order
    if order is None:
        return {}
    if not step.fills:
        return {"amount": order.amount, "refused": True}
    with localcontext(EXACT):
        amount = sum((fill.amount for fill in step.fills), ZERO)
        paid = sum((fill.amount * fill.price for fill in step.fills), ZERO)
        cost = sum((fill.cost for fill in step.fills), ZERO)
        fee = sum((fill.fee for fill in step.fills), ZERO)
        price, value = float(paid / amount), float(cost / amount)
    return {"amount": amount, "price": price, "value": value, "fee": fee}


def _exact(value: float) -> Decimal:
    """A float that stands for whole counts of 1e-8, as the decimal that it stands for."""
    return Decimal(repr(value))
