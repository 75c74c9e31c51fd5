"""Every row of the REST dialect, asked by an unmodified ccxt."""

from __future__ import annotations

from decimal import Decimal

import ccxt
import pytest

from tradelib.paper import PaperHandle
from tradelib.paper.orders import Ticket

PAIR = "BTC/USDT"


def last_price(exchange: ccxt.binance, pair: str = PAIR) -> float:
    return exchange.fetch_ticker(pair)["last"]


def resting_price(exchange: ccxt.binance, share: float = 0.9) -> float:
    return float(exchange.price_to_precision(PAIR, last_price(exchange) * share))


def test_load_markets_finds_ten_symbols_with_their_filters(ann: ccxt.binance) -> None:
    bases = {"BTC", "ETH", "SOL", "ADA", "DOT", "XRP", "DOGE", "LTC", "LINK", "AVAX"}
    assert {f"{base}/USDT" for base in bases} <= set(ann.markets)
    market = ann.market(PAIR)
    assert market["active"]
    assert (market["precision"]["price"], market["precision"]["amount"]) == (0.01, 0.00001)
    assert market["limits"]["cost"]["min"] == 5


def test_fetch_time_tells_market_time(ann: ccxt.binance, paper: PaperHandle) -> None:
    assert ann.fetch_time() == paper.control("status")["time_ms"]


def test_ping_answers_nothing(ann: ccxt.binance) -> None:
    assert ann.public_get_ping() == {}


def test_fetch_ohlcv_ends_with_the_forming_candle(ann: ccxt.binance, paper: PaperHandle) -> None:
    paper.control("step", candles=30)
    rows = ann.fetch_ohlcv(PAIR, "1h", limit=3)
    now = ann.fetch_time()
    assert [row[0] for row in rows] == [now - 150 * 60_000, now - 90 * 60_000, now - 30 * 60_000]
    minutes = ann.fetch_ohlcv(PAIR, "1m", limit=31)
    forming = rows[-1]
    assert forming[1] == minutes[0][1]
    assert forming[2] == max(row[2] for row in minutes)
    assert forming[3] == min(row[3] for row in minutes)
    assert forming[4] == minutes[-1][4]
    assert forming[5] == pytest.approx(sum(row[5] for row in minutes))


def test_fetch_ohlcv_answers_a_stretch_by_its_bounds(ann: ccxt.binance) -> None:
    hour = 3_600_000
    since = ann.fetch_time() - 100 * hour
    rows = ann.fetch_ohlcv(PAIR, "1h", since=since, limit=5)
    assert [row[0] for row in rows] == [since + number * hour for number in range(5)]
    until = ann.fetch_ohlcv(PAIR, "1h", since=since, params={"until": since + 2 * hour})
    assert len(until) == 3
    assert len(ann.fetch_ohlcv(PAIR, "1m", limit=5000)) == 1000


@pytest.mark.parametrize("timeframe", ["3m", "15m", "4h", "1d", "3d", "1w", "1M"])
def test_every_usual_timeframe_follows_from_the_base(ann: ccxt.binance, timeframe: str) -> None:
    rows = ann.fetch_ohlcv(PAIR, timeframe, limit=4)
    assert len(rows) == 4
    assert all(row[3] <= min(row[1], row[4]) <= max(row[1], row[4]) <= row[2] for row in rows)


def test_weeks_begin_on_monday_and_months_on_the_first(ann: ccxt.binance) -> None:
    week, month = (ann.fetch_ohlcv(PAIR, each, limit=1)[0][0] for each in ("1w", "1M"))
    assert ann.iso8601(week) == "2024-01-01T00:00:00.000Z"
    assert ann.iso8601(month) == "2024-01-01T00:00:00.000Z"


def test_tickers_agree_with_book_and_candles(ann: ccxt.binance) -> None:
    ticker, book = ann.fetch_ticker(PAIR), ann.fetch_order_book(PAIR, 5)
    assert ticker["last"] == ann.fetch_ohlcv(PAIR, "1m", limit=1)[-1][4]
    assert (ticker["bid"], ticker["ask"]) == (book["bids"][0][0], book["asks"][0][0])
    assert ticker["low"] <= ticker["last"] <= ticker["high"]
    assert ticker["baseVolume"] > 0
    assert len(ann.fetch_tickers()) == 10
    assert set(ann.fetch_tickers([PAIR, "ETH/USDT"])) == {PAIR, "ETH/USDT"}


