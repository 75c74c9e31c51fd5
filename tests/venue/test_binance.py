"""The venue suite against the paper exchange, which speaks Binance's dialect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import ccxt
import pytest
from pydantic import SecretStr

from tests.venue.served import Relay, serve
from tests.venue.suite import AMOUNT, IDS, SYMBOL, Bench, VenueSuite, assert_hides
from tradelib.errors import (
    DeskError,
    InvalidInput,
    OrderRejected,
    OrderUnknown,
    RateLimited,
    UnresolvedError,
    VenueUnavailable,
)
from tradelib.paper import PaperAccount, PaperConfig, PaperHandle, RateLimits, paper_exchange
from tradelib.settings import VenueSettings
from tradelib.venue import Keys, OrderType, Venue, VenueOrder, VenueStatus
from tradelib.venue.client import parse_trades
from tradelib.venue.dialects import dialect_of

RICH = {"USDT": Decimal(10_000), "BTC": Decimal(2)}
DESK = PaperAccount("desk", "desk-key-5f1", "desk-secret-77a", RICH)
OTHER = PaperAccount("other", "other-key", "other-secret", RICH)
PLENTY = RateLimits(weight=10**6, orders_10s=10**6, orders_day=10**7)


class BinanceBench(Bench):
    paper: PaperHandle
    other: ccxt.binance

    def fill(self, order: VenueOrder, amounts: Iterable[Decimal]) -> None:
        for amount in amounts:
            self.other.create_order(SYMBOL, "limit", "sell", amount, order.limit_price)


def code(number: int, words: str, status: int = 400) -> tuple[int, dict]:
    return status, {"code": number, "msg": words}


@contextmanager
def binance_bench(tmp_path: Path, exchange: str = "binance") -> Iterator[BinanceBench]:
    config = PaperConfig(tmp_path / "paper", speed=0.0, accounts=(DESK, OTHER), limits=PLENTY)
    with paper_exchange(config) as paper, serve(Relay(paper.url)) as served:
        settings = VenueSettings(exchange=exchange, rest_url=served.url, timeout=5)
        keys = Keys(SecretStr(DESK.key), SecretStr(DESK.secret))
        venue = Venue("bench", settings, keys, trading=True)
        venue.fetch_instruments()
        bench = BinanceBench(
            venue, served, (DESK.key, DESK.secret),
            no_answer=code(-1007, "Timeout waiting for response from backend server."),
            no_budget=code(-1003, "Too much request weight used.", 429),
        )  # fmt: skip
        bench.paper = paper
        bench.other = ccxt.binance(paper.ccxt_settings(ccxt.binance, account=1))
        yield bench
        bench.other.close()
        venue.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[BinanceBench]:
    with binance_bench(tmp_path) as bench:
        yield bench


class TestBinance(VenueSuite):
    ends_at_once = VenueStatus.EXPIRED
    wrong_keys = Keys(SecretStr("wrong-key-991"), SecretStr("wrong-secret-992"))

    @pytest.mark.parametrize(
        ("answer", "meant"),
        [
            (code(-1000, "An unknown error occurred while processing the request."), "open"),
            (code(-1001, "Internal error; unable to process your request.", 500), "open"),
            (code(-1006, "Unexpected response. Execution status unknown."), "open"),
            (code(-1007, "Timeout waiting for response. Send status unknown.", 408), "open"),
            (code(-1008, "Server is currently overloaded.", 503), "open"),
            ((503, {"msg": "Unknown error, please check your request."}), "open"),
            ((503, "<html>503 Service Unavailable</html>"), "open"),
            ((502, "Bad gateway"), "open"),
            ((504, ""), "open"),
            ((503, {"code": -1, "msg": "Service Unavailable."}), OrderRejected),
            ((503, {"msg": "Service Unavailable."}), OrderRejected),
            (code(-1013, "Filter failure: LOT_SIZE"), OrderRejected),
            (code(-1013, "Filter failure: PRICE_FILTER"), OrderRejected),
            (code(-1013, "Filter failure: NOTIONAL"), OrderRejected),
            (code(-1013, "Market is closed."), OrderRejected),
            (code(-1015, "Too many new orders."), RateLimited),
            (code(-1021, "Timestamp is outside of the recvWindow."), OrderRejected),
            (code(-1111, "Parameter 'quantity' has too much precision."), OrderRejected),
            (code(-2010, "Order would immediately match and take."), OrderRejected),
            (code(-2010, "Duplicate order sent."), OrderRejected),
            (code(-2010, "Account has insufficient balance."), OrderRejected),
            (code(-2011, "Unknown order sent."), OrderUnknown),
            (code(-2013, "Order does not exist."), OrderUnknown),
            ((418, {"code": -1003, "msg": "Way too much request weight used."}), RateLimited),
            ((429, ""), RateLimited),
        ],
    )
    def test_an_answer_to_an_order_is_a_yes_a_no_or_open(
        self, bench: Bench, answer: tuple, meant: type[DeskError] | str
    ):
        request = bench.request()
        bench.served.next_answer = answer
        with pytest.raises(UnresolvedError if meant == "open" else meant):
            bench.venue.submit_order(request)

    def test_a_halted_symbol_is_a_definite_no(self, bench: BinanceBench):
        bench.paper.control("halt", symbol="BTCUSDT")
        with pytest.raises(OrderRejected):
            bench.submit()
        with pytest.raises(OrderUnknown):
            bench.find()

    def test_a_post_only_order_that_would_take_is_refused(self, bench: Bench):
        with pytest.raises(OrderRejected):
            bench.submit(OrderType.POST_ONLY, limit_price=bench.price("1.05"))

    def test_fees_are_paid_in_the_asset_received_or_in_a_third(self, bench: Bench):
        bench.submit()
        bench.submit(name=IDS[1], side="sell")
        bought, sold = bench.venue.fetch_trades_since(SYMBOL, None)
        assert (bought.fee_currency, sold.fee_currency) == ("BTC", "USDT")
        row = {
            "symbol": "BTCUSDT", "id": 9, "orderId": 9, "orderListId": -1, "price": "50000",
            "qty": "0.01", "quoteQty": "500", "commission": "0.00071234",
            "commissionAsset": "BNB", "time": 1700000000000, "isBuyer": True, "isMaker": False,
            "isBestMatch": True,
        }  # fmt: skip
        bench.served.next_answer = (200, [row])
        (trade,) = bench.venue.fetch_trades_since(SYMBOL, None)
        assert (trade.fee, trade.fee_currency) == (Decimal("0.00071234"), "BNB")

    def test_a_list_that_looked_at_a_day_only_is_not_taken_for_the_history(self, bench: Bench):
        since = bench.find(bench.submit().client_id).at
        bench.served.next_answer = (200, [])
        ((order,),) = bench.venue.iterate_orders(SYMBOL, since)
        assert order.client_id == IDS[0]

    def test_a_page_longer_than_the_exchange_gives_is_not_taken_for_the_last(self, bench: Bench):
        bench.venue.trade_page = 5000
        bench.submit()
        bench.venue.fetch_trades_since(SYMBOL, None)
        list(bench.venue.iterate_orders(SYMBOL, None))
        asked = [one.target for one in bench.served.asked if "fromId" in one.target or
                 "orderId=0" in one.target]  # fmt: skip
        assert len(asked) == 2
        assert all("limit=1000" in target for target in asked)

    def test_a_read_whose_answer_is_lost_is_asked_again_and_shows_no_signed_address(
        self, bench: Bench
    ):
        bench.submit()
        bench.served.lose_next = 2
        assert bench.find().filled == AMOUNT
        bench.served.lose_next = 3
        with pytest.raises(VenueUnavailable, match="could not find order") as caught:
            bench.find()
        assert "signature=" in bench.served.asked[-1].target
        assert_hides(caught.value, bench.secrets)

    def test_an_order_type_that_the_symbol_lacks_is_refused(self, bench: Bench):
        bench.venue.fetch_instruments()
        told = bench.venue._exchange.market(SYMBOL)["info"]
        told["orderTypes"] = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT"]
        assert bench.venue.supports(OrderType.STOP_LOSS)
        assert not bench.venue.supports(OrderType.STOP_LOSS, SYMBOL)
        assert not bench.venue.supports(OrderType.TRAILING_STOP, SYMBOL)

    def test_a_market_order_is_sized_in_base_whatever_it_costs(self, bench: Bench):
        bench.submit()
        body = next(one.body for one in bench.served.asked if one.method == "POST")
        assert f"quantity={AMOUNT}".encode() in body
        assert b"quoteOrderQty" not in body

    def test_the_moment_of_signing_goes_by_the_venues_clock(self, bench: Bench):
        bench.venue._exchange.options["timeDifference"] = 2500
        request = bench.request()
        bench.venue.submit_order(request)
        body = next(one.body.decode() for one in bench.served.asked if one.method == "POST")
        signed = int(request.signed_at.timestamp() * 1000)
        assert f"timestamp={signed - 2500}" in body or f"timestamp={signed - 2501}" in body
        assert "recvWindow=10000" in body


class TestUnified(VenueSuite):
    """An exchange without a dialect of its own here, spoken to in ccxt's common words alone."""

    ends_at_once = VenueStatus.EXPIRED
    beginning = datetime(2020, 1, 1, tzinfo=UTC)
    wrong_keys = TestBinance.wrong_keys
    unsupported = frozenset(OrderType) - {OrderType.MARKET, OrderType.LIMIT, OrderType.POST_ONLY}

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[BinanceBench]:
        with binance_bench(tmp_path, "binanceus") as bench:
            yield bench

    def test_no_trade_is_lost_or_doubled_at_the_edge_of_a_page(self, bench: Bench):
        """By time, as long as a page holds more than one millisecond does."""
        order = bench.submit(OrderType.LIMIT, limit_price=bench.price())
        bench.fill(order, [AMOUNT / 10] * 7)
        since = bench.find().at
        assert len(bench.venue.fetch_trades_since(SYMBOL, None, since)) == 7
        bench.venue.trade_page = 5
        with pytest.raises(VenueUnavailable, match="does not get past one millisecond"):
            bench.venue.fetch_trades_since(SYMBOL, None, since)

    def test_the_history_of_orders_comes_in_pages_with_nothing_lost(self, bench: Bench):
        for name in IDS[:8]:
            bench.submit(name=name, amount=AMOUNT / 10)
        (page,) = bench.venue.iterate_orders(SYMBOL, self.beginning)
        assert [order.client_id for order in page] == IDS[:8]
        with pytest.raises(InvalidInput, match="name one"):
            list(bench.venue.iterate_orders(SYMBOL, None))


