"""Coinbase Advanced."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, ClassVar

import ccxt

from tradelib.errors import InvalidInput
from tradelib.traffic.rates import Pool
from tradelib.venue.dialects.base import PLAIN, Dialect, Page, Row, iso, text
from tradelib.venue.facts import OrderRequest, OrderType, TimeInForce, VenueStatus

_STATUSES = {
    "PENDING": VenueStatus.OPEN,
    "QUEUED": VenueStatus.OPEN,
    "OPEN": VenueStatus.OPEN,
    "EDIT_QUEUED": VenueStatus.OPEN,
    "CANCEL_QUEUED": VenueStatus.OPEN,
    "FILLED": VenueStatus.FILLED,
    "CANCELLED": VenueStatus.CANCELED,
    "EXPIRED": VenueStatus.EXPIRED,
    "FAILED": VenueStatus.REJECTED,
}
_PAGE = 250
_NOT_FOUND = re.compile(r'"error"\s*:\s*"NOT_FOUND"|order[^"]*not found', re.IGNORECASE)


class Coinbase(Dialect):
    """Coinbase Advanced. A client id is good for one order for ever, and cannot be searched for;
    a new order is answered with its id alone; lists begin with the newest."""

    order_types = PLAIN | {OrderType.STOP_LOSS_LIMIT, OrderType.TAKE_PROFIT_LIMIT}
    dedupes_client_ids = True
    newest_first = True
    # ccxt drops its own unified name here.
    client_id_name = "client_order_id"
    # Whole accounts, those with nothing free included, come with the third version alone.
    balance_params: ClassVar[dict[str, Any]] = {"v3": True}
    clearer = (
        (re.compile(r"INSUFFICIENT_FUND"), ccxt.InsufficientFunds),
        (re.compile(r'"success"\s*:\s*false'), ccxt.OperationRejected),
        (re.compile(r'"error"\s*:\s*"RESOURCE_EXHAUSTED"'), ccxt.RateLimitExceeded),
        (re.compile(r'"error"\s*:\s*"UNAUTHENTICATED"'), ccxt.AuthenticationError),
        (
            re.compile(r'"error"\s*:\s*"(INVALID_ARGUMENT|PERMISSION_DENIED)"'),
            ccxt.OperationRejected,
        ),
    )

    pools = (Pool("private requests", 30, 1, by_account=True), Pool("public requests", 10, 1))

    def charges(self, method: str, path: str, is_private: bool, cost: float) -> dict[str, int]:
        return {f"{'private' if is_private else 'public'} requests": 1}

    def order_params(self, request: OrderRequest) -> dict[str, Any]:
        if request.type.has_stop and request.time_in_force not in (None, TimeInForce.GTC):
            # ccxt would leave it out without a word.
            raise InvalidInput(f"Coinbase's {request.type} orders live until they are cancelled.")
        params = super().order_params(request)
        if request.type is OrderType.MARKET:
            # ccxt would have a purchase sized in quote currency.
            size = {"base_size": text(request.amount)}
            params |= {
                "createMarketBuyOrderRequiresPrice": False,
                "order_configuration": {"market_market_ioc": size},
            }
        return params

    def cancel_order(self, symbol: str, venue_order_id: str | None, client_id: str | None) -> None:
        number = venue_order_id or self.fetch_order(symbol, client_id or "", None, None)["id"]
        answer = self.exchange.v3_private_post_brokerage_orders_batch_cancel(
            {"order_ids": [number]}
        )
        result = answer["results"][0]
        if result.get("success") is not True:
            self._explain_cancel(symbol, number, str(result.get("failure_reason")))

    def _explain_cancel(self, symbol: str, number: str, reason: str) -> None:
        """Why a cancel was not taken; one that is under way already is."""
        if reason == "DUPLICATE_CANCEL_REQUEST":
            return
        row = self.fetch_order(symbol, "", number, None)
        if self.status(row) is VenueStatus.OPEN:
            raise ccxt.OperationRejected(f"cancel refused: {reason}")
        raise ccxt.OrderNotFound(f"the order is not open any more: {reason}")

    def fetch_order(
        self, symbol: str, client_id: str, venue_order_id: str | None, since: datetime | None
    ) -> Row:
        if venue_order_id:
            return self._fetch_known(symbol, venue_order_id)
        cursor = None
        while True:
            page = self.fetch_order_page(symbol, since, cursor, _PAGE)
            for row in page.rows:
                if row.get("clientOrderId") == client_id:
                    return row
            if page.next is None:
                raise ccxt.OrderNotFound(f"no order {client_id} in the list of all orders")
            cursor = page.next

    def _fetch_known(self, symbol: str, venue_order_id: str) -> Row:
        try:
            return self.exchange.fetch_order(venue_order_id, symbol)
        except ccxt.ExchangeError as error:
            # A read only: of a request that changes something, the same words may mean less.
            if _NOT_FOUND.search(str(error)):
                raise ccxt.OrderNotFound(f"no order {venue_order_id}") from None
            raise

    def fetch_open_orders(self, symbol: str) -> list[Row]:
        found: list[Row] = []
        cursor = None
        while True:
            page = self._orders(symbol, cursor, _PAGE, {"order_status": "OPEN"})
            found += page.rows
            if page.next is None:
                return found
            cursor = page.next

    def fetch_order_page(
        self, symbol: str, since: datetime | None, cursor: Any, limit: int
    ) -> Page:
        begins = {"start_date": iso(since)} if since else {}
        return self._orders(symbol, cursor, limit, begins)

    def _orders(self, symbol: str, cursor: Any, limit: int, asked: dict[str, Any]) -> Page:
        market = self.exchange.market(symbol)
        answer = self.exchange.v3_private_get_brokerage_orders_historical_batch(
            self._listed(market, cursor, limit) | asked
        )
        rows = self.exchange.parse_orders(answer["orders"], market)
        return Page(rows, _cursor(answer, "orders"))

    def _listed(self, market: Row, cursor: Any, limit: int) -> dict[str, Any]:
        # The older of its names is the one that ccxt uses, the newer the documented one.
        named = {"product_id": market["id"], "product_ids": market["id"], "limit": limit}
        return named | ({"cursor": cursor} if cursor else {})

    def tidy(self, row: Row) -> Row:
        """ccxt knows some of the order configurations; each holds the same few fields."""
        said = row["info"]
        asked = next(filter(None, (said.get("order_configuration") or {}).values()), {})
        return row | {
            "amount": asked.get("base_size"),
            "price": asked.get("limit_price"),
            "triggerPrice": asked.get("stop_price"),
            "postOnly": asked.get("post_only"),
            "stopDirection": asked.get("stop_direction"),
            "cost": said.get("filled_value"),
        }

    def order_type(self, row: Row) -> str:
        if row["postOnly"]:
            return OrderType.POST_ONLY
        if row["stopDirection"]:
            adverse = "UP" if row["side"] == "buy" else "DOWN"
            losing = row["stopDirection"].endswith(adverse)
            return OrderType.STOP_LOSS_LIMIT if losing else OrderType.TAKE_PROFIT_LIMIT
        return (row["info"].get("order_type") or "").lower()

    def status(self, row: Row) -> VenueStatus:
        # ccxt tells expired and failed orders as cancelled ones.
        return _STATUSES.get(row["info"].get("status") or "", VenueStatus.UNKNOWN)

    def fetch_trade_page(
        self, symbol: str, since: datetime | None, last_id: str | None, cursor: Any, limit: int
    ) -> Page:
        begins = {"start_sequence_timestamp": iso(since)} if since else {}
        return self._fills(symbol, cursor, limit, begins)

    def _fills(self, symbol: str, cursor: Any, limit: int, asked: dict[str, Any]) -> Page:
        market = self.exchange.market(symbol)
        answer = self.exchange.v3_private_get_brokerage_orders_historical_fills(
            self._listed(market, cursor, limit) | asked
        )
        rows = self.exchange.parse_trades(answer["fills"], market)
        return Page(rows, _cursor(answer, "fills"))

    def fetch_last_trades(self, symbol: str) -> list[Row]:
        return self._fills(symbol, None, 1, {}).rows

    def fetch_order_trades(self, symbol: str, venue_order_id: str) -> list[Row]:
        found: list[Row] = []
        cursor = None
        while True:
            page = self._fills(symbol, cursor, _PAGE, {"order_ids": venue_order_id})
            found += [row for row in page.rows if row["order"] == venue_order_id]
            if page.next is None:
                return found
            cursor = page.next

    def fetch_account_id(self) -> str | None:
        answer = self.exchange.v3_private_get_brokerage_key_permissions()
        return answer.get("portfolio_uuid") or None


def _cursor(answer: Row, name: str) -> str | None:
    """Where Coinbase's next page begins. Fills come with a cursor even when none follow."""
    more = answer.get("has_next", bool(answer[name]))
    return (answer.get("cursor") or None) if more else None
