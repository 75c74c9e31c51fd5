"""Execution: a decision becomes at most one order, recorded before it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from tradelib.clock import format_time, timeframe_ms, utc_now
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
class Execution:
    """What became of one decision: the order as it stands and, if refused, by which limits."""

    decision: Decision
    order: Order | None
    refusals: tuple[Refusal, ...] = ()

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
    planned, refusals = _plan_order(case, held)
    (order,) = submit_planned(case.ledger, case.venue, [planned], held)
    return Execution(decision, order, refusals)


def _free_coins(case: _Case) -> None:
    """Withdraw the stops that lock what is to be sold; they stay where the sale would be denied,
    as while trading is halted: nothing else protects the position then."""
    market = _look_at_market(case)
    with case.ledger.read() as books:
        _, refusals = _weigh(books, case, market)
    if all(refusal.limit_name == StopsWithdrawn.__name__ for refusal in refusals):
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


def _plan_order(case: _Case, held: Lease) -> tuple[Order, tuple[Refusal, ...]]:
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
            return known, load_refusals(books, known.client_id)
        order, refusals = _weigh(books, case, market)
        client_id = client_order_id(case.decision.id, order.leg, attempt)
        order = replace(order, client_id=client_id, attempt=attempt, lease_token=held.token)
        return record_planned(books, order, refusals), refusals


def _look_at_market(case: _Case) -> _Market:
    symbol = case.bot.symbol
    return _Market(
        case.venue.fetch_instrument(symbol),
        fetch_prices(case.ledger, case.venue, symbol),
        case.venue.fetch_time(),
    )


def _weigh(books: Connection, case: _Case, market: _Market) -> tuple[Order, tuple[Refusal, ...]]:
    """The order that a decision makes now, and everything that speaks against it."""
    trader = _trader(case.bot, case.decision, market.as_of)
    portfolio = read_portfolio(books, case.venue, trader, market.as_of, market.prices)
    order = _size_order(case, market, portfolio)
    return order, (
        *_check_newest(books, case.decision),
        *check_order(books, case.limits, order, portfolio, market.instrument),
    )


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


def check_order(
    books: Connection,
    limits: LimitSettings,
    order: Order,
    portfolio: Portfolio,
    instrument: Instrument,
) -> tuple[Refusal, ...]:
    """What every limit and every protection in force has against an order."""
    return (
        *check_limits(order, portfolio, limits_for(limits, instrument)),
        *check_protections(books, order, portfolio.as_of, limits.protections),
    )


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


def _size_order(case: _Case, market: _Market, portfolio: Portfolio) -> Order:
    """The market order for a decision: a share of equity to buy, of the bot's position to sell."""
    bot, decision = case.bot, case.decision
    side = Side.BUY if decision.action == Action.BUY else Side.SELL
    quote = market.prices[bot.symbol]
    price = quote.ask if side is Side.BUY else quote.bid
    wanted = (
        portfolio.equity * decision.fraction / price
        if side is Side.BUY
        else portfolio.held_amount * decision.fraction
    )
    now = utc_now()
    return Order(
        client_id="",
        decision=decision.id,
        run=case.run,
        bot=bot.name,
        venue=bot.venue,
        symbol=bot.symbol,
        side=side,
        type="market",
        amount=market.instrument.round_amount(wanted),
        limit_price=None,
        expected_price=price,
        status=OrderStatus.PLANNED,
        role=Role.ENTRY if side is Side.BUY else Role.EXIT,
        as_of=market.as_of,
        created_at=now,
        updated_at=now,
    )
