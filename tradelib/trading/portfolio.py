"""What limits are held against: an account's worth, cash and promises at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, bindparam, func, select

from tradelib.errors import NoQuote
from tradelib.trading import tables
from tradelib.trading.accounts import (
    booked_balances,
    compute_equity,
    equity_at_day_start,
    load_balances,
)
from tradelib.trading.arming import read_arming
from tradelib.trading.halts import read_halt
from tradelib.trading.incidents import ORDER_MISSING, has_open_incident
from tradelib.trading.ledger import Ledger, rows
from tradelib.trading.orders import (
    ROLES_THAT_PROTECT,
    UNSETTLED,
    ZERO,
    Order,
    OrderStatus,
    Role,
    Side,
)
from tradelib.trading.positions import bot_position, compute_shares, find_positions, is_dust
from tradelib.trading.risk import Portfolio
from tradelib.venue import Quote, Venue

# A person's order depends on no candle: its price is the quote.
_NO_CANDLE = timedelta(0)


@dataclass(frozen=True)
class Trader:
    """Who wants an order: a bot, or a person for the account's own account (bot None).

    candle_age: since the close of the candle decided on.
    """

    venue: str
    symbol: str
    bot: str | None = None
    candle_age: timedelta = _NO_CANDLE
    timeframe: timedelta = timedelta(days=1)

    @property
    def base(self) -> str:
        return self.symbol.split("/")[0]

    @property
    def quote(self) -> str:
        return self.symbol.split("/")[1]


def fetch_prices(ledger: Ledger, venue: Venue, symbol: str, as_of: datetime) -> dict[str, Quote]:
    """Quotes of a symbol and of all that the account holds and the venue quotes. as_of: the
    venue's time, asked for right before."""
    quote = symbol.split("/")[1]
    held = {f"{b.asset}/{quote}" for b in load_balances(ledger, venue.name) if b.booked}
    known = venue.fetch_instruments().keys()
    quotes = venue.fetch_quotes(sorted((held & known) | {symbol}), as_of=as_of)
    if symbol not in quotes:
        raise NoQuote(
            f"Venue {venue.name} has no bid and ask for {symbol}; nothing is sent without."
        )
    return quotes


def read_portfolio(
    books: Connection, venue: Venue, trader: Trader, as_of: datetime, prices: dict[str, Quote]
) -> Portfolio:
    """The account as the books tell it inside the transaction that would record an order."""
    totals = {balance.asset: balance.booked for balance in booked_balances(books, trader.venue)}
    bids = {symbol: quote.bid for symbol, quote in prices.items()}
    equity = compute_equity(totals, trader.quote, bids)
    promised = promised_orders(books, trader.venue)
    buying = [order for order in promised if order.side == Side.BUY]
    promised_here = sum((_value(o) for o in buying if o.symbol == trader.symbol), ZERO)
    at_day_start = equity_at_day_start(books, trader.venue, as_of)
    mine = [order for order in promised if trader.bot is not None and order.bot == trader.bot]
    return Portfolio(
        as_of=as_of,
        equity=equity,
        cash=totals.get(trader.quote, ZERO) - sum(map(_value, buying), ZERO),
        held_amount=_held(books, trader, totals) - _sold_already(promised, trader),
        orders_on_their_way=sum(not order.is_known for order in mine),
        orders_resting=sum(order.is_known and not Role(order.role).protects for order in mine),
        stops_resting=sum(Role(order.role).protects for order in mine),
        symbol_value=totals.get(trader.base, ZERO) * bids[trader.symbol] + promised_here,
        open_symbols=frozenset(
            symbol
            for symbol, bid in bids.items()
            if not is_dust(totals.get(symbol.split("/")[0], ZERO) * bid, equity)
        ),
        trades_today=_count_orders_of_day(books, trader.venue, as_of),
        loss_today=max(at_day_start - equity, ZERO) if at_day_start is not None else ZERO,
        candle_age=trader.candle_age,
        timeframe=trader.timeframe,
        halt=read_halt(books),
        orders_missing=has_open_incident(books, ORDER_MISSING, trader.venue),
        armed=venue.is_local or read_arming(books, venue.name) is not None,
    )


def _held(books: Connection, trader: Trader, totals: dict[str, Decimal]) -> Decimal:
    """What may be sold: a bot's own position, else what of the account belongs to no bot."""
    if trader.bot is not None:
        return bot_position(books, trader.bot, trader.symbol, trader.venue).amount
    shares = compute_shares(find_positions(books, venue=trader.venue), totals)
    return max(sum((s.unassigned for s in shares if s.asset == trader.base), ZERO), ZERO)


def _sold_already(promised: list[Order], trader: Trader) -> Decimal:
    """What other resting sales of the same owner will take; a stop is withdrawn before a sale."""
    return sum(
        (
            order.left
            for order in promised
            if order.bot == trader.bot
            and order.symbol == trader.symbol
            and order.reduces
            and not Role(order.role).protects
        ),
        ZERO,
    )


def promised_orders(books: Connection, venue: str) -> list[Order]:
    """Orders whose end is not known or whose fills are not all booked: their cash and coins are
    spoken for, whatever the books say."""
    unsettled = rows(books, _UNSETTLED, Order, {"at_venue": venue})
    lacking = rows(books, _LACKING, Order, {"at_venue": venue})
    return [*unsettled, *(o for o in lacking if OrderStatus(o.status).final)]


_AT_VENUE = tables.orders.c.venue == bindparam("at_venue")
# Two queries, since each has its index and the two conditions joined by OR would have none.
_UNSETTLED = select(tables.orders).where(_AT_VENUE, tables.orders.c.status.in_(UNSETTLED))
_LACKING = select(tables.orders).where(_AT_VENUE, tables.orders.c.fills_complete == 0)


def _value(order: Order) -> Decimal:
    """What an order takes from the cash at most, in quote currency."""
    return max(order.notional, order.cost)


def _count_orders_of_day(books: Connection, venue: str, as_of: datetime) -> int:
    midnight = as_of.replace(hour=0, minute=0, second=0, microsecond=0)
    return books.execute(_COUNT_SINCE, {"at_venue": venue, "moment": midnight}).scalar_one()


_COUNT_SINCE = select(func.count()).where(
    _AT_VENUE,
    tables.orders.c.as_of >= bindparam("moment"),
    tables.orders.c.status.not_in([OrderStatus.DENIED, OrderStatus.REJECTED]),
    # A stop replaced is no trade.
    tables.orders.c.role.not_in(ROLES_THAT_PROTECT),
)
