"""A bot on several symbols decides live, close by close, what its backtest decides."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from tests.trading.test_entry_plans import begin_run
from tradelib.candles.store import CandleStore
from tradelib.clock import timeframe_ms, to_ms, utc_now
from tradelib.research.samples import load_samples
from tradelib.research.target_backtest import fold_inputs, fold_plainly
from tradelib.settings import LimitSettings, load_settings
from tradelib.strategy.rebalance import rebalance_reason
from tradelib.strategy.targets import align_candles
from tradelib.trading import tables
from tradelib.trading.accounts import Balance, book_fills, load_balances, save_balance
from tradelib.trading.bots import Bot, add_bot, new_bot
from tradelib.trading.decisions import Action, Decision
from tradelib.trading.ledger import Ledger, insert, open_ledger
from tradelib.trading.orders import (
    ZERO,
    Fill,
    Order,
    OrderStatus,
    Side,
    client_order_id,
    insert_order,
)
from tradelib.trading.positions import book_positions, load_position
from tradelib.trading.targeting import read_target_inputs, weigh_symbols

CASH = Decimal(10_000)
START, COUNT = 80, 160
SAMPLES = {sample.symbol: sample.frame for sample in load_samples((), count=COUNT, seed=5)}
# One of them lacks candles here and there.
SAMPLES["WALK2/USD"] = SAMPLES["WALK2/USD"].drop(SAMPLES["WALK2/USD"].index[100:103])
RULES = {"band": 0.008, "smallest_step": 0.004, "interval_minutes": 180, "cash_reserve": 0.05}
CHOICES = [
    ("equal_weight", {"invested": 0.9}),
    ("inverse_volatility", {"window": 24}),
    ("top_momentum", {"window": 24, "top": 2}),
]


@pytest.fixture
def books(home):
    settings = load_settings(home)
    ledger, store = open_ledger(settings, migrate=True), CandleStore(settings.candles)
    for symbol, frame in SAMPLES.items():
        store.append("v", symbol, "1h", frame, as_of=datetime(2040, 1, 1, tzinfo=UTC))
    with ledger.write() as connection:
        save_balance(connection, Balance("v", "USD", CASH, CASH, ZERO, utc_now()))
    begin_run(ledger, "run")
    yield ledger, store
    ledger.close()


def live_decisions(ledger: Ledger, store: CandleStore, bot: Bot) -> list[Decision]:
    """Decide at each common close as the desk does, and fill at the next common open, no fees."""
    decided: list[Decision] = []
    common = align_candles(SAMPLES)
    index = next(iter(common.values())).index[START:]
    for time in index:
        if decided:
            fill_legs(ledger, store, bot, decided[-1], time)
        close = (time + pd.Timedelta(milliseconds=timeframe_ms("1h"))).to_pydatetime()
        signal = weigh_symbols(ledger, store, LimitSettings(), bot, close, "run")
        decided.append(signal.record(ledger).decision)
    return decided


def fill_legs(ledger, store, bot: Bot, decision: Decision, time: pd.Timestamp) -> None:
    inputs = read_target_inputs(ledger, store, LimitSettings(), bot, decision.candle_close)
    for leg in decision.legs(""):
        price = Decimal(repr(float(SAMPLES[leg.symbol]["open"][time])))
        side = Side.SELL if leg.action == Action.SELL else Side.BUY
        amount = (
            load_position(ledger, bot.name, leg.symbol).amount * leg.fraction
            if side is Side.SELL
            else inputs.equity * leg.fraction / price
        )
        book(ledger, bot, decision, leg.number, leg.symbol, side, amount, price, time)


def book(ledger, bot, decision, leg, symbol, side, amount, price, time) -> None:
    # Live orders take their time; they still belong to the candle whose open a backtest fills at.
    at, name = time.to_pydatetime() + timedelta(seconds=40), client_order_id(decision.id, leg)
    order = Order(
        client_id=name, decision=decision.id, run="run", bot=bot.name, venue=bot.venue,
        symbol=symbol, side=side, type="market", amount=amount, limit_price=None,
        expected_price=price, status=OrderStatus.FILLED, as_of=at, created_at=at, updated_at=at,
        leg=leg,
    )  # fmt: skip
    fill = Fill(
        bot.venue, symbol, f"{to_ms(at)}{leg}", name, name, side, amount, price, amount * price,
        ZERO, "USD", at,
    )  # fmt: skip
    with ledger.write() as books:
        insert_order(books, order)
        insert(books, tables.fills, fill)
        book_fills(books, [fill])
        book_positions(books, [fill])


@pytest.mark.parametrize(("name", "params"), CHOICES)
def test_live_and_backtest_decide_alike(books, name, params):
    ledger, store = books
    symbols = tuple(SAMPLES)
    bot = new_bot("basket", "v", symbols[0], "1h", name, params, RULES, symbols=symbols)
    add_bot(ledger, bot)
    decided = live_decisions(ledger, store, bot)

    common = align_candles(SAMPLES)
    weights = bot.target_rules.weights(common, bot.strategy_params)
    later = {symbol: frame.iloc[START:] for symbol, frame in common.items()}
    inputs = fold_inputs(later, "1h", weights.iloc[START:])
    equity, shares, actions, reasons, _ = fold_plainly(*inputs, bot.rebalancing.step(), 0.0, 1e4)

    assert [d.reason for d in decided] == [rebalance_reason(int(code)) for code in reasons]
    codes = {Action.BUY: 1, Action.SELL: -1, Action.HOLD: 0}
    for row, decision in enumerate(decided):
        assert [codes[one["action"]] for one in decision.targets] == actions[row].tolist()
        live = [one["share"] for one in decision.targets]
        assert live == pytest.approx(shares[row].tolist(), rel=1e-9, abs=1e-9)
    assert Counter(d.action for d in decided)[Action.ADJUST] >= 4
    worth = {balance.asset: balance.booked for balance in load_balances(ledger, "v")}
    last = [common[symbol]["close"].iloc[-1] for symbol in symbols]
    held = np.array([float(worth[symbol.split("/")[0]]) for symbol in symbols])
    assert float(worth["USD"]) + held @ last == pytest.approx(equity[-1], rel=1e-9)
