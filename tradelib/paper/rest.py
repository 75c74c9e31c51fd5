"""The REST dialect: one function per row of the exchange's API, under /api/v3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tradelib.paper import replies
from tradelib.paper.candles import INTERVALS, interval_ms
from tradelib.paper.exchange import Exchange
from tradelib.paper.instruments import ZERO, text8
from tradelib.paper.limits import RateLimiter
from tradelib.paper.orders import BUY, SELL, Balance, Order, Ticket
from tradelib.paper.params import Params
from tradelib.paper.reads import Sight
from tradelib.paper.refusals import (
    Refusal,
    invalid_symbol,
    missing,
    no_such_order,
    unknown_order,
)
from tradelib.paper.store import Page
from tradelib.paper.tickets import (
    ABOVE,
    BELOW,
    OCO_PARAMS,
    ORDER_PARAMS,
    new_client_id,
    read_ticket,
)

_DAY = 86_400_000
_DEPTH_WEIGHTS = ((100, 5), (500, 25), (1000, 50), (5000, 250))


@dataclass
class Call:
    """One request that passed the gate. headers: those its reply will carry.

    old_sight: the past, when its account shows that. share: of what a new order would trade at
    once, where the market is thin; None: all.
    """

    exchange: Exchange
    limiter: RateLimiter
    params: Params
    account: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    old_sight: Sight | None = None
    share: float | None = None

    @property
    def sight(self) -> Sight:
        return self.old_sight or Sight(self.exchange, self.account)

    @property
    def symbol(self) -> str:
        symbol = self.params.symbol()
        if symbol not in self.exchange.engine.books:
            raise invalid_symbol()
        return symbol

    def count_order(self) -> None:
        self.headers |= self.limiter.count_order(self.account)


Weight = Callable[[Params], int]


@dataclass(frozen=True)
class Endpoint:
    """One row of the API. params: the names it takes beside those of signing."""

    answer: Callable[[Call], Any]
    weight: Weight
    params: frozenset[str]
    is_signed: bool


ENDPOINTS: dict[tuple[str, str], Endpoint] = {}


def _endpoint(
    route: str, weight: int | Weight, params: str | frozenset[str] = "", signed: bool = False
) -> Callable[[Callable[[Call], Any]], Callable[[Call], Any]]:
    method, path = route.split()
    names = frozenset(params.split()) if isinstance(params, str) else params

    def register(answer: Callable[[Call], Any]) -> Callable[[Call], Any]:
        weigh = weight if callable(weight) else lambda _: weight
        ENDPOINTS[method, path] = Endpoint(answer, weigh, names, signed)
        return answer

    return register


def _by_symbols(one: int, every: int, some: int | None = None) -> Weight:
    """one: with a symbol; some: with a list of symbols; every: with neither."""

    def weigh(params: Params) -> int:
        if "symbol" in params.names:
            return one
        return (some or every) if "symbols" in params.names else every

    return weigh


def _day_weight(params: Params) -> int:
    if "symbol" in params.names:
        return 2
    asked = params.symbols()
    count = 101 if asked is None else len(asked)
    return 2 if count <= 20 else 40 if count <= 100 else 80


def _depth_weight(params: Params) -> int:
    limit = params.limit(100, 5000)
    return next(weight for most, weight in _DEPTH_WEIGHTS if limit <= most)


# General.


@_endpoint("GET ping", 1)
def ping(call: Call) -> dict[str, Any]:
    return {}


@_endpoint("GET time", 1)
def time(call: Call) -> dict[str, Any]:
    return {"serverTime": call.exchange.now}


@_endpoint("GET exchangeInfo", 20, "symbol symbols permissions showPermissionSets symbolStatus")
def exchange_info(call: Call) -> dict[str, Any]:
    return {
        "timezone": "UTC",
        "serverTime": call.exchange.now,
        "rateLimits": call.limiter.rules(),
        "exchangeFilters": [],
        "symbols": [
            call.exchange.engine.instruments[symbol].info(
                "HALT" if call.exchange.engine.is_halted(symbol) else "TRADING"
            )
            for symbol in _asked(call)
        ],
    }


def _asked(call: Call) -> list[str]:
    """The symbols a request is about."""
    known = call.exchange.engine.books
    asked = call.params.symbols()
    if asked is not None and not set(asked) <= set(known):
        raise invalid_symbol()
    return list(known) if asked is None else asked


def _each_or_one(call: Call, row: Callable[[str], Any]) -> Any:
    """A row for the symbol asked for, or a list of them."""
    if "symbol" in call.params.names:
        return row(call.symbol)
    return [found for found in map(row, _asked(call)) if found is not None]


# Market data.


@_endpoint("GET klines", 2, "symbol interval startTime endTime timeZone limit")
def klines(call: Call) -> list[list[Any]]:
    symbol, params, exchange = call.symbol, call.params, call.exchange
    params.need("interval")
    interval = params.choice("interval", INTERVALS, Refusal(-1120, "Invalid interval."))
    if interval_ms(interval) % exchange.tape.step:
        raise Refusal(-1120, "Invalid interval.")
    candles = exchange.tape.klines(
        symbol,
        interval,
        params.integer("startTime"),
        params.integer("endTime"),
        params.limit(500, 1000),
        exchange.now,
    )
    return replies.kline_rows(candles, interval)


@_endpoint("GET ticker/24hr", _day_weight, "symbol symbols type")
def day_ticker(call: Call) -> Any:
    def row(symbol: str) -> dict[str, Any] | None:
        day = call.exchange.tape.day(symbol, call.exchange.now)
        if day is None:
            return None
        return replies.day_ticker(symbol, day, *_top(call, symbol), call.exchange.now)

    return _each_or_one(call, row)


@_endpoint("GET ticker/bookTicker", _by_symbols(2, 4), "symbol symbols")
def book_ticker(call: Call) -> Any:
    return _each_or_one(call, lambda symbol: replies.book_ticker(symbol, *_top(call, symbol)))


@_endpoint("GET ticker/price", _by_symbols(2, 4), "symbol symbols")
def price_ticker(call: Call) -> Any:
    def row(symbol: str) -> dict[str, Any] | None:
        price = call.exchange.tape.price(symbol, call.exchange.now)
        return None if price is None else {"symbol": symbol, "price": text8(price)}

    return _each_or_one(call, row)


@_endpoint("GET avgPrice", 2, "symbol")
def average_price(call: Call) -> dict[str, Any]:
    price = call.exchange.tape.price(call.symbol, call.exchange.now)
    return {"mins": 0, "price": text8(price or ZERO), "closeTime": call.exchange.now}


def _top(call: Call, symbol: str) -> tuple[list, list]:
    """The best bid and the best ask as they stand."""
    call.exchange.advance(symbol)
    book = call.exchange.engine.books[symbol]
    return book.depth(BUY, 1), book.depth(SELL, 1)


@_endpoint("GET depth", _depth_weight, "symbol limit")
def depth(call: Call) -> dict[str, Any]:
    symbol, limit = call.symbol, call.params.limit(100, 5000)
    call.exchange.advance(symbol)
    seen = call.exchange.depth(symbol)
    return replies.depth(seen.number, seen.bids[:limit], seen.asks[:limit])


@_endpoint("GET trades", 25, "symbol limit")
def trades(call: Call) -> list[dict[str, Any]]:
    limit, exchange = call.params.limit(500, 1000), call.exchange
    found = exchange.tape.last_prints(call.symbol, limit, exchange.now)
    return [replies.public_trade(each) for each in found]


@_endpoint("GET historicalTrades", 25, "symbol limit fromId")
def historical_trades(call: Call) -> list[dict[str, Any]]:
    number = call.params.integer("fromId")
    if number is None:
        return trades(call)
    limit, exchange = call.params.limit(500, 1000), call.exchange
    found = exchange.tape.prints_from(call.symbol, number, limit, exchange.now)
    return [replies.public_trade(each) for each in found]


@_endpoint("GET aggTrades", 2, "symbol fromId startTime endTime limit")
def aggregate_trades(call: Call) -> list[dict[str, Any]]:
    params, tape, now = call.params, call.exchange.tape, call.exchange.now
    symbol, limit = call.symbol, params.limit(500, 1000)
    number, start, end = (params.integer(each) for each in ("fromId", "startTime", "endTime"))
    if number is not None:
        found = tape.prints_from(symbol, number, limit, now)
    elif start is not None:
        reach = start + limit * tape.step
        found = tape.prints(symbol, start, min(reach, end if end is not None else reach), now)
        found = found[:limit]
    else:
        found = tape.last_prints(symbol, limit, min(now, end if end is not None else now))
    return [replies.aggregate_trade(each) for each in found]


# The account.

_NOTHING = Balance()


@_endpoint("GET account", 20, "omitZeroBalances", signed=True)
def account(call: Call) -> dict[str, Any]:
    call.exchange.advance()
    engine = call.exchange.engine
    fees = engine.fees
    assets = {asset for each in engine.instruments.values() for asset in (each.base, each.quote)}
    held = call.sight.balances()
    empty = call.params.text("omitZeroBalances") != "true"
    rows = [
        {"asset": asset, "free": text8(each.free), "locked": text8(each.locked)}
        for asset in sorted(assets | set(held))
        for each in [held.get(asset, _NOTHING)]
        if empty or each.free or each.locked
    ]
    return {
        "makerCommission": int(fees.maker * 10_000),
        "takerCommission": int(fees.taker * 10_000),
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {
            "maker": text8(fees.maker),
            "taker": text8(fees.taker),
            "buyer": text8(ZERO),
            "seller": text8(ZERO),
        },
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": call.exchange.now,
        "accountType": "SPOT",
        "balances": rows,
        "permissions": ["SPOT"],
        "uid": sorted(engine.balances).index(call.account) + 1,
    }


@_endpoint("GET account/commission", 20, "symbol", signed=True)
def commission(call: Call) -> dict[str, Any]:
    fees, none = call.exchange.engine.fees, text8(ZERO)
    rates = {"maker": text8(fees.maker), "taker": text8(fees.taker), "buyer": none, "seller": none}
    free = dict.fromkeys(rates, none)
    reply = {"symbol": call.symbol, "standardCommission": rates, "taxCommission": free}
    chosen = call.exchange.engine.fee_assets.get(call.account)
    if chosen is None:
        return reply
    discount = {"enabledForAccount": True, "enabledForSymbol": True, "discountAsset": chosen.asset}
    return {**reply, "discount": {**discount, "discount": text8(1 - chosen.discount)}}


@_endpoint("GET rateLimit/order", 40, "", signed=True)
def order_limits(call: Call) -> list[dict[str, Any]]:
    return [rule for rule in call.limiter.rules() if rule["rateLimitType"] == "ORDERS"]


# Orders.


@_endpoint("POST order", 1, ORDER_PARAMS, signed=True)
def new_order(call: Call) -> dict[str, Any]:
    ticket = read_ticket(call.params)
    call.count_order()
    call.exchange.advance(ticket.symbol)
    return _placed(call, ticket)


def _placed(call: Call, ticket: Ticket) -> dict[str, Any]:
    kind = _reply_kind(call, ticket)
    with call.exchange.telling(call.account, ticket), call.exchange.settle() as engine:
        order, fills = engine.place(call.account, ticket, call.exchange.now, call.share)
    return replies.new_order(order, fills, kind)


def _reply_kind(call: Call, ticket: Ticket) -> str:
    asked = call.params.choice(
        "newOrderRespType",
        ("ACK", "RESULT", "FULL"),
        Refusal(-1130, "Data sent for parameter 'newOrderRespType' is not valid."),
    )
    return asked or ("FULL" if ticket.type in ("MARKET", "LIMIT") else "ACK")


@_endpoint("POST order/test", 1, ORDER_PARAMS | {"computeCommissionRates"}, signed=True)
def test_order(call: Call) -> dict[str, Any]:
    ticket = read_ticket(call.params)
    call.exchange.advance(ticket.symbol)
    call.exchange.engine.check(call.account, ticket)
    return {}


_ONE_ORDER = "symbol orderId origClientOrderId"


@_endpoint("GET order", 4, _ONE_ORDER, signed=True)
def order(call: Call) -> dict[str, Any]:
    symbol, number, name = call.symbol, *_order_names(call.params)
    call.exchange.advance(symbol)
    found = call.sight.order(symbol, number, name)
    if found is None:
        raise no_such_order()
    return replies.order_row(found)


def _order_names(
    params: Params, number: str = "orderId", name: str = "origClientOrderId"
) -> tuple[int | None, str | None]:
    names = params.integer(number), params.client_id(name)
    if names == (None, None):
        raise Refusal(
            -1102,
            f"Param '{name}' or '{number}' must be sent, but both were empty/null!",
        )
    return names


@_endpoint("DELETE order", 1, f"{_ONE_ORDER} newClientOrderId cancelRestrictions", signed=True)
def cancel_order(call: Call) -> dict[str, Any]:
    symbol = call.symbol
    names = _order_names(call.params)
    call.exchange.advance(symbol)
    return _canceled(call, symbol, names, call.params.client_id("newClientOrderId"))


def _canceled(
    call: Call, symbol: str, names: tuple[int | None, str | None], cancel_id: str | None
) -> dict[str, Any]:
    """Cancels the order of these names; a leg of a list takes the list with it."""
    exchange, cancel_id = call.exchange, cancel_id or new_client_id()
    found = exchange.engine.find_open(call.account, symbol, *names)
    if found is None or not _may_cancel(call, found):
        raise unknown_order()
    with exchange.settle() as engine:
        legs = engine.cancel(found, exchange.now, cancel_id)
    reports = [replies.canceled(each, cancel_id, exchange.now) for each in legs]
    if found.list_id < 0:
        return reports[0]
    return replies.order_list(engine.lists[found.list_id], legs, reports)


def _may_cancel(call: Call, found: Order) -> bool:
    wanted = {"ONLY_NEW": "NEW", "ONLY_PARTIALLY_FILLED": "PARTIALLY_FILLED"}
    restriction = call.params.choice(
        "cancelRestrictions",
        wanted,
        Refusal(-1145, "Invalid cancelRestrictions. Value can only be one of the following: "
                       "ONLY_NEW, ONLY_PARTIALLY_FILLED."),
    )  # fmt: skip
    return restriction is None or found.status == wanted[restriction]


@_endpoint("DELETE openOrders", 1, "symbol", signed=True)
def cancel_open_orders(call: Call) -> list[dict[str, Any]]:
    symbol, exchange = call.symbol, call.exchange
    exchange.advance(symbol)
    orders = exchange.engine.open_orders(call.account, symbol)
    if not orders:
        raise unknown_order()
    reports = []
    with exchange.settle() as engine:
        for each in orders:
            if each.is_open:
                cancel_id = new_client_id()
                legs = engine.cancel(each, exchange.now, cancel_id)
                rows = [replies.canceled(leg, cancel_id, exchange.now) for leg in legs]
                pair = engine.lists.get(each.list_id)
                reports.append(replies.order_list(pair, legs, rows) if pair else rows[0])
    return reports


_REPLACE_PARAMS = ORDER_PARAMS | {
    "cancelReplaceMode", "cancelNewClientOrderId", "cancelOrigClientOrderId", "cancelOrderId",
    "cancelRestrictions", "orderRateLimitExceededMode",
}  # fmt: skip


@_endpoint("POST order/cancelReplace", 1, _REPLACE_PARAMS, signed=True)
def cancel_replace(call: Call) -> dict[str, Any]:
    params = call.params
    params.need("cancelReplaceMode")
    mode = params.choice(
        "cancelReplaceMode",
        ("STOP_ON_FAILURE", "ALLOW_FAILURE"),
        Refusal(-1130, "Data sent for parameter 'cancelReplaceMode' is not valid."),
    )
    names = _order_names(params, "cancelOrderId", "cancelOrigClientOrderId")
    ticket = read_ticket(params)
    call.count_order()
    call.exchange.advance(ticket.symbol)
    cancel_id = params.client_id("cancelNewClientOrderId")
    cancel, cancel_failed = _attempt(lambda: _canceled(call, ticket.symbol, names, cancel_id))
    if cancel_failed and mode == "STOP_ON_FAILURE":
        raise _replace_failed(-2022, "Order cancel-replace failed.", cancel, None, 400)
    new, new_failed = _attempt(lambda: _placed(call, ticket))
    if cancel_failed and new_failed:
        raise _replace_failed(-2022, "Order cancel-replace failed.", cancel, new, 400)
    if cancel_failed or new_failed:
        raise _replace_failed(-2021, "Order cancel-replace partially failed.", cancel, new, 409)
    return _replace_data(cancel, new)


def _attempt(do: Callable[[], Any]) -> tuple[Any, bool]:
    """What came of it, and whether that is a refusal."""
    try:
        return do(), False
    except Refusal as refusal:
        return refusal.body(), True


def _replace_data(cancel: Any, new: Any) -> dict[str, Any]:
    def result(reply: Any) -> str:
        if reply is None:
            return "NOT_ATTEMPTED"
        return "FAILURE" if "code" in reply else "SUCCESS"

    return {
        "cancelResult": result(cancel),
        "newOrderResult": result(new),
        "cancelResponse": cancel,
        "newOrderResponse": new,
    }


def _replace_failed(code: int, message: str, cancel: Any, new: Any, status: int) -> Refusal:
    return Refusal(code, message, status, _replace_data(cancel, new))


@_endpoint("GET openOrders", _by_symbols(6, 80), "symbol", signed=True)
def open_orders(call: Call) -> list[dict[str, Any]]:
    engine = call.exchange.engine
    symbols = [call.symbol] if "symbol" in call.params.names else list(engine.books)
    call.exchange.advance()
    found = [each for symbol in symbols for each in call.sight.open_orders(symbol)]
    return [replies.order_row(each) for each in sorted(found, key=lambda each: each.id)]


@_endpoint("GET allOrders", 20, "symbol orderId startTime endTime limit", signed=True)
def all_orders(call: Call) -> list[dict[str, Any]]:
    symbol, params = call.symbol, call.params
    call.exchange.advance(symbol)
    start, end = _day_bounds(params)
    page = Page(params.limit(500, 1000), params.integer("orderId"), start, end)
    found = call.sight.orders(symbol, page)
    return [replies.order_row(each) for each in found]


@_endpoint("GET myTrades", 20, "symbol orderId startTime endTime fromId limit", signed=True)
def my_trades(call: Call) -> list[dict[str, Any]]:
    symbol, params = call.symbol, call.params
    call.exchange.advance(symbol)
    start, end = _day_bounds(params)
    number = params.integer("fromId")
    if number is not None and (start is not None or end is not None):
        raise Refusal(-1128, "Combination of optional parameters invalid.")
    page = Page(params.limit(500, 1000), number, start, end, params.integer("orderId"))
    return [replies.trade_row(each) for each in call.sight.trades(symbol, page)]


def _day_bounds(params: Params) -> tuple[int | None, int | None]:
    start, end = params.integer("startTime"), params.integer("endTime")
    if start is not None and end is not None and end - start > _DAY:
        raise Refusal(-1127, "More than 24 hours between startTime and endTime.")
    return start, end


# Lists of orders.


@_endpoint("POST orderList/oco", 1, OCO_PARAMS, signed=True)
def new_oco(call: Call) -> dict[str, Any]:
    params, exchange = call.params, call.exchange
    above, below = read_ticket(params, ABOVE), read_ticket(params, BELOW)
    if above.is_stop == below.is_stop and "LIMIT_MAKER" in (above.type, below.type):
        raise Refusal(-1014, "Unsupported order combination.")
    name = params.client_id("listClientOrderId") or new_client_id()
    call.count_order()
    exchange.advance(above.symbol)
    with exchange.telling(call.account, above, below), exchange.settle() as engine:
        pair, orders = engine.place_oco(call.account, above, below, name, exchange.now)
    reports = [replies.new_order(each, (), "RESULT") for each in orders]
    return replies.order_list(pair, orders, reports)


@_endpoint("GET orderList", 4, "orderListId", signed=True)
def order_list(call: Call) -> dict[str, Any]:
    number = call.params.integer("orderListId")
    if number is None:
        raise missing("orderListId")
    call.exchange.advance()
    pair = call.exchange.store.order_list(call.account, number)
    ids = pair.order_ids if pair else ()
    orders = tuple(call.sight.order(pair.symbol, each, None) for each in ids)
    if None in orders or not orders:
        raise Refusal(-2018, "Order list does not exist.")
    return replies.order_list(pair, orders, [])


@_endpoint("DELETE orderList", 1, "symbol orderListId newClientOrderId", signed=True)
def cancel_order_list(call: Call) -> dict[str, Any]:
    symbol, number = call.symbol, call.params.integer("orderListId")
    call.exchange.advance(symbol)
    pair = call.exchange.engine.lists.get(number)
    legs = pair.order_ids if pair and pair.account == call.account else ()
    alive = [each for each in legs if each in call.exchange.engine.open]
    if not alive:
        raise unknown_order()
    return _canceled(call, symbol, (alive[0], None), call.params.client_id("newClientOrderId"))
