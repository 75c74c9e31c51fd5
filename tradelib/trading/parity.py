"""Parity: what a bot did, held against what the backtest of the same candles says.

Candle by candle, what is expected is computed anew from where the bot really stood, so that a gap
is named once, where it arose, and not again in all that followed from it. What it cost is what the
account would be worth at the end had all gone as expected from there on, less what it would be
worth without that gap's having been: summed up, the costs are the difference between the backtest's
equity and the account's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import Any

import pandas as pd

from tradelib.clock import from_ms, parse_time, timeframe_ms, to_ms
from tradelib.strategy.decision import DecisionState
from tradelib.trading.bots import Bot
from tradelib.trading.decisions import Action
from tradelib.trading.expected import (
    Choice,
    Standing,
    Wanted,
    do,
    fill,
    final_worth,
    rule_fee,
    settle,
    walk,
    worth,
)
from tradelib.trading.live_course import Lived, trace
from tradelib.trading.live_steps import LiveStep
from tradelib.trading.orders import EXACT, ZERO, Fill, Side
from tradelib.trading.risk import FreshCandles
from tradelib.trading.runs import COMPUTED
from tradelib.venue.facts import Instrument

# Refusals of an order whose time had passed.
_LATE = {FreshCandles.__name__, "NewestDecision"}
# A strategy promises its score to this share, however long the history that it is given.
SAME_SCORE = 1e-9
MISSED = "missed"


class Cause(StrEnum):
    """Why a step is not the backtest's.

    DATA: the candles that the bot read are not those that the store has now. SIGNAL: another score
    or decision on the same candles. TIMING: a candle that was missed, or an order that came late.
    REFUSAL: a limit or a halt said no. FILL: another amount or price than the model's. FEE:
    another fee. OTHER: a stop that rested at the venue, or an order by hand; no backtest has them.
    """

    DATA = "data"
    SIGNAL = "signal"
    TIMING = "timing"
    REFUSAL = "refusal"
    FILL = "fill"
    FEE = "fee"
    OTHER = "other"

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Cause.DATA: "the bot read other candles than the store has now",
    Cause.SIGNAL: "another score or decision on the same candles",
    Cause.TIMING: "a candle was missed, or an order came late",
    Cause.REFUSAL: "a limit, a halt or the venue said no",
    Cause.FILL: "another amount or price than at the open",
    Cause.FEE: "another fee than the venue's rate",
    Cause.OTHER: "stops at the venue and orders by hand, which no backtest has",
}


@dataclass(frozen=True)
class Gap:
    """One difference, at a candle's close. what: which value; live, backtest: both sides' words;
    cost: what it took from the account's worth at the end, in quote currency, negative for a gain.
    """

    close: datetime
    cause: Cause
    what: str
    live: str
    backtest: str
    cost: Decimal

    def to_json(self) -> dict[str, Any]:
        told = {**vars(self), "close": self.close.isoformat(), "cost": f"{self.cost:f}"}
        return told | {"cause": str(self.cause)}

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> Gap:
        read = {"close": parse_time(told["close"]), "cost": Decimal(told["cost"])}
        return Gap(**{**told, **read, "cause": Cause(told["cause"])})


@dataclass(frozen=True)
class Point:
    """The account's worth at a candle's close, in quote currency: as it was, and had all gone as
    the backtest says since the first one."""

    close: datetime
    live: float
    backtest: float


@dataclass(frozen=True)
class Parity:
    """A bot's candles held against their backtest.

    closes: the first and the last candle's close, None without any. decisions, orders, fills: how
    many the ledger has of them. equity: the account's at the last close, backtest: what it would
    be, both in quote currency. notes: what live trading does by design that no backtest does.
    """

    bot: str
    venue: str
    quote: str
    closes: tuple[datetime, datetime] | None = None
    candles: int = 0
    decisions: int = 0
    orders: int = 0
    fills: int = 0
    equity: Decimal = ZERO
    backtest: Decimal = ZERO
    gaps: tuple[Gap, ...] = ()
    curve: tuple[Point, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return not self.gaps

    @property
    def difference(self) -> Decimal:
        """What the account has less than the backtest, in quote currency."""
        return self.backtest - self.equity

    @property
    def residue(self) -> Decimal:
        """What of the difference no gap explains."""
        with localcontext(EXACT):
            return self.difference - sum((gap.cost for gap in self.gaps), ZERO)

    def costs(self) -> dict[Cause, tuple[int, Decimal]]:
        """Number and cost of the gaps of each cause that there are."""
        found: dict[Cause, tuple[int, Decimal]] = {}
        for cause in Cause:
            mine = [gap.cost for gap in self.gaps if gap.cause is cause]
            if mine:
                found[cause] = len(mine), sum(mine, ZERO)
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "closes": [close.isoformat() for close in self.closes] if self.closes else None,
            "equity": f"{self.equity:f}",
            "backtest": f"{self.backtest:f}",
            "gaps": [gap.to_json() for gap in self.gaps],
            "curve": [[to_ms(p.close), p.live, p.backtest] for p in self.curve],
            "notes": list(self.notes),
            "residue": f"{self.residue:f}",
            COMPUTED: {},
        }

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> Parity:
        plain = {name: told[name] for name in _PLAIN}
        first_last = told["closes"] and tuple(map(parse_time, told["closes"]))
        return Parity(
            **plain,
            closes=first_last,
            equity=Decimal(told["equity"]),
            backtest=Decimal(told["backtest"]),
            gaps=tuple(map(Gap.from_json, told["gaps"])),
            curve=tuple(Point(from_ms(ms), live, back) for ms, live, back in told["curve"]),
            notes=tuple(told["notes"]),
        )


_PLAIN = ("bot", "venue", "quote", "candles", "decisions", "orders", "fills")


def compare(
    bot: Bot,
    live: Sequence[LiveStep],
    candles: pd.DataFrame,
    rules: Instrument,
    fills: Sequence[Fill] = (),
) -> Parity:
    """Hold what a bot did against what its candles make expected.

    live: its steps, oldest first. candles: what the store has now, with the strategy's history
    before the first step. rules: the symbol's at the venue. fills: all of the bot's, oldest first.
    """
    if not live:
        return Parity(bot.name, bot.venue, bot.quote)
    length = timedelta(milliseconds=timeframe_ms(bot.timeframe))
    lived = trace(bot, live, candles, rules, fills)
    gaps = _find_gaps(lived)
    curve, expected = _curve(lived)
    return Parity(
        bot=bot.name,
        venue=bot.venue,
        quote=bot.quote,
        closes=(lived.course.closes[0], lived.course.closes[-1]),
        candles=len(lived.course.closes),
        decisions=len(live),
        orders=sum(step.order is not None for step in live),
        fills=sum(len(step.fills) for step in live),
        equity=worth(lived.course, len(lived.standings) - 1, lived.standings[-1]),
        backtest=expected,
        gaps=tuple(_joined(gaps, length)),
        curve=curve,
        notes=_notes(bot, lived),
    )


def _curve(lived: Lived) -> tuple[tuple[Point, ...], Decimal]:
    """The account's worth close by close on both sides, and the backtest's at the end."""
    course, points = lived.course, []
    standing = lived.standings[0]
    for row, done in enumerate(walk(course, 0, standing)):
        lived_worth = worth(course, row, lived.standings[row])
        points.append(Point(course.closes[row], float(lived_worth), float(done.choice.equity)))
    return tuple(points), done.choice.equity


def _find_gaps(lived: Lived) -> list[Gap]:
    """Every gap, in time. What the way so far is worth at the end is known from the gap before,
    as long as each row leads to where the bot stood at the next."""
    found, value = [], None
    for number, following in enumerate([*lived.standings[1:], None]):
        row = _Row(lived, number, value)
        found += row.gaps()
        value = row.value if row.after == following else None
    return found


class _Row:
    """One candle's gaps: what is expected from where the bot stood, and then, one after the
    other, what was different; each with what it cost."""

    def __init__(self, lived: Lived, row: int, value: Decimal | None) -> None:
        self.course, self.row = lived.course, row
        self.step, self.others, self.hash = lived.steps[row], lived.others[row], lived.hashes[row]
        self.standing = lived.standings[row]
        self.close = lived.course.closes[row]
        self.found: list[Gap] = []
        self.expected = do(self.course, row, self.standing)
        # Where the bot stands after the row, as far as its differences have been gone through, and
        # what that is worth at the end, once somebody asked.
        self.after = self.expected.after
        self.value = value

    def gaps(self) -> list[Gap]:
        if self.step is None:
            wanted = self.expected.choice.action
            self._note(Cause.TIMING, "candle", MISSED, wanted, self._settled([]))
        else:
            self._decide(self.step)
            self._trade(self.step)
        if self.others:
            done = [*(self.step.fills if self.step else ()), *self.others]
            told = "; ".join(map(_told_fill, self.others))
            self._note(Cause.OTHER, "order", told, "none", self._settled(done))
        return self.found

    def _note(
        self, cause: Cause, what: str, live: object, backtest: object, after: Standing | None = None
    ) -> None:
        """A gap, and where the bot stands with it; None: as without it."""
        cost = self._go_to(after) if after else ZERO
        self.found.append(Gap(self.close, cause, what, str(live), str(backtest), cost))

    def _go_to(self, after: Standing) -> Decimal:
        """Stand there instead; what that costs by the end."""
        if self.row + 1 == len(self.course.closes):
            self.after = after  # what comes after the last close is not seen
            return ZERO
        before = self._worth(self.after) if self.value is None else self.value
        self.after, self.value = after, self._worth(after)
        return before - self.value

    def _worth(self, standing: Standing) -> Decimal:
        return final_worth(self.course, self.row + 1, standing)

    def _settled(self, fills: Sequence[Fill]) -> Standing:
        settled = settle(self.course, self.row, self.standing, fills)
        return replace(settled, signal=self.after.signal)

    def _decide(self, step: LiveStep) -> None:
        """What was decided; `expected` is then what it should have led to."""
        choice, mine = self.expected.choice, step.decision
        is_other_data = step.score is not None and step.score.candles_hash != self.hash
        cause = Cause.DATA if is_other_data else Cause.SIGNAL
        lived = replace(
            choice, action=Action(mine.action), fraction=mine.fraction, reason=mine.reason,
            temperature=mine.temperature, signal=DecisionState(**mine.state),
        )  # fmt: skip
        acts = (choice.action, choice.fraction) != (lived.action, lived.fraction)
        if acts or _pending(choice) != _pending(lived):
            self.expected = do(self.course, self.row, self.standing, lived)
            if acts or step.looked:
                told = _told_choice(lived), _told_choice(choice)
                self._note(cause, "decision", *told, self.expected.after)
            else:
                # Where it could afford nothing, nobody looked whether a signal began.
                self._go_to(self.expected.after)
        elif _differ(step, self.course.scores[self.row]):
            self._note(
                cause, "score", step.score and step.score.score, self.course.scores[self.row]
            )
        elif is_other_data:
            self._note(cause, "candles", f"{step.score.candles_hash:.12}", f"{self.hash:.12}")
        elif step.looked and choice.reason != lived.reason:
            self._note(cause, "reason", lived.reason, choice.reason)

    def _trade(self, step: LiveStep) -> None:
        """What became of the decision."""
        wanted, done = self.expected.wanted, self.expected.fill
        if self.course.opens[self.row] is None:
            self.after = self._settled(step.fills)  # nobody knows yet what it should have met
        elif not step.fills:
            if done:
                cause, why = _why_unfilled(step)
                self._note(cause, "order", why, _told_fill(done), self._settled([]))
        elif done is None:
            told = " + ".join(map(_told_fill, step.fills))
            why = wanted.refused if wanted else "none"
            self._note(self._cause(step), "order", told, why, self._settled(step.fills))
        else:
            self._fill(step, done)

    def _cause(self, step: LiveStep) -> Cause:
        """Why an order met another price: it came late, or the market was another."""
        late = step.order is not None and step.order.as_of > self.close
        return Cause.TIMING if late else Cause.FILL

    def _fill(self, step: LiveStep, done: Fill) -> None:
        """The quote that the order was sized at, what it filled at, and what that cost in fees."""
        order, position = step.order, self.standing.position
        assert order is not None  # it has fills
        sized = Wanted(Side(order.side), order.amount, order.expected_price)
        quoted = fill(self.course, self.row, sized, position)
        if _size(quoted) != _size(done):
            told = _told_fill(quoted), _told_fill(done)
            self._note(self._cause(step), "quote", *told, self._settled([quoted]))
        ruled = [rule_fee(self.course.rules, one) for one in step.fills]
        if _total(ruled) != _total([quoted]):
            told = " + ".join(map(_told_fill, step.fills)), _told_fill(quoted)
            self._note(Cause.FILL, "fill", *told, self._settled(ruled))
        if [_fee(one) for one in step.fills] != [_fee(one) for one in ruled]:
            told = _told_fees(step.fills), _told_fees(ruled)
            self._note(Cause.FEE, "fee", *told, self._settled(step.fills))
        self.after = self._settled(step.fills)


def _pending(choice: Choice) -> tuple[int, int]:
    return choice.signal.pending, choice.signal.pending_since_ms


def _differ(step: LiveStep, score: float) -> bool:
    """Whether the strategy said something else; a score that is not there equals another such."""
    if not step.looked:
        return False
    told = step.score.score if step.score else None
    mine = math.nan if told is None else float(told)
    if math.isnan(mine) or math.isnan(score):
        return math.isnan(mine) != math.isnan(score)
    return abs(mine - score) > SAME_SCORE


def _why_unfilled(step: LiveStep) -> tuple[Cause, str]:
    """What kind of thing kept a decision from being filled, and in words."""
    order = step.order
    if order is None:
        return Cause.TIMING, "never executed"
    if step.refusals:
        names = {refusal.limit_name for refusal in step.refusals}
        return Cause.TIMING if names <= _LATE else Cause.REFUSAL, ", ".join(sorted(names))
    came_late = order.sent_at is None and order.proven_absent
    told = order.reason or str(order.status).lower()
    return Cause.TIMING if came_late else Cause.REFUSAL, told


def _size(one: Fill) -> tuple[Decimal, Decimal]:
    return one.amount, one.price


def _total(fills: Sequence[Fill]) -> tuple[Decimal, Decimal]:
    with localcontext(EXACT):
        return sum((f.amount for f in fills), ZERO), sum((f.cost for f in fills), ZERO)


def _fee(one: Fill) -> tuple[Decimal, str]:
    return one.fee, one.fee_currency


def _told_choice(choice: Choice) -> str:
    share = "" if choice.action == Action.HOLD else f" {choice.fraction:f}"
    return f"{choice.action}{share}, {choice.reason}"


def _told_fill(one: Fill) -> str:
    return f"{one.side} {one.amount:f} at {one.price:f}"


def _told_fees(fills: Sequence[Fill]) -> str:
    return " + ".join(f"{one.fee:f} {one.fee_currency}" for one in fills)


def _joined(gaps: Sequence[Gap], length: timedelta) -> Iterator[Gap]:
    """Candles that were missed one after the other as one gap."""
    run: list[Gap] = []
    for gap in gaps:
        if run and not (_is_missed(gap) and gap.close - run[-1].close == length):
            yield _as_one(run)
            run = []
        if _is_missed(gap):
            run.append(gap)
        else:
            yield gap
    if run:
        yield _as_one(run)


def _is_missed(gap: Gap) -> bool:
    return (gap.what, gap.live) == ("candle", MISSED)


def _as_one(run: Sequence[Gap]) -> Gap:
    if len(run) == 1:
        return run[0]
    wanted = Counter(gap.backtest for gap in run)
    told = ", ".join(f"{count} {action}" for action, count in sorted(wanted.items()))
    cost = sum((gap.cost for gap in run), ZERO)
    return replace(run[0], what=f"{len(run)} candles", backtest=told, cost=cost)


def _notes(bot: Bot, lived: Lived) -> tuple[str, ...]:
    found = []
    if bot.stops:
        told = ", ".join(f"{name} {value:g}" for name, value in bot.stops.items())
        found.append(f"Stops rest at the venue ({told}); the backtest has none of them.")
    if any(lived.course.flows) or any(lived.course.others):
        found.append("Others trade on this account; what they did is taken as it was.")
    return tuple(found)
