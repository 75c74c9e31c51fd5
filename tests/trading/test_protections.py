"""After trouble entries pause for a while, exits never; the ledger alone says when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.desks import paper_desk
from tests.trading.test_stored_positions import add_order, book, made_fill
from tradelib.clock import utc_now
from tradelib.settings import ProtectionSettings, load_settings
from tradelib.trading import tables
from tradelib.trading.accounts import Equity, record_equity
from tradelib.trading.decisions import Action, Decision, record_decision
from tradelib.trading.ledger import open_ledger
from tradelib.trading.orders import OrderStatus, Role, Side, decision_id
from tradelib.trading.positions import Tranche
from tradelib.trading.protections import (
    Worth,
    active_protections,
    check_protections,
    last_drawdown,
    last_low_profit,
    last_streak,
    protections_for,
)
from tradelib.trading.runs import Outcome, Run, start_run

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SETTINGS = ProtectionSettings(
    drawdown_hours=24, drawdown_cooling_hours=2, stop_streak=2, stop_streak_hours=3,
    stop_streak_cooling_hours=2, low_profit_after=2, low_profit_hours=24,
    low_profit_cooling_hours=2,
)  # fmt: skip
OFF = ProtectionSettings(max_drawdown=1, stop_streak=0, low_profit_after=0)


@pytest.fixture
def ledger(home):
    opened = open_ledger(load_settings(home), migrate=True)
    yield opened
    opened.close()


def hour(number: float) -> datetime:
    return START + number * HOUR


def names(ledger, at: float, settings=SETTINGS):
    found = active_protections(ledger, "v", hour(at), settings)
    return [(one.name, one.bot, one.symbol) for one in found]


def record_worths(ledger, *worths):
    with ledger.write() as books:
        for number, worth in worths:
            value = Equity("v", hour(number), "USDT", Decimal(worth), Decimal(0), {}, None)
            record_equity(books, value)


def test_a_drawdown_pauses_every_entry_until_it_has_cooled(ledger):
    record_worths(ledger, (0, "10000"), (1, "9001"), (2, "9000"), (3, "9500"))
    assert names(ledger, 1.9) == []
    assert names(ledger, 2) == [("MaxDrawdown", None, None)]
    assert names(ledger, 3.9) == [("MaxDrawdown", None, None)]
    assert names(ledger, 4) == []


def test_a_drawdown_lasts_while_the_equity_stays_below_its_peak_of_the_window(ledger):
    record_worths(ledger, *((number, "10000" if number < 2 else "8000") for number in range(40)))
    assert names(ledger, 20) != []
    assert names(ledger, 26.9) != []  # the peak of hour 1 left the window at 25, cooling is 2
    assert names(ledger, 27) == []


def test_what_the_future_holds_strikes_nobody(ledger):
    record_worths(ledger, (0, "10000"), (2, "5000"))
    assert names(ledger, 1) == []


worths = st.lists(st.decimals("1", "100", places=1), min_size=1, max_size=30)


@given(worths, st.integers(1, 30), st.sampled_from(["0.1", "0.5", "0.9"]))
def test_a_drawdown_is_what_a_look_at_every_pair_finds(worths, window, share):
    points = [Worth(hour(n), worth) for n, worth in enumerate(worths)]
    expected = None
    for n, point in enumerate(points):
        peak = max(p.equity for p in points[max(0, n - window) : n + 1])
        if peak - point.equity >= Decimal(share) * peak:
            expected = (point.as_of, 1 - point.equity / peak)
    assert last_drawdown(points, Decimal(share), window * HOUR) == expected


def test_a_streak_is_the_newest_moment_with_so_many_in_the_window():
    times = [hour(n) for n in (0, 1, 5, 6, 7, 20)]
    assert last_streak(times, 3, 2 * HOUR) == hour(7)
    assert last_streak(times, 4, 2 * HOUR) is None
    assert last_streak(times, 1, HOUR) == hour(20)


def add_round(books, number, bot="ann", role=Role.EXIT, price="9", symbol=None):
    """A bot buys 1 at 10 at the hour `number` and sells it half an hour later."""
    trades = ((Side.BUY, Role.ENTRY, "10", 0), (Side.SELL, role, price, 0.5))
    for side, kind, at_price, later in trades:
        order = add_order(books, "v", bot, side, number)
        moved = {"role": kind, **({"symbol": symbol} if symbol else {})}
        books.execute(
            tables.orders.update()
            .where(tables.orders.c.client_id == order.client_id)
            .values(**moved)
        )
        one = made_fill(
            "v", 2 * number + 100 + 2 * later, order, side, Decimal(1), Decimal(at_price)
        )
        moved = {"symbol": symbol} if symbol else {}
        trade_id = str(int(2 * number + 100 + 2 * later))
        book(books, [replace(one, at=hour(number + later), trade_id=trade_id, **moved)])


@pytest.mark.parametrize(
    ("per", "found"),
    [
        ("symbol", [("StopLossStreak", None, "BTC/USDT")]),
        ("account", [("StopLossStreak", None, None)]),
        ("bot", []),
    ],
)
def test_stops_in_a_row_pause_the_entries_they_are_counted_for(ledger, per, found):
    settings = SETTINGS.model_copy(update={"stop_streak_per": per, "low_profit_after": 0})
    with ledger.write() as books:
        add_round(books, 0, "ann", Role.STOP)
        add_round(books, 2, "bob", Role.STOP)
    assert names(ledger, 2, settings) == []
    assert names(ledger, 2.5, settings) == found
    assert names(ledger, 4.4, settings) == found
    assert names(ledger, 4.5, settings) == []


def test_a_bots_own_stops_pause_it_alone(ledger):
    settings = SETTINGS.model_copy(update={"stop_streak_per": "bot", "low_profit_after": 0})
    with ledger.write() as books:
        add_round(books, 0, "ann", Role.STOP)
        add_round(books, 1, "ann", Role.STOP)
        entry = add_order(books, "v", "ann", Side.BUY, 50)
        others = add_order(books, "v", "bob", Side.BUY, 51)
        exit_ = add_order(books, "v", "ann", Side.SELL, 52)
        at = hour(2)
        assert [r.limit_name for r in check_protections(books, entry, at, settings)] == [
            "StopLossStreak"
        ]
        assert check_protections(books, others, at, settings) == ()
        assert check_protections(books, exit_, at, settings) == ()
        assert check_protections(books, entry, at, OFF) == ()


def test_exits_by_choice_are_no_stops(ledger):
    with ledger.write() as books:
        for number in range(3):
            add_round(books, number, price="11")
    assert names(ledger, 3) == []


def test_a_decision_to_stop_counts_like_a_stop_at_the_venue(ledger):
    with ledger.write() as books:
        for number in (0, 1):
            add_round(books, number, price="11")
    for number in (0, 1):
        decision = add_decision(ledger, hour(number), "stop loss")
        with ledger.write() as books:
            books.execute(
                tables.orders.update()
                .where(tables.orders.c.client_id == f"nd-v-ann-sell-{number}")
                .values(decision=decision.id)
            )
    assert names(ledger, 2) == [("StopLossStreak", None, "BTC/USDT")]


def add_decision(ledger, close, reason):
    run = Run(
        id=f"run-{close:%H}", cycle=None, notebook="test", bot="ann", notebook_hash="",
        venue="v", parameters={}, as_of=close, git_commit=None, git_clean=None, lock_hash=None,
        host="test", kernel="none", token_hash="", started_at=utc_now(), outcome=Outcome.RUNNING,
    )  # fmt: skip
    start_run(ledger, run)
    return record_decision(
        ledger,
        Decision(
            id=decision_id("ann", close), bot="ann", candle_close=close, run=run.id,
            action=Action.SELL, fraction=Decimal(1), temperature="FROZEN", reason=reason,
            price=Decimal(1), state={}, decided_at=utc_now(),
        ),
        None,
    )  # fmt: skip


def test_a_symbol_that_loses_pauses_and_the_others_do_not(ledger):
    with ledger.write() as books:
        add_round(books, 0, price="9.5")
        assert names_in(books, 0.5) == []
        add_round(books, 4, "bob", price="9.8")
        add_round(books, 6, "cid", price="8", symbol="ETH/USDT")
        found = names_in(books, 4.5)
    assert found == [("LowProfitSymbol", None, "BTC/USDT")]
    assert names(ledger, 6.4) == found
    assert names(ledger, 6.5) == []


def names_in(books, at):
    order = replace(add_order(books, "v", None, Side.BUY, int(at * 10) + 100), bot="ann")
    refusals = check_protections(books, order, hour(at), SETTINGS)
    return [(refusal.limit_name, None, order.symbol) for refusal in refusals]


sold = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 9), st.integers(-5, 5)), max_size=12
)  # hours, cost, profit


@given(sold, st.integers(1, 4), st.integers(0, 8))
def test_a_low_profit_is_what_a_look_at_every_sale_finds(sold, after, window):
    tranches = [
        Tranche(
            "v", "ann", "BTC/USDT", n, f"nd-{n}", START, amount=Decimal(1), cost=Decimal(cost),
            proceeds=Decimal(cost + profit), exited_at=hour(at),
        )
        for n, (at, cost, profit) in enumerate(sold)
    ]  # fmt: skip
    expected = None
    for at in sorted({at for at, _, _ in sold}):
        judged = [(cost, profit) for then, cost, profit in sold if at - window <= then <= at]
        cost, profit = sum(c for c, _ in judged), sum(p for _, p in judged)
        if len(judged) >= after and profit < Decimal("-0.1") * cost:
            expected = (hour(at), Decimal(profit) / cost)
    assert last_low_profit(tranches, after, Decimal("-0.1"), window * HOUR) == expected


def test_a_loss_within_the_bound_pauses_nothing(ledger):
    with ledger.write() as books:
        add_round(books, 0, price="9.8")
        add_round(books, 4, "bob", price="9.8")
    assert names(ledger, 4.5) == []


def test_what_is_off_is_not_looked_for():
    assert protections_for(OFF) == ()
    assert len(protections_for(ProtectionSettings())) == 3


def test_a_stop_on_the_paper_exchange_pauses_entries_and_no_exit(home):
    with paper_desk(home) as desk:
        settings = ProtectionSettings(stop_streak=1)
        limits = desk.settings.limits.model_copy(update={"protections": settings})
        desk = replace(desk, settings=desk.settings.model_copy(update={"limits": limits}))
        bot = desk.bot
        desk.reconcile()
        desk.trade(Action.BUY, "0.2")
        desk.trade(Action.SELL, "0.5")
        with desk.ledger.write() as books:
            books.execute(tables.decisions.update().values(reason="stop loss"))
        (found,) = active_protections(desk.ledger, bot.venue, desk.venue().fetch_time(), settings)
        assert (found.name, found.symbol) == ("StopLossStreak", bot.symbol)
        assert found.until == found.struck_at + timedelta(hours=4)

        entry = desk.trade(Action.BUY)
        assert entry.order.status == OrderStatus.DENIED
        (refusal,) = entry.refusals
        assert refusal.limit_name == "StopLossStreak"
        assert refusal.reason.startswith(f"{bot.symbol}: 1 exits by a stop within 24 h")
        assert desk.trade(Action.SELL, "1").order.status == OrderStatus.FILLED
