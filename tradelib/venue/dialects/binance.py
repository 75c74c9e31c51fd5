"""Binance spot."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from math import ceil
from typing import Any

import ccxt

from tradelib.clock import to_ms
from tradelib.traffic.rates import Pool
from tradelib.venue.dialects.base import Dialect, Page, Row, text
from tradelib.venue.facts import BracketRequest, OrderRequest, OrderType

# A longer one is cut to this, and a page shorter than asked for is taken for the last.
_LONGEST_PAGE = 1000
_COST_STEP = Decimal("1E-8")
_KINDS = {kind: kind.value.upper() for kind in OrderType} | {
    OrderType.POST_ONLY: "LIMIT_MAKER",
    OrderType.TRAILING_STOP: "STOP_LOSS",
}


_WEIGHT, _ORDERS, _DAY = "weight", "orders", "orders a day"
# How many orders a request makes by the venue's count.
_NEW_ORDERS = {"order": 1, "order/cancelReplace": 1, "orderList/oco": 2}
_COUNTS = {
    _WEIGHT: "X-MBX-USED-WEIGHT-1M",
    _ORDERS: "X-MBX-ORDER-COUNT-10S",
    _DAY: "X-MBX-ORDER-COUNT-1D",
}
_RULES = {
    ("REQUEST_WEIGHT", "MINUTE", 1): _WEIGHT,
    ("ORDERS", "SECOND", 10): _ORDERS,
    ("ORDERS", "DAY", 1): _DAY,
}


class Binance(Dialect):
    """Binance spot. A request lives for its recvWindow; ids of orders and trades count up."""

    order_types = frozenset(OrderType)
    has_brackets = True
    request_lifetime = timedelta(seconds=10)
    # A 503 leaves an order's fate open, unless it says that nothing was done.
    clearer = ((re.compile(r'"msg"\s*:\s*"Service Unavailable\."'), ccxt.OperationRejected),)
    pools = (
        Pool(_WEIGHT, 6000, 60),
        Pool(_ORDERS, 100, 10, by_account=True),
        Pool(_DAY, 200_000, 86_400, by_account=True),
    )

    def charges(self, method: str, path: str, is_private: bool, cost: float) -> dict[str, int]:
        # ccxt's unit of cost is five of the venue's.
        charged = {_WEIGHT: ceil(round(cost * 5, 6))}
        if method == "POST" and path in _NEW_ORDERS:
            charged |= dict.fromkeys((_ORDERS, _DAY), _NEW_ORDERS[path])
        return charged

    def told_used(self, headers: Mapping[str, str]) -> dict[str, int]:
        told = {name: headers.get(header) for name, header in _COUNTS.items()}
        return {name: int(text) for name, text in told.items() if text and text.isdigit()}

    def told_limits(self, path: str, answer: Any) -> dict[str, int]:
        rules = answer.get("rateLimits") or () if path == "exchangeInfo" else ()
        told = ((_RULES.get(_rule(rule)), rule.get("limit")) for rule in rules)
        return {name: int(most) for name, most in told if name and most}

    def refused_pool(self, charges: Mapping[str, int], words: str) -> str:
        return _ORDERS if "-1015" in words and _ORDERS in charges else _WEIGHT

    def mend_addresses(self) -> None:
        # ccxt tells spot from futures by '/stream' in the address: as a rule its host's name.
        sockets = self.exchange.urls["api"].get("ws")
        if sockets and "/stream" not in sockets["spot"]:
            sockets["spot"] = sockets["spot"].removesuffix("/ws") + "/stream/ws"

    def supports(self, order_type: OrderType, symbol: str | None) -> bool:
        if symbol is None:
            return True
        told = self.exchange.market(symbol)["info"]
        trails = order_type is not OrderType.TRAILING_STOP or told.get("allowTrailingStop")
        return bool(trails) and _KINDS[order_type] in told.get("orderTypes", ())

    def order_params(self, request: OrderRequest) -> dict[str, Any]:
        params = super().order_params(request)
        if request.type is OrderType.TRAILING_STOP:
            params["stopLossOrTakeProfit"] = "stopLoss"
        return params

    def lifetime_params(self, signed_at: datetime | None) -> dict[str, Any]:
        if signed_at is None:
            return {}
        # ccxt's own timestamp gives way to this one, and is corrected by the same difference.
        difference = self.exchange.options.get("timeDifference") or 0
        return {
            "timestamp": to_ms(signed_at) - difference,
            "recvWindow": self.request_lifetime // timedelta(milliseconds=1),
        }

    def create_bracket(self, request: BracketRequest) -> list[Row]:
        market = self.exchange.market(request.symbol)
        selling = request.side == "sell"
        above, below = (request.target, request.stop) if selling else (request.stop, request.target)
        answer = self.exchange.private_post_orderlist_oco({
            "symbol": market["id"],
            "side": request.side.upper(),
            "quantity": format(request.amount, "f"),
            "listClientOrderId": request.list_client_id,
            "newOrderRespType": "FULL",
            **_oco_leg("above", above),
            **_oco_leg("below", below),
            **self.lifetime_params(request.signed_at),
        })  # fmt: skip
        return self.exchange.parse_orders(answer["orderReports"], market)

    def fetch_order_page(
        self, symbol: str, since: datetime | None, cursor: Any, limit: int
    ) -> Page:
        if cursor is None and since is not None:
            return self._first_orders_since(symbol, since, limit)
        limit = min(limit, _LONGEST_PAGE)
        rows = self.exchange.fetch_orders(symbol, None, limit, {"orderId": cursor or 0})
        return Page(rows, _after(rows) if len(rows) == limit else None)

    def _first_orders_since(self, symbol: str, since: datetime, limit: int) -> Page:
        rows = self.exchange.fetch_orders(symbol, to_ms(since), limit)
        if rows:
            return Page(rows, _after(rows))
        # An empty answer may cover a day only: the newest order tells whether to look further.
        newest = self.exchange.fetch_orders(symbol, None, 1)
        if newest and newest[-1]["timestamp"] >= to_ms(since):
            return self.fetch_order_page(symbol, None, None, limit)
        return Page([])

    def fetch_trade_page(
        self, symbol: str, since: datetime | None, last_id: str | None, cursor: Any, limit: int
    ) -> Page:
        # By id and never by time, which loses trades of the same millisecond at a page's edge.
        limit = min(limit, _LONGEST_PAGE)
        start = cursor if cursor is not None else int(last_id) + 1 if last_id else 0
        rows = self.exchange.fetch_my_trades(symbol, None, limit, {"fromId": start})
        return Page(rows, _after(rows) if len(rows) == limit else None)

    def order_type(self, row: Row) -> str:
        said = row.get("info") or {}
        if said.get("trailingDelta"):
            return OrderType.TRAILING_STOP
        kind = str(said.get("type") or "").lower()
        return OrderType.POST_ONLY if kind == "limit_maker" else kind or row.get("type") or ""

    def list_id(self, row: Row) -> str | None:
        told = str((row.get("info") or {}).get("orderListId", "-1"))
        return None if told == "-1" else told

    def created_ms(self, row: Row) -> int | None:
        # ccxt reads the time since which a new stop order works: -1 until it is woken.
        told = row["timestamp"]
        return (
            told if told and told > 0 else self.exchange.safe_integer(row["info"], "transactTime")
        )

    def fetch_account_id(self) -> str | None:
        return text(self.exchange.fetch_balance()["info"].get("uid"))

    def tell_closed_candles(
        self, tell: Callable[[str, str, list[Any]], None], tell_time: Callable[[int], None]
    ) -> None:
        exchange, handle = self.exchange, self.exchange.handle_ohlcv

        def handle_and_tell(client: Any, message: Row) -> None:
            handle(client, message)
            kline = message["k"]
            tell_time(int(message["E"]))
            if kline["x"]:
                symbol = exchange.safe_symbol(kline["s"], None, None, "spot")
                row = [int(kline["t"]), *(kline[name] for name in "ohlcv")]
                tell(symbol, exchange.find_timeframe(kline["i"]), row)

        # ccxt keeps a candle's values and drops whether they are its last.
        exchange.handle_ohlcv = handle_and_tell

    async def subscribe_account(self) -> None:
        exchange, handle = self.exchange, self.exchange.handle_event_stream_terminated

        def handle_and_end(client: Any, message: Row) -> None:
            with suppress(Exception):  # of a subscription that it has forgotten already
                handle(client, message)
            # ccxt rejects nothing that anybody waits for, and would be silent for ever.
            client.reject(ccxt.NetworkError("the account's stream was terminated"))

        exchange.handle_event_stream_terminated = handle_and_end
        await exchange.authenticate({"type": "spot"})

    def quote_number(self, ticker: Row) -> int | None:
        return self.exchange.safe_integer(ticker["info"], "u")

    def told_trades(self, row: Row) -> list[Row]:
        """From the fills of a new order's answer. What each cost is left out there; it is taken
        where the costs, rounded as the venue rounds them, add up to what it tells of the order."""
        said = row["info"]
        fills = said.get("fills") or []
        order = {"order": row["id"], "symbol": row["symbol"], "side": row["side"]}
        try:
            order["timestamp"] = int(said["transactTime"])
            trades = [order | _told_trade(fill) for fill in fills]
            totals = [Decimal(said[name]) for name in ("executedQty", "cummulativeQuoteQty")]
        except (KeyError, TypeError, ValueError, ArithmeticError):
            return []
        sums = [sum((trade[name] for trade in trades), Decimal()) for name in ("amount", "cost")]
        return trades if sums == totals else []

    def tidy_event(self, row: Row) -> Row:
        said = row["info"]
        names = {"type": "o", "orderListId": "g", "trailingDelta": "d", "transactTime": "T"}
        told = {name: said[short] for name, short in names.items() if said.get(short) is not None}
        return self.tidy(row | {"info": said | told})


def _told_trade(fill: Row) -> Row:
    amount, price = Decimal(fill["qty"]), Decimal(fill["price"])
    return {
        "id": str(fill["tradeId"]),
        "amount": amount,
        "price": price,
        "cost": (amount * price).quantize(_COST_STEP, ROUND_DOWN),
        "fee": {"cost": fill["commission"], "currency": fill["commissionAsset"]},
    }


def _rule(rule: Row) -> tuple[Any, ...]:
    return tuple(rule.get(name) for name in ("rateLimitType", "interval", "intervalNum"))


def _after(rows: list[Row]) -> int:
    """The id that follows the last of these, where ids count up."""
    return max(int(row["id"]) for row in rows) + 1


def _oco_leg(place: str, leg: OrderRequest) -> dict[str, Any]:
    """One leg of a list; a limit order is a maker there."""
    kind = "LIMIT_MAKER" if leg.type is OrderType.LIMIT else _KINDS[leg.type]
    waits = leg.type in (OrderType.STOP_LOSS_LIMIT, OrderType.TAKE_PROFIT_LIMIT)
    fields = {
        "Type": kind,
        "ClientOrderId": leg.client_id,
        "Price": text(leg.limit_price),
        "StopPrice": text(leg.stop_price),
        "TrailingDelta": leg.trailing_bips,
        "TimeInForce": (leg.time_in_force or "GTC") if waits else None,
    }
    return {f"{place}{name}": value for name, value in fields.items() if value is not None}