def test_bids_asks_and_last_prices_come_for_one_or_all(ann: ccxt.binance) -> None:
    assert len(ann.fetch_bids_asks()) == 10
    assert ann.fetch_bids_asks([PAIR])[PAIR]["bid"] < last_price(ann) * 1.01
    assert ann.fetch_last_prices()[PAIR]["price"] == last_price(ann)


def test_order_book_is_sorted_and_as_long_as_asked(ann: ccxt.binance) -> None:
    book = ann.fetch_order_book(PAIR, 20)
    bids, asks = ([level[0] for level in book[side]] for side in ("bids", "asks"))
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0] < asks[0]
    assert len(bids) == len(asks) == 20


def test_public_trades_page_by_time_and_by_id(ann: ccxt.binance) -> None:
    recent = ann.fetch_trades(PAIR, limit=10)
    assert len(recent) == 10
    since = recent[0]["timestamp"]
    assert ann.fetch_trades(PAIR, since=since)[: len(recent)] == recent
    by_id = ann.public_get_aggtrades({"symbol": "BTCUSDT", "fromId": recent[3]["id"], "limit": 2})
    assert [str(each["a"]) for each in by_id] == [recent[3]["id"], recent[4]["id"]]
    plain = ann.public_get_trades({"symbol": "BTCUSDT", "limit": 10})
    assert [str(each["id"]) for each in plain] == [each["id"] for each in recent]


def test_a_market_order_pays_the_fee_in_what_it_receives(ann: ccxt.binance) -> None:
    bought = ann.create_order(PAIR, "market", "buy", 0.1)
    assert bought["status"] == "closed"
    assert bought["fees"] == [{"currency": "BTC", "cost": 0.0001}]
    sold = ann.create_order(PAIR, "market", "sell", 0.1)
    assert sold["fees"][0]["currency"] == "USDT"
    assert sold["fees"][0]["cost"] == pytest.approx(sold["cost"] * 0.001)
    balance = ann.fetch_balance()
    assert balance["BTC"]["total"] == 2 - 0.0001


def test_a_market_order_by_cost_spends_no_more(ann: ccxt.binance) -> None:
    bought = ann.create_order(PAIR, "market", "buy", 1, None, {"cost": 500})
    assert 499 < bought["cost"] <= 500
    assert bought["status"] == "closed"
    sold = ann.create_order(PAIR, "market", "sell", 1, None, {"quoteOrderQty": 500})
    assert 499 < sold["cost"] <= 500


def test_a_large_market_order_walks_the_levels_of_the_book(ann: ccxt.binance) -> None:
    bids = ann.fetch_order_book(PAIR, 3)["bids"]
    amount = round(bids[0][1] + bids[1][1], 5)
    sold = ann.create_order(PAIR, "market", "sell", amount)
    assert [fill["price"] for fill in sold["trades"]] == [bids[0][0], bids[1][0]]
    assert ann.fetch_order_book(PAIR, 3)["bids"][0] == bids[2]


def test_a_limit_order_rests_with_its_funds_locked_until_it_is_canceled(
    ann: ccxt.binance,
) -> None:
    price = resting_price(ann)
    order = ann.create_order(PAIR, "limit", "buy", 0.1, price)
    assert (order["status"], order["price"], order["timestamp"]) == (
        "open",
        price,
        ann.fetch_time(),
    )
    assert ann.fetch_balance()["USDT"]["used"] == pytest.approx(price * 0.1)
    assert [each["id"] for each in ann.fetch_open_orders(PAIR)] == [order["id"]]
    assert [each["id"] for each in ann.fetch_open_orders()] == [order["id"]]
    ann.cancel_order(order["id"], PAIR)
    assert ann.fetch_order(order["id"], PAIR)["status"] == "canceled"
    assert ann.fetch_open_orders(PAIR) == []
    assert ann.fetch_balance()["USDT"] == {"free": 100_000, "used": 0, "total": 100_000}


