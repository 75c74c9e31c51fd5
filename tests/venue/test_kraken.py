"""The venue suite against a server that speaks Kraken's dialect."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Iterator
from decimal import Decimal

import pytest
from pydantic import SecretStr

from tests.venue.kraken import KEY, SECRET, KrakenServer
from tests.venue.served import serve
from tests.venue.suite import IDS, SYMBOL, Bench, VenueSuite
from tradelib.errors import (
    DeskError,
    InsufficientFunds,
    InvalidInput,
    OrderRejected,
    RateLimited,
    UnresolvedError,
)
from tradelib.settings import VenueSettings
from tradelib.venue import Keys, OrderType, Venue, VenueOrder, VenueStatus


class KrakenBench(Bench):
    @property
    def books(self):
        return self.served.exchange.books

    def fill(self, order: VenueOrder, amounts: Iterable[Decimal]) -> None:
        at = time.time()
        for amount in amounts:
            self.books.fill(self.books.orders[order.venue_order_id], amount, at)


def error(words: str) -> tuple[int, dict]:
    return 200, {"error": [words]}


@pytest.fixture
def bench() -> Iterator[KrakenBench]:
    with serve(KrakenServer()) as served:
        settings = VenueSettings(exchange="kraken", rest_url=served.url, timeout=5)
        venue = Venue("bench", settings, Keys(SecretStr(KEY), SecretStr(SECRET)), trading=True)
        venue.fetch_instruments()
        yield KrakenBench(
            venue, served, (KEY, SECRET),
            no_answer=error("EService:Unavailable"),
            no_budget=error("EAPI:Rate limit exceeded"),
        )  # fmt: skip
        venue.close()


class TestKraken(VenueSuite):
    wrong_keys = Keys(
        SecretStr("wrong-key-991"), SecretStr(base64.b64encode(b"wrong-secret-992").decode())
    )

    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            ("pending", VenueStatus.OPEN),
            ("open", VenueStatus.OPEN),
            ("closed", VenueStatus.FILLED),
            ("canceled", VenueStatus.CANCELED),
            ("expired", VenueStatus.EXPIRED),
        ],
    )
    def test_statuses_are_read_as_the_exchange_wrote_them(
        self, bench: KrakenBench, raw: str, status: VenueStatus
    ):
        sent = bench.submit(OrderType.LIMIT)
        bench.books.orders[sent.venue_order_id].status = raw
        assert bench.find().status is status

    @pytest.mark.parametrize(
        ("words", "meant"),
        [
            ("EService:Unavailable", UnresolvedError),
            ("EService:Busy", UnresolvedError),
            ("EGeneral:Internal error", UnresolvedError),
            ("EService:Deadline elapsed", OrderRejected),
            ("EService:Market in cancel_only mode", OrderRejected),
            ("EOrder:Insufficient funds", InsufficientFunds),
            ("EOrder:Orders limit exceeded", OrderRejected),
            ("EOrder:Invalid price:Invalid price argument", OrderRejected),
            ("EGeneral:Invalid arguments:deadline", OrderRejected),
            ("EOrder:Rate limit exceeded", RateLimited),
        ],
    )
    def test_an_answer_to_an_order_is_a_yes_a_no_or_open(
        self, bench: KrakenBench, words: str, meant: type[DeskError]
    ):
        request = bench.request()
        bench.served.next_answer = error(words)
        with pytest.raises(meant):
            bench.venue.submit_order(request)

    def test_a_read_that_another_process_overtook_is_asked_again(self, bench: KrakenBench):
        bench.venue.fetch_instruments()
        bench.served.next_answer = error("EAPI:Invalid nonce")
        assert bench.venue.fetch_balances()["USDT"].free == 10_000

    def test_an_order_that_another_process_overtook_is_sent_again(self, bench: KrakenBench):
        request = bench.request()
        bench.served.next_answer = error("EAPI:Invalid nonce")
        bench.venue.submit_order(request)
        assert len(bench.books.orders) == 1

    def test_a_clock_that_is_behind_for_good_is_told(self, bench: KrakenBench):
        bench.served.exchange.last_nonce = 10**18
        with pytest.raises(OrderRejected, match="set this machine's clock"):
            bench.venue.submit_order(bench.request())
        assert not bench.books.orders

    def test_the_desks_ids_are_sent_as_one_of_krakens_forms(self, bench: KrakenBench):
        bench.submit(OrderType.LIMIT, IDS[7])
        (order,) = bench.books.orders.values()
        assert order.client_id == "6e642d00000" + IDS[7][3:]
        (told,) = bench.venue.fetch_open_orders([SYMBOL])
        assert told.client_id == IDS[7]
        bench.submit(OrderType.LIMIT, "short-and-plain")
        assert bench.find("short-and-plain").client_id == "short-and-plain"
        with pytest.raises(InvalidInput, match="too long for Kraken"):
            bench.submit(OrderType.LIMIT, "neither-short-nor-one-of-the-desks")

    def test_a_bare_user_reference_is_no_client_id(self, bench: KrakenBench):
        sent = bench.submit(OrderType.LIMIT)
        bench.books.orders[sent.venue_order_id].client_id = None
        (told,) = bench.venue.fetch_open_orders([SYMBOL])
        assert told.client_id is None

    def test_a_trailing_stop_cannot_wait_for_a_price(self, bench: KrakenBench):
        with pytest.raises(InvalidInput, match="leave out the stop_price"):
            bench.submit(OrderType.TRAILING_STOP, stop_price=bench.price("1.1"))

    def test_fees_are_paid_in_quote(self, bench: KrakenBench):
        sent = bench.submit()
        (trade,) = bench.venue.fetch_trades_since(SYMBOL, None)
        assert (trade.fee, trade.fee_currency) == (Decimal("0.5"), "USDT")
        assert bench.books.orders[sent.venue_order_id].asked["oflags"] == "fciq"

    def test_an_order_that_ends_between_two_lists_is_found(
        self, bench: KrakenBench, monkeypatch: pytest.MonkeyPatch
    ):
        sent = bench.submit(OrderType.LIMIT)
        server = bench.served.exchange
        tell_open = server._open

        def tell_and_end(params):
            told = tell_open(params)
            bench.books.orders[sent.venue_order_id].status = "canceled"
            return told

        monkeypatch.setattr(server, "_open", tell_and_end)
        assert bench.find().status is VenueStatus.CANCELED
        bench.books.orders[sent.venue_order_id].status = "open"
        ((listed,),) = bench.venue.iterate_orders(SYMBOL, None)
        assert listed.status is VenueStatus.CANCELED

    def test_nothing_cancels_more_than_one_order(self, bench: KrakenBench):
        first, _ = (bench.submit(OrderType.LIMIT, name) for name in IDS[:2])
        bench.venue.cancel_order(SYMBOL, first.venue_order_id)
        assert [o.client_id for o in bench.venue.fetch_open_orders([SYMBOL])] == [IDS[1]]
