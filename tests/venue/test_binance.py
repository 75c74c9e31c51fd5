"""The venue suite against the paper exchange, which speaks Binance's dialect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

import ccxt
import pytest
from pydantic import SecretStr

from tests.venue.served import Relay, serve
from tests.venue.suite import AMOUNT, IDS, SYMBOL, Bench, VenueSuite
from tradelib.errors import DeskError, OrderRejected, OrderUnknown, RateLimited, UnresolvedError
from tradelib.paper import PaperAccount, PaperConfig, PaperHandle, RateLimits, paper_exchange
from tradelib.settings import VenueSettings
from tradelib.venue import Keys, OrderType, Venue, VenueOrder, VenueStatus

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


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[BinanceBench]:
    config = PaperConfig(tmp_path / "paper", speed=0.0, accounts=(DESK, OTHER), limits=PLENTY)
    with paper_exchange(config) as paper, serve(Relay(paper.url)) as served:
        settings = VenueSettings(rest_url=served.url, timeout=5)
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
