"""Kraken spot."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from math import ceil
from typing import Any

import ccxt

from tradelib.clock import to_ms
from tradelib.errors import InvalidInput
from tradelib.traffic.rates import Pool
from tradelib.venue.dialects.base import Dialect, Page, Row, iso
from tradelib.venue.facts import OrderRequest, OrderType

# Kraken takes free text of up to 18 characters, or a UUID of 32 hexadecimal digits: the desk's
# ids ('nd-' and 21 digits) become one that says 'nd-' in its first six.
_TEXT = 18
_DESK_ID = re.compile(r"nd-([0-9a-f]{21})")
_PREFIX = "6e642d00000"
_NONCE_ATTEMPTS = 3


_COUNTER, _TRADING, _PUBLIC = "counter", "trading", "public"
# A cancel costs the more the younger its order: 8 in the first 5 s, nothing after 5 minutes.
_ORDER_COSTS = {"AddOrder": 1, "AmendOrder": 3, "EditOrder": 7, "CancelOrder": 4}


class Kraken(Dialect):
    """Kraken spot. A request lives until its deadline; a new order is answered with its id
    alone; open and ended orders are two lists, and lists begin with the newest."""

    order_types = frozenset(OrderType)
    request_lifetime = timedelta(seconds=10)
    newest_first = True
    clearer = (
        (re.compile(r'"EOrder:Insufficient (funds|margin)'), ccxt.InsufficientFunds),
        (re.compile(r"EAccount:Invalid permissions|EAPI:Invalid sig"), ccxt.AuthenticationError),
        # Definite, though ccxt does not know them or takes them for a venue that is away.
        (re.compile(r"EService:(Deadline elapsed|Market in)"), ccxt.OperationRejected),
        (
            re.compile(r'"(EOrder:(?!Rate limit|Unknown order)|EGeneral:(Invalid|Unknown method))'),
            ccxt.OperationRejected,
        ),
    )

    # Those of the lowest tier. Both counters of an account decay, by one in 3 s and in 1 s; the
    # second counts for each pair, and is kept to for all of them together.
    pools = (
        Pool(_COUNTER, 15, 45, by_account=True),
        Pool(_TRADING, 60, 60, by_account=True),
        Pool(_PUBLIC, 10, 10),
    )

    def charges(self, method: str, path: str, is_private: bool, cost: float) -> dict[str, int]:
        if not is_private:
            return {_PUBLIC: max(round(cost), 1)}
        if path in _ORDER_COSTS:
            return {_TRADING: _ORDER_COSTS[path]}
        # ccxt's cost is in seconds, of which a unit takes three to decay.
        return {_COUNTER: max(ceil(cost / 3), 1)}

    def create_order(self, request: OrderRequest) -> Row:
        return _nonced(lambda: super(Kraken, self).create_order(request))

    def order_params(self, request: OrderRequest) -> dict[str, Any]:
        if request.type is OrderType.TRAILING_STOP and request.stop_price is not None:
            raise InvalidInput("Kraken's trailing stops trail at once; leave out the stop_price.")
        params = super().order_params(request)
        named = {self.client_id_name: _venue_id(request.client_id)}
        # Executions do not tell their fee's currency: have it always be the quote's.
        return params | named | {"oflags": "fciq"}

    def lifetime_params(self, signed_at: datetime | None) -> dict[str, Any]:
        if signed_at is None:
            return {}
        ahead = timedelta(milliseconds=self.exchange.options.get("timeDifference") or 0)
        return {"deadline": iso(signed_at - ahead + self.request_lifetime)}

    def cancel_order(self, symbol: str, venue_order_id: str | None, client_id: str | None) -> None:
        named = {} if venue_order_id else {self.client_id_name: _venue_id(client_id or "")}
        _nonced(lambda: self.exchange.cancel_order(venue_order_id or "", symbol, named))

    def fetch_order(
        self, symbol: str, client_id: str, venue_order_id: str | None, since: datetime | None
    ) -> Row:
        if venue_order_id:
            return self._fetch_known(symbol, venue_order_id)
        named = {self.client_id_name: _venue_id(client_id)}
        # Open ones first: an order that ends between the two questions is in the second answer.
        found = self.exchange.fetch_open_orders(symbol, None, None, named)
        start = to_ms(since) if since else None
        found += self.exchange.fetch_closed_orders(symbol, start, None, named)
        for row in reversed(found):
            if self.client_id(row) == client_id:
                return row
        raise ccxt.OrderNotFound(f"no order {client_id} among the open and the closed")

    def _fetch_known(self, symbol: str, venue_order_id: str) -> Row:
        try:
            return self.exchange.fetch_order(venue_order_id, symbol)
        except ccxt.InvalidOrder as error:
            raise ccxt.OrderNotFound(str(error)) from None

    def fetch_order_page(
        self, symbol: str, since: datetime | None, cursor: Any, limit: int
    ) -> Page:
        if cursor is None:
            return Page(self.exchange.fetch_open_orders(symbol), 0)
        answer = self.exchange.private_post_closedorders(_range(since, cursor))["result"]
        told = [{"id": number, **order} for number, order in answer["closed"].items()]
        rows = self.exchange.parse_orders(told, self.exchange.market(symbol))
        return Page(rows, _next(answer, cursor, len(told)))

    def order_type(self, row: Row) -> str:
        kind = str((row["info"].get("descr") or {}).get("ordertype") or "").replace("-", "_")
        if not kind or (kind == OrderType.LIMIT and row.get("postOnly")):
            return super().order_type(row)
        return kind

    def client_id(self, row: Row) -> str | None:
        # Not ccxt's, which gives the user reference where an order has no client id.
        told = row["info"].get("cl_ord_id")
        return _desk_id(told) if told else None

    def fetch_trade_page(
        self, symbol: str, since: datetime | None, last_id: str | None, cursor: Any, limit: int
    ) -> Page:
        start = cursor or 0
        answer = self.exchange.private_post_tradeshistory(_range(since, start))["result"]
        told = [trade | {"id": number} for number, trade in answer["trades"].items()]
        rows = self.exchange.parse_trades(told, self.exchange.market(symbol))
        return Page(rows, _next(answer, start, len(told)))

    def fetch_last_trades(self, symbol: str) -> list[Row]:
        page = self.fetch_trade_page(symbol, None, None, None, 0)
        while not page.rows and page.next is not None:
            page = self.fetch_trade_page(symbol, None, None, page.next, 0)
        return page.rows

    def fetch_order_trades(self, symbol: str, venue_order_id: str) -> list[Row]:
        ids = self._fetch_known(symbol, venue_order_id)["info"].get("trades")
        if not ids:
            return []
        return self.exchange.fetch_order_trades(venue_order_id, symbol, None, None, {"trades": ids})


def _nonced(call: Callable[[], Row]) -> Row:
    """Try again what a request of another process with the same key overtook: the venue takes
    no number below the last one, and refuses such a request before it does anything."""
    for _ in range(_NONCE_ATTEMPTS - 1):
        with suppress(ccxt.InvalidNonce):
            return call()
    return call()


def _venue_id(client_id: str) -> str:
    match = _DESK_ID.fullmatch(client_id)
    if match:
        return _PREFIX + match[1]
    if len(client_id) > _TEXT:
        raise InvalidInput(
            f"Client id {client_id!r} is too long for Kraken; "
            f"use up to {_TEXT} characters, or 'nd-' and 21 hexadecimal digits."
        )
    return client_id


def _desk_id(told: str) -> str:
    """The client id behind what Kraken was given."""
    digits = told.replace("-", "")
    is_ours = len(digits) == 32 and digits.startswith(_PREFIX)
    return "nd-" + digits.removeprefix(_PREFIX) if is_ours else told


def _range(since: datetime | None, offset: int) -> dict[str, Any]:
    """Offsets count from the newest: what comes meanwhile is told twice and nothing is lost.
    The start, in seconds, is not included."""
    return {"ofs": offset} | ({"start": to_ms(since) // 1000 - 1} if since else {})


def _next(answer: Row, offset: int, told: int) -> int | None:
    end = offset + told
    return end if told and end < int(answer["count"]) else None
