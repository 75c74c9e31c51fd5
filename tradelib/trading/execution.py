"""Execution: a decision becomes at most one order for each of its legs, recorded before it is sent.

A decision on one symbol has one leg. One on several has a leg for each that changes: its sales go
first, and each purchase is sized with what they brought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, bindparam, select

from tradelib.clock import format_time, timeframe_ms, utc_now
from tradelib.errors import DeskError, InvalidInput, NoQuote
from tradelib.settings import LimitSettings
from tradelib.trading import tables
from tradelib.trading.accounts import require_own_books
from tradelib.trading.bots import Bot
from tradelib.trading.decisions import Action, Decision, Leg
from tradelib.trading.leases import Lease, bot_lease, lease, require_lease
from tradelib.trading.ledger import Ledger, insert
from tradelib.trading.orders import (
    ZERO,
    Order,
    OrderStatus,
    Role,
    Side,
    change_order,
    client_order_id,
    find_attempts,
    insert_order,
)
from tradelib.trading.placing import (
    is_overdue,
    require_running,
    submit_planned,
    tell,
    unsent_for_too_long,
)
from tradelib.trading.portfolio import Trader, fetch_prices, read_portfolio
from tradelib.trading.protections import check_protections
from tradelib.trading.risk import (
    PASSING,
    Portfolio,
    Refusal,
    StopsWithdrawn,
    check_limits,
    limits_for,
    load_refusals,
)
from tradelib.trading.stops import live_stops, withdraw_stops
from tradelib.venue import Instrument, Quote, Venue

# How often one leg of a decision is sent at most, each time but the last proven absent; and how
# often it is tried at all.
MAX_SENT = 3
MAX_ATTEMPTS = 20


@dataclass(frozen=True)
class OrderInputs:
    """What an order is sized and weighed with: the symbol's rules and quote, the account, the
    limits, what else speaks against it, and which attempt it is."""

    venue: str
    instrument: Instrument
    quote: Quote
    portfolio: Portfolio
    limits: LimitSettings
    against: tuple[Refusal, ...]
    attempt: int

    def to_json(self) -> dict[str, Any]:
        # What comes from the ledger is text where the type names a member of an enum.
        told: dict[str, Any] = _order_inputs().dump_python(self, mode="json", warnings=False)
        return told

    @staticmethod
    def from_json(told: dict[str, Any]) -> OrderInputs:
        return _order_inputs().validate_python(told)


@cache
def _order_inputs() -> TypeAdapter[OrderInputs]:
    return TypeAdapter(OrderInputs)


@dataclass(frozen=True)
class Intention:
    """The order that a decision makes from its inputs, and everything that speaks against it."""

    inputs: OrderInputs
    order: Order
    refusals: tuple[Refusal, ...]

    def to_json(self) -> dict[str, Any]:
        """What another computation from the same inputs must give again, bit for bit."""
        order = self.order
        return {
            "client_id": order.client_id,
            "side": str(order.side),
            "type": order.type,
            "role": str(order.role),
            "amount": f"{order.amount:f}",
            "expected_price": f"{order.expected_price:f}",
            "refusals": [vars(refusal) for refusal in self.refusals],
        }


@dataclass(frozen=True)
class LegOutcome:
    """What became of one leg: the order as it stands and, if refused, by which limits.

    order: None while a purchase waits for sales. intention: what this very execution wanted; None
    where it found an order that stands.
    """

    leg: Leg
    order: Order | None
    refusals: tuple[Refusal, ...] = ()
    intention: Intention | None = None

    @property
    def summary(self) -> str:
        if self.order is None:
            return f"{self.leg.action.lower()} {self.leg.symbol}".strip() + ": not ordered yet"
        if self.refusals:
            return "denied: " + "; ".join(refusal.reason for refusal in self.refusals)
        return f"{self.order.side} {self.order.amount:f} {self.order.symbol}: {self.order.status}"


@dataclass(frozen=True)
class Execution:
    """What became of one decision, leg by leg. order, refusals, intention: of the first leg, which
    is the only one unless the decision is on several symbols."""

    decision: Decision
    legs: tuple[LegOutcome, ...] = ()

    @property
    def order(self) -> Order | None:
        return self.legs[0].order if self.legs else None

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        return self.legs[0].refusals if self.legs else ()

    @property
    def intention(self) -> Intention | None:
        return self.legs[0].intention if self.legs else None

    def _tell(self, outcome: LegOutcome) -> str:
        of_several = self.decision.targets and outcome.refusals
        return f"{outcome.leg.symbol} {outcome.summary}" if of_several else outcome.summary

    @property
    def summary(self) -> str:
        told = "; ".join(map(self._tell, self.legs))
        return told or f"nothing to do: {self.decision.reason}"


def execute_decision(
    ledger: Ledger,
    venue: Venue,
    limits: LimitSettings,
    bot: Bot,
    decision: Decision,
    run: str,
    *,
    patience: timedelta = timedelta(0),
    held: Lease | None = None,
) -> Execution:
    """Size, check, record, send and book the orders that a decision asks for, one after the other.

    Doing it again finds an order and sends nothing, unless the venue has proven that it never
    got it, or what kept it has passed, and the decision is still fresh: then a further attempt is
    made. A leg that was not begun, as when the process was killed before it, is begun then. A
    purchase waits while what became of a sale is not known. A symbol that the venue does not list
    or quote any more keeps no other from being sold; its error is raised in the end. Raises
    LeaseHeld where another process trades the bot for longer than `patience`, and nothing for a
    refused or unresolved order: both are in the ledger, and reconciliation settles the latter.
    held: the bot's lease, where the run took it already; it is given back in the end.
    """
    if decision.bot != bot.name:
        raise InvalidInput(f"Decision {decision.id} is {decision.bot}'s, not {bot.name}'s.")
    legs = decision.legs(bot.symbol)
    if not legs and held is None:
        return Execution(decision)
    outcomes: list[LegOutcome] = []
    failures: list[DeskError] = []
    with lease(ledger, bot_lease(bot.name), run, patience, held) as mine:
        for leg in legs:
            outcome = LegOutcome(leg, None)
            try:
                if leg.action != Action.BUY or all(map(_is_settled, outcomes)):
                    case = _Case(ledger, venue, limits, bot, decision, leg, run)
                    outcome = _execute(case, mine)
            except (NoQuote, InvalidInput) as error:
                failures.append(error)
            outcomes.append(outcome)
    if failures:
        raise failures[0]
    return Execution(decision, tuple(outcomes))


def _is_settled(outcome: LegOutcome) -> bool:
    """Whether a purchase may follow: what became of the leg is known, or it takes no cash away."""
    if outcome.order is None:
        return outcome.leg.action == Action.BUY
    return outcome.order.is_known


@dataclass(frozen=True)
class _Case:
    """Everything that the execution of one leg is about."""

    ledger: Ledger
    venue: Venue
    limits: LimitSettings
    bot: Bot
    decision: Decision
    leg: Leg
    run: str


@dataclass(frozen=True)
class _Market:
    """What an order is sized and weighed with: the symbol's rules, quotes, the venue's time."""

    instrument: Instrument
    prices: dict[str, Quote]
    as_of: datetime


def _execute(case: _Case, held: Lease) -> LegOutcome:
    leg = case.leg
    with case.ledger.read() as books:
        before = find_attempts(books, case.decision.id, leg.number)
        refusals = load_refusals(books, before[-1].client_id) if before else ()
    if before and not may_try_again(case.venue, before):
        return LegOutcome(leg, before[-1], refusals)
    if leg.action == Action.SELL and live_stops(case.ledger, case.bot):
        _free_coins(case)
    planned, refusals, intention = _plan_order(case, held)
    (order,) = submit_planned(case.ledger, case.venue, [planned], held)
    return LegOutcome(leg, order, refusals, intention)


def _free_coins(case: _Case) -> None:
    """Withdraw the stops that lock what is to be sold; they stay where the sale would be denied,
    as while trading is halted: nothing else protects the position then."""
    market = _look_at_market(case)
    with case.ledger.read() as books:
        inputs = _read_inputs(books, case, market, 0)
    weighed = intend_order(case.decision, case.leg, inputs)
    if all(refusal.limit_name == StopsWithdrawn.__name__ for refusal in weighed.refusals):
        withdraw_stops(case.ledger, case.venue, case.bot)


def may_try_again(venue: Venue, attempts: Sequence[Order]) -> bool:
    """Whether the last attempt is certainly not at the venue and another can do no harm.

    PLANNED is what a killed process left behind: sent by nobody, it goes on as it is or ends. At
    a venue whose requests never expire, a request on its way could still arrive: no resending.
    """
    last = attempts[-1]
    if last.status == OrderStatus.PLANNED:
        return True
    sent = sum(order.sent_at is not None for order in attempts)
    never_sent = last.sent_at is None or venue.request_lifetime is not None
    few = sent < MAX_SENT and len(attempts) < MAX_ATTEMPTS
    return bool(last.proven_absent) and never_sent and few


def _plan_order(case: _Case, held: Lease) -> tuple[Order, tuple[Refusal, ...], Intention | None]:
    """Commit the order as PLANNED, or as DENIED with the refusals.

    Limits are checked in the transaction that records the order, so that two bots deciding at
    the same moment cannot both spend the same cash.
    """
    market = _look_at_market(case)
    with case.ledger.write() as books:
        require_running(books, case.run)
        require_lease(books, held)
        require_own_books(books, case.venue)
        attempt, known = _next_attempt(books, case.decision, case.leg)
        if known:
            return known, load_refusals(books, known.client_id), None
        inputs = _read_inputs(books, case, market, attempt)
        intention = intend_order(case.decision, case.leg, inputs)
        order = replace(intention.order, run=case.run, lease_token=held.token)
        return record_planned(books, order, intention.refusals), intention.refusals, intention


def _look_at_market(case: _Case) -> _Market:
    symbol = case.leg.symbol
    # First the time, by which a quote that is shared is judged.
    instrument, as_of = case.venue.fetch_instrument(symbol), case.venue.fetch_time()
    return _Market(instrument, fetch_prices(case.ledger, case.venue, symbol, as_of), as_of)


def _read_inputs(books: Connection, case: _Case, market: _Market, attempt: int) -> OrderInputs:
    """Everything that an order of the case depends on, as it is now."""
    trader = _trader(case, market.as_of)
    portfolio = read_portfolio(books, case.venue, trader, market.as_of, market.prices)
    quote = market.prices[case.leg.symbol]
    venue, rules = case.bot.venue, market.instrument
    inputs = OrderInputs(venue, rules, quote, portfolio, case.limits, (), attempt)
    order = _size_order(case.decision, case.leg, inputs)
    protections = case.limits.protections
    against = (
        *_check_newest(books, case.decision),
        *check_protections(books, order, market.as_of, protections),
    )
    return replace(inputs, against=against)


def intend_order(decision: Decision, leg: Leg, inputs: OrderInputs) -> Intention:
    """The order that a decision's leg makes from its inputs: a pure function but for its time
    stamps."""
    order = _size_order(decision, leg, inputs)
    limits = limits_for(inputs.limits, inputs.instrument)
    against = check_limits(order, inputs.portfolio, limits)
    return Intention(inputs, order, (*inputs.against, *against))


def _check_newest(books: Connection, decision: Decision) -> tuple[Refusal, ...]:
    """A decision executed late must not undo a newer one of its bot that has been sent."""
    values = {"of_bot": decision.bot, "moment": decision.candle_close}
    found = books.execute(_NEWER_CLOSE, values).scalar()
    if found is None:
        return ()
    mine, its = format_time(decision.candle_close), format_time(found)
    reason = f"the bot's decision of {found:%F %T}Z, which is newer, has been executed"
    return (Refusal("NewestDecision", mine, its, reason),)


_DECIDED = tables.decisions.c
_NEWER_CLOSE = (
    select(_DECIDED.candle_close)
    .join(tables.orders, tables.orders.c.decision == _DECIDED.id)
    .where(
        _DECIDED.bot == bindparam("of_bot"),
        _DECIDED.candle_close > bindparam("moment"),
        tables.orders.c.status.not_in((OrderStatus.DENIED, OrderStatus.REJECTED)),
    )
    .order_by(_DECIDED.candle_close.desc())
    .limit(1)
)


def _trader(case: _Case, as_of: datetime) -> Trader:
    bot, age = case.bot, as_of - case.decision.candle_close
    timeframe = timedelta(milliseconds=timeframe_ms(bot.timeframe))
    return Trader(bot.venue, case.leg.symbol, bot.name, age, timeframe)


def _next_attempt(books: Connection, decision: Decision, leg: Leg) -> tuple[int, Order | None]:
    """The number of the attempt to make, or the one that stands."""
    before = find_attempts(books, decision.id, leg.number)
    if not before:
        return 0, None
    last = before[-1]
    if last.status == OrderStatus.PLANNED and is_overdue(last, utc_now()):
        last = change_order(books, last, **unsent_for_too_long())
    return (last.attempt + 1, None) if last.proven_absent else (last.attempt, last)


def record_planned(books: Connection, order: Order, refusals: Sequence[Refusal]) -> Order:
    """Insert an order as PLANNED, or as DENIED where limits refuse it, with their reasons.

    What only passing limits refuse may be tried again.
    """
    if refusals:
        reason = "; ".join(refusal.reason for refusal in refusals)
        passing = all(refusal.limit_name in PASSING for refusal in refusals)
        order = replace(order, status=OrderStatus.DENIED, reason=reason, proven_absent=passing)
    insert_order(books, order)
    tell(order)
    for refusal in refusals:
        told = {"client_id": order.client_id, "at": order.created_at}
        insert(books, tables.refusals, told | vars(refusal))
    return order


def _size_order(decision: Decision, leg: Leg, inputs: OrderInputs) -> Order:
    """The market order for a leg: a share of equity to buy, of the bot's position to sell."""
    portfolio, quote = inputs.portfolio, inputs.quote
    side = Side.BUY if leg.action == Action.BUY else Side.SELL
    price = quote.ask if side is Side.BUY else quote.bid
    wanted = (
        portfolio.equity * leg.fraction / price
        if side is Side.BUY
        else portfolio.held_amount * leg.fraction
    )
    if decision.targets and side is Side.BUY:
        # The sales and purchases before may have left less than was counted on.
        free = portfolio.cash - inputs.limits.min_cash_share * portfolio.equity
        wanted = min(wanted, max(free, ZERO) / price)
    now = utc_now()
    return Order(
        client_id=client_order_id(decision.id, leg.number, inputs.attempt),
        decision=decision.id,
        run=decision.run,
        bot=decision.bot,
        venue=inputs.venue,
        symbol=inputs.instrument.symbol,
        side=side,
        type="market",
        amount=inputs.instrument.round_amount(wanted),
        limit_price=None,
        expected_price=price,
        status=OrderStatus.PLANNED,
        leg=leg.number,
        attempt=inputs.attempt,
        role=Role.ENTRY if side is Side.BUY else Role.EXIT,
        as_of=portfolio.as_of,
        created_at=now,
        updated_at=now,
    )
