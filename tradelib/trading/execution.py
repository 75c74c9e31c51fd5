"""Execution: a decision becomes at most one order, recorded before it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, select

from tradelib.clock import format_time, timeframe_ms, utc_now
from tradelib.errors import InvalidInput
from tradelib.settings import LimitSettings
from tradelib.trading import tables
from tradelib.trading.accounts import require_own_books
from tradelib.trading.bots import Bot
from tradelib.trading.decisions import Action, Decision
from tradelib.trading.leases import Lease, bot_lease, lease, require_lease
from tradelib.trading.ledger import Ledger, rows
from tradelib.trading.orders import (
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
class Execution:
    """What became of one decision: the order as it stands and, if refused, by which limits.

    intention: what this very execution wanted; None where it found an order that stands.
    """

    decision: Decision
    order: Order | None
    refusals: tuple[Refusal, ...] = ()
    intention: Intention | None = None

    @property
    def summary(self) -> str:
        if self.order is None:
            return f"nothing to do: {self.decision.reason}"
        if self.refusals:
            return "denied: " + "; ".join(refusal.reason for refusal in self.refusals)
        return f"{self.order.side} {self.order.amount:f} {self.order.symbol}: {self.order.status}"


def execute_decision(
    ledger: Ledger,
    venue: Venue,
    limits: LimitSettings,
    bot: Bot,
    decision: Decision,
    run: str,
    *,
    patience: timedelta = timedelta(0),
) -> Execution:
    """Size, check, record, send and book the order that a decision asks for.

    Doing it again finds the order and sends nothing, unless the venue has proven that it never
    got it, or what kept it has passed, and the decision is still fresh: then a further attempt is
    made. Raises LeaseHeld where another process trades the bot for longer than `patience`, and
    nothing for a refused or unresolved order: both are in the ledger, and
    reconciliation settles the latter.
    """
    if decision.bot != bot.name:
        raise InvalidInput(f"Decision {decision.id} is {decision.bot}'s, not {bot.name}'s.")
    if decision.action == Action.HOLD:
        return Execution(decision, None)
    case = _Case(ledger, venue, limits, bot, decision, run)
    with lease(ledger, bot_lease(bot.name), run, patience) as held:
        return _execute(case, held)


@dataclass(frozen=True)
class _Case:
    """Everything that one execution is about."""

    ledger: Ledger
    venue: Venue
    limits: LimitSettings
    bot: Bot
    decision: Decision
    run: str


@dataclass(frozen=True)
class _Market:
    """What an order is sized and weighed with: the symbol's rules, quotes, the venue's time."""

    instrument: Instrument
    prices: dict[str, Quote]
    as_of: datetime


def _execute(case: _Case, held: Lease) -> Execution:
    decision = case.decision
    with case.ledger.read() as books:
        before = find_attempts(books, decision.id)
        refusals = load_refusals(books, before[-1].client_id) if before else ()
    if before and not may_try_again(case.venue, before):
        return Execution(decision, before[-1], refusals)
    if decision.action == Action.SELL and live_stops(case.ledger, case.bot):
        _free_coins(case)
    planned, refusals, intention = _plan_order(case, held)
    (order,) = submit_planned(case.ledger, case.venue, [planned], held)
    return Execution(decision, order, refusals, intention)


def _free_coins(case: _Case) -> None:
    """Withdraw the stops that lock what is to be sold; they stay where the sale would be denied,
    as while trading is halted: nothing else protects the position then."""
    market = _look_at_market(case)
    with case.ledger.read() as books:
        weighed = intend_order(case.decision, _read_inputs(books, case, market, 0))
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
        attempt, known = _next_attempt(books, case.decision)
        if known:
            return known, load_refusals(books, known.client_id), None
        inputs = _read_inputs(books, case, market, attempt)
        intention = intend_order(case.decision, inputs)
        order = replace(intention.order, run=case.run, lease_token=held.token)
        return record_planned(books, order, intention.refusals), intention.refusals, intention


def _look_at_market(case: _Case) -> _Market:
    symbol = case.bot.symbol
    return _Market(
        case.venue.fetch_instrument(symbol),
        fetch_prices(case.ledger, case.venue, symbol),
        case.venue.fetch_time(),
    )


def _read_inputs(books: Connection, case: _Case, market: _Market, attempt: int) -> OrderInputs:
    """Everything that an order of the case depends on, as it is now."""
    trader = _trader(case.bot, case.decision, market.as_of)
    portfolio = read_portfolio(books, case.venue, trader, market.as_of, market.prices)
    quote = market.prices[case.bot.symbol]
    venue, rules = case.bot.venue, market.instrument
    inputs = OrderInputs(venue, rules, quote, portfolio, case.limits, (), attempt)
    order = _size_order(case.decision, inputs)
    protections = case.limits.protections
    against = (
        *_check_newest(books, case.decision),
        *check_protections(books, order, market.as_of, protections),
    )
    return replace(inputs, against=against)


def intend_order(decision: Decision, inputs: OrderInputs) -> Intention:
    """The order that a decision makes from its inputs: a pure function but for its time stamps."""
    order = _size_order(decision, inputs)
    limits = limits_for(inputs.limits, inputs.instrument)
    against = check_limits(order, inputs.portfolio, limits)
    return Intention(inputs, order, (*inputs.against, *against))


def _check_newest(books: Connection, decision: Decision) -> tuple[Refusal, ...]:
    """A decision executed late must not undo a newer one of its bot that has been sent."""
    orders, decisions = tables.orders, tables.decisions
    newer = (
        select(decisions.c.candle_close)
        .join(orders, orders.c.decision == decisions.c.id)
        .where(
            decisions.c.bot == decision.bot,
            decisions.c.candle_close > decision.candle_close,
            orders.c.status.not_in((OrderStatus.DENIED, OrderStatus.REJECTED)),
        )
    )
    found = books.execute(newer.order_by(decisions.c.candle_close.desc()).limit(1)).scalar()
    if found is None:
        return ()
    mine, its = format_time(decision.candle_close), format_time(found)
    reason = f"the bot's decision of {found:%F %T}Z, which is newer, has been executed"
    return (Refusal("NewestDecision", mine, its, reason),)


def _trader(bot: Bot, decision: Decision, as_of: datetime) -> Trader:
    timeframe = timedelta(milliseconds=timeframe_ms(bot.timeframe))
    return Trader(bot.venue, bot.symbol, bot.name, as_of - decision.candle_close, timeframe)


def _next_attempt(books: Connection, decision: Decision) -> tuple[int, Order | None]:
    """The number of the attempt to make, or the one that stands."""
    before = find_attempts(books, decision.id)
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
        books.execute(
            tables.refusals.insert().values(
                client_id=order.client_id, at=order.created_at, **vars(refusal)
            )
        )
    return order


def load_refusals(books: Connection, client_id: str) -> tuple[Refusal, ...]:
    query = select(tables.refusals).where(tables.refusals.c.client_id == client_id)
    return tuple(rows(books, query, Refusal))


def _size_order(decision: Decision, inputs: OrderInputs) -> Order:
    """The market order for a decision: a share of equity to buy, of the bot's position to sell."""
    portfolio, quote = inputs.portfolio, inputs.quote
    side = Side.BUY if decision.action == Action.BUY else Side.SELL
    price = quote.ask if side is Side.BUY else quote.bid
    wanted = (
        portfolio.equity * decision.fraction / price
        if side is Side.BUY
        else portfolio.held_amount * decision.fraction
    )
    now = utc_now()
    return Order(
        client_id=client_order_id(decision.id, 0, inputs.attempt),
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
        attempt=inputs.attempt,
        role=Role.ENTRY if side is Side.BUY else Role.EXIT,
        as_of=portfolio.as_of,
        created_at=now,
        updated_at=now,
    )
