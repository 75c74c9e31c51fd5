"""What differs is found by pure functions; applying what they propose twice changes nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from tests.desks import PaperDesk, paper_desk
from tradelib.clock import utc_now
from tradelib.paper import RateLimits
from tradelib.trading import tables
from tradelib.trading.accounts import booked_balances
from tradelib.trading.decisions import Action
from tradelib.trading.discrepancies import (
    Account,
    Books,
    BookTrades,
    DropPlan,
    GiveUp,
    TakeWord,
    find_discrepancies,
    venue_key,
)
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import (
    LEGAL_CHANGES,
    Order,
    OrderStatus,
    Side,
    client_order_id,
    insert_order,
    load_order,
    load_orders,
)
from tradelib.trading.positions import load_positions
from tradelib.venue import VenueBalance, VenueOrder, VenueStatus, VenueTrade

D = Decimal
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LAG = timedelta(seconds=40)
S = OrderStatus


def order(status: OrderStatus = S.SUBMITTED, *, age: float = 0, number: int = 1, **more) -> Order:
    """An order to buy one coin, sent `age` seconds ago."""
    then = NOW - timedelta(seconds=age)
    told = {"sent_at": None if status == S.PLANNED else then, **more}
    return Order(
        client_id=f"nd-{number}", decision=None, run=None, bot=None, venue="v", symbol="BTC/USDT",
        side=Side.BUY, type="market", amount=D(1), limit_price=None, expected_price=D(100),
        status=status, as_of=then, created_at=then, updated_at=then, **told,
    )  # fmt: skip


def answer(status: VenueStatus, filled: str = "0", number: int = 1) -> VenueOrder:
    return VenueOrder(
        venue_order_id=str(number), client_id=f"nd-{number}", symbol="BTC/USDT", side="buy",
        type="market", status=status, amount=D(1), filled=D(filled), cost=D(filled) * 100,
    )  # fmt: skip


def find(*orders: Order, named=(), **account):
    books = Books("v", orders, {o.client_id: o for o in named}, {}, LAG)
    return find_discrepancies(books, Account(at=NOW, **account))


def test_absence_is_proof_only_after_the_lag_and_of_what_was_never_acknowledged():
    def absent(one: Order):
        return [(f.kind, f.repair) for f in find(one, orders={one.client_id: None})]

    assert absent(order(age=10)) == []  # its process may be waiting for the answer
    assert absent(order(S.UNRESOLVED, age=10)) == [("order unresolved", None)]
    for status in (S.SUBMITTED, S.UNRESOLVED):
        ((kind, repair),) = absent(order(status, age=41))
        assert (kind, type(repair)) == ("order absent", GiveUp)
    for status in (S.UNRESOLVED, S.OPEN, S.PARTIALLY_FILLED):
        known = order(status, age=4000, venue_order_id="1")
        assert absent(known) == [("order vanished", None)]


def test_an_order_that_nobody_asked_about_ends_by_nothing():
    assert find(order(S.UNRESOLVED, age=4000)) == []


def test_a_plan_is_dropped_once_nobody_can_be_about_to_send_it():
    assert find(order(S.PLANNED, age=3)) == []
    (found,) = find(order(S.PLANNED, age=60))
    assert (found.kind, found.repair) == ("order unsent", DropPlan("nd-1"))


@pytest.mark.parametrize("before", [status for status in S if not status.final])
@pytest.mark.parametrize("said", list(VenueStatus))
def test_the_venues_word_is_taken_where_it_can_follow_and_named_where_it_cannot(before, said):
    if before == S.PLANNED:
        return  # it was not sent, so nobody asks
    known = order(before, venue_order_id="1")
    found = find(known, orders={"nd-1": answer(said)})
    if said is VenueStatus.UNKNOWN or said.value == before:
        assert [f for f in found if not isinstance(f.repair, TakeWord)] == []
    elif (before, said) == (S.PARTIALLY_FILLED, VenueStatus.OPEN):
        assert found == []  # a reply that lags
    elif OrderStatus(said.value) in LEGAL_CHANGES[before]:
        assert [f.kind for f in found] == ["order status"]
    else:
        assert [f.kind for f in found] == ["venue contradicts itself"]


@pytest.mark.parametrize("status", [S.REJECTED, S.DENIED])
def test_an_order_that_never_arrived_and_is_there_is_taken_back(status):
    gone = order(status, age=100, proven_absent=True)
    (found,) = find(named=[gone], open_orders=[answer(VenueStatus.OPEN)])
    assert (found.kind, found.repair) == ("late order", TakeWord("nd-1", answer(VenueStatus.OPEN)))


def test_an_order_of_nobody_is_foreign_and_has_no_repair():
    (found,) = find(open_orders=[answer(VenueStatus.OPEN)])
    assert (found.kind, found.subject, found.repair) == ("foreign order", "1", None)


def test_a_balance_is_no_discrepancy_while_an_order_of_its_asset_is_on_its_way():
    there = {"BTC": VenueBalance("BTC", D(1), D(0))}
    assert [f.kind for f in find(balances=there)] == ["balance differs"]
    assert find(order(S.SUBMITTED, age=1), balances=there) == []
    assert "balance differs" in [f.kind for f in find(order(age=100), balances=there)]


# Repairs, on a real ledger


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    opened = Ledger(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.sqlite")
    opened.migrate()
    yield opened
    opened.close()


fresh = iter(range(10**9))


def trades_of(number: int, sizes: list[int]) -> list[VenueTrade]:
    """Executions that fill one coin in unequal parts, with a fee in base currency."""
    parts = [(D(size) / sum(sizes)).quantize(D("1E-8")) for size in sizes[1:]]
    return [
        VenueTrade(
            trade_id=str(number * 1000 + rank), venue_order_id=str(number), symbol="BTC/USDT",
            side="buy", amount=part, price=D(100 + rank), cost=part * (100 + rank),
            fee=D("0.001"), fee_currency="BTC", at=NOW + timedelta(milliseconds=rank // 2),
        )
        for rank, part in enumerate([D(1) - sum(parts), *parts])
    ]  # fmt: skip


def state(ledger: Ledger, venue: str):
    """All that follows from fills and answers, without the times of writing."""
    with ledger.read() as books:
        query = select(tables.fills).where(tables.fills.c.venue == venue)
        fills = sorted(tuple(row) for row in books.execute(query))
        balances = [(b.asset, b.booked) for b in booked_balances(books, venue)]
    orders = [
        (o.client_id, o.status, o.filled, o.cost, o.fills_complete)
        for o in load_orders(ledger, venue=venue)
    ]
    return fills, balances, orders, load_positions(ledger, venue=venue)


def deliver(ledger: Ledger, venue: str, repairs) -> None:
    for repair in repairs:
        with ledger.write() as books:
            repair.apply(books, venue)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    order_of=st.randoms(use_true_random=False),
    doubled=st.integers(0, 3),
)
def test_fills_and_words_in_any_order_and_number_give_the_same_books(
    ledger, sizes, order_of, doubled
):
    number = next(fresh)
    states = []
    for way in ("straight", "mixed"):
        venue = f"v{number}-{way}"
        mine = replace(order(), client_id=f"nd-{venue}", venue=venue, bot="b")
        with ledger.write() as books:
            insert_order(books, mine)
        said = replace(answer(VenueStatus.FILLED, "1", number), client_id=mine.client_id)
        half = replace(said, status=VenueStatus.PARTIALLY_FILLED, filled=D(0), cost=D(0))
        repairs = [TakeWord(mine.client_id, half), TakeWord(mine.client_id, said)]
        repairs += [BookTrades("BTC/USDT", (t,), None) for t in trades_of(number, sizes)]
        if way == "mixed":
            repairs += [order_of.choice(repairs) for _ in range(doubled)]
            order_of.shuffle(repairs)
            deliver(ledger, venue, order_of.sample(repairs, order_of.randrange(len(repairs))))
        deliver(ledger, venue, repairs)
        # What was dropped or came too early is delivered again by the next pass.
        deliver(ledger, venue, repairs)
        once = state(ledger, venue)
        deliver(ledger, venue, repairs)
        assert state(ledger, venue) == once
        states.append([repr(part).replace(venue, "v") for part in once])
    for straight, mixed in zip(*states, strict=True):
        assert straight == mixed


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(list(VenueStatus)), max_size=6))
def test_no_sequence_of_words_brings_an_ended_order_back(ledger, said):
    name = f"w{next(fresh)}"
    mine = replace(order(), client_id=f"nd-{name}", venue=name)
    with ledger.write() as books:
        insert_order(books, mine)
    ended = None
    for status in said:
        word = replace(answer(status), client_id=mine.client_id)
        with ledger.write() as books:
            TakeWord(mine.client_id, word).apply(books, name)
        now = OrderStatus(load_order(ledger, mine.client_id).status)
        assert ended is None or now == ended
        ended = now if now.final else None


@given(st.text(min_size=1, max_size=30), st.integers(0, 9), st.integers(0, 9))
def test_client_ids_are_the_same_for_ever_and_differ_by_leg_and_attempt(decision, leg, attempt):
    first = client_order_id(decision, leg, attempt)
    assert first == client_order_id(decision, leg, attempt)
    assert len(first) == 24
    others = {client_order_id(decision, *pair) for pair in permutations(range(10), 2)}
    assert len(others) == 90
    assert (first in others) == (leg != attempt)


def test_client_ids_do_not_change_with_the_version_of_the_desk():
    assert client_order_id("d-0123456789", 2, 1) == "nd-cef6dfec0f7639b252f3a"


# Whole, at the paper exchange


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        desk.reconcile()
        yield desk


def test_217_orders_pending_in_the_books_and_filled_at_the_venue_are_right_after_one_pass(home):
    with paper_desk(home, limits=RateLimits(orders_10s=1000)) as desk:
        desk.reconcile()
        settle_217(desk)


def settle_217(desk: PaperDesk):
    now = utc_now() - timedelta(minutes=5)
    exchange = desk.ccxt()
    for number in range(217):
        mine = replace(
            order(number=number), client_id=client_order_id(f"d-{number}"), venue="paper",
            bot=desk.bot.name, amount=D("0.0002"), sent_at=now, created_at=now, updated_at=now,
        )  # fmt: skip
        with desk.ledger.write() as books:
            insert_order(books, mine)
        exchange.create_order(
            "BTC/USDT", "market", "buy", 0.0002, None, {"clientOrderId": mine.client_id}
        )
    assert len(load_orders(desk.ledger, unsettled=True)) == 217
    report = desk.reconcile()
    assert report.agrees
    assert {o.status for o in load_orders(desk.ledger)} == {OrderStatus.FILLED}
    assert all(o.fills_complete for o in load_orders(desk.ledger))
    assert report.fills_booked == len(exchange.fetch_my_trades("BTC/USDT", limit=1000))
    assert desk.reconcile().discrepancies == ()


def test_a_pass_that_runs_twice_at_once_changes_nothing_more(desk: PaperDesk):
    done = desk.execute(desk.decide(Action.BUY))
    before = state(desk.ledger, "paper")
    books = Books("paper", (done.order,), {}, {}, LAG)
    told = desk.venue().fetch_order(done.order.symbol, done.order.client_id)
    stale = replace(done.order, status=OrderStatus.SUBMITTED, venue_order_id=None, filled=D(0))
    books = replace(books, orders=(stale,))
    found = find_discrepancies(books, Account(at=NOW, orders={stale.client_id: told}))
    assert [f.kind for f in found] == ["order status"]
    deliver(desk.ledger, "paper", [f.repair for f in found if f.repair])
    assert state(desk.ledger, "paper") == before
    assert venue_key("BTC/USDT", "1") == "BTC/USDT 1"