def test_a_crossing_limit_order_takes_what_is_there_and_rests_with_the_rest(
    ann: ccxt.binance,
) -> None:
    price, amount = ann.fetch_order_book(PAIR, 1)["asks"][0]
    order = ann.create_order(PAIR, "limit", "buy", round(amount + 0.01, 5), price)
    assert (order["status"], order["filled"]) == ("open", amount)
    assert ann.fetch_order(order["id"], PAIR)["info"]["status"] == "PARTIALLY_FILLED"
    assert ann.fetch_order_book(PAIR, 1)["bids"][0] == [price, 0.01]


@pytest.mark.parametrize(("in_force", "filled"), [("IOC", True), ("FOK", False)])
def test_an_order_that_cannot_wait_expires(ann: ccxt.binance, in_force: str, filled: bool) -> None:
    price, amount = ann.fetch_order_book(PAIR, 1)["asks"][0]
    params = {"timeInForce": in_force}
    order = ann.create_order(PAIR, "limit", "buy", round(amount + 0.01, 5), price, params)
    assert order["status"] == "expired"
    assert order["filled"] == (amount if filled else 0)
    assert ann.fetch_balance()["USDT"]["used"] == 0


def test_two_accounts_trade_with_each_other(ann: ccxt.binance, bob: ccxt.binance) -> None:
    bid, ask = (ann.fetch_order_book(PAIR, 1)[side][0][0] for side in ("bids", "asks"))
    price = float(ann.price_to_precision(PAIR, (bid + ask) / 2))
    offer = bob.create_order(PAIR, "limit", "sell", 0.5, price)
    bought = ann.create_order(PAIR, "market", "buy", 0.2)
    assert bought["average"] == price
    assert bob.fetch_order(offer["id"], PAIR)["filled"] == 0.2
    [mine], [theirs] = ann.fetch_my_trades(PAIR), bob.fetch_my_trades(PAIR)
    assert mine["id"] == theirs["id"]
    assert (mine["takerOrMaker"], theirs["takerOrMaker"]) == ("taker", "maker")
    assert (mine["side"], theirs["side"]) == ("buy", "sell")


def test_order_test_checks_and_changes_nothing(ann: ccxt.binance) -> None:
    ann.create_order(PAIR, "market", "buy", 0.1, None, {"test": True})
    assert ann.fetch_balance()["BTC"]["total"] == 2
    with pytest.raises(ccxt.InsufficientFunds):
        ann.create_order(PAIR, "market", "buy", 1.9, None, {"test": True})


def test_an_order_is_found_by_the_clients_own_id(ann: ccxt.binance) -> None:
    order = ann.create_order(
        PAIR, "limit", "buy", 0.1, resting_price(ann), {"clientOrderId": "desk-1"}
    )
    found = ann.fetch_order(None, PAIR, {"clientOrderId": "desk-1"})
    assert found["id"] == order["id"]
    ann.cancel_order(None, PAIR, {"clientOrderId": "desk-1"})
    assert ann.fetch_order(None, PAIR, {"clientOrderId": "desk-1"})["status"] == "canceled"


def test_the_answer_to_a_cancel_bears_the_cancels_own_id(ann: ccxt.binance) -> None:
    ann.create_order(PAIR, "limit", "buy", 0.1, resting_price(ann), {"clientOrderId": "desk-1"})
    reply = ann.private_delete_order(
        {"symbol": "BTCUSDT", "origClientOrderId": "desk-1", "newClientOrderId": "cancel-1"}
    )
    assert (reply["clientOrderId"], reply["origClientOrderId"]) == ("cancel-1", "desk-1")
    assert reply["status"] == "CANCELED"


def test_cancel_all_orders_spares_other_symbols_and_accounts(
    ann: ccxt.binance, bob: ccxt.binance
) -> None:
    price = resting_price(ann)
    for _ in range(2):
        ann.create_order(PAIR, "limit", "buy", 0.01, price)
    eth = ann.create_order("ETH/USDT", "limit", "buy", 0.1, 1000)
    theirs = bob.create_order(PAIR, "limit", "buy", 0.01, price)
    assert len(ann.cancel_all_orders(PAIR)) == 2
    assert [each["id"] for each in ann.fetch_open_orders()] == [eth["id"]]
    assert [each["id"] for each in bob.fetch_open_orders()] == [theirs["id"]]


