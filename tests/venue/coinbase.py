"""A server that speaks Coinbase Advanced's dialect, for one account."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.venue.books import LOT, PRICE, TICK, Books, Execution, Order, Refused
from tests.venue.served import Answer, Asked

KEY, SECRET = "coinbase-key-5f1", "coinbase-secret-77a"
PORTFOLIO = "0b1e4f66-0f7e-5a6b-9c7e-6c9f2f3a4d10"
_V3 = "/api/v3/brokerage/"
_STATUSES = {"open": "OPEN", "filled": "FILLED", "canceled": "CANCELLED", "expired": "EXPIRED"}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _seconds(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0


@dataclass
class CoinbaseServer:
    books: Books = field(default_factory=Books)

    def answer(self, asked: Asked) -> Answer:
        if asked.path.startswith("/v2/"):
            return 200, {"data": {"iso": _time(time.time()), "epoch": int(time.time())}}
        name = asked.path.removeprefix(_V3)
        if name == "market/products":
            future = "product_type=FUTURE" in asked.target
            return 200, {"products": [] if future else [_product()]}
        if not _is_signed(asked):
            return 401, {"error": "unauthorized", "error_description": "Unauthorized"}
        query = {key: values[-1] for key, values in parse_qs(urlsplit(asked.target).query).items()}
        return self._private(name, query, json.loads(asked.body or b"{}"))

    def _private(self, name: str, query: dict[str, str], body: dict[str, Any]) -> Answer:
        if name.startswith("orders/historical/") and name not in _LISTS:
            return self._order(name.rpartition("/")[2])
        answers = {
            "transaction_summary": lambda: {"fee_tier": {}},
            "key_permissions": lambda: {"can_trade": True, "portfolio_uuid": PORTFOLIO},
            "accounts": self._accounts,
            "best_bid_ask": lambda: {"pricebooks": [_quote()]},
            "orders": lambda: self._create(body),
            "orders/batch_cancel": lambda: self._cancel(body),
            "orders/historical/batch": lambda: self._list(query),
            "orders/historical/fills": lambda: self._fills(query),
        }
        return 200, answers[name]()

    def _accounts(self) -> dict[str, Any]:
        def money(asset: str, value: Decimal) -> dict[str, str]:
            return {"value": str(value), "currency": asset}

        return {
            "accounts": [
                {
                    "uuid": asset,
                    "currency": asset,
                    "type": "ACCOUNT_TYPE_CRYPTO",
                    "available_balance": money(asset, self.books.free(asset)),
                    "hold": money(asset, self.books.used(asset)),
                }
                for asset in self.books.totals
            ],
            "has_next": False,
            "cursor": "",
        }

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        known = self.books.by_client_id(body["client_order_id"])
        if known:
            return _created(known)
        name, asked = next(iter(body["order_configuration"].items()))
        order = Order(
            id=str(uuid.uuid4()), client_id=body["client_order_id"], side=body["side"].lower(),
            kind="market" if name == "market_market_ioc" else "limit",
            amount=Decimal(asked["base_size"]), limit=_money(asked.get("limit_price")),
            stop=_money(asked.get("stop_price")),
            asked={"configuration": {name: asked}, "at_once": name.endswith(("ioc", "fok"))},
            at=time.time(),
        )  # fmt: skip
        try:
            return _created(self.books.place(order))
        except Refused as no:
            words = {"funds": "INSUFFICIENT_FUND", "size": "INVALID_ORDER_SIZE"}[str(no)]
            return {
                "success": False,
                "failure_reason": "UNKNOWN_FAILURE_REASON",
                "order_id": "",
                "error_response": {"error": words, "message": f"said {words}"},
            }

    def _cancel(self, body: dict[str, Any]) -> dict[str, Any]:
        results = []
        for number in body["order_ids"]:
            try:
                self.books.cancel(self.books.orders.get(number))
                results.append({"success": True, "order_id": number})
            except Refused:
                reason = "UNKNOWN_CANCEL_ORDER"
                results.append({"success": False, "failure_reason": reason, "order_id": number})
        return {"results": results}

    def _order(self, number: str) -> Answer:
        order = self.books.orders.get(number)
        if order is None:
            words = "order with this orderID was not found"
            return 404, {"error": "NOT_FOUND", "error_details": words, "message": words}
        return 200, {"order": _row(order)}

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        since = _seconds(query.get("start_date"))
        rows = [_row(o) for o in reversed(self.books.orders.values()) if o.at >= since]
        wanted = query.get("order_status")
        rows = [row for row in rows if wanted in (None, row["status"])]
        return _page("orders", rows, query)

    def _fills(self, query: dict[str, str]) -> dict[str, Any]:
        since, wanted = _seconds(query.get("start_sequence_timestamp")), query.get("order_ids")
        fills = [_fill(one) for one in reversed(self.books.executions) if one.at >= since]
        fills = [one for one in fills if wanted in (None, one["order_id"])]
        return _page("fills", fills, query)


_LISTS = ("orders/historical/batch", "orders/historical/fills")


def _is_signed(asked: Asked) -> bool:
    text = asked.headers.get("CB-ACCESS-TIMESTAMP", "") + asked.method + asked.path
    expected = hmac.new(SECRET.encode(), text.encode() + asked.body, hashlib.sha256).hexdigest()
    return (asked.headers.get("CB-ACCESS-KEY"), asked.headers.get("CB-ACCESS-SIGN")) == (
        KEY,
        expected,
    )


def _money(value: str | None) -> Decimal | None:
    return Decimal(value) if value else None


def _page(name: str, rows: list[dict], query: dict[str, str]) -> dict[str, Any]:
    start, limit = int(query.get("cursor") or 0), int(query["limit"])
    end = start + limit
    more = end < len(rows)
    cursor = {"cursor": str(end) if more else ""}
    # The list of fills does not say whether more follow.
    return {name: rows[start:end], **cursor, **({"has_next": more} if name == "orders" else {})}


def _product() -> dict[str, Any]:
    return {
        "product_id": "BTC-USDT", "price": str(PRICE), "base_increment": str(LOT),
        "quote_increment": str(TICK), "price_increment": str(TICK), "quote_min_size": "1",
        "quote_max_size": "10000000", "base_min_size": "0.0001", "base_max_size": "1000",
        "base_name": "Bitcoin", "quote_name": "Tether", "status": "online", "product_type": "SPOT",
        "trading_disabled": False, "base_currency_id": "BTC", "quote_currency_id": "USDT",
        "alias": "", "alias_to": [],
    }  # fmt: skip


def _quote() -> dict[str, Any]:
    bids = [{"price": str(PRICE - 1), "size": "1"}]
    asks = [{"price": str(PRICE + 1), "size": "1"}]
    return {"product_id": "BTC-USDT", "bids": bids, "asks": asks, "time": _time(time.time())}


def _created(order: Order) -> dict[str, Any]:
    return {
        "success": True,
        "failure_reason": "UNKNOWN_FAILURE_REASON",
        "order_id": order.id,
        "success_response": {
            "order_id": order.id,
            "product_id": "BTC-USDT",
            "side": order.side.upper(),
            "client_order_id": order.client_id,
        },
    }


def _row(order: Order) -> dict[str, Any]:
    average = order.cost / order.filled if order.filled else 0
    kind = "MARKET" if order.kind == "market" else "STOP_LIMIT" if order.stop else "LIMIT"
    return {
        "order_id": order.id, "product_id": "BTC-USDT", "user_id": "1111",
        "order_configuration": order.asked["configuration"], "side": order.side.upper(),
        "client_order_id": order.client_id, "status": _STATUSES.get(order.status, order.status),
        "time_in_force": "GOOD_UNTIL_CANCELLED", "created_time": _time(order.at),
        "completion_percentage": "0", "filled_size": str(order.filled),
        "average_filled_price": str(average), "fee": "", "number_of_fills": "0",
        "filled_value": str(order.cost), "pending_cancel": False, "size_in_quote": False,
        "total_fees": str(order.fee), "size_inclusive_of_fees": False,
        "total_value_after_fees": str(order.cost + order.fee),
        "trigger_status": "INVALID_ORDER_TYPE", "order_type": kind,
        "reject_reason": "REJECT_REASON_UNSPECIFIED", "settled": False, "product_type": "SPOT",
        "reject_message": "", "cancel_message": "",
    }  # fmt: skip


def _fill(done: Execution) -> dict[str, Any]:
    return {
        "entry_id": f"entry-{done.id}", "trade_id": done.id, "order_id": done.order.id,
        "trade_time": _time(done.at), "trade_type": "FILL", "price": str(done.price),
        "size": str(done.amount), "commission": str(done.fee), "product_id": "BTC-USDT",
        "sequence_timestamp": _time(done.at), "liquidity_indicator": "TAKER",
        "size_in_quote": False, "user_id": "1111", "side": done.order.side.upper(),
    }  # fmt: skip
