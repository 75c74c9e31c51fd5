"""What a bot is expected to do, from any state on: the functions that live trading calls, with a
venue that is a formula.

The venue fills a market order whole, at the open of the candle that begins when the order comes,
or at the last close where none begins; its lots, its smallest orders and its fee are its own. With
nothing held at the start and nobody else on the account it is the backtest of research, computed a
second time in the ledger's own decimals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal

import pandas as pd

from tradelib.clock import to_ms
from tradelib.paper.instruments import cost_down
from tradelib.strategy import decision as step
from tradelib.strategy.decision import DecisionState, StepParams
from tradelib.trading.deciding import state_with
from tradelib.trading.decisions import ACTIONS, Action
from tradelib.trading.orders import ZERO, Fill, Side
from tradelib.trading.positions import Position, add_fills
from tradelib.venue.facts import Instrument

NO_CASH, TOO_SMALL = "the cash is not there", "less than the venue takes"


@dataclass(frozen=True)
class Course:
    """What goes on around a bot, row for row of its candles.

    closes: the candles' close times. prices: their closes, quote per base. opens: what an order
    right after the close fills at; None where that is not known. scores: the strategy's. params:
    the bot's decision parameters. others: worth, in quote currency, of what else the account holds.
    flows: cash that others brought since the row before.
    """

    rules: Instrument
    closes: Sequence[datetime]
    prices: Sequence[Decimal]
    opens: Sequence[Decimal | None]
    scores: Sequence[float]
    params: Sequence[StepParams]
    others: list[Decimal]
    flows: list[Decimal]

    def cut(self, lead: int) -> Course:
        """Without the first rows."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        rules = columns.pop("rules")
        return Course(rules, **{name: column[lead:] for name, column in columns.items()})


def make_course(
    candles: pd.DataFrame,
    rows: Sequence[int],
    length: timedelta,
    rules: Instrument,
    scores: Sequence[float],
    params: Sequence[StepParams],
) -> Course:
    """The course of some rows of candles, in which nobody else is on the account; scores and
    params: one for each of the rows."""
    index, opens, closed = candles.index, candles["open"].tolist(), candles["close"].tolist()

    def next_open(row: int) -> Decimal | None:
        if row + 1 == len(index):
            return None
        begins = index[row + 1] == index[row] + length
        return Decimal(str(opens[row + 1] if begins else closed[row]))

    return Course(
        rules=rules,
        closes=[(index[row] + length).to_pydatetime() for row in rows],
        prices=[Decimal(str(closed[row])) for row in rows],
        opens=[next_open(row) for row in rows],
        scores=scores,
        params=params,
        others=[ZERO] * len(rows),
        flows=[ZERO] * len(rows),
    )


@dataclass(frozen=True)
class Standing:
    """Where a bot stands after a row: its signal, the account's cash and the bot's position."""

    signal: DecisionState
    cash: Decimal
    position: Position


@dataclass(frozen=True)
class Choice:
    """A decision at a close. signal: the step's state after it; equity: the account's before."""

    action: Action
    fraction: Decimal
    temperature: str
    reason: str
    signal: DecisionState
    equity: Decimal


@dataclass(frozen=True)
class Wanted:
    """The order that a choice makes. amount: base units; price: what it is sized at; refused: why
    it is not sent."""

    side: Side
    amount: Decimal
    price: Decimal
    refused: str | None = None


def choose(course: Course, row: int, standing: Standing) -> Choice:
    """The decision at a row's close."""
    price = course.prices[row]
    cash, equity = standing.cash + course.flows[row], worth(course, row, standing)
    position = standing.position.without_dust(price, equity)
    state, taken = step.decide(
        state_with(standing.signal, position),
        course.scores[row],
        float(price),
        to_ms(course.closes[row]),
        float(equity),
        float(cash),
        course.params[row],
    )
    return Choice(
        ACTIONS[taken.action],
        Decimal(str(taken.fraction)),
        step.TEMPERATURES[taken.temperature],
        step.reason_text(taken.reason),
        state,
        equity,
    )


def size(course: Course, row: int, standing: Standing, choice: Choice) -> Wanted | None:
    """The order for a choice, sized at the price of the moment after the close; None for none."""
    price = course.opens[row]
    if choice.action == Action.HOLD or price is None:
        return None
    cash, held = standing.cash + course.flows[row], standing.position.amount
    if choice.action == Action.SELL:
        side, wanted = Side.SELL, held * choice.fraction
    else:
        equity = cash + held * price + course.others[row]
        side, wanted = Side.BUY, equity * choice.fraction / price
    amount = course.rules.round_amount(wanted)
    refused = None
    if not course.rules.takes(amount, price):
        refused = TOO_SMALL
    elif side is Side.BUY and amount * price > cash:
        refused = NO_CASH
    return Wanted(side, amount, price, refused)


def fill(course: Course, row: int, wanted: Wanted, position: Position) -> Fill:
    """What the venue makes of an order at a row, whole and at its price."""
    cost = cost_down(wanted.price, wanted.amount)
    name = f"row {row}"
    made = Fill(
        venue=position.venue, symbol=course.rules.symbol, trade_id=name, client_id=name,
        venue_order_id=name, side=wanted.side, amount=wanted.amount, price=wanted.price,
        cost=cost, fee=ZERO, fee_currency="", at=course.closes[row],
    )  # fmt: skip
    return rule_fee(course.rules, made)


def rule_fee(rules: Instrument, one: Fill) -> Fill:
    """The fill with the fee that the venue's rate makes: a share of what it brought."""
    buys = one.side == Side.BUY
    got, currency = (one.amount, rules.base) if buys else (one.cost, rules.quote)
    return replace(one, fee=cost_down(rules.taker_fee or ZERO, got), fee_currency=currency)


def settle(course: Course, row: int, standing: Standing, fills: Sequence[Fill]) -> Standing:
    """The standing after a row's fills; its signal is as before."""
    quote, cash = course.rules.quote, standing.cash + course.flows[row]
    for one in fills:
        cash += one.asset_changes().get(quote, ZERO)
    position = add_fills(standing.position, fills) if fills else standing.position
    return Standing(standing.signal, cash, position)


@dataclass(frozen=True)
class Done:
    """One row as expected."""

    choice: Choice
    wanted: Wanted | None
    fill: Fill | None
    after: Standing


def do(course: Course, row: int, standing: Standing, choice: Choice | None = None) -> Done:
    """One row from a standing: decide, unless a choice is given, order and fill."""
    choice = choice or choose(course, row, standing)
    wanted = size(course, row, standing, choice)
    done = None
    if wanted and not wanted.refused:
        done = fill(course, row, wanted, standing.position)
    after = settle(course, row, standing, [done] if done else [])
    return Done(choice, wanted, done, replace(after, signal=choice.signal))


def walk(course: Course, row: int, standing: Standing) -> Iterator[Done]:
    """The rows from one on, each from the standing after the one before."""
    for at in range(row, len(course.closes)):
        done = do(course, at, standing)
        standing = done.after
        yield done


def worth(course: Course, row: int, standing: Standing) -> Decimal:
    """The account's worth at a row's close, before its decision, in quote currency."""
    cash, held = standing.cash + course.flows[row], standing.position.amount
    return cash + held * course.prices[row] + course.others[row]


def final_worth(course: Course, row: int, standing: Standing) -> Decimal:
    """The worth at the last close when all from a row on goes as expected; what the decision there
    leads to comes after it."""
    last = len(course.closes) - 1
    for at in range(row, last):
        standing = do(course, at, standing).after
    return worth(course, last, standing)