def test_edit_order_cancels_and_replaces(ann: ccxt.binance) -> None:
    price = resting_price(ann)
    order = ann.create_order(PAIR, "limit", "buy", 0.1, price)
    edited = ann.edit_order(order["id"], PAIR, "limit", "buy", 0.2, price)
    assert (edited["amount"], edited["status"]) == (0.2, "open")
    assert ann.fetch_order(order["id"], PAIR)["status"] == "canceled"
    assert [each["id"] for each in ann.fetch_open_orders(PAIR)] == [edited["id"]]


def test_histories_page_by_id_and_limit(ann: ccxt.binance) -> None:
    orders = [ann.create_order(PAIR, "market", "buy", 0.001) for _ in range(5)]
    numbers = [each["id"] for each in orders]
    assert [each["id"] for each in ann.fetch_orders(PAIR)] == numbers
    assert [each["id"] for each in ann.fetch_orders(PAIR, limit=2)] == numbers[-2:]
    later = ann.fetch_orders(PAIR, limit=2, params={"orderId": int(numbers[1])})
    assert [each["id"] for each in later] == numbers[1:3]
    assert [each["id"] for each in ann.fetch_closed_orders(PAIR)] == numbers
    trades = ann.fetch_my_trades(PAIR)
    assert [each["order"] for each in trades] == numbers
    page = ann.fetch_my_trades(PAIR, limit=2, params={"fromId": int(trades[2]["id"])})
    assert [each["id"] for each in page] == [each["id"] for each in trades[2:4]]
    assert ann.fetch_order_trades(numbers[3], PAIR)[0]["order"] == numbers[3]
    assert ann.fetch_my_trades(PAIR, since=ann.fetch_time() + 1) == []


def test_a_history_without_a_limit_gives_500_and_never_more_than_1000(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    buy = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "amount": Decimal("0.0001")}
    paper.exchange.advance("BTCUSDT")
    with paper.exchange.settle() as engine:
        for number in range(1001):
            engine.place("ann", Ticket(client_id=f"order-{number}", **buy), paper.exchange.now)
    for rows in (ann.private_get_allorders, ann.private_get_mytrades):
        for asked, given in (({}, 500), ({"limit": 1000}, 1000), ({"limit": 5000}, 1000)):
            found = rows({"symbol": "BTCUSDT", **asked})
            assert len(found) == given


def test_what_is_smaller_than_a_lot_stays_as_dust(ann: ccxt.binance) -> None:
    ann.create_order(PAIR, "market", "sell", 2)
    ann.create_order(PAIR, "market", "buy", 0.00123)
    held = ann.fetch_balance()["BTC"]["free"]
    assert held == 0.00122877
    with pytest.raises(ccxt.InvalidOrder, match="LOT_SIZE"):
        ann.private_post_order(
            {"symbol": "BTCUSDT", "side": "SELL", "type": "MARKET", "quantity": f"{held:.8f}"}
        )
    ann.create_order(PAIR, "market", "sell", held)  # ccxt cuts it to whole lots
    assert ann.fetch_balance()["BTC"]["free"] == 0.00000877


def test_canceled_orders_are_in_the_history(ann: ccxt.binance) -> None:
    order = ann.create_order(PAIR, "limit", "buy", 0.1, resting_price(ann))
    ann.cancel_order(order["id"], PAIR)
    assert [each["id"] for each in ann.fetch_canceled_orders(PAIR)] == [order["id"]]


def oco(exchange: ccxt.binance, amount: float = 0.1) -> dict:
    last = last_price(exchange)
    return exchange.private_post_orderlist_oco(
        {
            "symbol": "BTCUSDT",
            "side": "SELL",
            "quantity": exchange.amount_to_precision(PAIR, amount),
            "aboveType": "LIMIT_MAKER",
            "abovePrice": exchange.price_to_precision(PAIR, last * 1.01),
            "belowType": "STOP_LOSS",
            "belowStopPrice": exchange.price_to_precision(PAIR, last * 0.99),
        }
    )


