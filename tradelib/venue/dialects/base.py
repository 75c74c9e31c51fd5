"""The way of most exchanges: ccxt's common words, and where a dialect may depart from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import ceil
from typing import Any, ClassVar

import ccxt

from tradelib.clock import to_ms
from tradelib.errors import InvalidInput
from tradelib.traffic.rates import Pool
from tradelib.venue.facts import BracketRequest, OrderRequest, OrderType, VenueStatus
from tradelib.venue.translate import Clearer

Row = dict[str, Any]

PLAIN = frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.POST_ONLY})
_STOP_LOSSES = (OrderType.STOP_LOSS, OrderType.STOP_LOSS_LIMIT)
_TAKE_PROFITS = (OrderType.TAKE_PROFIT, OrderType.TAKE_PROFIT_LIMIT)
_STATUSES = {
    "open": VenueStatus.OPEN,
    "canceling": VenueStatus.OPEN,
    "closed": VenueStatus.FILLED,
    "canceled": VenueStatus.CANCELED,
    "expired": VenueStatus.EXPIRED,
    "rejected": VenueStatus.REJECTED,
}


@dataclass(frozen=True)
class Page:
    """Rows of one answer, in the venue's order, and where the next begins; None at the end."""

    rows: list[Row]
    next: Any = None


@dataclass(frozen=True)
class Dialect:
    """The way of most exchanges.

    request_lifetime: a request signed longer ago is refused by the venue itself; None where it
        cannot be bound. read_lag: how long a read may lag behind what was accepted.
    newest_first: pages go back in time. clearer: texts of the venue that say more than the class
        of ccxt's error. pools: what the venue counts of the requests.
    """

    exchange: ccxt.Exchange

    order_types: ClassVar[frozenset[OrderType]] = PLAIN
    has_brackets: ClassVar[bool] = False
    dedupes_client_ids: ClassVar[bool] = False
    request_lifetime: ClassVar[timedelta | None] = None
    read_lag: ClassVar[timedelta] = timedelta(seconds=10)
    newest_first: ClassVar[bool] = False
    client_id_name: ClassVar[str] = "clientOrderId"
    balance_params: ClassVar[dict[str, Any]] = {}
    clearer: ClassVar[Clearer] = ()
    # ccxt's own pace for an exchange, in hundredths of a second of its time.
    pools: ClassVar[tuple[Pool, ...]] = (Pool("pace", 1000, 10),)

    # What a request costs

    def charges(self, method: str, path: str, is_private: bool, cost: float) -> dict[str, int]:
        """The units of each pool that a request takes. cost: by ccxt's table."""
        return {"pace": ceil(cost * self.exchange.rateLimit / 10)}

    def told_used(self, headers: Mapping[str, str]) -> dict[str, int]:
        """What is used of each pool, as an answer tells. headers: with names in capitals."""
        return {}

    def told_limits(self, path: str, answer: Any) -> dict[str, int]:
        """The limits that an answer states."""
        return {}

    def refused_pool(self, charges: Mapping[str, int], words: str) -> str:
        """The pool for whose sake the venue wants fewer requests."""
        return next(iter(charges))

    def supports(self, order_type: OrderType, symbol: str | None) -> bool:
        return order_type in self.order_types

    def mend_addresses(self) -> None:
        """Does what else ccxt needs once its addresses point to another server."""

    # Sending

    def create_order(self, request: OrderRequest) -> Row:
        kind = "limit" if request.type.has_limit else "market"
        return self.exchange.create_order(
            request.symbol,
            kind,
            request.side,
            format(request.amount, "f"),
            text(request.limit_price),  # none for a market order: some would read it as a cost
            self.order_params(request),
        )

    def order_params(self, request: OrderRequest) -> dict[str, Any]:
        params = {
            self.client_id_name: request.client_id,
            **_stop_params(request),
            **self.lifetime_params(request.signed_at),
        }
        if request.time_in_force:
            params["timeInForce"] = request.time_in_force.value
        if request.type is OrderType.POST_ONLY:
            params["postOnly"] = True
        return params

    def lifetime_params(self, signed_at: datetime | None) -> dict[str, Any]:
        """What makes the venue refuse a request that was held up on its way."""
        return {}

    def create_bracket(self, request: BracketRequest) -> list[Row]:
        raise InvalidInput(
            f"Exchange {self.exchange.id} takes no brackets from the desk; "
            "send the stop alone, or trade where orders can cancel one another."
        )

    def cancel_order(self, symbol: str, venue_order_id: str | None, client_id: str | None) -> None:
        named = {} if venue_order_id else {self.client_id_name: client_id}
        self.exchange.cancel_order(venue_order_id or "", symbol, named)

    # Reading orders

    def fetch_order(
        self, symbol: str, client_id: str, venue_order_id: str | None, since: datetime | None
    ) -> Row:
        named = {} if venue_order_id else {self.client_id_name: client_id}
        return self.exchange.fetch_order(venue_order_id or "", symbol, named)

    def fetch_open_orders(self, symbol: str) -> list[Row]:
        return self.exchange.fetch_open_orders(symbol)

    def fetch_order_page(
        self, symbol: str, since: datetime | None, cursor: Any, limit: int
    ) -> Page:
        return page_by_time(
            lambda start: self.exchange.fetch_orders(symbol, start, limit), since, cursor, limit
        )

    def order_type(self, row: Row) -> str:
        """The desk's name of an order's type, else the venue's."""
        if row.get("postOnly"):
            return OrderType.POST_ONLY
        kind = row.get("type") or ""
        suffix = "_limit" if kind == "limit" else ""
        if row.get("takeProfitPrice"):
            return f"take_profit{suffix}"
        if row.get("stopLossPrice") or row.get("triggerPrice"):
            return f"stop_loss{suffix}"
        return kind

    def tidy(self, row: Row) -> Row:
        """The row with what ccxt left out of it."""
        return row

    def told_trades(self, row: Row) -> list[Row]:
        """All executions of an order, where the answer to it names them to the last digit."""
        return []

    def status(self, row: Row) -> VenueStatus:
        return _STATUSES.get(row.get("status") or "", VenueStatus.UNKNOWN)

    def client_id(self, row: Row) -> str | None:
        return row.get("clientOrderId")

    def list_id(self, row: Row) -> str | None:
        return None

    def created_ms(self, row: Row) -> int | None:
        return row.get("timestamp")

    # Reading trades

    def fetch_trade_page(
        self, symbol: str, since: datetime | None, last_id: str | None, cursor: Any, limit: int
    ) -> Page:
        """Trades after `last_id` or from `since`, whichever the venue can begin with."""
        return page_by_time(
            lambda start: self.exchange.fetch_my_trades(symbol, start, limit), since, cursor, limit
        )

    def fetch_last_trades(self, symbol: str) -> list[Row]:
        """At least the newest trade, if there is one."""
        return self.exchange.fetch_my_trades(symbol, None, 1)

    def fetch_order_trades(self, symbol: str, venue_order_id: str) -> list[Row]:
        return self.exchange.fetch_order_trades(venue_order_id, symbol)

    def fetch_account_id(self) -> str | None:
        return None

    # Streams, of ccxt's asynchronous objects

    def tell_closed_candles(
        self, tell: Callable[[str, str, list[Any]], None], tell_time: Callable[[int], None]
    ) -> None:
        """Call `tell` with symbol, timeframe and row of every candle that the stream calls
        closed, and `tell_time` with the venue's own time (ms) of each candle's message; a venue
        that does not say so is never heard."""

    async def subscribe_account(self) -> None:
        """Come back once the account's events are on their way, where the venue confirms it."""

    def quote_number(self, ticker: Row) -> int | None:
        """A number that grows with each of a symbol's quotes; None where the venue tells none."""
        return None

    def tidy_event(self, row: Row) -> Row:
        """A streamed order's row as one that was read."""
        return self.tidy(row)


