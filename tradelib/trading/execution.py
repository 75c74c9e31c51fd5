"""Execution: a decision becomes at most one order, recorded before it is sent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, func, or_, select

from tradelib.clock import timeframe_ms, utc_now
from tradelib.errors import (
    AuthenticationFailed,
    DeskError,
    RateLimited,
    ReadOnly,
    RefusedError,
    UnresolvedError,
    VenueUnavailable,
)
from tradelib.settings import LimitSettings
from tradelib.trading import tables
from tradelib.trading.accounts import (
    book_fills,
    booked_balances,
    compute_equity,
    equity_at_day_start,
    load_balances,
)
from tradelib.trading.arming import read_arming
from tradelib.trading.bots import Bot
from tradelib.trading.decisions import Action, Decision
from tradelib.trading.halts import read_halt
from tradelib.trading.ledger import Ledger, insert, rows
from tradelib.trading.orders import (
    LEGAL_CHANGES,
    UNSETTLED,
    ZERO,
    Fill,
    Order,
    OrderStatus,
    Side,
    change_order,
    client_order_id,
    find_by_venue_id,
    find_order,
    insert_order,
    load_order,
    revive_order,
    unknown_fills,
)
from tradelib.trading.positions import bot_position, is_dust
from tradelib.trading.risk import Portfolio, Refusal, check_limits, limits_for
from tradelib.trading.runs import Outcome
from tradelib.venue import Instrument, Quote, Venue, VenueOrder, VenueStatus, VenueTrade

log = logging.getLogger(__name__)

# Longest time from recording an order to sending it. A venue's visibility lag is longer.
SEND_WITHIN = timedelta(seconds=5)


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
    ledger: Ledger, venue: Venue, limits: LimitSettings, bot: Bot, decision: Decision, run: str
) -> Execution:
    """Size, check, record, send and book the order that a decision asks for.

    Doing it again finds the order and sends nothing. Raises nothing for a refused or unresolved
    order: both are in the ledger, and reconciliation settles the latter.
    """
    if decision.action == Action.HOLD:
        return Execution(decision, None)
    instrument = venue.fetch_instrument(bot.symbol)
    prices = _fetch_prices(ledger, venue, bot)
    order, refusals, is_new = _record_order(
        ledger, venue, limits, bot, decision, run, instrument, prices
    )
    if is_new and order.status == OrderStatus.SUBMITTED:
        order = _send(ledger, venue, order)
    return Execution(decision, order, refusals)


def _record_order(
    ledger: Ledger,
    venue: Venue,
    limits: LimitSettings,
    bot: Bot,
    decision: Decision,
    run: str,
    instrument: Instrument,
    prices: dict[str, Quote],
) -> tuple[Order, tuple[Refusal, ...], bool]:
    """Commit the order as SUBMITTED, or as DENIED with the refusals; whoever commits it sends it.

    Limits are checked in the transaction that records the order, so that two bots deciding at
    the same moment cannot both spend the same cash.
    """
    as_of = venue.fetch_time()
    with ledger.write() as books:
        _require_running(books, run)
        known = find_order(books, client_order_id(decision.id))
        if known:
            return known, load_refusals(books, known.client_id), False
        portfolio = _portfolio(books, bot, as_of, decision, prices)
        armed = venue.is_local or read_arming(books, venue.name) is not None
        portfolio = replace(portfolio, armed=armed)
        order = _size_order(bot, decision, run, as_of, instrument, prices, portfolio)
        refusals = check_limits(order, portfolio, limits_for(limits, instrument))
        if refusals:
            reason = "; ".join(refusal.reason for refusal in refusals)
            order = replace(order, status=OrderStatus.DENIED, reason=reason)
        insert_order(books, order)
        _tell(order)
        for refusal in refusals:
            books.execute(
                tables.refusals.insert().values(
                    client_id=order.client_id, at=order.created_at, **vars(refusal)
                )
            )
        return order, refusals, True


def _require_running(books: Connection, run: str) -> None:
    """A kernel that outlived its run, timed out or given up, records no order any more."""
    outcome = books.execute(select(tables.runs.c.outcome).where(tables.runs.c.id == run)).scalar()
    if outcome != Outcome.RUNNING:
        raise ReadOnly(f"Run {run} is not running ({outcome}); it can place no order.")


def load_refusals(books: Connection, client_id: str) -> tuple[Refusal, ...]:
    query = select(tables.refusals).where(tables.refusals.c.client_id == client_id)
    return tuple(rows(books, query, Refusal))


def _size_order(
    bot: Bot,
    decision: Decision,
    run: str,
    as_of: datetime,
    instrument: Instrument,
    prices: dict[str, Quote],
    portfolio: Portfolio,
) -> Order:
    """The market order for a decision: a share of equity to buy, of the bot's position to sell."""
    side = Side.BUY if decision.action == Action.BUY else Side.SELL
    quote = prices[bot.symbol]
    price = quote.ask if side is Side.BUY else quote.bid
    wanted = (
        portfolio.equity * decision.fraction / price
        if side is Side.BUY
        else portfolio.held_amount * decision.fraction
    )
    now = utc_now()
    return Order(
        client_id=client_order_id(decision.id),
        decision=decision.id,
        run=run,
        bot=bot.name,
        venue=bot.venue,
        symbol=bot.symbol,
        side=side,
        type="market",
        amount=instrument.round_amount(wanted),
        limit_price=None,
        expected_price=price,
        status=OrderStatus.SUBMITTED,
        as_of=as_of,
        created_at=now,
        updated_at=now,
    )


