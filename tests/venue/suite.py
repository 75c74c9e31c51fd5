"""What every venue does for the desk, whatever its exchange's dialect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.venue.served import Served
from tradelib.clock import utc_now
from tradelib.errors import (
    AuthenticationFailed,
    DeskError,
    InsufficientFunds,
    InvalidInput,
    OrderRejected,
    OrderUnknown,
    RateLimited,
    UnresolvedError,
)
from tradelib.settings import VenueSettings
from tradelib.venue import (
    BracketRequest,
    Keys,
    OrderRequest,
    OrderType,
    TimeInForce,
    Venue,
    VenueOrder,
    VenueStatus,
)

SYMBOL = "BTC/USDT"
AMOUNT = Decimal("0.01")
IDS = [f"nd-{number:021x}" for number in range(20)]
EVERY_TYPE = list(OrderType)


@dataclass
class Bench:
    """A venue and the other side of it: the exchange, as a test may push it.

    secrets: texts that nothing may show. no_answer: the words for an exchange that is busy, as
    status and body, after which an order's fate is open; no_budget: its refusal of more requests.
    """

    venue: Venue
    served: Served
    secrets: Sequence[str]
    no_answer: tuple[int, Any]
    no_budget: tuple[int, Any]

    def fill(self, order: VenueOrder, amounts: Iterable[Decimal]) -> None:
        """Somebody trades with a resting order of the desk, so much at a time."""
        raise NotImplementedError

    def price(self, factor: str = "1") -> Decimal:
        """A price that the venue allows, as a multiple of the present bid."""
        quote = self.venue.fetch_quotes([SYMBOL])[SYMBOL]
        return self.venue.fetch_instrument(SYMBOL).round_price(quote.bid * Decimal(factor))

    def request(
        self, kind: OrderType = OrderType.MARKET, name: str = IDS[0], side: str = "buy", **more: Any
    ) -> OrderRequest:
        """An order that rests or waits where its type can, signed now."""
        prices = {
            "limit_price": self.price("0.9" if side == "buy" else "1.1")
            if kind.has_limit
            else None,
            "stop_price": self._stop_price(kind, side) if kind.has_stop else None,
            "trailing_bips": 150 if kind is OrderType.TRAILING_STOP else None,
        }
        wanted = {"amount": AMOUNT, "signed_at": utc_now(), **prices, **more}
        return OrderRequest(SYMBOL, side, kind, client_id=name, **wanted)

    def _stop_price(self, kind: OrderType, side: str) -> Decimal:
        loses = kind in (OrderType.STOP_LOSS, OrderType.STOP_LOSS_LIMIT)
        return self.price("1.1" if loses == (side == "buy") else "0.9")

    def bracket(self) -> BracketRequest:
        """A target above the market and a stop below it."""
        target = self.request(OrderType.LIMIT, IDS[1], "sell")
        limit = self.price("0.89")
        stop = self.request(OrderType.STOP_LOSS_LIMIT, IDS[2], "sell", limit_price=limit)
        return BracketRequest(SYMBOL, "sell", AMOUNT, IDS[3], target, stop, utc_now())

    def submit(self, *arguments: Any, **more: Any) -> VenueOrder:
        return self.venue.submit_order(self.request(*arguments, **more))

    def find(self, name: str = IDS[0]) -> VenueOrder:
        """An order by its client id, as one that has no other name yet."""
        return self.venue.fetch_order(SYMBOL, name, since=utc_now() - timedelta(hours=1))

    def with_keys(self, keys: Keys) -> Venue:
        settings = VenueSettings(
            exchange=self.venue.identity.split()[0], rest_url=self.served.url, timeout=5
        )
        return Venue("bench", settings, keys, trading=True)


class VenueSuite:
    """Inherited by a class for each venue, which gives the fixture `bench`."""

    unsupported: frozenset[OrderType] = frozenset()
    ends_at_once = VenueStatus.CANCELED  # what becomes of an IOC order that meets nothing
    wrong_keys: Keys
    beginning: datetime | None = None  # where a walk through everything begins

    def test_it_tells_the_time_its_rules_and_its_prices(self, bench: Bench):
        assert bench.venue.fetch_time().utcoffset() == timedelta(0)
        instrument = bench.venue.fetch_instrument(SYMBOL)
        assert (instrument.base, instrument.quote, instrument.active) == ("BTC", "USDT", True)
        assert (instrument.tick, instrument.lot) == (Decimal("0.01"), Decimal("0.00001"))
        quote = bench.venue.fetch_quotes([SYMBOL])[SYMBOL]
        assert 0 < quote.bid < quote.ask

    def test_a_market_order_is_filled_for_the_base_amount_asked(self, bench: Bench):
        sent = bench.submit()
        found = bench.find()
        assert found.venue_order_id == sent.venue_order_id
        assert (found.status, found.amount, found.filled) == (VenueStatus.FILLED, AMOUNT, AMOUNT)
        assert (found.type, found.side, found.symbol) == ("market", "buy", SYMBOL)
        assert found.cost > 0
        assert found.limit_price is None

    def test_an_order_whose_answer_was_lost_is_found_again_by_its_client_id(self, bench: Bench):
        request = bench.request()
        bench.served.lose_next = 1
        with pytest.raises(UnresolvedError, match="whether it took effect is not known"):
            bench.venue.submit_order(request)
        found = bench.find()
        assert (found.client_id, found.filled) == (IDS[0], AMOUNT)
        assert bench.venue.fetch_order(SYMBOL, IDS[0], found.venue_order_id) == found

    def test_a_request_that_the_exchange_cannot_vouch_for_is_unresolved(self, bench: Bench):
        request = bench.request()
        bench.served.next_answer = bench.no_answer
        with pytest.raises(UnresolvedError):
            bench.venue.submit_order(request)
        with pytest.raises(OrderUnknown):
            bench.find()

    @pytest.mark.parametrize("said", ["", "<html>Bad gateway</html>", "[]", "{}", '{"result": {}}'])
    def test_an_answer_of_no_known_shape_to_an_order_is_unresolved(self, bench: Bench, said: str):
        request = bench.request()
        bench.served.next_answer = (200, said)
        with pytest.raises(UnresolvedError):
            bench.venue.submit_order(request)

    def test_too_many_requests_is_a_definite_no(self, bench: Bench):
        request = bench.request()
        bench.served.next_answer = bench.no_budget
        with pytest.raises(RateLimited):
            bench.venue.submit_order(request)

    def test_an_absent_order_is_unknown(self, bench: Bench):
        bench.submit()
        with pytest.raises(OrderUnknown):
            bench.find(IDS[1])
        with pytest.raises(OrderUnknown):
            bench.venue.fetch_order(SYMBOL, IDS[1])

    @pytest.mark.parametrize("side", ["buy", "sell"])
    @pytest.mark.parametrize("kind", EVERY_TYPE)
    def test_an_order_is_told_back_as_it_was_sent(self, bench: Bench, kind: OrderType, side: str):
        request = bench.request(kind, side=side)
        if kind in self.unsupported:
            assert not bench.venue.supports(kind)
            with pytest.raises(InvalidInput, match=str(kind)):
                bench.venue.submit_order(request)
            return
        assert bench.venue.supports(kind, SYMBOL)
        sent = bench.venue.submit_order(request)
        for told in (sent, bench.find(), bench.venue.fetch_order(SYMBOL, "", sent.venue_order_id)):
            assert (told.type, told.side, told.amount) == (kind, side, AMOUNT)
            assert (told.limit_price, told.stop_price) == (request.limit_price, request.stop_price)
            assert told.client_id == request.client_id
        assert bench.find().at

    def test_open_orders_are_listed_until_they_are_cancelled(self, bench: Bench):
        resting = bench.submit(OrderType.LIMIT)
        bench.submit(name=IDS[1])
        assert [o.client_id for o in bench.venue.fetch_open_orders([SYMBOL])] == [IDS[0]]
        bench.venue.cancel_order(SYMBOL, resting.venue_order_id)
        assert bench.venue.fetch_open_orders([SYMBOL]) == []
        assert bench.find().status is VenueStatus.CANCELED

    def test_an_order_can_be_cancelled_once(self, bench: Bench):
        resting = bench.submit(OrderType.LIMIT)
        bench.venue.cancel_order(SYMBOL, None, IDS[0])
        for number, name in ((resting.venue_order_id, None), (None, IDS[0])):
            with pytest.raises(OrderUnknown):
                bench.venue.cancel_order(SYMBOL, number, name)

    def test_a_filled_order_cannot_be_cancelled(self, bench: Bench):
        done = bench.submit()
        with pytest.raises(OrderUnknown):
            bench.venue.cancel_order(SYMBOL, done.venue_order_id)

    def test_a_partial_fill_is_told(self, bench: Bench):
        resting = bench.submit(OrderType.LIMIT, limit_price=bench.price())
        bench.fill(resting, [AMOUNT / 4])
        told = bench.find()
        assert (told.status, told.filled) == (VenueStatus.PARTIALLY_FILLED, AMOUNT / 4)
        bench.venue.cancel_order(SYMBOL, resting.venue_order_id)
        told = bench.find()
        assert (told.status, told.filled) == (VenueStatus.CANCELED, AMOUNT / 4)

    def test_an_order_that_must_trade_at_once_and_cannot_has_ended(self, bench: Bench):
        bench.submit(OrderType.LIMIT, time_in_force=TimeInForce.IOC)
        told = bench.find()
        assert (told.status, told.filled) == (self.ends_at_once, 0)

    def test_trades_tell_what_was_paid_and_for_which_order(self, bench: Bench):
        sent = bench.submit()
        for trades in (
            bench.venue.fetch_order_trades(SYMBOL, sent.venue_order_id),
            bench.venue.fetch_trades_since(SYMBOL, None, self.beginning),
        ):
            assert sum(trade.amount for trade in trades) == AMOUNT
            assert {trade.venue_order_id for trade in trades} == {sent.venue_order_id}
            assert all(trade.cost == trade.amount * trade.price for trade in trades)
            assert all(trade.fee > 0 and trade.fee_currency for trade in trades)

    def test_no_trade_is_lost_or_doubled_at_the_edge_of_a_page(self, bench: Bench):
        bench.venue.trade_page = 2
        order = bench.submit(OrderType.LIMIT, limit_price=bench.price())
        bench.fill(order, [AMOUNT / 10] * 7)  # all in one millisecond
        pages = list(bench.venue.iterate_trades(SYMBOL, None, self.beginning))
        walked = [trade for page in pages for trade in page]
        assert len(pages) > 2
        assert len({trade.trade_id for trade in walked}) == len(walked) == 7
        later = bench.submit(name=IDS[1])
        newest = bench.venue.fetch_last_trade_id(SYMBOL)
        for known in walked:
            after = bench.venue.fetch_trades_since(SYMBOL, known.trade_id)
            wanted = walked[walked.index(known) + 1 :]
            assert {trade.trade_id for trade in wanted} <= {trade.trade_id for trade in after}
            assert after[-1].trade_id == newest
            assert after[-1].venue_order_id == later.venue_order_id

    def test_trades_begin_with_the_moment_asked_for(self, bench: Bench):
        bench.submit()
        now = bench.venue.fetch_trades_since(SYMBOL, None, self.beginning)[-1].at
        assert bench.venue.fetch_trades_since(SYMBOL, None, now)
        assert bench.venue.fetch_trades_since(SYMBOL, None, now + timedelta(minutes=1)) == []

    def test_the_history_of_orders_comes_in_pages_with_nothing_lost(self, bench: Bench):
        bench.venue.trade_page = 3
        for number in range(8):
            kind = OrderType.MARKET if number % 3 else OrderType.LIMIT
            bench.submit(kind, name=IDS[number], amount=AMOUNT / 10)
        pages = list(bench.venue.iterate_orders(SYMBOL, self.beginning))
        assert len(pages) > 2
        listed = [order for page in pages for order in page]
        assert sorted(order.client_id for order in listed) == IDS[:8]
        assert listed == sorted(listed, key=lambda order: order.at)
        since = bench.find(IDS[0]).at
        assert isinstance(since, datetime)
        assert sum(len(page) for page in bench.venue.iterate_orders(SYMBOL, since)) == 8
        assert list(bench.venue.iterate_orders(SYMBOL, since + timedelta(minutes=1))) == []

    def test_balances_tell_what_an_open_order_holds_back(self, bench: Bench):
        before = bench.venue.fetch_balances()["USDT"]
        order = bench.submit(OrderType.LIMIT)
        after = bench.venue.fetch_balances()["USDT"]
        assert after.used == AMOUNT * (order.limit_price or 0)
        assert after.free + after.used == before.free + before.used

    def test_what_the_account_cannot_pay_for_is_a_definite_no(self, bench: Bench):
        with pytest.raises(InsufficientFunds):
            bench.submit(OrderType.LIMIT, amount=Decimal(5))
        with pytest.raises(OrderUnknown):
            bench.find()

    def test_an_order_too_small_is_a_definite_no(self, bench: Bench):
        with pytest.raises(OrderRejected):
            bench.submit(amount=Decimal("0.00001"))

    def test_numbers_that_would_be_rounded_on_the_way_are_refused(self, bench: Bench):
        asked = len(bench.served.asked)
        with pytest.raises(InvalidInput, match=r"amount 0\.010001"):
            bench.submit(amount=Decimal("0.010001"))
        with pytest.raises(InvalidInput, match="limit_price"):
            bench.submit(OrderType.LIMIT, limit_price=Decimal("0.001"))
        assert not any(one.method == "POST" and b"0.01" in one.body
                       for one in bench.served.asked[asked:])  # fmt: skip

    def test_a_request_that_was_held_up_is_refused(self, bench: Bench):
        lifetime = bench.venue.request_lifetime
        late = (lifetime or timedelta(seconds=10)) + timedelta(seconds=1)
        asked = len(bench.served.asked)
        with pytest.raises(OrderRejected):
            bench.submit(signed_at=utc_now() - late)
        sent = [one for one in bench.served.asked[asked:] if one.method == "POST"]
        assert bool(sent) == (lifetime is not None)  # by the venue itself, where it can
        with pytest.raises(OrderUnknown):
            bench.find()
        bench.submit(signed_at=utc_now() - late / 2)
        assert bench.venue.visibility_lag > late

    def test_a_bracket_is_two_orders_of_one_list_or_refused(self, bench: Bench):
        request = bench.bracket()
        if not bench.venue.supports_brackets:
            with pytest.raises(InvalidInput, match="takes no"):
                bench.venue.submit_bracket(request)
            return
        first, second = bench.venue.submit_bracket(request)
        assert (first.client_id, second.client_id) == (IDS[1], IDS[2])
        assert first.list_id == second.list_id is not None
        assert bench.find(IDS[2]).list_id == first.list_id
        bench.venue.cancel_order(SYMBOL, first.venue_order_id)
        assert bench.find(IDS[2]).status is VenueStatus.CANCELED

    def test_a_bracket_whose_answer_was_lost_is_found_by_its_legs(self, bench: Bench):
        if not bench.venue.supports_brackets:
            return
        request = bench.bracket()
        bench.served.lose_next = 1
        with pytest.raises(UnresolvedError):
            bench.venue.submit_bracket(request)
        assert bench.find(IDS[1]).list_id == bench.find(IDS[2]).list_id

    def test_a_client_id_used_twice_makes_no_second_order_where_the_venue_says_so(
        self, bench: Bench
    ):
        if not bench.venue.dedupes_client_ids:
            return
        first = bench.submit()
        assert bench.submit().venue_order_id == first.venue_order_id
        assert len(bench.venue.fetch_trades_since(SYMBOL, None, self.beginning)) == 1

    def test_wrong_keys_are_named_and_not_shown(self, bench: Bench):
        venue = bench.with_keys(self.wrong_keys)
        with pytest.raises(AuthenticationFailed, match="check the venue's keys") as caught:
            venue.fetch_balances()
        with pytest.raises(AuthenticationFailed):
            venue.submit_order(bench.request())
        assert_hides(caught.value, [self.wrong_keys.key.get_secret_value()])
        venue.close()

    def test_no_error_shows_a_key_a_signature_or_a_query(self, bench: Bench):
        def lose() -> None:
            bench.served.lose_next = 1
            bench.venue.submit_order(request)

        def busy() -> None:
            bench.served.next_answer = bench.no_answer
            bench.venue.submit_order(request)

        request = bench.request(name=IDS[6])
        failures = [
            lambda: bench.find(IDS[9]),
            lambda: bench.submit(OrderType.LIMIT, amount=Decimal(5)),
            lambda: bench.venue.cancel_order(SYMBOL, "12345"),
            busy,
            lose,
        ]
        for fail in failures:
            with pytest.raises(DeskError) as caught:
                fail()
            assert_hides(caught.value, bench.secrets)

    def test_its_identity_says_where_it_points_and_holds_no_key(self, bench: Bench):
        address = bench.venue.identity.split()[1]
        assert bench.served.url.endswith(address)
        assert_hides(bench.venue.identity, bench.secrets)
        assert bench.venue.fetch_account_id() == bench.venue.fetch_account_id()


def assert_hides(shown: object, secrets: Sequence[str]) -> None:
    """Nothing of a request's secrets is in a text, nor in what an error drags along."""
    text = repr(shown) + str(shown)
    for hidden in (*secrets, "signature=", "API-Sign", "CB-ACCESS", "timestamp=", "nonce="):
        assert hidden not in text
    if isinstance(shown, BaseException):
        assert shown.__cause__ is None
        assert shown.__suppress_context__
