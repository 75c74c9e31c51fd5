"""Orders of a person: previewed with everything that speaks against them, then placed through the
same steps as a bot's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

from tradelib.clock import format_time, utc_now
from tradelib.errors import InvalidInput
from tradelib.settings import LimitSettings
from tradelib.trading.accounts import require_own_books
from tradelib.trading.bots import Bot, load_bots
from tradelib.trading.execution import check_order, record_planned
from tradelib.trading.leases import Lease, account_lease, bot_lease, lease, require_lease
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import (
    Order,
    OrderStatus,
    Role,
    Side,
    client_order_id,
    load_orders,
)
from tradelib.trading.placing import cancel_live_order, submit_planned
from tradelib.trading.portfolio import Trader, fetch_prices, read_portfolio
from tradelib.trading.positions import load_position
from tradelib.trading.risk import Portfolio, Refusal
from tradelib.venue import Instrument, OrderType, Quote, Venue

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


def preview_order(
    ledger: Ledger, venue: Venue, limits: LimitSettings, wanted: ManualOrder
) -> Preview:
    """An order's price, value and fee, and every limit that would refuse it. Changes nothing."""
    wanted, instrument, prices, as_of = _prepare(ledger, venue, wanted)
    with ledger.read() as books:
        require_own_books(books, venue)
        portfolio = read_portfolio(books, venue, _trader(venue, wanted), as_of, prices)
        orders = _orders(wanted, venue, prices, as_of, "preview")
        refusals = check_order(books, limits, orders[0], portfolio, instrument)
    price = orders[0].expected_price
    makes = wanted.type is OrderType.POST_ONLY
    rate = instrument.maker_fee if makes else instrument.taker_fee
    notional = wanted.amount * price
    fee = None if rate is None else notional * rate
    quote = prices[wanted.symbol]
    return Preview(wanted, venue.name, price, notional, fee, quote, portfolio, refusals)


def place_manual_order(
    ledger: Ledger, venue: Venue, limits: LimitSettings, wanted: ManualOrder, holder: str
) -> list[Order]:
    """Record and send a person's order, one row for each leg; limits are those of bots."""
    wanted, instrument, prices, as_of = _prepare(ledger, venue, wanted)
    name = bot_lease(wanted.bot) if wanted.bot else account_lease(venue.name)
    with lease(ledger, name, holder) as held:
        with ledger.write() as books:
            require_lease(books, held)
            require_own_books(books, venue)
            portfolio = read_portfolio(books, venue, _trader(venue, wanted), as_of, prices)
            orders = _orders(wanted, venue, prices, as_of, format_time(utc_now()), held)
            planned = _record(books, limits, orders, portfolio, instrument)
        if planned[0].status != OrderStatus.PLANNED:
            return planned
        return submit_planned(ledger, venue, planned, held)


def _record(
    books: Connection,
    limits: LimitSettings,
    orders: Sequence[Order],
    portfolio: Portfolio,
    instrument: Instrument,
) -> list[Order]:
    refusals = check_order(books, limits, orders[0], portfolio, instrument)
    return [record_planned(books, order, refusals) for order in orders]


def _prepare(
    ledger: Ledger, venue: Venue, wanted: ManualOrder
) -> tuple[ManualOrder, Instrument, dict[str, Quote], datetime]:
    """The order in the venue's steps, with the facts it is judged by."""
    instrument = venue.fetch_instrument(wanted.symbol)
    if wanted.symbol.split("/")[1] != venue.quote:
        raise InvalidInput(
            f"Venue {venue.name} counts in {venue.quote}; limits for {wanted.symbol} are not known."
        )
    _require_supported(venue, wanted)
    rounded = replace(
        wanted,
        amount=instrument.round_amount(wanted.amount),
        limit_price=_stepped(instrument, wanted.limit_price),
        stop_price=_stepped(instrument, wanted.stop_price),
    )
    return rounded, instrument, fetch_prices(ledger, venue, wanted.symbol), venue.fetch_time()


def _require_supported(venue: Venue, wanted: ManualOrder) -> None:
    if wanted.is_bracket and not venue.supports_brackets:
        raise InvalidInput(f"Venue {venue.name} takes no brackets; place one of the two legs.")
    if not venue.supports(wanted.type):
        raise InvalidInput(f"Venue {venue.name} takes no orders of type {wanted.type}.")
    if wanted.bot and (wanted.is_bracket or _role(wanted).protects):
        raise InvalidInput(
            f"What protects bot {wanted.bot} is kept by the desk; "
            f"set it with: desk bots edit {wanted.bot} --stops loss=0.05"
        )


def _stepped(instrument: Instrument, price: Decimal | None) -> Decimal | None:
    return None if price is None else instrument.round_price(price)


def _role(wanted: ManualOrder) -> Role:
    if wanted.side is Side.BUY:
        return Role.ENTRY
    if wanted.type in _STOP_TYPES:
        return Role.STOP
    return Role.TARGET if wanted.type in _TARGET_TYPES else Role.EXIT


def _trader(venue: Venue, wanted: ManualOrder) -> Trader:
    return Trader(venue.name, wanted.symbol, wanted.bot)


def _orders(
    wanted: ManualOrder,
    venue: Venue,
    prices: dict[str, Quote],
    as_of: datetime,
    moment: str,
    held: Lease | None = None,
) -> list[Order]:
    """The ledger's rows for what is wanted: one, or target and stop of a bracket."""
    quote = prices[wanted.symbol]
    market = quote.ask if wanted.side is Side.BUY else quote.bid
    source = _source(venue, wanted, moment)
    now = utc_now()
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
        as_of=as_of,
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


# Leaving the market


def cancel_orders(ledger: Ledger, venue: Venue, *, entries_only: bool = False) -> list[Order]:
    """Cancel the desk's own orders at a venue; those of others are never touched.

    entries_only: stops and other sales stay.
    """
    live = load_orders(ledger, venue=venue.name, unsettled=True)
    wanted = [order for order in live if not (entries_only and order.reduces)]
    return [cancel_live_order(ledger, venue, order) for order in wanted]


def flatten_positions(
    ledger: Ledger, venue: Venue, limits: LimitSettings, holder: str
) -> list[Order]:
    """Sell what the bots of a venue hold, at the market; coins of no bot stay."""
    sold: list[Order] = []
    for bot in load_bots(ledger):
        amount = _sellable(ledger, venue, bot) if bot.venue == venue.name else Decimal(0)
        if amount:
            wanted = ManualOrder(bot.symbol, Side.SELL, amount, bot=bot.name)
            sold += place_manual_order(ledger, venue, limits, wanted, holder)
    return sold


def _sellable(ledger: Ledger, venue: Venue, bot: Bot) -> Decimal:
    """What of a bot's position the venue would take; lot-size rests stay."""
    instrument = venue.fetch_instrument(bot.symbol)
    amount = instrument.round_amount(load_position(ledger, bot.name, bot.symbol, bot.venue).amount)
    quote = venue.fetch_quotes([bot.symbol]).get(bot.symbol)
    worth = amount * quote.bid if quote else Decimal(0)
    is_enough = amount >= (instrument.min_amount or 0) and worth >= (instrument.min_notional or 0)
    return amount if is_enough and amount > 0 else Decimal(0)