def _fetch_prices(ledger: Ledger, venue: Venue, bot: Bot) -> dict[str, Quote]:
    """Quotes of the bot's symbol and of all that the account holds and the venue quotes now."""
    held = {f"{b.asset}/{bot.quote}" for b in load_balances(ledger, venue.name) if b.booked}
    known = venue.fetch_instruments().keys()
    quotes = venue.fetch_quotes(sorted((held & known) | {bot.symbol}))
    if bot.symbol not in quotes:
        raise VenueUnavailable(
            f"Venue {venue.name} has no bid and ask for {bot.symbol}; nothing is sent without."
        )
    return quotes


def _portfolio(
    books: Connection,
    bot: Bot,
    as_of: datetime,
    decision: Decision,
    prices: dict[str, Quote],
) -> Portfolio:
    totals = {balance.asset: balance.booked for balance in booked_balances(books, bot.venue)}
    bids = {symbol: quote.bid for symbol, quote in prices.items()}
    equity = compute_equity(totals, bot.quote, bids)
    promised = _promised_orders(books, bot.venue)
    buying = [order for order in promised if order.side == Side.BUY]
    promised_here = sum((_value(o) for o in buying if o.symbol == bot.symbol), ZERO)
    at_day_start = equity_at_day_start(books, bot.venue, as_of)
    return Portfolio(
        as_of=as_of,
        equity=equity,
        cash=totals.get(bot.quote, ZERO) - sum(map(_value, buying), ZERO),
        held_amount=bot_position(books, bot.name, bot.symbol).amount,
        orders_on_their_way=sum(order.bot == bot.name for order in promised),
        symbol_value=totals.get(bot.base, ZERO) * bids[bot.symbol] + promised_here,
        open_symbols=frozenset(
            symbol
            for symbol, bid in bids.items()
            if not is_dust(totals.get(symbol.split("/")[0], ZERO) * bid, equity)
        ),
        trades_today=_count_orders_of_day(books, bot.venue, as_of),
        loss_today=max(at_day_start - equity, ZERO) if at_day_start is not None else ZERO,
        candle_age=as_of - decision.candle_close,
        timeframe=timedelta(milliseconds=timeframe_ms(bot.timeframe)),
        halt=read_halt(books),
    )


def _promised_orders(books: Connection, venue: str) -> list[Order]:
    """Orders whose end is not known or whose fills are not all booked: their cash and coins are
    spoken for, whatever the books say."""
    open_still = or_(tables.orders.c.status.in_(UNSETTLED), tables.orders.c.fills_complete == 0)
    query = select(tables.orders).where(tables.orders.c.venue == venue, open_still)
    return rows(books, query, Order)


def _value(order: Order) -> Decimal:
    """What an order takes from the cash at most, in quote currency."""
    return max(order.notional, order.cost)


def _count_orders_of_day(books: Connection, venue: str, as_of: datetime) -> int:
    midnight = as_of.replace(hour=0, minute=0, second=0, microsecond=0)
    query = select(func.count()).where(
        tables.orders.c.venue == venue,
        tables.orders.c.as_of >= midnight,
        tables.orders.c.status.not_in([OrderStatus.DENIED, OrderStatus.REJECTED]),
    )
    return books.execute(query).scalar_one()


