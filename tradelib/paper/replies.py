"""How the exchange writes what it knows: numbers as text with 8 decimals, times in ms."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tradelib.paper.candles import Candles, interval_end
from tradelib.paper.instruments import ZERO, text8
from tradelib.paper.market import PRINTS, Day, Print
from tradelib.paper.orders import Order, OrderList, Trade

NO_PRICE = text8(ZERO)


def order_row(order: Order) -> dict[str, Any]:
    """An order as queries show it."""
    return {
        **_names(order),
        **_state(order),
        "stopPrice": text8(order.ticket.stop or ZERO),
        "icebergQty": NO_PRICE,
        "time": order.time,
        "updateTime": order.update_time,
        "isWorking": order.working,
        "workingTime": order.working_time,
        "origQuoteOrderQty": text8(order.ticket.quote_amount or ZERO),
        **_trailing(order),
    }


def new_order(order: Order, trades: tuple[Trade, ...], kind: str) -> dict[str, Any]:
    """The answer to a new order. kind: ACK, RESULT or FULL."""
    reply = {**_names(order), "transactTime": order.update_time}
    if kind == "ACK":
        return reply
    reply |= {**_state(order), "origQuoteOrderQty": text8(order.ticket.quote_amount or ZERO)}
    if order.ticket.stop is not None:
        reply["stopPrice"] = text8(order.ticket.stop)
    reply |= {"workingTime": order.working_time, **_trailing(order)}
    if kind == "FULL":
        reply["fills"] = [_fill(trade) for trade in trades]
    return reply


def canceled(order: Order, cancel_id: str, now: int) -> dict[str, Any]:
    """The answer to a cancel, which bears the cancel's own name beside the order's."""
    reply = {
        **_names(order),
        "origClientOrderId": order.ticket.client_id,
        "clientOrderId": cancel_id,
        "transactTime": now,
        **_state(order),
    }
    if order.ticket.stop is not None:
        reply["stopPrice"] = text8(order.ticket.stop)
    return reply | _trailing(order)


def order_list(pair: OrderList, orders: tuple[Order, ...], reports: list[Any]) -> dict[str, Any]:
    is_open = any(order.is_open for order in orders)
    reply = {
        "orderListId": pair.id,
        "contingencyType": "OCO",
        "listStatusType": "EXEC_STARTED" if is_open else "ALL_DONE",
        "listOrderStatus": "EXECUTING" if is_open else "ALL_DONE",
        "listClientOrderId": pair.client_id,
        "transactionTime": pair.time,
        "symbol": pair.symbol,
        "orders": [
            {
                "symbol": pair.symbol,
                "orderId": order.id,
                "clientOrderId": order.ticket.client_id,
            }
            for order in orders
        ],
    }
    return {**reply, "orderReports": reports} if reports else reply


def _names(order: Order) -> dict[str, Any]:
    return {
        "symbol": order.ticket.symbol,
        "orderId": order.id,
        "orderListId": order.list_id,
        "clientOrderId": order.ticket.client_id,
    }


def _state(order: Order) -> dict[str, Any]:
    ticket = order.ticket
    return {
        "price": text8(ticket.price or ZERO),
        "origQty": text8(order.amount),
        "executedQty": text8(order.filled),
        "cummulativeQuoteQty": text8(order.filled_quote),
        "status": order.status,
        "timeInForce": ticket.time_in_force,
        "type": ticket.type,
        "side": ticket.side,
        "selfTradePreventionMode": ticket.prevention,
    }


def _trailing(order: Order) -> dict[str, Any]:
    if order.ticket.trailing is None:
        return {}
    return {"trailingDelta": order.ticket.trailing, "trailingTime": order.trailing_time}


def _fill(trade: Trade) -> dict[str, Any]:
    return {
        "price": text8(trade.price),
        "qty": text8(trade.amount),
        "commission": text8(trade.fee),
        "commissionAsset": trade.fee_asset,
        "tradeId": trade.id,
    }


def trade_row(trade: Trade) -> dict[str, Any]:
    return {
        "symbol": trade.symbol,
        "id": trade.id,
        "orderId": trade.order_id,
        "orderListId": trade.list_id,
        "price": text8(trade.price),
        "qty": text8(trade.amount),
        "quoteQty": text8(trade.quote),
        "commission": text8(trade.fee),
        "commissionAsset": trade.fee_asset,
        "time": trade.time,
        "isBuyer": trade.is_buyer,
        "isMaker": trade.is_maker,
        "isBestMatch": True,
    }


def kline_rows(candles: Candles, interval: str) -> list[list[Any]]:
    rows = []
    columns = (column.tolist() for column in candles.columns)
    for time, o, h, low, c, volume in zip(*columns, strict=True):
        quote = volume * (o + h + low + c) / 4
        rows.append(
            [
                time, f"{o:.8f}", f"{h:.8f}", f"{low:.8f}", f"{c:.8f}", f"{volume:.8f}",
                interval_end(time, interval) - 1, f"{quote:.8f}", PRINTS if volume else 0,
                f"{volume / 2:.8f}", f"{quote / 2:.8f}", "0",
            ]
        )  # fmt: skip
    return rows


def depth(number: int, bids: list, asks: list) -> dict[str, Any]:
    return {"lastUpdateId": number, "bids": levels(bids), "asks": levels(asks)}


def levels(side: list[tuple[Decimal, Decimal]]) -> list[list[str]]:
    return [[text8(price), text8(amount)] for price, amount in side]


def book_ticker(symbol: str, bids: list, asks: list) -> dict[str, Any]:
    bid, ask = (side[0] if side else (ZERO, ZERO) for side in (bids, asks))
    return {
        "symbol": symbol,
        "bidPrice": text8(bid[0]),
        "bidQty": text8(bid[1]),
        "askPrice": text8(ask[0]),
        "askQty": text8(ask[1]),
    }


def day_ticker(symbol: str, day: Day, bids: list, asks: list, now: int) -> dict[str, Any]:
    change = day.close - day.open
    average = day.quote_volume / day.volume if day.volume else day.close
    return {
        "symbol": symbol,
        "priceChange": text8(change),
        "priceChangePercent": f"{change / day.open * 100:.3f}",
        "weightedAvgPrice": text8(average),
        "prevClosePrice": text8(day.open),
        "lastPrice": text8(day.close),
        "lastQty": text8(day.volume / max(1, day.last_id - day.first_id + 1)),
        **book_ticker(symbol, bids, asks),
        "openPrice": text8(day.open),
        "highPrice": text8(day.high),
        "lowPrice": text8(day.low),
        "volume": text8(day.volume),
        "quoteVolume": text8(day.quote_volume),
        "openTime": day.open_time,
        "closeTime": now,
        "firstId": day.first_id,
        "lastId": day.last_id,
        "count": day.last_id - day.first_id + 1,
    }


def public_trade(each: Print) -> dict[str, Any]:
    return {
        "id": each.id,
        "price": text8(each.price),
        "qty": text8(each.amount),
        "quoteQty": text8(each.price * each.amount),
        "time": each.time,
        "isBuyerMaker": each.buyer_is_maker,
        "isBestMatch": True,
    }


def aggregate_trade(each: Print) -> dict[str, Any]:
    return {
        "a": each.id,
        "p": text8(each.price),
        "q": text8(each.amount),
        "f": each.id,
        "l": each.id,
        "T": each.time,
        "m": each.buyer_is_maker,
        "M": True,
    }