FILLS = [
    {
        "tradeId": 7,
        "price": "3.3",
        "qty": "0.33333333",
        "commission": "0.1",
        "commissionAsset": "B",
    },
    {"tradeId": 8, "price": "3.4", "qty": "0.66666667", "commission": "0", "commissionAsset": "B"},
]
ANSWER = {
    "transactTime": 1737635557417,
    "executedQty": "1.00000000",
    "cummulativeQuoteQty": "3.36666665",  # 1.09999998 and 2.26666667, each cut off
    "fills": FILLS,
}


@pytest.mark.parametrize(
    ("changed", "trades"),
    [
        ({}, ["7", "8"]),
        ({"cummulativeQuoteQty": "3.36666666"}, []),
        ({"executedQty": "1.5"}, []),
        ({"fills": FILLS[:1]}, []),
        ({"fills": []}, []),
        ({"fills": [{**FILLS[0], "qty": "?"}, FILLS[1]]}, []),
        ({"transactTime": None}, []),
    ],
)
def test_fills_are_taken_from_an_answer_only_where_they_add_up_to_it(
    changed: dict, trades: list[str]
) -> None:
    row = {"id": "1", "symbol": "A/B", "side": "buy", "info": ANSWER | changed}
    told = parse_trades(dialect_of(ccxt.binance()).told_trades(row))
    assert [trade.trade_id for trade in told] == trades
    assert [trade.cost for trade in told[:1]] == [Decimal("1.09999998")][: len(told)]
