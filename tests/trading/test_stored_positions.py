"""Stored positions are what a fold over all fills gives, whenever and however often they come."""

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, localcontext
from itertools import count
from pathlib import Path
from time import perf_counter

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

import tradelib.trading.ledger as ledger_module
from tests.desks import PaperDesk, paper_desk
from tradelib.settings import load_settings
from tradelib.trading import tables
from tradelib.trading.bots import load_bots
from tradelib.trading.decisions import Action
from tradelib.trading.ledger import Ledger, insert, open_ledger, rows
from tradelib.trading.orders import (
    ZERO,
    Fill,
    Order,
    OrderStatus,
    Side,
    insert_order,
    load_fills,
    unknown_fills,
)
from tradelib.trading.positions import (
    PositionStatus,
    Tranche,
    account_positions,
    book_positions,
    bot_position,
    compute_position,
    find_positions,
    load_position,
    load_positions,
    load_tranches,
    position_differences,
    refold_positions,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
SYMBOL = "BTC/USDT"


@pytest.fixture
def ledger(home):
    opened = open_ledger(load_settings(home), migrate=True)
    yield opened
    opened.close()


def add_order(books, venue, bot, side, number) -> Order:
    order = Order(
        client_id=f"nd-{venue}-{bot}-{side}-{number}", decision=None, run=None, bot=bot,
        venue=venue, symbol=SYMBOL, side=side, type="market", amount=Decimal(1),
        limit_price=None, expected_price=Decimal(1), status=OrderStatus.FILLED, as_of=START,
        created_at=START, updated_at=START,
    )  # fmt: skip
    insert_order(books, order)
    return order


def made_fill(venue, number, order, side, amount, price, fee=ZERO, currency="USDT") -> Fill:
    return Fill(
        venue, SYMBOL, str(number), order.client_id if order else None,
        order.client_id if order else f"theirs-{side}-{number % 3}", side, amount, price,
        amount * price, fee, currency, START + timedelta(minutes=number // 2),
    )  # fmt: skip


def book(books, fills) -> list[Fill]:
    """Book fills as the desk does: those that are new, in one go."""
    new = unknown_fills(books, fills)
    for one in new:
        insert(books, tables.fills, one)
    book_positions(books, new)
    return new


def stored(books, venue):
    """All that is stored of a venue's positions, every purchase included."""
    query = select(tables.tranches).where(tables.tranches.c.venue == venue)
    query = query.order_by(*tables.tranches.primary_key.columns)
    return find_positions(books, venue=venue), rows(books, query, Tranche)


BOTS = ("ann", "bob", None)
amounts = st.decimals("0.00001", "100", places=5)
prices = st.decimals("0.01", "100000", places=2)
fees = st.tuples(st.decimals("0", "0.00001", places=8), st.sampled_from(["BTC", "USDT", "BNB"]))
trades = st.lists(
    st.tuples(st.sampled_from(BOTS), st.sampled_from(Side), amounts, prices, fees,
              st.integers(0, 2)),
    max_size=14,
)  # fmt: skip
venues = count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One ledger for all examples; each has a venue of its own."""
    opened = Ledger(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.sqlite'}")
    opened.migrate()
    yield opened
    opened.close()


def made(books, venue, trades) -> dict[str, list[Fill]]:
    """Fills by bot, of up to three orders a side each."""
    orders = {
        (bot, side, number): add_order(books, venue, bot, side, number)
        for bot in ("ann", "bob") for side in Side for number in range(3)
    }  # fmt: skip
    fills = {"ann": [], "bob": [], "": []}
    for number, (bot, side, amount, price, (fee, currency), of) in enumerate(trades, 95):
        order = orders.get((bot, side, of))
        fills[bot or ""].append(made_fill(venue, number, order, side, amount, price, fee, currency))
    return fills


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(trades, st.randoms(use_true_random=False))
def test_fills_that_come_late_twice_and_out_of_order_make_the_same_positions(
    shared, trades, random
):
    venue = f"v{next(venues)}"
    with shared.write() as books:
        fills = made(books, venue, trades)
        heard = [one for group in fills.values() for one in group] * 2
        if random.random() < 0.7:
            random.shuffle(heard)
        else:
            heard.sort(key=lambda one: int(one.trade_id))
        while heard:
            size = random.randint(1, 4)
            book(books, heard[:size])
            heard = heard[size:]
        found, purchases = stored(books, venue)
        for position in found:
            pure = compute_position(SYMBOL, fills[position.bot], venue=venue, bot=position.bot)
            mine = [t for t in purchases if t.bot == position.bot]
            assert tuple(mine) == pure.tranches
            assert position.tranches == tuple(t for t in pure.tranches if t.left > 0)
            assert vars(position) | {"tranches": ()} == vars(pure) | {"tranches": ()}
        assert {p.bot for p in found} == {bot for bot, group in fills.items() if group}
        assert_conserved(found, [one for group in fills.values() for one in group])
        refold_positions(books)
        assert stored(books, venue) == (found, purchases)
        books.execute(tables.fills.delete())  # what the next example refolds is its own
        books.execute(tables.positions.delete())


def assert_conserved(positions, fills):
    """Bots' positions and what is nobody's are the account's fills, to the last digit."""
    total: dict[str, Decimal] = {}
    with localcontext(Context(prec=200)):
        for changes in [p.asset_changes() for p in positions]:
            for asset, change in changes.items():
                total[asset] = total.get(asset, ZERO) + change
        for changes in [f.asset_changes() for f in fills]:
            for asset, change in changes.items():
                total[asset] = total.get(asset, ZERO) - change
    assert not any(total.values())


def test_a_booking_costs_the_same_whatever_the_history_holds(ledger):
    with ledger.write() as books:
        buy = add_order(books, "v", "ann", Side.BUY, 0)
        for number in range(100, 2100):
            order = buy if number == 100 else add_order(books, "v", "ann", Side.BUY, number)
            insert(
                books, tables.fills, made_fill("v", number, order, Side.BUY, Decimal(1), Decimal(9))
            )
        refold_positions(books)
        seen: list[str] = []
        watch = books.connection.dbapi_connection
        watch.set_trace_callback(seen.append)
        order = add_order(books, "v", "ann", Side.SELL, 0)
        began = perf_counter()
        book(books, [made_fill("v", 3000, order, Side.SELL, Decimal("2.5"), Decimal(10))])
        took = perf_counter() - began
        watch.set_trace_callback(None)
        position = bot_position(books, "ann", SYMBOL, "v")
    assert not [query for query in seen if "FROM fills" in query and "trade_id =" not in query]
    assert sum("INSERT INTO tranches" in query for query in seen) == 3
    assert took < 0.05
    assert (position.amount, position.realised) == (Decimal("1997.5"), Decimal("2.5"))


def test_a_sale_may_take_more_purchases_than_are_read_at_once(ledger, monkeypatch):
    monkeypatch.setattr("tradelib.trading.positions._PAGE", 3)
    with ledger.write() as books:
        for number in range(10):
            order = add_order(books, "v", "ann", Side.BUY, number)
            book(books, [made_fill("v", 100 + number, order, Side.BUY, Decimal(1), Decimal(9))])
        order = add_order(books, "v", "ann", Side.SELL, 0)
        book(books, [made_fill("v", 200, order, Side.SELL, Decimal("7.5"), Decimal(9))])
        position = bot_position(books, "ann", SYMBOL, "v")
    assert [tranche.number for tranche in position.tranches] == [7, 8, 9]
    assert (position.amount, position.entries) == (Decimal("2.5"), 10)


def test_an_older_ledger_gets_the_positions_of_its_fills(home):
    url = f"sqlite:///{home / 'ledger.sqlite'}"
    old = Ledger(url)
    upgrade(old, "0002")
    with old.write() as books:
        order = add_order(books, "paper", "ann", Side.BUY, 0)
        mine = made_fill("paper", 100, order, Side.BUY, Decimal(2), Decimal(10))
        theirs = made_fill("paper", 101, None, Side.BUY, Decimal(3), Decimal(10))
        for one in (mine, theirs):
            insert(books, tables.fills, one)
    old.close()
    with open_ledger(load_settings(home), migrate=True).read() as books:
        found = find_positions(books, venue="paper")
    assert [(p.bot, p.amount, p.cost) for p in found] == [("", 3, 30), ("ann", 2, 20)]


def upgrade(ledger: Ledger, revision: str) -> None:
    config = Config()
    folder = Path(ledger_module.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    with ledger.write() as books:
        config.attributes["connection"] = books
        command.upgrade(config, revision)


def test_an_order_that_a_person_placed_for_a_bot_counts_for_the_bot(ledger):
    with ledger.write() as books:
        order = add_order(books, "paper", "ann", Side.BUY, 0)
        assert order.decision is None
        book(books, [made_fill("paper", 100, order, Side.BUY, Decimal(2), Decimal(10))])
    assert load_position(ledger, "ann", SYMBOL, "paper").amount == 2


def test_a_bot_without_a_trade_holds_nothing(ledger):
    found = load_position(ledger, "nobody", SYMBOL)
    assert (found.amount, found.status(None, None)) == (0, PositionStatus.CLOSED)


# On the paper exchange.


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        desk.reconcile()
        yield desk


def two_bots_on_one_symbol(desk: PaperDesk):
    """The desk's first two bots, the second moved to the symbol of the first."""
    first, second = load_bots(desk.ledger)[:2]
    with desk.ledger.write() as books:
        books.execute(
            tables.bots.update()
            .where(tables.bots.c.name == second.name)
            .values(symbol=first.symbol)
        )
    return load_bots(desk.ledger)[:2]


def test_bots_on_one_symbol_keep_their_own_and_strangers_keep_the_rest(desk: PaperDesk):
    first, second = two_bots_on_one_symbol(desk)
    bought = [desk.execute(desk.decide(Action.BUY, "0.1", bot)).order for bot in (first, second)]
    desk.ccxt().create_order(first.symbol, "market", "buy", 0.01)
    desk.step()
    desk.execute(desk.decide(Action.SELL, "1", second))
    assert desk.reconcile().agrees

    mine = load_position(desk.ledger, first.name, first.symbol)
    gone = load_position(desk.ledger, second.name, second.symbol)
    assert 0 < mine.amount <= bought[0].filled
    assert gone.status(Decimal(60_000), Decimal(10_000)) == PositionStatus.CLOSED
    account = account_positions(desk.ledger, desk.market.venue)
    assert account.differences == ()
    base = next(share for share in account.shares if share.asset == first.base)
    held = desk.venue().fetch_balances()[first.base]
    assert base.booked == base.assigned + base.unassigned == held.free + held.used
    assert base.assigned == mine.amount + gone.amount
    assert_conserved(load_positions(desk.ledger, venue=desk.market.venue), load_fills(desk.ledger))
    assert [t.entry for t in load_tranches(desk.ledger, bot=first.name)] == [bought[0].client_id]


def test_coins_of_a_bot_that_somebody_else_sold_are_a_named_difference(desk: PaperDesk):
    order = desk.trade(Action.BUY).order
    desk.ccxt().create_order(order.symbol, "market", "sell", float(order.filled) / 2)
    desk.reconcile()
    with desk.ledger.read() as books:
        (found,) = position_differences(books, desk.market.venue)
    assert (found.asset, found.bots) == (order.symbol.split("/")[0], (desk.bot.name,))
    assert found.excess > 0
