"""Every refusal, as an unmodified ccxt understands it."""

from __future__ import annotations

import urllib.error
import urllib.request
from decimal import Decimal
from typing import Any

import ccxt
import pytest

from tests.paper.conftest import ANN, Start, trader
from tradelib.paper import PaperAccount, PaperHandle, RateLimits

PAIR = "BTC/USDT"
ORDER = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}


def send(exchange: ccxt.binance, **params: Any) -> dict[str, Any]:
    """An order exactly as written, past ccxt's own checks."""
    given = {**ORDER, "quantity": "0.01", "price": "90000.00", **params}
    return exchange.private_post_order({k: v for k, v in given.items() if v is not None})


def refusal(exchange: ccxt.binance, **params: Any) -> str:
    with pytest.raises(ccxt.BaseError) as caught:
        send(exchange, **params)
    return str(caught.value)


def test_an_order_beyond_the_balance_is_refused(ann: ccxt.binance) -> None:
    for order in (("market", "sell", 2.5), ("limit", "sell", 2.5, 150_000)):
        with pytest.raises(ccxt.InsufficientFunds):
            ann.create_order(PAIR, *order)
    with pytest.raises(ccxt.InsufficientFunds):
        ann.create_order(PAIR, "limit", "buy", 1.2, 90_000)
    assert ann.fetch_orders(PAIR) == []


def test_funds_locked_by_one_order_are_not_there_for_another(ann: ccxt.binance) -> None:
    ann.create_order(PAIR, "limit", "sell", 1.5, 150_000)
    with pytest.raises(ccxt.InsufficientFunds):
        ann.create_order(PAIR, "market", "sell", 0.6)


@pytest.mark.parametrize(
    ("changes", "name", "error"),
    [
        ({"price": "90000.001"}, "PRICE_FILTER", ccxt.InvalidOrder),
        ({"price": "0.00"}, "PRICE_FILTER", ccxt.InvalidOrder),
        ({"quantity": "0.010001"}, "LOT_SIZE", ccxt.InvalidOrder),
        ({"quantity": "0.000001"}, "LOT_SIZE", ccxt.InvalidOrder),
        ({"quantity": "0.00002"}, "NOTIONAL", ccxt.BadRequest),
        ({"price": "9000.00"}, "PERCENT_PRICE_BY_SIDE", ccxt.InvalidOrder),
        ({"icebergQty": "0.001"}, "ICEBERG_PARTS", ccxt.BadRequest),
    ],
)
def test_each_filter_refuses_by_its_name(
    ann: ccxt.binance, changes: dict[str, str], name: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=name):
        send(ann, **changes)


def test_a_small_market_order_meets_the_notional_filter_too(ann: ccxt.binance) -> None:
    with pytest.raises(ccxt.BadRequest, match="NOTIONAL"):
        ann.create_order(PAIR, "market", "buy", 0.00001)
    with pytest.raises(ccxt.BadRequest, match="NOTIONAL"):
        ann.create_order(PAIR, "market", "buy", 1, None, {"cost": 4.99})


def test_trailing_delta_is_bounded(ann: ccxt.binance) -> None:
    stop = {"type": "STOP_LOSS", "side": "SELL", "price": None, "timeInForce": None}
    assert "TRAILING_DELTA" in refusal(ann, **stop, trailingDelta=5)


def test_open_orders_of_a_symbol_are_bounded(ann: ccxt.binance) -> None:
    for _ in range(5):
        ann.create_order(PAIR, "market", "sell", 0.01, None, {"stopLossPrice": 90_000})
    with pytest.raises(ccxt.BadRequest, match="MAX_NUM_ALGO_ORDERS"):
        ann.create_order(PAIR, "market", "sell", 0.01, None, {"stopLossPrice": 90_000})
    for _ in range(195):
        send(ann, quantity="0.001")
    with pytest.raises(ccxt.BadRequest, match="MAX_NUM_ORDERS"):
        send(ann, quantity="0.001")
    assert ann.create_order(PAIR, "market", "buy", 0.01)["status"] == "closed"