def text(value: Any) -> str | None:
    """A number as venues read it: never with an exponent."""
    if isinstance(value, Decimal):
        return format(value, "f")
    return None if value is None else str(value)


def iso(time: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stop_params(request: OrderRequest) -> dict[str, Any]:
    """ccxt's common words for what wakes an order."""
    if request.type in _STOP_LOSSES:
        return {"stopLossPrice": text(request.stop_price)}
    if request.type in _TAKE_PROFITS:
        return {"takeProfitPrice": text(request.stop_price)}
    if request.type is OrderType.TRAILING_STOP:
        return _trailing_params(request)
    return {}


def _trailing_params(request: OrderRequest) -> dict[str, Any]:
    params = {"trailingPercent": text(Decimal(request.trailing_bips or 0) / 100)}
    if request.stop_price is not None:
        params["trailingTriggerPrice"] = text(request.stop_price)
    return params


def page_by_time(
    fetch: Callable[[int], list[Row]], since: datetime | None, cursor: Any, limit: int
) -> Page:
    """Pages forward in time: each begins at the millisecond in which the last one ended, and
    leaves out what that one had of it."""
    if since is None and cursor is None:
        # Without a beginning, most answer with their newest page alone.
        raise InvalidInput("This venue tells its history from a moment on; name one.")
    start, seen = cursor or (to_ms(since), frozenset())
    rows = fetch(start)
    new = [row for row in rows if row["id"] not in seen]
    if not new and len(rows) >= limit:
        raise ccxt.ExchangeError(f"a page of {limit} rows does not get past one millisecond")
    if not new:
        return Page([])
    end = max(row["timestamp"] for row in rows)
    return Page(new, (end, frozenset(row["id"] for row in rows if row["timestamp"] == end)))
