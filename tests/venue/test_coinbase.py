"""The venue suite against a server that speaks Coinbase Advanced's dialect."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from decimal import Decimal

import pytest
from pydantic import SecretStr

from tests.venue.coinbase import KEY, PORTFOLIO, SECRET, CoinbaseServer
from tests.venue.served import serve
from tests.venue.suite import AMOUNT, IDS, SYMBOL, Bench, VenueSuite
from tradelib.errors import InvalidInput, OrderRejected
from tradelib.settings import VenueSettings
from tradelib.venue import Keys, OrderType, TimeInForce, Venue, VenueOrder, VenueStatus


class CoinbaseBench(Bench):
    @property
    def books(self):
        return self.served.exchange.books

    def fill(self, order: VenueOrder, amounts: Iterable[Decimal]) -> None:
        at = time.time()
        for amount in amounts:
            self.books.fill(self.books.orders[order.venue_order_id], amount, at)


@pytest.fixture
def bench() -> Iterator[CoinbaseBench]:
    with serve(CoinbaseServer()) as served:
        settings = VenueSettings(exchange="coinbase", rest_url=served.url, timeout=5)
        venue = Venue("bench", settings, Keys(SecretStr(KEY), SecretStr(SECRET)), trading=True)
        venue.fetch_instruments()
        yield CoinbaseBench(
            venue, served, (KEY, SECRET),
            no_answer=(500, {"error": "INTERNAL", "message": "Something went wrong"}),
            no_budget=(429, {"error": "RESOURCE_EXHAUSTED", "message": "too many requests"}),
        )  # fmt: skip
        venue.close()


class TestCoinbase(VenueSuite):
    unsupported = frozenset({OrderType.STOP_LOSS, OrderType.TAKE_PROFIT, OrderType.TRAILING_STOP})
    wrong_keys = Keys(SecretStr("wrong-key-991"), SecretStr("wrong-secret-992"))

    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            ("PENDING", VenueStatus.OPEN),
            ("QUEUED", VenueStatus.OPEN),
            ("CANCEL_QUEUED", VenueStatus.OPEN),
            ("OPEN", VenueStatus.OPEN),
            ("FILLED", VenueStatus.FILLED),
            ("CANCELLED", VenueStatus.CANCELED),
            ("EXPIRED", VenueStatus.EXPIRED),
            ("FAILED", VenueStatus.REJECTED),
            ("UNKNOWN_ORDER_STATUS", VenueStatus.UNKNOWN),
        ],
    )
    def test_statuses_are_read_as_the_exchange_wrote_them(
        self, bench: CoinbaseBench, raw: str, status: VenueStatus
    ):
        sent = bench.submit(OrderType.LIMIT)
        bench.books.orders[sent.venue_order_id].status = raw
        assert bench.find().status is status

    def test_a_new_order_is_answered_with_its_id_alone(self, bench: CoinbaseBench):
        sent = bench.submit()
        assert (sent.status, sent.filled) == (VenueStatus.UNKNOWN, None)
        assert sent.venue_order_id

    def test_a_purchase_is_sized_in_base(self, bench: CoinbaseBench):
        bench.submit()
        (order,) = bench.books.orders.values()
        assert order.asked["configuration"] == {"market_market_ioc": {"base_size": str(AMOUNT)}}

    def test_a_cancel_under_way_is_no_error_and_a_refused_one_is_told(self, bench: CoinbaseBench):
        sent = bench.submit(OrderType.LIMIT)
        told = {"success": False, "order_id": sent.venue_order_id}
        bench.served.next_answer = (
            200, {"results": [told | {"failure_reason": "DUPLICATE_CANCEL_REQUEST"}]}
        )  # fmt: skip
        bench.venue.cancel_order(SYMBOL, sent.venue_order_id)
        bench.served.next_answer = (
            200, {"results": [told | {"failure_reason": "COMMANDER_REJECTED_CANCEL_ORDER"}]}
        )  # fmt: skip
        with pytest.raises(OrderRejected, match="COMMANDER_REJECTED"):
            bench.venue.cancel_order(SYMBOL, sent.venue_order_id)

    def test_a_stop_that_must_trade_at_once_is_refused(self, bench: CoinbaseBench):
        with pytest.raises(InvalidInput, match="live until they are cancelled"):
            bench.submit(OrderType.STOP_LOSS_LIMIT, time_in_force=TimeInForce.IOC)

    def test_an_order_is_found_on_a_later_page_of_the_list(self, bench: CoinbaseBench):
        bench.submit(OrderType.LIMIT)
        for number in range(260):
            order = bench.books.orders[next(iter(bench.books.orders))]
            bench.books.orders[f"filler-{number}"] = type(order)(
                **{**vars(order), "id": f"filler-{number}", "client_id": f"f{number}"}
            )
        assert bench.find(IDS[0]).client_id == IDS[0]

    def test_fees_are_paid_in_quote(self, bench: CoinbaseBench):
        bench.submit()
        (trade,) = bench.venue.fetch_trades_since(SYMBOL, None)
        assert (trade.fee, trade.fee_currency) == (Decimal("0.5"), "USDT")

    def test_the_account_is_its_portfolio(self, bench: CoinbaseBench):
        assert bench.venue.fetch_account_id() == PORTFOLIO