def test_unknown_orders_are_not_found(ann: ccxt.binance, bob: ccxt.binance) -> None:
    theirs = bob.create_order(PAIR, "limit", "buy", 0.01, 90_000)
    for name in ("12345", theirs["id"]):
        with pytest.raises(ccxt.OrderNotFound, match="-2013"):
            ann.fetch_order(name, PAIR)
        with pytest.raises(ccxt.OrderNotFound, match="-2011"):
            ann.cancel_order(name, PAIR)
    with pytest.raises(ccxt.OrderNotFound):
        ann.cancel_all_orders(PAIR)


def test_a_closed_order_cannot_be_canceled(ann: ccxt.binance) -> None:
    order = ann.create_order(PAIR, "market", "buy", 0.01)
    with pytest.raises(ccxt.OrderNotFound, match="-2011"):
        ann.cancel_order(order["id"], PAIR)


def test_a_client_id_is_unique_among_open_orders_only(ann: ccxt.binance, bob: ccxt.binance) -> None:
    named = {"clientOrderId": "desk-1"}
    first = ann.create_order(PAIR, "limit", "buy", 0.01, 90_000, named)
    with pytest.raises(ccxt.InvalidOrder, match="Duplicate order sent"):
        ann.create_order(PAIR, "limit", "buy", 0.01, 90_000, named)
    bob.create_order(PAIR, "limit", "buy", 0.01, 90_000, named)
    ann.cancel_order(first["id"], PAIR)
    # The trap of the real exchange: a market order resent by the same name trades twice.
    for _ in range(2):
        ann.create_order(PAIR, "market", "buy", 0.01, None, named)
    assert len(ann.fetch_my_trades(PAIR)) == 2
    newest = ann.fetch_order(None, PAIR, named)
    assert newest["id"] == ann.fetch_orders(PAIR)[-1]["id"]


def test_a_stop_that_would_fire_at_once_is_refused(ann: ccxt.binance) -> None:
    last = ann.fetch_ticker(PAIR)["last"]
    with pytest.raises(ccxt.InvalidOrder, match="trigger immediately"):
        ann.create_order(PAIR, "market", "sell", 0.01, None, {"stopLossPrice": last * 1.01})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"symbol": "NONESUCH"}, "-1121"),
        ({"symbol": None}, "'symbol' was not sent"),
        ({"side": "HOLD"}, "Invalid side"),
        ({"type": "ICEBERG"}, "Invalid orderType"),
        ({"quantity": None}, "'quantity' was not sent"),
        ({"quantity": "-1"}, "Illegal characters found in parameter 'quantity'"),
        ({"quantity": "1e3"}, "Illegal characters found in parameter 'quantity'"),
        ({"quantity": ""}, "'quantity' was not sent"),
        ({"quantity": "0.0100000001"}, "-1111"),
        ({"price": None}, "'price' was not sent"),
        ({"timeInForce": None}, "'timeInForce' was not sent"),
        ({"timeInForce": "NEVER"}, "Invalid timeInForce"),
        ({"type": "MARKET", "timeInForce": None}, "'price' sent when not required"),
        ({"type": "MARKET", "price": None}, "'timeInForce' sent when not required"),
        ({"type": "STOP_LOSS_LIMIT"}, "'stopPrice' was not sent"),
        ({"newClientOrderId": "a b"}, "Illegal characters found in parameter 'newClientOrderId'"),
        ({"newClientOrderId": "x" * 37}, "Illegal characters"),
        ({"surprise": "1"}, "Not all sent parameters were read"),
        ({"newOrderRespType": "LOUD"}, "-1130"),
        ({"recvWindow": "60001"}, "-1131"),
    ],
)
def test_a_malformed_order_is_refused_in_the_real_words(
    ann: ccxt.binance, changes: dict[str, Any], told: str
) -> None:
    assert told in refusal(ann, **changes)
    assert ann.fetch_balance()["USDT"]["used"] == 0


def test_unknown_intervals_and_symbols_of_candles_are_refused(ann: ccxt.binance) -> None:
    for params, told in (
        ({"symbol": "BTCUSDT", "interval": "7m"}, "-1120"),
        ({"symbol": "NONESUCH", "interval": "1m"}, "-1121"),
        ({"symbol": "BTCUSDT"}, "'interval' was not sent"),
    ):
        with pytest.raises(ccxt.BaseError, match=told):
            ann.public_get_klines(params)


