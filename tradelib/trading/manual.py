"""Orders of a person: previewed with everything that speaks against them, then placed through the
same steps as a bot's."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from tradelib.clock import format_time, utc_now
from tradelib.errors import InvalidInput
from tradelib.settings import LimitSettings
from tradelib.trading.accounts import require_own_books
from tradelib.trading.bots import load_bot
from tradelib.trading.execution import record_planned
from tradelib.trading.leases import Lease, account_lease, bot_lease, lease, require_lease
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import (
    Order,
    OrderStatus,
    Role,
    Side,
    client_order_id,
)
from tradelib.trading.placing import submit_planned
from tradelib.trading.portfolio import Trader, fetch_prices, read_portfolio
from tradelib.trading.protections import check_protections
from tradelib.trading.risk import Portfolio, Refusal, StopsWithdrawn, check_limits, limits_for
from tradelib.trading.stops import withdraw_stops
from tradelib.venue import Instrument, OrderType, Quote, Venue

log = logging.getLogger(__name__)

# How long a person's order waits for a cycle that trades the bot right now.
PATIENCE = timedelta(seconds=20)
_STOP_TYPES = (OrderType.STOP_LOSS, OrderType.STOP_LOSS_LIMIT, OrderType.TRAILING_STOP)
_TARGET_TYPES = (OrderType.TAKE_PROFIT, OrderType.TAKE_PROFIT_LIMIT)


@dataclass(frozen=True)
class ManualOrder:
    """What a person wants. amount: base currency; prices: quote per base; bot: whose position it
    is to change, None for coins that belong to no bot.

    stop_price with limit_price and type LIMIT makes a bracket of both when `is_bracket`.
    """

    symbol: str
    side: Side
    amount: Decimal
    type: OrderType = OrderType.MARKET
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trailing_bips: int | None = None
    time_in_force: str | None = None
    bot: str | None = None
    is_bracket: bool = False

    @property
    def phrase(self) -> str:
        """What has to be typed to place it."""
        return f"{self.side} {self.amount.normalize():f} {self.symbol}"


@dataclass(frozen=True)
class Preview:
    """What an order would do. notional, fee: quote currency at `price`; fee is the venue's usual
    rate for an order that takes (or, post-only, makes). refusals: what speaks against it now."""

    wanted: ManualOrder
    venue: str
    price: Decimal
    notional: Decimal
    fee: Decimal | None
    quote: Quote
    portfolio: Portfolio
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class _Asked:
    """A wanted order in the venue's steps, with the facts it is judged by."""

    wanted: ManualOrder
    instrument: Instrument
    prices: dict[str, Quote]
    as_of: datetime


def preview_order(
    ledger: Ledger, venue: Venue, limits: LimitSettings, wanted: ManualOrder
) -> Preview:
    """An order's price, value and fee, and every limit that would refuse it. Changes nothing.

    Stops that a sale would withdraw first do not count against it.
    """
    asked = _prepare(ledger, venue, wanted)
    with ledger.read() as books:
        require_own_books(books, venue)
        orders, portfolio = _weigh(books, venue, asked, None, leaving=False)
        portfolio = replace(portfolio, stops_resting=0)
        refusals = _check_order(books, limits, orders[0], portfolio, asked.instrument)
    wanted, price = asked.wanted, orders[0].expected_price
    makes = wanted.type is OrderType.POST_ONLY
    rate = asked.instrument.maker_fee if makes else asked.instrument.taker_fee
    notional = wanted.amount * price
    fee = None if rate is None else notional * rate
    quote = asked.prices[wanted.symbol]
    return Preview(wanted, venue.name, price, notional, fee, quote, portfolio, refusals)


def place_manual_order(
    ledger: Ledger, venue: Venue, limits: LimitSettings, wanted: ManualOrder, holder: str
) -> list[Order]:
    """Record and send a person's order, one row for each leg; limits are those of bots.

    A sale for a bot withdraws the stops that lock its coins, unless the limits refuse it anyway.
    """
    name = bot_lease(wanted.bot) if wanted.bot else account_lease(venue.name)
    with lease(ledger, name, holder, PATIENCE) as held:
        return place_under(ledger, venue, limits, wanted, held)


def place_under(
    ledger: Ledger,
    venue: Venue,
    limits: LimitSettings,
    wanted: ManualOrder,
    held: Lease,
    *,
    leaving: bool = False,
) -> list[Order]:
    """`place_manual_order` for whoever holds the lease. leaving: a halt does not stop it."""
    asked = _prepare(ledger, venue, wanted)
    if wanted.bot and wanted.side is Side.SELL:
        _free_coins(ledger, venue, limits, asked, leaving)
    with ledger.write() as books:
        require_lease(books, held)
        require_own_books(books, venue)
        orders, portfolio = _weigh(books, venue, asked, held, leaving)
        refusals = _check_order(books, limits, orders[0], portfolio, asked.instrument)
        planned = [record_planned(books, order, refusals) for order in orders]
    if planned[0].status != OrderStatus.PLANNED:
        return planned
    return submit_planned(ledger, venue, planned, held, leaving=leaving)


