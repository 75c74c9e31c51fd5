"""The WebSocket dialect itself: shapes as recorded, requests, refusals and limits."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from decimal import Decimal
from typing import Any

import ccxt
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.paper.conftest import ANN, BOB, DATA, NO_LIMITS, Start
from tests.paper.engines import PAIR as AAA
from tests.paper.engines import new_engine, rest
from tests.paper.streams import PAIR, Listener, listening, signed_in
from tradelib.errors import InvalidInput
from tradelib.paper import PaperHandle
from tradelib.paper.depths import Depths
from tradelib.paper.orders import BUY

RECORDED = json.loads((DATA.parent / "venues" / "binance.ws.json").read_text())["methods"]


def shape(message: Any) -> Any:
    """Keys in their order, and types."""
    if isinstance(message, dict):
        return [(key, shape(each)) for key, each in message.items()]
    if isinstance(message, list):
        return [shape(each) for each in message]
    return type(message).__name__


def recorded(method: str, number: int, example: int = 0) -> Any:
    return RECORDED[method][example]["messages"][number]


# Messages.


@pytest.mark.parametrize(
    ("stream", "method"), [("bookTicker", "watchBidsAsks"), ("miniTicker", "watchTicker")]
)
def test_market_messages_have_the_recorded_shape(
    paper: PaperHandle, stream: str, method: str
) -> None:
    with listening(paper) as listener:
        assert listener.ask("SUBSCRIBE", [f"btcusdt@{stream}"]) == recorded(method, 0)
        assert shape(listener.get()) == shape(recorded(method, 1))
        paper.control("step", candles=5)
        assert shape(listener.get()) == shape(recorded(method, 1))


def test_execution_reports_have_the_recorded_shape(paper: PaperHandle, ann: ccxt.binance) -> None:
    with listening(paper, "/ws-api/v3") as listener:
        known = recorded("watchOrders", 0)
        told = listener.sign_in()
        assert shape(told) == shape({**known, "id": 1})
        assert told["rateLimits"][0]["count"] > 0
        order = ann.create_order(PAIR, "limit", "buy", 0.1, 90_000, {"postOnly": True})
        new = listener.get()
        assert shape(new) == shape(recorded("watchOrders", 1))
        assert new["event"]["o"] == "LIMIT_MAKER"
        listener.event()  # the balances
        ann.cancel_order(order["id"], PAIR)
        assert shape(listener.get()) == shape(recorded("watchOrders", 2))
        listener.event()
        ann.create_order(PAIR, "market", "buy", 0.1)
        listener.event()  # NEW
        trade = listener.get()
        assert shape(trade) == shape(recorded("watchMyTrades", 1))
        assert (trade["event"]["x"], trade["event"]["X"]) == ("TRADE", "FILLED")


def test_market_messages_read_as_the_exchange_writes_them(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    names = "trade", "aggTrade", "kline_1m", "ticker", "depth", "depth5"
    with listening(paper, "/stream") as listener:
        listener.subscribe(*(f"btcusdt@{name}" for name in names))
        for _ in range(3):  # a newcomer's greeting: kline, ticker, depth5
            listener.get()
        paper.control("step", candles=1)
        seen: dict[str, Any] = {}
        while len(seen) < len(names):
            message = listener.get()
            seen.setdefault(message["stream"], message["data"])
    start = paper.exchange.now - 60_000
    kline = seen["btcusdt@kline_1m"]["k"]
    assert (kline["t"], kline["T"], kline["x"], kline["i"]) == (start, start + 59_999, True, "1m")
    assert kline["L"] - kline["f"] + 1 == kline["n"] == 4
    assert seen["btcusdt@trade"]["t"] == seen["btcusdt@aggTrade"]["a"]
    assert kline["f"] < seen["btcusdt@trade"]["t"] <= kline["L"]
    depth = seen["btcusdt@depth"]
    assert depth["U"] <= depth["u"] == seen["btcusdt@depth5"]["lastUpdateId"]
    assert [len(seen["btcusdt@depth5"][side]) for side in ("bids", "asks")] == [5, 5]
    assert (
        seen["btcusdt@ticker"]["c"] == ann.public_get_ticker_price({"symbol": "BTCUSDT"})["price"]
    )


def test_an_orders_reports_tell_each_change_in_order(paper: PaperHandle, ann: ccxt.binance) -> None:
    with signed_in(paper) as listener:
        params = {"stopPrice": 95_000, "clientOrderId": "stop"}
        stop = ann.create_order(PAIR, "limit", "sell", 0.1, 94_000, params)
        report = listener.event()
        assert (report["x"], report["X"], report["w"], report["P"]) == (
            "NEW", "NEW", False, "95000.00000000",
        )  # fmt: skip
        position = listener.event()
        assert position["B"] == [{"a": "BTC", "f": "1.90000000", "l": "0.10000000"}]
        ann.cancel_order(stop["id"], PAIR, {"newClientOrderId": "the-cancel"})
        report = listener.event()
        assert (report["x"], report["c"], report["C"]) == ("CANCELED", "the-cancel", "stop")
        assert listener.event()["B"] == [{"a": "BTC", "f": "2.00000000", "l": "0.00000000"}]
        ann.create_order(PAIR, "market", "sell", 1.9)
        kinds = [listener.event() for _ in range(len(ann.fetch_my_trades(PAIR)) + 1)]
        assert [each["x"] for each in kinds] == ["NEW"] + ["TRADE"] * (len(kinds) - 1)
        assert [each["X"] for each in kinds[1:-1]] == ["PARTIALLY_FILLED"] * (len(kinds) - 2)
        assert kinds[-1]["X"] == "FILLED"
        assert [each["t"] for each in kinds[1:]] == [
            int(each["id"]) for each in ann.fetch_my_trades(PAIR)
        ]
        numbers = [each["I"] for each in kinds]
        assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("kind", "price", "params", "reason"),
    [
        ("limit", 100_000, {"amount": 50}, "INSUFFICIENT_BALANCES"),
        ("limit", 200_000, {"postOnly": True}, "WOULD_MATCH_IMMEDIATELY"),
        ("limit", 100_000, {"stopPrice": 90_000}, "STOP_PRICE_WOULD_TRIGGER_IMMEDIATELY"),
    ],
)
def test_what_the_matching_rejects_is_told(
    paper: PaperHandle, ann: ccxt.binance, kind: str, price: float, params: Any, reason: str
) -> None:
    amount = params.pop("amount", 0.1)
    with signed_in(paper) as listener:
        with pytest.raises(ccxt.ExchangeError):
            ann.create_order(PAIR, kind, "buy", amount, price, {"clientOrderId": "no", **params})
        report = listener.event()
        assert (report["c"], report["x"], report["X"], report["r"], report["i"]) == (
            "no", "REJECTED", "REJECTED", reason, -1,
        )  # fmt: skip
        ann.create_order(PAIR, "market", "buy", 0.1)
        assert listener.event()["x"] == "NEW"  # no balances came with a rejection


def test_a_pair_of_orders_is_told_as_a_list(paper: PaperHandle, ann: ccxt.binance) -> None:
    with signed_in(paper) as listener:
        answer = ann.private_post_orderlist_oco({
            "symbol": "BTCUSDT", "side": "SELL", "quantity": "0.1",
            "aboveType": "LIMIT_MAKER", "abovePrice": "150000",
            "belowType": "STOP_LOSS", "belowStopPrice": "90000",
        })  # fmt: skip
        events = [listener.event() for _ in range(4)]
        assert [each["e"] for each in events] == [
            "executionReport", "executionReport", "listStatus", "outboundAccountPosition",
        ]  # fmt: skip
        assert (events[2]["l"], events[2]["g"]) == ("EXEC_STARTED", int(answer["orderListId"]))
        ann.cancel_order(answer["orders"][0]["orderId"], PAIR)
        events = [listener.event() for _ in range(4)]
        assert [each["x"] for each in events[:2]] == ["CANCELED", "CANCELED"]
        assert (events[2]["l"], events[2]["L"]) == ("ALL_DONE", "ALL_DONE")


def test_what_a_step_did_is_told_in_market_time(paper: PaperHandle, ann: ccxt.binance) -> None:
    began = paper.exchange.now
    with signed_in(paper) as listener, listening(paper, "/ws/btcusdt@kline_1h") as candles:
        assert candles.get()["k"]["t"] == began
        paper.control("step", candles=6, timeframe="1h")
        told = [candles.get() for _ in range(7)]
        hours = [began + number * 3_600_000 for number in range(7)]
        assert [each["k"]["t"] for each in told] == hours
        assert [each["k"]["x"] for each in told] == [True] * 6 + [False]
        assert [each["E"] for each in told] == [*hours[1:], hours[-1]]
        last = ann.fetch_ticker(PAIR)["last"]
        ann.create_order(PAIR, "limit", "buy", 0.001, round(last * 0.999, 2))
        listener.event()
        listener.event()
        before = paper.exchange.now
        while not ann.fetch_my_trades(PAIR):
            paper.control("step", candles=12, timeframe="1h")
        report = listener.event()
        assert before < report["T"] < paper.exchange.now
        assert report["T"] == ann.fetch_my_trades(PAIR)[0]["timestamp"]


# Books.


def test_an_update_tells_of_levels_that_came_and_went_in_between() -> None:
    """A snapshot may have been taken while they stood."""
    engine, depths = new_engine(), Depths()
    book = engine.books[AAA]
    first = depths.look(AAA, book, 0)
    follower = depths.follow(AAA)
    order = rest(engine, "ann", BUY, 50, 1)
    shown = depths.look(AAA, book, 0)
    engine.cancel(order, 0)
    last = depths.look(AAA, book, 0)
    assert first.number < shown.number < last.number
    assert follower.take(last) == ([(Decimal(50), Decimal(0))], [])
    assert depths.look(AAA, book, 0) is last
    assert follower.take(last) == ([], [])


def test_a_books_number_grows_with_every_change_and_with_nothing_else(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    def number() -> int:
        return ann.fetch_order_book(PAIR)["nonce"]

    first = number()
    ann.create_order("ETH/USDT", "limit", "buy", 1, 2500)
    assert number() == first
    order = ann.create_order(PAIR, "limit", "buy", 0.1, 90_000)
    second = number()
    ann.cancel_order(order["id"], PAIR)
    assert first < second < number()


# Requests.


def test_streams_are_listed_left_and_named_in_the_address(paper: PaperHandle) -> None:
    path = "/stream?streams=btcusdt@trade/ethusdt@trade/0"
    with listening(paper, path) as listener:
        assert listener.ask("LIST_SUBSCRIPTIONS")["result"] == ["btcusdt@trade", "ethusdt@trade"]
        assert listener.ask("UNSUBSCRIBE", ["btcusdt@trade", "btcusdt@depth"])["result"] is None
        assert listener.ask("LIST_SUBSCRIPTIONS")["result"] == ["ethusdt@trade"]
        assert paper.control("status")["streams"] == {"ethusdt@trade": 1}
        assert listener.ask("GET_PROPERTY", ["combined"])["result"] is True
        assert listener.ask("SET_PROPERTY", ["combined", False])["result"] is None
        paper.control("step", candles=1)
        assert listener.get()["s"] == "ETHUSDT"
    while paper.control("status")["streams"]:
        pass


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        ("{", 3, "Invalid JSON: expected value at line 1 column 2"),
        ({"id": 7}, 2, "Invalid request: missing field `method`"),
        ({"method": "SUB", "id": 7}, 2, "Invalid request: unknown variant `SUB`"),
        ({"method": "SUBSCRIBE", "id": 7}, 2, "missing field `params`"),
        ({"method": "SUBSCRIBE", "params": [5], "id": 7}, 2, "property name must be a string"),
        ({"method": "SUBSCRIBE", "params": [], "id": -1}, 2, "must be an unsigned integer"),
        ({"method": "SUBSCRIBE", "params": ["btcusdt@tade"], "id": 7}, 2, "invalid stream"),
        ({"method": "SUBSCRIBE", "params": ["nousdt@trade"], "id": 7}, 2, "invalid stream"),
        ({"method": "SUBSCRIBE", "params": ["btcusdt@kline_7m"], "id": 7}, 2, "invalid stream"),
        ({"method": "GET_PROPERTY", "params": ["x"], "id": 7}, 0, "Unknown property"),
        ({"method": "SET_PROPERTY", "params": ["combined", 1], "id": 7}, 1, "expected Boolean"),
    ],
)
def test_a_bad_request_is_answered_in_the_exchanges_words(
    paper: PaperHandle, asked: Any, code: int, message: str
) -> None:
    with listening(paper) as listener:
        listener.tell(asked)
        error = listener.get()["error"]
        assert error["code"] == code
        assert message in error["msg"]
        assert listener.ask("LIST_SUBSCRIPTIONS")["result"] == []


def test_of_a_list_with_one_bad_stream_none_begins(paper: PaperHandle) -> None:
    with listening(paper) as listener:
        listener.subscribe("ethusdt@trade")
        assert "error" in listener.ask("SUBSCRIBE", ["ethusdt@trade", "btcusdt@trade", "bad"])
        assert listener.ask("LIST_SUBSCRIPTIONS")["result"] == ["ethusdt@trade"]
        assert paper.control("status")["streams"] == {"ethusdt@trade": 1}


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"signature": "0" * 64}, 400, -1022),
        ({"timestamp": 1_000_000_000_000}, 400, -1021),
        ({"timestamp": None}, 400, -1102),
        ({"apiKey": "nobody"}, 401, -2015),
        ({"apiKey": None}, 401, -2014),
        ({"recvWindow": 70_000}, 400, -1131),
        ({"recvWindow": "soon"}, 400, -1100),
    ],
)
def test_an_account_is_shown_only_to_who_signs_for_it(
    paper: PaperHandle, changes: dict[str, Any], status: int, code: int
) -> None:
    with listening(paper, "/ws-api/v3") as listener:
        told = listener.sign_in(**changes)
        assert (told["status"], told["error"]["code"]) == (status, code)
        assert paper.control("status")["streams"] == {}


def test_an_account_is_subscribed_once_and_left_on_demand(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    with signed_in(paper) as listener:
        assert listener.sign_in()["error"]["code"] == -2035
        assert listener.sign_in(BOB)["result"] == {"subscriptionId": 1}
        assert len(listener.ask("session.subscriptions")["result"]) == 2
        gone = listener.ask("userDataStream.unsubscribe", {"subscriptionId": 5})
        assert gone["error"]["code"] == -2036
        assert listener.ask("userDataStream.unsubscribe", {"subscriptionId": 0})["result"] == {}
        ended = listener.get()
        assert (ended["subscriptionId"], ended["event"]["e"]) == (0, "eventStreamTerminated")
        assert paper.control("status")["streams"] == {"account bob": 1}
        assert listener.sign_in()["result"] == {"subscriptionId": 2}


@pytest.mark.parametrize(
    ("asked", "code"), [("[]", -1135), ("{", -1135), ({"method": "order.place"}, -1020)]
)
def test_what_the_websocket_api_does_not_serve_is_refused(
    paper: PaperHandle, asked: Any, code: int
) -> None:
    with listening(paper, "/ws-api/v3") as listener:
        listener.tell(asked)
        assert listener.get()["error"]["code"] == code
        assert listener.ask("time")["result"] == {"serverTime": paper.exchange.now}
        assert listener.ask("ping")["result"] == {}


UNSUBSCRIBE = {"id": 7, "method": "userDataStream.unsubscribe"}


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        *(({**UNSUBSCRIBE, "params": params}, -1135, "expected an object")
          for params in ([], [0], "x", 0, False)),
        *(({**UNSUBSCRIBE, "params": {"subscriptionId": number}}, -1100, "'subscriptionId'")
          for number in ([0], {}, "x", True, 0.0, -1)),
        *(({"id": number, "method": "ping"}, -1135, "Invalid 'id'")
          for number in ([1], {}, 1.5, float("nan"), True, "a b", "x" * 37)),
        ("[" * 60_000, -1135, "Invalid JSON"),
    ],
)  # fmt: skip
def test_a_malformed_call_is_refused_in_the_exchanges_words_and_the_connection_stays(
    paper: PaperHandle, asked: Any, code: int, said: str
) -> None:
    with signed_in(paper) as listener:
        listener.tell(asked)
        told = listener.get()
        assert (told["status"], told["error"]["code"]) == (400, code)
        assert said in told["error"]["msg"]
        assert told["id"] == (7 if "params" in asked else None)
        assert listener.ask("session.subscriptions")["result"] == [{"subscriptionId": 0}]


def test_a_market_request_of_any_depth_is_answered(paper: PaperHandle) -> None:
    with listening(paper) as listener:
        listener.tell("[" * 60_000)
        assert listener.get()["error"]["code"] == 3
        assert listener.ask("LIST_SUBSCRIPTIONS")["result"] == []


# Limits.


def closing(listener: Listener) -> tuple[int, str]:
    """How the exchange ends a connection, whatever it sends before."""
    try:
        while True:
            listener.socket.recv(timeout=10)
    except ConnectionClosed as error:
        return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")


def test_too_many_messages_in_a_second_end_the_connection(start: Start) -> None:
    paper = start(limits=replace(NO_LIMITS, stream_messages=5))
    with listening(paper) as listener:
        for number in range(6):
            listener.tell({"method": "LIST_SUBSCRIPTIONS", "id": number})
        assert closing(listener) == (1008, "Too many requests")


def test_too_many_streams_end_the_connection(start: Start) -> None:
    paper = start(limits=replace(NO_LIMITS, streams=2))
    with listening(paper) as listener:
        listener.subscribe("btcusdt@trade", "ethusdt@trade")
        listener.tell({"method": "SUBSCRIBE", "params": ["btcusdt@depth"], "id": 1})
        assert closing(listener) == (1008, "Too many streams")


def test_too_many_connections_are_not_taken(start: Start) -> None:
    paper = start(limits=replace(NO_LIMITS, stream_connections=2), wall=lambda: 1_800_000_000_000)
    with listening(paper), listening(paper):
        with pytest.raises(InvalidStatus) as caught, listening(paper):
            pass
        assert caught.value.response.status_code == 429


def test_a_connection_has_an_end(start: Start) -> None:
    paper = start(limits=replace(NO_LIMITS, stream_seconds=0.05))
    with listening(paper, "/ws/btcusdt@trade") as listener:
        assert closing(listener) == (1001, "")


def test_a_step_waits_for_its_readers(start: Start) -> None:
    """Far more is told than may wait, and the reader gets all of it."""
    paper = start(limits=replace(NO_LIMITS, stream_backlog=50))
    candles, seen = 1000, []
    with listening(paper, "/ws/btcusdt@trade") as listener:

        def read() -> None:
            while len(seen) < candles * 4:
                seen.append(listener.get()["t"])

        reader = threading.Thread(target=read)
        reader.start()
        paper.control("step", candles=candles)
        reader.join(30)
        assert seen == list(range(seen[0], seen[0] + candles * 4))


def test_a_step_does_not_wait_for_ever(start: Start) -> None:
    paper = start(limits=replace(NO_LIMITS, stream_backlog=50, stream_patience=0.1))
    with listening(paper, "/ws/btcusdt@trade") as idle:
        while paper.control("status")["streams"]:
            paper.control("step", candles=5000)
        assert closing(idle)[0] == 1006


def test_a_reader_who_does_not_read_is_cut_off_and_harms_nobody(start: Start) -> None:
    paper = start(speed=1e6, limits=replace(NO_LIMITS, stream_backlog=1000))
    with listening(paper, "/ws/btcusdt@trade") as idle, listening(paper) as other:
        other.subscribe("btcusdt@bookTicker")
        while "btcusdt@trade" in paper.control("status")["streams"]:
            other.get()
        assert closing(idle)[0] == 1006
        assert other.get()["s"] == "BTCUSDT"


def test_a_transfer_of_what_is_not_there_is_refused(paper: PaperHandle) -> None:
    for asked, told in (
        ({"account": "ann", "asset": "USDT", "amount": "-100001"}, "insufficient balance"),
        ({"account": "anne", "asset": "USDT", "amount": "1"}, "did you mean 'ann'"),
        ({"account": "ann", "asset": "USDT", "amount": "1.123456789"}, "at most 8 decimals"),
        ({"account": "ann", "asset": "USDT", "amount": "much"}, "'much' is none"),
    ):
        with pytest.raises(InvalidInput, match=told):
            paper.control("transfer", **asked)
    assert paper.control("record", account="ann")["balances"]["USDT"]["free"] == "100000.00000000"
    assert ANN.balances["USDT"] == 100_000