def test_a_wrong_secret_is_a_bad_signature(paper: PaperHandle) -> None:
    stranger = trader(paper, PaperAccount("ann", ANN.key, "guessed"))
    with pytest.raises(ccxt.AuthenticationError, match="-1022"):
        stranger.fetch_balance()


@pytest.mark.parametrize(("key", "told"), [("unknown-key", "-2015"), ("not a key", "-2014")])
def test_a_wrong_key_is_refused(paper: PaperHandle, key: str, told: str) -> None:
    with pytest.raises(ccxt.AuthenticationError, match=told):
        trader(paper, PaperAccount("ann", key, ANN.secret)).fetch_balance()


def test_a_changed_request_does_not_fit_its_signature(ann: ccxt.binance) -> None:
    signed = ann.sign("account", ["private"], "GET", {})
    signed["url"] = signed["url"].replace("recvWindow=10000", "recvWindow=20000")
    with pytest.raises(ccxt.AuthenticationError, match="-1022"):
        ann.fetch(signed["url"], "GET", signed["headers"])


@pytest.mark.parametrize(
    ("skew", "told"), [(-20_000, "outside of the recvWindow"), (20_000, "ahead of the server")]
)
def test_a_skewed_clock_is_refused(ann: ccxt.binance, skew: int, told: str) -> None:
    ann.options["timeDifference"] = -skew
    with pytest.raises(ccxt.InvalidNonce, match=told):
        ann.fetch_balance()


def test_a_client_that_adjusts_to_market_time_may_sign_by_it(ann: ccxt.binance) -> None:
    ann.load_time_difference()
    assert abs(ann.options["timeDifference"]) > 86_400_000
    assert ann.fetch_balance()["BTC"]["total"] == 2


def test_too_many_requests_get_429_then_418_until_the_ban_ends(start: Start) -> None:
    now = [1_800_000_000_000]
    limits = RateLimits(weight=60, ban_after=2, ban_seconds=90)
    paper = start(limits=limits, wall=lambda: now[0])
    ann = trader(paper)
    for _ in range(20):
        ann.fetch_ticker(PAIR)
    assert ann.last_response_headers["X-Mbx-Used-Weight-1m"] == "60"
    for status in (429, 429, 418, 418):
        with pytest.raises(ccxt.DDoSProtection, match=f"binance {status}"):
            ann.fetch_ticker(PAIR)
    assert ann.last_response_headers["Retry-After"] == "90"
    now[0] += 60_000
    with pytest.raises(ccxt.DDoSProtection, match="binance 418"):
        ann.fetch_ticker(PAIR)
    now[0] += 60_000
    assert ann.fetch_ticker(PAIR)["last"] > 0
    assert paper.control("status")["refused_429"] == 5


def test_one_who_waits_after_429_is_not_banned(start: Start) -> None:
    now = [1_800_000_000_000]
    paper = start(limits=RateLimits(weight=22, ban_after=1), wall=lambda: now[0])
    ann = trader(paper)
    for _ in range(3):
        now[0] += 60_000
        ann.load_markets(True)
        with pytest.raises(ccxt.DDoSProtection, match="binance 429"):
            ann.load_markets(True)


def test_weights_follow_what_is_asked(ann: ccxt.binance, paper: PaperHandle) -> None:
    def weight_of(ask: Any) -> int:
        before = paper.control("status")["weight_used"]
        ask()
        return paper.control("status")["weight_used"] - before

    assert weight_of(lambda: ann.fetch_ticker(PAIR)) == 2
    assert weight_of(lambda: ann.fetch_tickers()) == 80
    assert weight_of(lambda: ann.fetch_order_book(PAIR, 100)) == 5
    assert weight_of(lambda: ann.fetch_order_book(PAIR, 5000)) == 250
    assert weight_of(lambda: ann.fetch_open_orders(PAIR)) == 6
    assert weight_of(lambda: ann.fetch_open_orders()) == 80
    assert weight_of(lambda: ann.fetch_balance()) == 20
    assert weight_of(lambda: ann.fetch_ohlcv(PAIR)) == 2


