"""A plan's entries are the same live, from the ledger's fills, as in a backtest's fold."""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache

import pytest

from tests.conftest import require
from tests.desks import paper_desk
from tests.replays import REAL
from tests.trading.test_stored_positions import book
from tradelib.candles.files import read_candle_file
from tradelib.candles.store import CandleStore
from tradelib.clock import from_ms, timeframe_ms, to_ms, utc_now
from tradelib.research.backtest import compiled_fold, fold_inputs, fold_plainly
from tradelib.settings import LimitSettings, load_settings
from tradelib.strategy.decision import ENTRY_PLANS, reason_text
from tradelib.trading.accounts import Balance, book_fills, save_balance
from tradelib.trading.bots import Bot, BotStatus, add_bot, new_bot, update_bot
from tradelib.trading.deciding import load_purse, score_bot
from tradelib.trading.decisions import Action, Decision
from tradelib.trading.ledger import Ledger, open_ledger
from tradelib.trading.orders import (
    ZERO,
    Fill,
    Order,
    OrderStatus,
    Side,
    client_order_id,
    insert_order,
)
from tradelib.trading.positions import PositionStatus, load_position, load_tranches
from tradelib.trading.runs import Outcome, Run, start_run

START, WARM, STEPS = 3600, 600, 110
CASH = Decimal(10_000)


@cache
def candles():
    require(REAL.exists(), "the shared candles are not here")
    return read_candle_file(REAL).frame.iloc[START : START + WARM + STEPS]


def planned_bot(entry_plan: str) -> Bot:
    decision = {
        "entry_plan": entry_plan, "tranches": 3, "tranche_spacing": 0.004,
        "buy_threshold": 0.05, "sell_threshold": -0.1, "confirmation_minutes": 60,
        "cooldown_minutes": 120, "smallest_step": 0.005,
    }  # fmt: skip
    return new_bot("planned", "coinbase", "BTC/USD", "1h", "weighted", decision=decision)


def begin_run(ledger: Ledger, name: str) -> str:
    run = Run(
        id=name, cycle=None, notebook="test", bot=None, notebook_hash="", venue=None,
        parameters={}, as_of=None, git_commit=None, git_clean=None, lock_hash=None, host="test",
        kernel="none", token_hash="", started_at=utc_now(), outcome=Outcome.RUNNING,
    )  # fmt: skip
    start_run(ledger, run)
    return name


@pytest.fixture
def books(home):
    """A ledger with cash, a store with the candles and a run that goes on."""
    settings = load_settings(home)
    ledger, store = open_ledger(settings, migrate=True), CandleStore(settings.candles)
    store.append("coinbase", "BTC/USD", "1h", candles(), as_of=datetime(2030, 1, 1, tzinfo=UTC))
    with ledger.write() as connection:
        save_balance(connection, Balance("coinbase", "USD", CASH, CASH, ZERO, utc_now()))
    begin_run(ledger, "run")
    yield ledger, store
    ledger.close()


def live_decisions(ledger: Ledger, store: CandleStore, bot: Bot) -> list[Decision]:
    """Decide at each close as the desk does, and fill at the next candle's open, without fees."""
    length = timeframe_ms(bot.timeframe)
    decided: list[Decision] = []
    for time, opened in candles()["open"].iloc[WARM:].items():
        if decided and decided[-1].action != Action.HOLD:
            fill_decision(ledger, store, bot, decided[-1], time, Decimal(repr(float(opened))))
        close = from_ms(to_ms(time.to_pydatetime()) + length)
        decided.append(
            score_bot(ledger, store, LimitSettings(), bot, close, "run").record(ledger).decision
        )
    return decided