def _free_coins(
    ledger: Ledger, venue: Venue, limits: LimitSettings, asked: _Asked, leaving: bool
) -> None:
    with ledger.read() as books:
        orders, portfolio = _weigh(books, venue, asked, None, leaving)
        refusals = _check_order(books, limits, orders[0], portfolio, asked.instrument)
    if all(refusal.limit_name == StopsWithdrawn.__name__ for refusal in refusals):
        withdraw_stops(ledger, venue, load_bot(ledger, asked.wanted.bot or ""))


def _weigh(
    books: Connection, venue: Venue, asked: _Asked, held: Lease | None, leaving: bool
) -> tuple[list[Order], Portfolio]:
    """The rows that the order would make, and the account that it is weighed against; a person
    who leaves the market is not kept by the halt."""
    trader = Trader(venue.name, asked.wanted.symbol, asked.wanted.bot)
    portfolio = read_portfolio(books, venue, trader, asked.as_of, asked.prices)
    if leaving:
        portfolio = replace(portfolio, halt=None)
    return _orders(asked.wanted, venue, asked, held), portfolio


def _prepare(ledger: Ledger, venue: Venue, wanted: ManualOrder) -> _Asked:
    instrument = venue.fetch_instrument(wanted.symbol)
    if wanted.symbol.split("/")[1] != venue.quote:
        raise InvalidInput(
            f"Venue {venue.name} counts in {venue.quote}; limits for {wanted.symbol} are not known."
        )
    _require_supported(ledger, venue, wanted)
    stepped = replace(
        wanted,
        amount=instrument.round_amount(wanted.amount),
        limit_price=_stepped(instrument, wanted.limit_price),
        stop_price=_stepped(instrument, wanted.stop_price),
    )
    as_of = venue.fetch_time()
    prices = fetch_prices(ledger, venue, wanted.symbol, as_of)
    return _Asked(stepped, instrument, prices, as_of)


def _require_supported(ledger: Ledger, venue: Venue, wanted: ManualOrder) -> None:
    if wanted.is_bracket and not venue.supports_brackets:
        raise InvalidInput(f"Venue {venue.name} takes no brackets; place one of the two legs.")
    if not venue.supports(wanted.type):
        raise InvalidInput(f"Venue {venue.name} takes no orders of type {wanted.type}.")
    traded = load_bot(ledger, wanted.bot).traded if wanted.bot else (wanted.symbol,)
    if wanted.symbol not in traded:
        raise InvalidInput(
            f"Bot {wanted.bot} trades {', '.join(traded)}, not {wanted.symbol}; "
            "leave --bot away for coins of nobody's."
        )
    if wanted.bot and (wanted.is_bracket or _role(wanted).protects):
        raise InvalidInput(
            f"What protects bot {wanted.bot} is kept by the desk; "
            f"set it with: desk bots edit {wanted.bot} --stops loss=0.05"
        )


def _stepped(instrument: Instrument, price: Decimal | None) -> Decimal | None:
    if price is None:
        return None
    rounded = instrument.round_price(price)
    if rounded <= 0:
        raise InvalidInput(
            f"The price {price:f} is below the venue's step of {instrument.tick:f} for "
            f"{instrument.symbol}."
        )
    return rounded


def _role(wanted: ManualOrder) -> Role:
    if wanted.side is Side.BUY:
        return Role.ENTRY
    if wanted.type in _STOP_TYPES:
        return Role.STOP
    return Role.TARGET if wanted.type in _TARGET_TYPES else Role.EXIT


def _orders(wanted: ManualOrder, venue: Venue, asked: _Asked, held: Lease | None) -> list[Order]:
    """The ledger's rows for what is wanted: one, or target and stop of a bracket."""
    quote = asked.prices[wanted.symbol]
    market = quote.ask if wanted.side is Side.BUY else quote.bid
    now = utc_now()
    source = _source(venue, wanted, format_time(now))
    first = Order(
        client_id=client_order_id(source),
        decision=None,
        run=None,
        bot=wanted.bot,
        venue=venue.name,
        symbol=wanted.symbol,
        side=wanted.side,
        type=wanted.type,
        amount=wanted.amount,
        limit_price=wanted.limit_price,
        stop_price=wanted.stop_price,
        trailing_bips=wanted.trailing_bips,
        time_in_force=wanted.time_in_force,
        expected_price=wanted.limit_price or wanted.stop_price or market,
        status=OrderStatus.PLANNED,
        role=_role(wanted),
        lease_token=held.token if held else None,
        as_of=asked.as_of,
        created_at=now,
        updated_at=now,
    )
    return _bracket(first, source) if wanted.is_bracket else [first]


def _bracket(order: Order, source: str) -> list[Order]:
    name = client_order_id(source, 0, -1)
    target = replace(
        order, type=OrderType.POST_ONLY, role=Role.TARGET, stop_price=None, bracket=name
    )
    stop = replace(
        order,
        client_id=client_order_id(source, 1),
        leg=1,
        type=OrderType.STOP_LOSS,
        role=Role.STOP,
        limit_price=None,
        bracket=name,
    )
    return [target, stop]


def _source(venue: Venue, wanted: ManualOrder, moment: str) -> str:
    """What a manual order's client id derives from: everything that was typed, and when."""
    text = f"manual|{venue.name}|{wanted}|{moment}"
    return "m-" + hashlib.sha256(text.encode()).hexdigest()[:22]


def _check_order(
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
