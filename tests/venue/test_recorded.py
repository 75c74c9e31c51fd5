"""Replies that Binance and Kraken once gave pass through the venue client with what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from tests.conftest import require
from tests.desks import SHARED
from tests.venue.kraken import KEY, SECRET, public
from tests.venue.served import Answer, Asked, Served, serve
from tradelib.clock import from_ms
from tradelib.settings import VenueSettings
from tradelib.venue import Keys, OrderRequest, OrderType, Venue, VenueOrder, VenueStatus

VENUES = SHARED / "venues"
STATUSES = {
    "open": VenueStatus.OPEN,
    "closed": VenueStatus.FILLED,
    "canceled": VenueStatus.CANCELED,
}


@dataclass
class Recorded:
    """The same recorded reply to every question but the one for the instruments."""

    instruments: dict[str, Any]
    reply: Any = None

    def answer(self, asked: Asked) -> Answer:
        name = asked.path.rpartition("/")[2]
        return 200, self.instruments.get(name, self.reply)


def load(name: str) -> dict[str, Any]:
    path = VENUES / name
    require(path.exists(), f"recorded replies in {VENUES}")
    return json.loads(path.read_text())


def binance_instruments() -> dict[str, Any]:
    """The recorded markets, with the order types that came later, and two more like them."""
    known = load("binance.markets.json")["symbols"]
    for row in known:
        row["orderTypes"] = [*row["orderTypes"], "STOP_LOSS", "TAKE_PROFIT"]
    names = {row["symbol"] for row in known}
    for base in ("SOL", "LTC"):
        if f"{base}USDT" not in names:
            known.append({**known[0], "symbol": f"{base}USDT", "baseAsset": base})
    return {"exchangeInfo": {"symbols": known}}


def kraken_instruments() -> dict[str, Any]:
    pairs = public("AssetPairs") | {"LTCUSDT": public("AssetPairs")["XBTUSDT"] | {
        "altname": "LTCUSDT", "wsname": "LTC/USDT", "base": "XLTC",
    }}  # fmt: skip
    assets = public("Assets") | {"XLTC": public("Assets")["XXBT"] | {"altname": "LTC"}}
    return {
        "AssetPairs": {"error": [], "result": pairs},
        "Assets": {"error": [], "result": assets},
    }


@pytest.fixture
def binance() -> Iterator[tuple[Venue, Served]]:
    with serve(Recorded(binance_instruments())) as served:
        keys = Keys(SecretStr("key"), SecretStr("secret"))
        settings = VenueSettings(exchange="binance", rest_url=served.url)
        venue = Venue("recorded", settings, keys, trading=True)
        yield venue, served
        venue.close()


@pytest.fixture
def kraken() -> Iterator[tuple[Venue, Served]]:
    with serve(Recorded(kraken_instruments())) as served:
        settings = VenueSettings(exchange="kraken", rest_url=served.url)
        keys = Keys(SecretStr(KEY), SecretStr(SECRET))
        venue = Venue("recorded", settings, keys, trading=True)
        yield venue, served
        venue.close()


def recorded(name: str, method: str) -> list[dict[str, Any]]:
    return load(f"{name}.response.json")["methods"][method]


def assert_says(order: VenueOrder, parsed: dict[str, Any]) -> None:
    """Each fact of an order that the record states and the desk has a place for."""
    told = {
        "id": order.venue_order_id,
        "amount": order.amount,
        "filled": order.filled,
        "cost": order.cost,
        "side": order.side,
        "status": next((s for s, ours in STATUSES.items() if ours is order.status), None),
        "timestamp": order.at and int(order.at.timestamp() * 1000 + 0.5),
        "takeProfitPrice": order.stop_price,
        "stopLossPrice": order.stop_price,
    }
    for name, value in parsed.items():
        # A time of -1 is ccxt's for a stop order that waits; the desk reads when it was made.
        if name in told and value is not None and value != -1:
            expected = Decimal(str(value)) if isinstance(value, float) else value
            assert told[name] == expected, name


@pytest.mark.parametrize("number", [0, 1])
def test_binance_new_orders(binance, number: int):
    venue, served = binance
    case = recorded("binance", "createOrder")[number]
    served.exchange.reply = case["httpResponse"]
    symbol, _, side, amount, *_ = case["input"]
    trails = number == 1
    order = venue.submit_order(OrderRequest(
        symbol, side, OrderType.TRAILING_STOP if trails else OrderType.LIMIT,
        Decimal(str(amount)), "nd-recorded", trailing_bips=500 if trails else None,
        limit_price=None if trails else Decimal(241),
    ))  # fmt: skip
    assert_says(order, case["parsed"])
    assert order.limit_price == (None if trails else Decimal(241))
    assert order.type == (OrderType.TRAILING_STOP if trails else OrderType.LIMIT)
    assert order.at == from_ms(int(case["httpResponse"]["transactTime"]))


def test_binance_orders(binance):
    venue, served = binance
    (closed,) = recorded("binance", "fetchOrder")
    served.exchange.reply = closed["httpResponse"]
    order = venue.fetch_order("LTC/USDT", "", "3397148653")
    assert_says(order, closed["parsed"])
    assert (order.type, order.limit_price) == (OrderType.MARKET, None)

    (open_,) = recorded("binance", "fetchOpenOrders")
    served.exchange.reply = open_["httpResponse"]
    (order,) = venue.fetch_open_orders(["LTC/USDT"])
    assert_says(order, open_["parsed"][0])
    assert (order.type, order.limit_price) == (OrderType.POST_ONLY, Decimal(50))

    (listed,) = recorded("binance", "fetchOrders")
    served.exchange.reply = listed["httpResponse"]
    ((order,),) = venue.iterate_orders("LTC/USDT", None)
    assert_says(order, listed["parsed"][0])
    assert (order.type, order.limit_price) == (OrderType.LIMIT, Decimal(50))


def test_binance_trades(binance):
    venue, served = binance
    (case,) = recorded("binance", "fetchMyTrades")
    served.exchange.reply = case["httpResponse"]
    (trade,), (parsed,) = venue.fetch_trades_since("LTC/USDT", None), case["parsed"]
    assert (trade.trade_id, trade.venue_order_id) == (parsed["id"], parsed["order"])
    assert (trade.side, trade.price, trade.amount, trade.cost) == (
        "sell", Decimal("69.63"), Decimal("0.2"), Decimal("13.926"),
    )  # fmt: skip
    assert (trade.fee, trade.fee_currency) == (Decimal("0.013926"), "USDT")
    assert trade.at == from_ms(1698138992358)


def test_binance_balances(binance):
    venue, served = binance
    (case,) = recorded("binance", "fetchBalance")
    served.exchange.reply = case["httpResponse"]
    balances = venue.fetch_balances()
    assert set(balances) == {"LTC", "ETH"}
    assert (balances["LTC"].free, balances["LTC"].used) == (Decimal("0.919741"), 0)
    assert venue.fetch_account_id() == "365859102"


def test_binance_quotes(binance):
    venue, served = binance
    (case,) = recorded("binance", "fetchTicker")
    served.exchange.reply = [case["httpResponse"]]
    quote = venue.fetch_quotes(["BTC/USDT"])["BTC/USDT"]
    assert (quote.bid, quote.ask) == (Decimal("73369.83"), Decimal("73369.84"))


@pytest.mark.parametrize("name", ["binance", "kraken"])
def test_candles(name: str, request: pytest.FixtureRequest):
    venue, served = request.getfixturevalue(name)
    (case,) = recorded(name, "fetchOHLCV")
    served.exchange.reply = case["httpResponse"]
    symbol, timeframe, since, limit = case["input"]
    candles = venue.fetch_ohlcv(symbol, timeframe, from_ms(since), limit)
    rows = [[int(at.timestamp() * 1000), *row] for at, row in zip(
        candles.index, candles.to_numpy().tolist(), strict=True
    )]  # fmt: skip
    assert rows == case["parsed"]


def test_kraken_new_order(kraken):
    venue, served = kraken
    (case,) = recorded("kraken", "createOrder")
    served.exchange.reply = case["httpResponse"]
    order = venue.submit_order(
        OrderRequest("LTC/USDT", "buy", OrderType.MARKET, Decimal("0.1"), "recorded")
    )
    assert_says(order, case["parsed"])
    assert (order.status, order.type) == (VenueStatus.UNKNOWN, OrderType.MARKET)
    assert (order.symbol, order.client_id, order.at) == ("LTC/USDT", "recorded", None)


def test_kraken_orders(kraken):
    venue, served = kraken
    for case in recorded("kraken", "fetchOrder"):
        served.exchange.reply = case["httpResponse"]
        (number,) = case["httpResponse"]["result"]
        order = venue.fetch_order("LTC/USDT", "", number)
        assert_says(order, case["parsed"])
        is_post_only = case["parsed"].get("postOnly", False)
        assert order.type == (OrderType.POST_ONLY if is_post_only else OrderType.MARKET)
        assert order.limit_price == (Decimal(50) if is_post_only else None)
        assert order.client_id is None


def test_kraken_open_orders(kraken):
    venue, served = kraken
    kinds = [(OrderType.TAKE_PROFIT, None), (OrderType.STOP_LOSS_LIMIT, Decimal(54))]
    for case, (kind, limit) in zip(recorded("kraken", "fetchOpenOrders"), kinds, strict=True):
        served.exchange.reply = case["httpResponse"]
        (order,) = venue.fetch_open_orders(["LTC/USDT"])
        assert_says(order, case["parsed"][0])
        assert (order.type, order.limit_price) == (kind, limit)
        assert order.at
        assert order.at.utcoffset() == timedelta(0)


def test_kraken_quotes(kraken):
    venue, served = kraken
    (case,) = recorded("kraken", "fetchTicker")
    served.exchange.reply = case["httpResponse"]
    quote = venue.fetch_quotes(["BTC/USDT"])["BTC/USDT"]
    assert (quote.bid, quote.ask) == (Decimal("73380.6"), Decimal("73380.7"))
