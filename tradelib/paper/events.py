"""How the exchange's streams write what happened: short names, numbers as text, times in ms."""

from __future__ import annotations

from typing import Any

from tradelib.paper import replies
from tradelib.paper.depths import Depth, Levels
from tradelib.paper.engine import Execution, Transfer
from tradelib.paper.instruments import ZERO, text8
from tradelib.paper.market import PRINTS, Day, Print
from tradelib.paper.orders import CANCELED, Balance, Order, OrderList

Event = dict[str, Any]

# The market.


def trade(symbol: str, each: Print) -> Event:
    return {
        "e": "trade", "E": each.time, "s": symbol, "t": each.id, "p": text8(each.price),
        "q": text8(each.amount), "T": each.time, "m": each.buyer_is_maker, "M": True,
    }  # fmt: skip


def aggregate_trade(symbol: str, each: Print) -> Event:
    return {"e": "aggTrade", "E": each.time, "s": symbol, **replies.aggregate_trade(each)}


def kline(symbol: str, interval: str, row: list[Any], now: int, step: int, closed: bool) -> Event:
    """row: of the REST dialect; step: ms of a base candle; closed: it will not change any more."""
    time, o, high, low, c, volume, end, quote, count, bought, bought_quote, _ = row
    first = time // step * PRINTS
    return {
        "e": "kline", "E": end + 1 if closed else now, "s": symbol,
        "k": {
            "t": time, "T": end, "s": symbol, "i": interval,
            "f": first if count else -1, "L": first + count - 1 if count else -1,
            "o": o, "c": c, "h": high, "l": low, "v": volume, "n": count, "x": closed,
            "q": quote, "V": bought, "Q": bought_quote, "B": "0",
        },
    }  # fmt: skip


def mini_ticker(symbol: str, day: Day, now: int) -> Event:
    return {
        "e": "24hrMiniTicker", "E": now, "s": symbol, "c": text8(day.close), "o": text8(day.open),
        "h": text8(day.high), "l": text8(day.low), "v": text8(day.volume),
        "q": text8(day.quote_volume),
    }  # fmt: skip


_TICKER = {
    "p": "priceChange", "P": "priceChangePercent", "w": "weightedAvgPrice", "x": "prevClosePrice",
    "c": "lastPrice", "Q": "lastQty", "b": "bidPrice", "B": "bidQty", "a": "askPrice",
    "A": "askQty", "o": "openPrice", "h": "highPrice", "l": "lowPrice", "v": "volume",
    "q": "quoteVolume", "O": "openTime", "C": "closeTime", "F": "firstId", "L": "lastId",
    "n": "count",
}  # fmt: skip


def ticker(symbol: str, day: Day, depth: Depth, now: int) -> Event:
    row = replies.day_ticker(symbol, day, depth.bids, depth.asks, now)
    told = {key: row[name] for key, name in _TICKER.items()}
    return {"e": "24hrTicker", "E": now, "s": symbol, **told}


def book_ticker(symbol: str, depth: Depth) -> Event:
    row = replies.book_ticker(symbol, depth.bids, depth.asks)
    return {
        "u": depth.number, "s": symbol, "b": row["bidPrice"], "B": row["bidQty"],
        "a": row["askPrice"], "A": row["askQty"],
    }  # fmt: skip


def depth_update(
    symbol: str, numbers: tuple[int, int], changed: tuple[Levels, Levels], now: int
) -> Event:
    """numbers: the first and the last of the states that it covers. changed: bids and asks."""
    (first, last), (bids, asks) = numbers, changed
    return {
        "e": "depthUpdate", "E": now, "s": symbol, "U": first, "u": last,
        "b": replies.levels(bids), "a": replies.levels(asks),
    }  # fmt: skip


# The account.


def execution_report(done: Execution, number: int) -> Event:
    """number: of the execution."""
    order, ticket, fill = done.order, done.order.ticket, done.trade
    is_cancel = done.kind == CANCELED
    return {
        "e": "executionReport", "E": done.time, "s": ticket.symbol,
        "c": done.cancel_id or ticket.client_id, "S": ticket.side, "o": ticket.type,
        "f": ticket.time_in_force, "q": text8(order.amount), "p": text8(ticket.price or ZERO),
        "P": text8(ticket.stop or ZERO), "F": text8(ZERO), "g": order.list_id,
        "C": ticket.client_id if is_cancel else "",
        # A stop that fires, or begins to trail, is told as a new order.
        "x": "NEW" if done.kind == "TRIGGERED" else done.kind, "X": order.status,
        "r": done.reason, "i": order.id,
        "l": text8(fill.amount if fill else ZERO), "z": text8(order.filled),
        "L": text8(fill.price if fill else ZERO),
        "n": text8(fill.fee) if fill else "0", "N": fill.fee_asset if fill else None,
        "T": done.time, "t": fill.id if fill else -1, "I": number,
        "w": order.working and order.is_open, "m": bool(fill and fill.is_maker),
        "M": fill is not None, "O": order.time, "Z": text8(order.filled_quote),
        "Y": text8(fill.quote if fill else ZERO), "Q": text8(ticket.quote_amount or ZERO),
        **({"W": order.working_time} if order.working_time >= 0 else {}),
        "V": ticket.prevention, **_trailing(order),
    }  # fmt: skip


def _trailing(order: Order) -> Event:
    if order.ticket.trailing is None:
        return {}
    time = {} if order.trailing_time is None else {"D": order.trailing_time}
    return {"d": order.ticket.trailing, **time}


def list_status(pair: OrderList, orders: tuple[Order, ...], now: int) -> Event:
    row = replies.order_list(pair, orders, [])
    return {
        "e": "listStatus", "E": now, "s": pair.symbol, "g": pair.id, "c": row["contingencyType"],
        "l": row["listStatusType"], "L": row["listOrderStatus"], "r": "NONE",
        "C": pair.client_id, "T": now,
        "O": [
            {"s": pair.symbol, "i": each.id, "c": each.ticket.client_id} for each in orders
        ],
    }  # fmt: skip


def account_position(balances: dict[str, Balance], now: int) -> Event:
    """balances: those that may have changed, by asset."""
    return {
        "e": "outboundAccountPosition", "E": now, "u": now,
        "B": [
            {"a": asset, "f": text8(each.free), "l": text8(each.locked)}
            for asset, each in sorted(balances.items())
        ],
    }  # fmt: skip


def balance_update(moved: Transfer, now: int) -> Event:
    return {
        "e": "balanceUpdate", "E": now, "a": moved.asset, "d": text8(moved.amount), "T": moved.time
    }  # fmt: skip


def stream_terminated(now: int) -> Event:
    return {"e": "eventStreamTerminated", "E": now}