def test_an_oco_locks_its_amount_once(ann: ccxt.binance) -> None:
    pair = oco(ann)
    assert pair["listOrderStatus"] == "EXECUTING"
    assert len(pair["orders"]) == len(ann.fetch_open_orders(PAIR)) == 2
    assert ann.fetch_balance()["BTC"]["used"] == 0.1


def test_one_leg_of_an_oco_trades_and_the_other_expires(
    ann: ccxt.binance, paper: PaperHandle
) -> None:
    pair = oco(ann)
    for _ in range(48):
        paper.control("step", candles=1, timeframe="1h")
        if not ann.fetch_open_orders(PAIR):
            break
    statuses = sorted(
        ann.fetch_order(each["orderId"], PAIR)["info"]["status"] for each in pair["orders"]
    )
    assert statuses == ["EXPIRED", "FILLED"]
    balance = ann.fetch_balance()["BTC"]
    assert (balance["used"], balance["total"]) == (0, 1.9)


def test_canceling_one_leg_of_an_oco_cancels_both(ann: ccxt.binance) -> None:
    pair = oco(ann)
    ann.cancel_order(pair["orders"][0]["orderId"], PAIR)
    assert ann.fetch_open_orders(PAIR) == []
    assert ann.fetch_balance()["BTC"] == {"free": 2, "used": 0, "total": 2}
    shown = ann.private_get_orderlist({"orderListId": pair["orderListId"]})
    assert shown["listOrderStatus"] == "ALL_DONE"


@pytest.mark.parametrize(
    ("kind", "side", "params"),
    [
        ("market", "sell", {"stopLossPrice": 0.99}),
        ("limit", "sell", {"stopLossPrice": 0.99}),
        ("market", "buy", {"stopLossPrice": 1.01}),
        ("limit", "buy", {"stopLossPrice": 1.01}),
        ("market", "sell", {"takeProfitPrice": 1.01}),
        ("limit", "sell", {"takeProfitPrice": 1.01}),
        ("market", "buy", {"takeProfitPrice": 0.99}),
        ("limit", "buy", {"takeProfitPrice": 0.99}),
    ],
)
def test_every_stop_waits_off_the_book_with_its_funds_locked(
    ann: ccxt.binance, kind: str, side: str, params: dict[str, float]
) -> None:
    [(name, share)] = params.items()
    stop = float(ann.price_to_precision(PAIR, last_price(ann) * share))
    order = ann.create_order(PAIR, kind, side, 0.1, stop if kind == "limit" else None, {name: stop})
    found = ann.fetch_order(order["id"], PAIR)
    assert (found["status"], found["triggerPrice"]) == ("open", stop)
    assert found["info"]["isWorking"] is False
    assert order["timestamp"] == -1
    locked = ann.fetch_balance()["BTC" if side == "sell" else "USDT"]["used"]
    assert locked == pytest.approx(0.1 if side == "sell" else 0.1 * stop)


def test_a_trailing_stop_is_taken_in_basis_points(ann: ccxt.binance) -> None:
    params = {"trailingPercent": 2, "stopLossOrTakeProfit": "stopLoss"}
    order = ann.create_order(PAIR, "market", "sell", 0.1, None, params)
    assert order["info"]["trailingDelta"] == 200
    assert order["status"] == "open"


def test_post_only_rests_or_is_refused(ann: ccxt.binance) -> None:
    order = ann.create_order(PAIR, "limit", "buy", 0.1, resting_price(ann), {"postOnly": True})
    assert (order["status"], order["postOnly"]) == ("open", True)
    with pytest.raises(ccxt.OrderImmediatelyFillable):
        ann.create_order(PAIR, "limit", "buy", 0.1, last_price(ann) * 1.01, {"postOnly": True})


def test_fetch_trading_fees_of_a_symbol(ann: ccxt.binance) -> None:
    fee = ann.private_get_account_commission({"symbol": "BTCUSDT"})["standardCommission"]
    assert Decimal(fee["maker"]) == Decimal(fee["taker"]) == Decimal("0.001")