def fill_decision(
    ledger: Ledger, store: CandleStore, bot: Bot, decision: Decision, time, price: Decimal
) -> None:
    purse = load_purse(ledger, store, bot, decision.candle_close)
    side = Side.BUY if decision.action == Action.BUY else Side.SELL
    amount = (
        min(purse.equity * decision.fraction, purse.cash) / price
        if side is Side.BUY
        else purse.position.amount * decision.fraction
    )
    at = time.to_pydatetime()
    order = Order(
        client_id=client_order_id(decision.id), decision=decision.id, run="run", bot=bot.name,
        venue=bot.venue, symbol=bot.symbol, side=side, type="market", amount=amount,
        limit_price=None, expected_price=price, status=OrderStatus.FILLED, as_of=at,
        created_at=at, updated_at=at,
    )  # fmt: skip
    fill = Fill(
        bot.venue, bot.symbol, str(int(at.timestamp())), order.client_id, "1", side, amount,
        price, amount * price, ZERO, bot.quote, at,
    )  # fmt: skip
    with ledger.write() as connection:
        insert_order(connection, order)
        book_fills(connection, book(connection, [fill]))


@pytest.mark.parametrize("entry_plan", ENTRY_PLANS)
def test_live_and_backtest_make_the_same_entries_on_real_candles(books, entry_plan):
    ledger, store = books
    bot = planned_bot(entry_plan)
    add_bot(ledger, bot)
    decided = live_decisions(ledger, store, bot)

    scores = bot.rules.score(candles(), bot.strategy_params)
    inputs = fold_inputs(candles().iloc[WARM:], "1h", scores.iloc[WARM:])
    arguments = (*inputs, bot.decision_params.step(), 0.0, float(CASH))
    _, taken, _ = fold_plainly(*arguments)
    for fast, plain in zip(compiled_fold()(*arguments), fold_plainly(*arguments), strict=True):
        assert fast.tobytes() == plain.tobytes()

    actions = {Action.BUY: 1, Action.SELL: -1, Action.HOLD: 0}
    live = [(actions[d.action], d.reason) for d in decided]
    assert live == [(int(row[0]), reason_text(int(row[3]))) for row in taken]
    for decision, row in zip(decided, taken, strict=True):
        assert float(decision.fraction) == pytest.approx(row[1], rel=1e-9, abs=1e-12)
    counted = Counter(decision.action for decision in decided)
    assert counted[Action.BUY] >= 4
    assert counted[Action.SELL] >= 3
    assert len(load_tranches(ledger, bot=bot.name)) >= 4


def test_a_position_is_building_until_its_plan_is_whole(home):
    with paper_desk(home) as desk:
        desk.reconcile()
        bot = new_bot(
            desk.bot.name, desk.bot.venue, desk.bot.symbol, desk.bot.timeframe, "buy_and_hold",
            decision={
                "entry_plan": "pyramid_up", "tranches": 2, "tranche_spacing": 0,
                "confirmation_minutes": 0, "cooldown_minutes": 0,
            },
            status=BotStatus.RUNNING,
        )  # fmt: skip
        update_bot(desk.ledger, bot)
        seen = []
        for _ in range(3):
            store, now = desk.fetch(history=50), desk.venue().fetch_time()
            run = begin_run(desk.ledger, f"run-{now:%H%M}")
            signal = score_bot(desk.ledger, store, desk.settings.limits, bot, now, run)
            signal = signal.record(desk.ledger)
            desk.execute(signal.decision)
            purse = load_purse(desk.ledger, store, bot, now)
            position, price = (
                load_position(desk.ledger, bot.name, bot.symbol),
                signal.decision.price,
            )
            status = position.status(price, purse.equity, entries=bot.decision_params.entries)
            seen.append((signal.decision.reason, status, len(position.tranches)))
            desk.step()
        assert seen == [
            ("confirmed buy signal", PositionStatus.BUILDING, 1),
            ("confirmed buy signal", PositionStatus.OPEN, 2),
            ("all entries of the plan are made", PositionStatus.OPEN, 2),
        ]
        small, large = reversed(load_tranches(desk.ledger, bot=bot.name))
        assert 1.9 < large.paid / small.paid < 2.1