def _send(ledger: Ledger, venue: Venue, order: Order) -> Order:
    """Send a recorded order, once, and record the answer.

    A process that was held up since it recorded the order does not send it: by the time it woke,
    somebody may have found the order absent and given it up.
    """
    if utc_now() - order.created_at > SEND_WITHIN:
        reason = f"not sent: more than {SEND_WITHIN.seconds} s had passed since it was recorded"
        return _record_status(ledger, order, OrderStatus.REJECTED, reason)
    try:
        answer = venue.submit_market_order(order.symbol, order.side, order.amount, order.client_id)
    except UnresolvedError as error:
        return _record_status(ledger, order, OrderStatus.UNRESOLVED, str(error))
    except (RefusedError, RateLimited, AuthenticationFailed) as error:
        return _record_status(ledger, order, OrderStatus.REJECTED, str(error))
    order = _book_own_fills(ledger, venue, record_answer(ledger, order, answer))
    _tell(order)
    return order


def _record_status(ledger: Ledger, order: Order, status: OrderStatus, reason: str) -> Order:
    with ledger.write() as books:
        current = find_order(books, order.client_id) or order
        if current.status != OrderStatus.SUBMITTED:
            return current  # reconciliation was quicker and knows more
        changed = change_order(books, current, status=status, reason=reason)
    _tell(changed)
    return changed


def _tell(order: Order) -> None:
    """A line in the desk's log."""
    log.info(
        "order %s: %s %s %s is %s%s",
        order.client_id,
        order.side,
        format(order.amount, "f"),
        order.symbol,
        order.status,
        f", {order.reason}" if order.reason else "",
        extra={"fields": {"order": order.client_id, "run": order.run}},
    )


def record_answer(ledger: Ledger, order: Order, answer: VenueOrder) -> Order:
    with ledger.write() as books:
        return apply_venue_order(books, find_order(books, order.client_id) or order, answer)


def apply_venue_order(books: Connection, order: Order, answer: VenueOrder) -> Order:
    """The order as the venue tells it.

    A status that cannot follow the ledger's changes nothing: what a venue said once and for all
    is not taken back by a later or a stale word. Only an order that was given up as never
    received comes back to life.
    """
    given_up = order.status == OrderStatus.REJECTED and order.venue_order_id is None
    if OrderStatus(order.status).final and not given_up:
        return order
    changes: dict[str, object] = {"venue_order_id": answer.venue_order_id}
    before = OrderStatus.UNRESOLVED if given_up else OrderStatus(order.status)
    if answer.status is VenueStatus.UNKNOWN:
        # An acknowledgement without a status: the order exists, its state is still to be read.
        after = OrderStatus.UNRESOLVED if before is OrderStatus.SUBMITTED else before
    else:
        after = OrderStatus(answer.status.value)
        changes["reason"] = None
        if after is not before and after not in LEGAL_CHANGES[before]:
            return order
    changes["status"] = after
    if answer.filled is not None and answer.filled >= order.filled:
        changes["filled"] = answer.filled
        changes["cost"] = answer.cost if answer.cost is not None else order.cost
    record = revive_order if given_up else change_order
    return record(books, order, **changes)


def _book_own_fills(ledger: Ledger, venue: Venue, order: Order) -> Order:
    """Book the fills of an order just sent. When they cannot be read now, reconciliation will."""
    if order.filled and order.venue_order_id:
        try:
            trades = venue.fetch_order_trades(order.symbol, order.venue_order_id)
        except DeskError:
            return order
        with ledger.write() as books:
            book_trades(books, venue.name, trades)
    return load_order(ledger, order.client_id)


def book_trades(books: Connection, venue: str, trades: Sequence[VenueTrade]) -> list[Fill]:
    """Book the venue's executions that the ledger lacks, into fills and balances; each once."""
    new = unknown_fills(books, [_fill(books, venue, trade) for trade in trades])
    for fill in new:
        insert(books, tables.fills, fill)
    book_fills(books, new)
    for client_id in {fill.client_id for fill in new if fill.client_id}:
        order = find_order(books, client_id)
        if order:
            change_order(books, order)  # takes notice of whether its fills are complete now
    return new


def _fill(books: Connection, venue: str, trade: VenueTrade) -> Fill:
    owner = find_by_venue_id(books, venue, trade.symbol, trade.venue_order_id)
    return Fill(
        venue=venue,
        symbol=trade.symbol,
        trade_id=trade.trade_id,
        client_id=owner.client_id if owner else None,
        venue_order_id=trade.venue_order_id,
        side=Side(trade.side),
        amount=trade.amount,
        price=trade.price,
        cost=trade.cost,
        fee=trade.fee,
        fee_currency=trade.fee_currency,
        at=trade.at,
    )