def test_too_many_orders_are_refused_and_counted(start: Start) -> None:
    wall = 1_800_000_000_000
    ann = trader(start(limits=RateLimits(orders_10s=3), wall=lambda: wall))
    ann.nonce = lambda: wall
    for _ in range(3):
        ann.create_order(PAIR, "market", "buy", 0.001)
    assert ann.last_response_headers["X-Mbx-Order-Count-10s"] == "3"
    with pytest.raises(ccxt.DDoSProtection, match="-1015"):
        ann.create_order(PAIR, "market", "buy", 0.001)
    assert len(ann.fetch_orders(PAIR)) == 3


def test_a_halted_symbol_takes_no_orders_until_it_trades_again(
    ann: ccxt.binance, paper: PaperHandle
) -> None:
    resting = ann.create_order(PAIR, "limit", "buy", 0.01, 90_000)
    paper.control("halt", symbol=PAIR)
    with pytest.raises(ccxt.MarketClosed):
        ann.create_order(PAIR, "market", "buy", 0.01)
    assert ann.load_markets(True)[PAIR]["active"] is False
    assert ann.create_order("ETH/USDT", "market", "buy", 0.1)["status"] == "closed"
    ann.cancel_order(resting["id"], PAIR)
    paper.control("unhalt", symbol=PAIR)
    assert ann.create_order(PAIR, "market", "buy", 0.01)["status"] == "closed"


def test_cancel_replace_tells_which_half_failed(ann: ccxt.binance) -> None:
    new = {**ORDER, "quantity": "0.01", "price": "90000.00"}
    ask = {**new, "cancelOrderId": 999, "cancelReplaceMode": "STOP_ON_FAILURE"}
    with pytest.raises(ccxt.BaseError, match=r"-2022.*NOT_ATTEMPTED"):
        ann.private_post_order_cancelreplace(ask)
    assert ann.fetch_open_orders(PAIR) == []
    with pytest.raises(ccxt.BaseError, match=r'-2021.*"newOrderResult":"SUCCESS"'):
        ann.private_post_order_cancelreplace({**ask, "cancelReplaceMode": "ALLOW_FAILURE"})
    [resting] = ann.fetch_open_orders(PAIR)
    too_much = {**ask, "cancelOrderId": resting["id"], "quantity": "5"}
    with pytest.raises(ccxt.BaseError, match=r'-2021.*"cancelResult":"SUCCESS"'):
        ann.private_post_order_cancelreplace(too_much)
    assert ann.fetch_open_orders(PAIR) == []


def test_an_oco_with_crossed_prices_is_refused(ann: ccxt.binance) -> None:
    last = ann.fetch_ticker(PAIR)["last"]
    pair = {
        "symbol": "BTCUSDT", "side": "SELL", "quantity": "0.1",
        "aboveType": "LIMIT_MAKER", "abovePrice": f"{last * 1.02:.2f}",
        "belowType": "STOP_LOSS", "belowStopPrice": f"{last * 1.01:.2f}",
    }  # fmt: skip
    with pytest.raises(ccxt.InvalidOrder):
        ann.private_post_orderlist_oco(pair)
    with pytest.raises(ccxt.InsufficientFunds):
        ann.private_post_orderlist_oco(
            {**pair, "belowStopPrice": f"{last * 0.98:.2f}", "quantity": "3"}
        )
    assert ann.fetch_open_orders(PAIR) == []


def test_an_unserved_path_is_not_found(paper: PaperHandle) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{paper.url}/api/v3/nonesuch")
    assert caught.value.code == 404
    caught.value.close()


def test_the_control_needs_its_token(paper: PaperHandle) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{paper.url}/paper/status")
    assert caught.value.code == 403
    caught.value.close()


def test_no_balance_grew_out_of_refusals(ann: ccxt.binance, paper: PaperHandle) -> None:
    for changes in ({"quantity": "9"}, {"price": "0.001"}, {"side": "HOLD"}):
        refusal(ann, **changes)
    held = paper.exchange.engine.balances["ann"]
    assert {asset: (each.free, each.locked) for asset, each in held.items()} == {
        "USDT": (Decimal(100_000), 0),
        "BTC": (Decimal(2), 0),
    }
