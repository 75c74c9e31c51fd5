"""Execution: a decision becomes at most one order, recorded before it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, func, select

from tradelib.clock import timeframe_ms, utc_now
from tradelib.errors import (
    AuthenticationFailed,
    DeskError,
    RateLimited,
    RefusedError,
    UnresolvedError,
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
    UNSETTLED,
    ZERO,
    Fill,
    Order,
    OrderStatus,
    Side,
    change_order,
    client_order_id,
    find_order,
    insert_order,
    load_order,
    unknown_fills,
)
from tradelib.trading.positions import bot_position, is_dust
from tradelib.trading.risk import Portfolio, Refusal, check_limits, limits_for
from tradelib.venue import Instrument, Quote, Venue, VenueOrder, VenueStatus, VenueTrade


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
        for refusal in refusals:
            books.execute(
                tables.refusals.insert().values(
                    client_id=order.client_id, at=order.created_at, **vars(refusal)
                )
            )
        return order, refusals, True


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
    """Quotes of the bot's symbol and of all that the account holds."""
    held = {f"{b.asset}/{bot.quote}" for b in load_balances(ledger, venue.name) if b.booked}
    known = venue.fetch_instruments().keys()
    return venue.fetch_quotes(sorted((held & known) | {bot.symbol}))


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
    spoken_for = sum((o.notional for o in promised if o.side == Side.BUY), ZERO)
    promised_here = sum(
        (o.notional for o in promised if o.side == Side.BUY and o.symbol == bot.symbol), ZERO
    )
    at_day_start = equity_at_day_start(books, bot.venue, as_of)
    held = bot_position(books, bot.name, bot.symbol).amount
    selling = sum(
        (o.amount - o.filled for o in promised if o.bot == bot.name and o.side == Side.SELL), ZERO
    )
    return Portfolio(
        as_of=as_of,
        equity=equity,
        cash=totals.get(bot.quote, ZERO) - spoken_for,
        held_amount=held - selling,
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


_DUST_SHARE = Decimal("0.0005")


def _is_position(totals: dict[str, Decimal], symbol: str, bid: Decimal, equity: Decimal) -> bool:
    """Whether a holding is more than the dust that lot sizes and base fees leave behind."""
    return totals.get(symbol.split("/")[0], ZERO) * bid > _DUST_SHARE * equity


def _promised_orders(books: Connection, venue: str) -> list[Order]:
    """Orders whose end is not known: their cash and coins are spoken for."""
    query = select(tables.orders).where(
        tables.orders.c.venue == venue, tables.orders.c.status.in_(UNSETTLED)
    )
    return rows(books, query, Order)


def _count_orders_of_day(books: Connection, venue: str, as_of: datetime) -> int:
    midnight = as_of.replace(hour=0, minute=0, second=0, microsecond=0)
    query = select(func.count()).where(
        tables.orders.c.venue == venue,
        tables.orders.c.as_of >= midnight,
        tables.orders.c.status.not_in([OrderStatus.DENIED, OrderStatus.REJECTED]),
    )
    return books.execute(query).scalar_one()


def _send(ledger: Ledger, venue: Venue, order: Order) -> Order:
    """Send a recorded order, once, and record the answer."""
    try:
        answer = venue.submit_market_order(order.symbol, order.side, order.amount, order.client_id)
    except UnresolvedError as error:
        return _record_status(ledger, order, OrderStatus.UNRESOLVED, str(error))
    except (RefusedError, RateLimited, AuthenticationFailed) as error:
        return _record_status(ledger, order, OrderStatus.REJECTED, str(error))
    order = record_answer(ledger, order, answer)
    return _book_own_fills(ledger, venue, order)


def _record_status(ledger: Ledger, order: Order, status: OrderStatus, reason: str) -> Order:
    with ledger.write() as books:
        current = find_order(books, order.client_id) or order
        if current.status != OrderStatus.SUBMITTED:
            return current  # reconciliation was quicker and knows more
        return change_order(books, current, status=status, reason=reason)


def record_answer(ledger: Ledger, order: Order, answer: VenueOrder) -> Order:
    with ledger.write() as books:
        return apply_venue_order(books, find_order(books, order.client_id) or order, answer)


def apply_venue_order(books: Connection, order: Order, answer: VenueOrder) -> Order:
    """The order as the venue tells it. A status that the venue leaves open changes nothing but
    the id, and a final status in the ledger is never taken back."""
    if OrderStatus(order.status).final:
        return order
    changes: dict[str, object] = {"venue_order_id": answer.venue_order_id}
    if answer.status is VenueStatus.UNKNOWN:
        # An acknowledgement without a status: the order exists, its state is still to be read.
        changes["status"] = (
            OrderStatus.UNRESOLVED if order.status == OrderStatus.SUBMITTED else order.status
        )
    else:
        changes["status"] = OrderStatus(answer.status.value)
        changes["reason"] = None
    if answer.filled is not None and answer.filled >= order.filled:
        changes["filled"] = answer.filled
        changes["cost"] = answer.cost if answer.cost is not None else order.cost
    return change_order(books, order, **changes)


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
    owner = select(tables.orders.c.client_id).where(
        tables.orders.c.venue == venue,
        tables.orders.c.symbol == trade.symbol,
        tables.orders.c.venue_order_id == trade.venue_order_id,
    )
    return Fill(
        venue=venue,
        symbol=trade.symbol,
        trade_id=trade.trade_id,
        client_id=books.execute(owner).scalar(),
        venue_order_id=trade.venue_order_id,
        side=Side(trade.side),
        amount=trade.amount,
        price=trade.price,
        cost=trade.cost,
        fee=trade.fee,
        fee_currency=trade.fee_currency,
        at=trade.at,
    )
