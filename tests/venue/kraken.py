"""A server that speaks Kraken's spot dialect, for one account."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from tests.venue.books import PRICE, Books, Execution, Order, Refused
from tests.venue.served import Answer, Asked

KEY, SECRET = "kraken-key-5f1", base64.b64encode(b"kraken-secret-77a").decode()
PAGE = 3
_STATUSES = {"filled": "closed"}


@dataclass
class KrakenServer:
    """page: rows of a list, which Kraken fixes itself; few, so that there are edges."""

    books: Books = field(default_factory=Books)
    last_nonce: int = 0

    def answer(self, asked: Asked) -> Answer:
        name = asked.path.rpartition("/")[2]
        if "/public/" in asked.path:
            return 200, {"error": [], "result": public(name)}
        params = _params(asked)
        try:
            self._authenticate(asked, params)
            return 200, {"error": [], "result": self._private(name, params)}
        except Refused as no:
            return 200, {"error": [_WORDS.get(str(no), str(no))]}

    def _authenticate(self, asked: Asked, params: dict[str, Any]) -> None:
        nonce = str(params["nonce"])
        inner = hashlib.sha256(nonce.encode() + asked.body).digest()
        text = asked.path.encode() + inner
        expected = hmac.new(base64.b64decode(SECRET), text, hashlib.sha512).digest()
        if asked.headers.get("API-Key") != KEY:
            raise Refused("EAPI:Invalid key")
        if asked.headers.get("API-Sign") != base64.b64encode(expected).decode():
            raise Refused("EAPI:Invalid signature")
        if int(nonce) <= self.last_nonce:
            raise Refused("EAPI:Invalid nonce")
        self.last_nonce = int(nonce)

    def _private(self, name: str, params: dict[str, Any]) -> Any:
        answers = {
            "BalanceEx": self._balances,
            "AddOrder": self._add,
            "CancelOrder": self._cancel,
            "QueryOrders": self._query,
            "OpenOrders": self._open,
            "ClosedOrders": self._closed,
            "TradesHistory": self._history,
            "QueryTrades": self._trades,
        }
        return answers[name](params)

    def _balances(self, _: dict[str, Any]) -> dict[str, Any]:
        names = {"BTC": "XXBT", "USDT": "USDT"}
        return {
            names[asset]: {"balance": str(total), "hold_trade": str(self.books.used(asset))}
            for asset, total in self.books.totals.items()
        }

    def _add(self, params: dict[str, Any]) -> dict[str, Any]:
        deadline = params.get("deadline")
        if deadline and datetime.fromisoformat(deadline) < datetime.now(UTC):
            raise Refused("EService:Deadline elapsed")
        if len(params["cl_ord_id"]) not in (*range(1, 19), 32, 36):
            raise Refused("EGeneral:Invalid arguments:cl_ord_id")
        kind = params["ordertype"]
        stops = kind.startswith(("stop", "take", "trailing"))
        limit = params.get("price2" if stops else "price")
        order = self.books.place(Order(
            id=f"O{next(self.books.numbers):05}-AAAAA-BBBBBB", client_id=params["cl_ord_id"],
            side=params["type"], kind=kind, amount=Decimal(params["volume"]),
            limit=Decimal(limit) if limit else None,
            stop=Decimal(params["price"]) if stops and "%" not in params["price"] else None,
            asked={**params, "at_once": params.get("timeinforce") in ("IOC", "FOK")},
            at=time.time(),
        ))  # fmt: skip
        return {"txid": [order.id], "descr": {"order": _described(order)}}

    def _cancel(self, params: dict[str, Any]) -> dict[str, Any]:
        by_name = self.books.by_client_id(params.get("cl_ord_id"))
        self.books.cancel(self.books.orders.get(params.get("txid", "")) or by_name)
        return {"count": 1}

    def _query(self, params: dict[str, Any]) -> dict[str, Any]:
        order = self.books.orders.get(params["txid"])
        if order is None:
            raise Refused("EOrder:Unknown order")
        return {order.id: self._row(order)}

    def _open(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"open": {o.id: self._row(o) for o in self._named(params) if o.status == "open"}}

    def _closed(self, params: dict[str, Any]) -> dict[str, Any]:
        found = [o for o in reversed(self._named(params)) if o.status != "open"]
        found = [o for o in found if o.at > int(params.get("start", 0))]
        page = found[int(params.get("ofs", 0)) :][:PAGE]
        return {"closed": {o.id: self._row(o) for o in page}, "count": len(found)}

    def _named(self, params: dict[str, Any]) -> list[Order]:
        wanted = params.get("cl_ord_id")
        return [o for o in self.books.orders.values() if wanted in (None, o.client_id)]

    def _history(self, params: dict[str, Any]) -> dict[str, Any]:
        since = int(params.get("start", 0))
        found = [one for one in reversed(self.books.executions) if one.at > since]
        page = found[int(params.get("ofs", 0)) :][:PAGE]
        return {"trades": {one.id: _trade(one) for one in page}, "count": len(found)}

    def _trades(self, params: dict[str, Any]) -> dict[str, Any]:
        wanted = params["txid"].split(",")
        return {one.id: _trade(one) for one in self.books.executions if one.id in wanted}

    def _row(self, order: Order) -> dict[str, Any]:
        ids = [one.id for one in self.books.executions if one.order is order]
        price, price2 = (order.stop, order.limit) if order.stop else (order.limit, None)
        return {
            "refid": None, "userref": 0, "cl_ord_id": order.client_id,
            "status": _STATUSES.get(order.status, order.status), "opentm": order.at,
            "starttm": 0, "expiretm": 0,
            "descr": {
                "pair": "XBTUSDT", "type": order.side, "ordertype": order.kind,
                "price": str(price or order.asked.get("price", 0)), "price2": str(price2 or 0),
                "leverage": "none", "order": _described(order), "close": "",
            },
            "vol": str(order.amount), "vol_exec": str(order.filled), "cost": str(order.cost),
            "fee": str(order.fee),
            "price": str(order.cost / order.filled) if order.filled else "0.00000",
            "stopprice": "0.00000", "limitprice": "0.00000", "misc": "",
            "oflags": order.asked["oflags"], **({"trades": ids} if ids else {}),
        }  # fmt: skip


_WORDS = {
    "funds": "EOrder:Insufficient funds",
    "size": "EOrder:Order minimum not met",
    "not open": "EOrder:Unknown order",
}


def _params(asked: Asked) -> dict[str, Any]:
    if "json" in asked.headers.get("Content-Type", ""):
        return json.loads(asked.body)
    return dict(parse_qsl(asked.body.decode()))


def _described(order: Order) -> str:
    kind = order.kind
    if order.stop:
        then = f" -> limit {order.limit}" if order.limit else ""
        at = f"{kind.removesuffix('-limit').replace('-', ' ')} {order.stop}{then}"
    else:
        at = {"limit": f"limit {order.limit}", "market": "market"}.get(
            kind, f"trailing stop {order.asked.get('price')}"
        )
    return f"{order.side} {order.amount} XBTUSDT @ {at}"


def _trade(done: Execution) -> dict[str, Any]:
    return {
        "ordertxid": done.order.id, "postxid": "TKH2SE-M7IF5-CFI7LT", "pair": "XBTUSDT",
        "time": done.at, "type": done.order.side, "ordertype": done.order.kind,
        "price": str(done.price), "cost": str(done.amount * done.price), "fee": str(done.fee),
        "vol": str(done.amount), "margin": "0.00000", "leverage": "0", "misc": "",
        "trade_id": 68230622, "maker": False,
    }  # fmt: skip


def public(name: str) -> dict[str, Any]:
    return {
        "Time": lambda: {"unixtime": int(time.time()), "rfc1123": ""},
        "Assets": lambda: {"XXBT": _asset("XBT", 10), "USDT": _asset("USDT", 8)},
        "AssetPairs": lambda: {"XBTUSDT": _pair("XBT", "XXBT")},
        "Ticker": lambda: {"XBTUSDT": _ticker()},
    }[name]()


def _asset(name: str, decimals: int) -> dict[str, Any]:
    return {
        "aclass": "currency", "altname": name, "decimals": decimals, "display_decimals": 5,
        "status": "enabled",
    }  # fmt: skip


def _pair(name: str, base: str) -> dict[str, Any]:
    return {
        "altname": f"{name}USDT", "wsname": f"{name}/USDT", "aclass_base": "currency",
        "base": base, "aclass_quote": "currency", "quote": "USDT", "lot": "unit",
        "pair_decimals": 2, "lot_decimals": 5, "lot_multiplier": 1, "leverage_buy": [],
        "leverage_sell": [], "fees": [[0, 0.26]], "fees_maker": [[0, 0.16]],
        "fee_volume_currency": "ZUSD", "margin_call": 80, "margin_stop": 40,
        "ordermin": "0.0001", "costmin": "0.5", "status": "online",
    }  # fmt: skip


def _ticker() -> dict[str, Any]:
    sides = {"a": str(PRICE + 1), "b": str(PRICE - 1), "c": str(PRICE)}
    spread = {name: [price, "1", "1.000"] for name, price in sides.items()}
    day = {name: [str(PRICE), str(PRICE)] for name in "vplh"}
    return {**spread, **day, "t": [1, 1], "o": str(PRICE)}
