"""A bot on several symbols: one decision for all of them, and at most one order for each."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.desks import PaperDesk, paper_desk
from tradelib.candles.fetch import fetch_candles
from tradelib.candles.store import CandleStore
from tradelib.clock import utc_now
from tradelib.errors import InvalidInput, LeaseLost, NoQuote
from tradelib.research.samples import random_candles
from tradelib.settings import LimitSettings
from tradelib.strategy.targets import columns_of
from tradelib.trading import execution, placing, tables
from tradelib.trading.accounts import load_balances
from tradelib.trading.bots import Bot, add_bot, load_bot, new_bot
from tradelib.trading.decisions import Action, Decision, record_decision
from tradelib.trading.execution import Execution, execute_decision
from tradelib.trading.halts import TradingState, halt_trading, resume_trading
from tradelib.trading.leases import release_lease, take_lease
from tradelib.trading.manual import ManualOrder, place_manual_order
from tradelib.trading.orders import (
    OrderStatus,
    Role,
    Side,
    client_order_id,
    load_orders,
)
from tradelib.trading.positions import load_position
from tradelib.trading.resync import resync
from tradelib.trading.runs import Outcome, Run, finish_run, start_run
from tradelib.trading.targeting import (
    TargetInputs,
    TargetSignal,
    compute_targets,
    load_common,
    read_target_inputs,
    weigh_symbols,
)

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
AT_ONCE = {"interval_minutes": 0, "band": 0.01, "smallest_step": 0.01}
NAME = "basket"


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        desk.reconcile()
        yield desk


def add_basket(desk: PaperDesk, strategy="equal_weight", decision=AT_ONCE, **params) -> Bot:
    bot = new_bot(
        NAME, desk.market.venue, SYMBOLS[0], desk.market.timeframe, strategy, params, decision,
        symbols=SYMBOLS,
    )  # fmt: skip
    add_bot(desk.ledger, bot)
    return bot


def begin(desk: PaperDesk, number: int = 0) -> str:
    """A run that may trade."""
    run = f"run-{number}-{utc_now():%H%M%S%f}"
    start_run(desk.ledger, Run(
        id=run, cycle=None, notebook="test", bot=NAME, notebook_hash="", venue=desk.market.venue,
        parameters={}, as_of=None, git_commit=None, git_clean=None, lock_hash=None, host="test",
        kernel="none", token_hash="", started_at=utc_now(), outcome=Outcome.RUNNING,
    ))  # fmt: skip
    return run


def decide(desk: PaperDesk, store: CandleStore | None = None) -> TargetSignal:
    store = store or desk.fetch(history=5)
    bot, as_of = load_bot(desk.ledger, NAME), desk.venue().fetch_time()
    signal = weigh_symbols(desk.ledger, store, desk.settings.limits, bot, as_of, begin(desk))
    return signal.record(desk.ledger)


def execute(desk: PaperDesk, decision: Decision, venue=None, run="", limits=None) -> Execution:
    return execute_decision(
        desk.ledger, venue or desk.venue(), limits or desk.settings.limits,
        load_bot(desk.ledger, NAME), decision, run or decision.run,
    )  # fmt: skip


def aim(desk: PaperDesk, **weights: float) -> Decision:
    """A decision to move straight to these weights, made as the bot's rules make one."""
    store = desk.fetch(history=5)
    bot, as_of = load_bot(desk.ledger, NAME), desk.venue().fetch_time()
    inputs = read_target_inputs(desk.ledger, store, desk.settings.limits, bot, as_of)
    closes = columns_of(load_common(store, bot, as_of, 1), "close").iloc[-1]
    targets = []
    for symbol in SYMBOLS:
        weight = weights.get(symbol[:3], 0.0)
        share = float(inputs.amounts[symbol]) * closes[symbol] / float(inputs.equity)
        action = Action.HOLD if weight == share else Action.BUY if weight > share else Action.SELL
        fraction = weight - share if weight > share else (share - weight) / share if share else 0
        targets.append({"symbol": symbol, "weight": weight, "share": share, "price": "1",
                        "action": str(action), "fraction": str(fraction)})  # fmt: skip
    run = begin(desk)
    decision = compute_targets(store, bot, as_of, None, run).decision
    return record_decision(
        desk.ledger, replace(decision, action=Action.ADJUST, targets=targets), None
    )


def held(desk: PaperDesk, symbol: str) -> Decimal:
    return load_position(desk.ledger, NAME, symbol).amount


def orders_at_venue(desk: PaperDesk) -> dict[str, int]:
    return {symbol: len(desk.ccxt().fetch_orders(symbol)) for symbol in SYMBOLS}


def test_from_cash_each_symbol_is_bought_by_an_order_of_its_own(desk: PaperDesk):
    add_basket(desk)
    signal = decide(desk)
    assert signal.decision.action == Action.ADJUST
    assert [one["weight"] for one in signal.decision.targets] == [0.8 / 3] * 3
    done = execute(desk, signal.decision)
    assert [outcome.order.status for outcome in done.legs] == [OrderStatus.FILLED] * 3
    assert [outcome.order.leg for outcome in done.legs] == [0, 1, 2]
    assert [outcome.order.client_id for outcome in done.legs] == [
        client_order_id(signal.decision.id, leg) for leg in range(3)
    ]
    assert [outcome.order.symbol for outcome in done.legs] == list(SYMBOLS)
    for outcome in done.legs:
        assert float(outcome.order.cost) == pytest.approx(10_000 * 0.8 / 3, rel=0.01)
    assert desk.reconcile().agrees
    desk.step()
    after = decide(desk).decision
    assert after.reason == "every weight is near its target"
    assert [one["share"] for one in after.targets] == pytest.approx([0.8 / 3] * 3, abs=0.01)


def test_executing_again_sends_nothing(desk: PaperDesk):
    add_basket(desk)
    decision = decide(desk).decision
    first, again = execute(desk, decision), execute(desk, decision)
    assert [one.order for one in again.legs] == [one.order for one in first.legs]
    assert set(orders_at_venue(desk).values()) == {1}


def test_deciding_again_gives_the_decision_that_stands(desk: PaperDesk):
    add_basket(desk)
    first, again = decide(desk).decision, decide(desk).decision
    assert again == first


def test_sales_come_first_and_pay_for_the_purchases(desk: PaperDesk):
    add_basket(desk)
    execute(desk, aim(desk, BTC=0.29, ETH=0.29, SOL=0.29))
    desk.step()
    cash = load_cash(desk)
    # No limit on one symbol here: more is bought than there was cash for.
    limits = LimitSettings(max_position_share=Decimal(1))
    done = execute(desk, aim(desk, BTC=0.6), limits=limits)
    sides = [(o.order.side, o.order.symbol, o.order.status) for o in done.legs]
    assert sides == [
        (Side.SELL, "ETH/USDT", OrderStatus.FILLED),
        (Side.SELL, "SOL/USDT", OrderStatus.FILLED),
        (Side.BUY, "BTC/USDT", OrderStatus.FILLED),
    ]
    assert done.legs[2].order.cost > cash
    assert load_cash(desk) > 0
    assert desk.reconcile().agrees


def load_cash(desk: PaperDesk) -> Decimal:
    return next(
        b.booked for b in load_balances(desk.ledger, desk.market.venue) if b.asset == "USDT"
    )


def test_a_purchase_takes_no_more_than_the_cash_above_the_reserve(desk: PaperDesk):
    add_basket(desk)
    limits = LimitSettings(max_position_share=Decimal(1))
    done = execute(desk, aim(desk, BTC=0.7, ETH=0.7), limits=limits)
    assert [o.order.status for o in done.legs] == [OrderStatus.FILLED] * 2
    assert load_cash(desk) == pytest.approx(Decimal(500), abs=Decimal(10))


def test_the_limits_judge_each_leg_alone(desk: PaperDesk):
    add_basket(desk)
    done = execute(desk, aim(desk, BTC=0.5, ETH=0.2))
    denied, bought = done.legs
    assert denied.order.status == OrderStatus.DENIED
    assert [r.limit_name for r in denied.refusals] == ["PositionShare"]
    assert bought.order.status == OrderStatus.FILLED
    assert done.summary.startswith("BTC/USDT denied: BTC/USDT would be")
    assert orders_at_venue(desk) == {"BTC/USDT": 0, "ETH/USDT": 1, "SOL/USDT": 0}


@pytest.mark.parametrize("state", [TradingState.HALTED, TradingState.REDUCING])
def test_a_halt_stops_every_leg_and_reducing_only_the_purchases(desk: PaperDesk, state):
    add_basket(desk)
    execute(desk, aim(desk, BTC=0.2))
    desk.step()
    halt_trading(desk.ledger, "a test", state=state)
    sold, bought = execute(desk, aim(desk, ETH=0.2)).legs
    expected = OrderStatus.DENIED if state == TradingState.HALTED else OrderStatus.FILLED
    assert (sold.order.status, bought.order.status) == (expected, OrderStatus.DENIED)
    resume_trading(desk.ledger)


class Killed(BaseException):
    """The end of a process, which nothing catches."""


@pytest.mark.parametrize("leg", range(3))
@pytest.mark.parametrize("point", ["before", "planned", "submitted", "sent"])
def test_a_kill_at_any_point_of_any_leg_is_finished_by_the_next_run(
    desk: PaperDesk, monkeypatch, leg, point
):
    add_basket(desk)
    execute(desk, aim(desk, ETH=0.25))
    desk.step()
    decision = aim(desk, BTC=0.25, SOL=0.25)
    kill_at(monkeypatch, leg, point)
    run = begin(desk)
    with pytest.raises(Killed):
        execute(desk, decision, run=run)
    monkeypatch.undo()
    finish_run(desk.ledger, run, Outcome.FAILED, reason="killed")
    before = {
        order.leg: order.client_id for order in load_orders(desk.ledger, decision=decision.id)
    }
    assert len(before) == leg + (point != "before")
    again = execute(desk, decision, run=begin(desk, 1))
    if leg == 0 and point in ("submitted", "sent"):
        # What became of the sale is not known: the purchases wait.
        assert [outcome.order for outcome in again.legs[1:]] == [None, None]
    let_lags_pass(desk)
    execute(desk, decision, run=begin(desk, 2))
    assert desk.reconcile().agrees
    orders = load_orders(desk.ledger, decision=decision.id)
    assert {order.client_id for order in orders} >= set(before.values())
    filled = [order.leg for order in orders if order.status == OrderStatus.FILLED]
    assert sorted(filled) == [0, 1, 2]
    assert orders_at_venue(desk) == {"BTC/USDT": 1, "ETH/USDT": 2, "SOL/USDT": 1}


def let_lags_pass(desk: PaperDesk) -> None:
    """As if the venue's lag had passed since the last order, and reconciliation had looked."""
    long_ago = utc_now() - 2 * desk.venue().visibility_lag
    with desk.ledger.write() as books:
        unsettled = tables.orders.c.status.in_(["SUBMITTED", "UNRESOLVED"])
        books.execute(
            tables.orders.update().where(unsettled).values(sent_at=long_ago, updated_at=long_ago)
        )
    assert desk.reconcile().agrees


def kill_at(monkeypatch, leg: int, point: str) -> None:
    """End the process in the leg of that number: before it is begun, when its order is recorded,
    when it is marked as sent, or when it has been sent and nothing of it is known."""
    seen = iter(range(10))
    if point == "before":
        real = execution._execute
        patched = (execution, "_execute")
    elif point == "planned":
        real = execution.submit_planned
        patched = (execution, "submit_planned")
    else:
        real = placing._send
        patched = (placing, "_send")

    def killing(*arguments):
        if next(seen) != leg:
            return real(*arguments)
        if point == "sent":
            real(*arguments)
        raise Killed

    monkeypatch.setattr(*patched, killing)


def test_a_rebalancing_that_was_cut_short_does_not_wait_for_the_interval(
    desk: PaperDesk, monkeypatch
):
    add_basket(desk, decision={**AT_ONCE, "interval_minutes": 10_000})
    decision = decide(desk).decision
    kill_at(monkeypatch, 1, "before")
    with pytest.raises(Killed):
        execute(desk, decision)
    monkeypatch.undo()
    desk.step()
    rest = decide(desk).decision
    assert [one["action"] for one in rest.targets] == [Action.HOLD, Action.BUY, Action.BUY]
    execute(desk, rest)
    desk.step()
    # Whole now, it is let be; and drifted by what it may be, it waits.
    assert decide(desk).decision.action == Action.HOLD
    assert decide(desk).computed.inputs.last_trade is not None


@pytest.mark.parametrize(
    "limits",
    [LimitSettings(max_open_positions=2), LimitSettings(max_position_share=Decimal("0.1"))],
    ids=["one leg", "all legs"],
)
def test_a_leg_that_a_limit_refuses_waits_for_the_interval(desk: PaperDesk, limits: LimitSettings):
    add_basket(desk, decision={**AT_ONCE, "interval_minutes": 3})
    done = execute(desk, decide(desk).decision, limits=limits)
    assert OrderStatus.DENIED in {outcome.order.status for outcome in done.legs}
    for _ in range(2):
        desk.step()
        waiting = decide(desk).decision
        assert (waiting.action, waiting.reason) == (Action.HOLD, "rebalanced too recently")
    desk.step()
    again = execute(desk, decide(desk).decision)
    assert {outcome.order.status for outcome in again.legs} == {OrderStatus.FILLED}
    assert all(held(desk, symbol) for symbol in SYMBOLS)


def test_legs_that_a_halt_stopped_do_not_wait_for_the_interval(desk: PaperDesk):
    add_basket(desk, decision={**AT_ONCE, "interval_minutes": 10_000})
    halt_trading(desk.ledger, "a test")
    stopped = execute(desk, decide(desk).decision)
    assert {outcome.order.status for outcome in stopped.legs} == {OrderStatus.DENIED}
    resume_trading(desk.ledger)
    desk.step()
    assert decide(desk).decision.action == Action.ADJUST


def test_an_older_decision_does_not_undo_a_newer_one(desk: PaperDesk):
    add_basket(desk)
    old = aim(desk, BTC=0.2)
    desk.step()
    execute(desk, aim(desk, ETH=0.2))
    (late,) = execute(desk, old).legs
    assert [r.limit_name for r in late.refusals] == ["NewestDecision"]


def test_a_decision_grown_old_is_not_ordered(desk: PaperDesk):
    add_basket(desk)
    old = aim(desk, BTC=0.2, ETH=0.2)
    desk.step(4)
    refused = execute(desk, old).legs
    assert {r.limit_name for leg in refused for r in leg.refusals} == {"FreshCandles"}
    assert sum(orders_at_venue(desk).values()) == 0


def test_while_one_symbol_lacks_its_newest_candle_the_last_whole_picture_stands(desk: PaperDesk):
    add_basket(desk)
    store = desk.fetch(history=5)
    first = decide(desk, store).decision
    desk.step()
    fetch_some(desk, store, SYMBOLS[:2])
    assert decide(desk, store).decision == first
    fetch_some(desk, store, SYMBOLS[2:])
    later = decide(desk, store).decision
    assert later.candle_close - first.candle_close == timedelta(minutes=1)


def fetch_some(desk: PaperDesk, store: CandleStore, symbols) -> None:
    venue = desk.venue()
    fetch_candles(
        venue, store, desk.market.venue, symbols, desk.market.timeframe,
        as_of=venue.fetch_time(), history=5,
    )  # fmt: skip


def test_candles_that_all_have_are_found_across_gaps(desk: PaperDesk, tmp_path):
    bot, store = add_basket(desk), CandleStore(tmp_path / "candles")
    whole = random_candles(500, seed=1, timeframe="1m")
    torn = whole.drop(whole.index[100:480])
    for symbol, frame in zip(SYMBOLS, (whole, torn, whole.iloc[50:]), strict=True):
        store.append(bot.venue, symbol, "1m", frame, as_of=utc_now() + timedelta(days=3650))
    as_of = whole.index[-1].to_pydatetime() + timedelta(minutes=1)
    for count, found in ((1, 1), (20, 20), (21, 21), (60, 60), (70, 70), (71, 70), (400, 70)):
        common = load_common(store, bot, as_of, count)
        assert {len(frame) for frame in common.values()} == {found}
        assert common[SYMBOLS[0]].index.equals(torn.loc[whole.index[50] :].index[-count:])


def test_without_candles_nothing_is_decided(desk: PaperDesk, tmp_path):
    add_basket(desk)
    decision = decide(desk, CandleStore(tmp_path / "none")).decision
    assert (decision.action, decision.reason) == (Action.HOLD, "no candles yet")
    assert decision.legs(SYMBOLS[0]) == ()


def test_the_same_candles_give_the_same_weights_live_and_in_research(desk: PaperDesk):
    bot = add_basket(desk, "inverse_volatility", window=30)
    store = desk.fetch(history=200)
    signal = decide(desk, store)
    as_of = signal.as_of
    whole = load_common(store, bot, as_of, 10_000)
    expected = bot.target_rules.weights(whole, bot.strategy_params).iloc[-1]
    assert [one["weight"] for one in signal.decision.targets] == pytest.approx(
        expected.tolist(), abs=1e-12
    )
    assert len(signal.computed.weights) == 31
    again = compute_targets(
        store, bot, signal.decision.candle_close,
        TargetInputs.from_json(json.loads(json.dumps(signal.computed.inputs.to_json()))), "another",
    )  # fmt: skip
    assert again.to_json() == signal.computed.to_json()


def test_manual_orders_for_a_basket_are_in_its_symbols(desk: PaperDesk):
    add_basket(desk)
    wanted = ManualOrder("XRP/USDT", Side.BUY, Decimal(1), bot=NAME)
    with pytest.raises(InvalidInput, match="trades BTC/USDT, ETH/USDT, SOL/USDT, not XRP"):
        place_manual_order(desk.ledger, desk.venue(), desk.settings.limits, wanted, "someone")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"symbols": ("BTC/USDT",)}, "2 to 50 symbols"),
        ({"symbols": ()}, "name them all"),
        ({"stops": {"loss": 0.1}}, "protects a bot on one"),
        ({"decision": {"buy_threshold": 0.2}}, "Unknown parameter 'buy_threshold'"),
        ({"strategy_name": "weighted"}, "those over several symbols"),
    ],
)
def test_a_basket_that_makes_no_sense_is_refused(changes, told):
    plain = {
        "name": NAME, "venue": "paper", "symbol": "BTC/USDT", "timeframe": "1m",
        "strategy_name": "equal_weight", "symbols": SYMBOLS,
    }  # fmt: skip
    with pytest.raises(InvalidInput, match=told):
        new_bot(**(plain | changes))


def test_a_resync_leads_lost_orders_back_to_their_legs(desk: PaperDesk):
    add_basket(desk)
    execute(desk, aim(desk, BTC=0.2, ETH=0.2, SOL=0.2))
    desk.step()
    execute(desk, aim(desk, BTC=0.25, ETH=0.1))
    assert desk.reconcile().agrees
    before, worth = load_orders(desk.ledger), [held(desk, symbol) for symbol in SYMBOLS]
    with desk.ledger.write() as books:
        for table in (tables.fills, tables.order_events, tables.orders, tables.positions):
            books.execute(table.delete())
        books.execute(tables.trade_cursors.delete())
        # Nothing but the bot tells that these were traded.
        books.execute(tables.bots.delete().where(tables.bots.c.name != NAME))
    resync(desk.ledger, desk.venue())
    after = {order.client_id: order for order in load_orders(desk.ledger)}
    assert len(after) == len(before) == 6
    for order in before:
        found = after[order.client_id]
        for name in ("decision", "leg", "attempt", "bot", "symbol", "side", "role", "filled"):
            assert getattr(found, name) == getattr(order, name), name
    assert {order.role for order in before} == {Role.ENTRY, Role.EXIT}
    assert [held(desk, symbol) for symbol in SYMBOLS] == worth
    assert desk.reconcile().agrees


@pytest.mark.parametrize("error", [NoQuote, InvalidInput])
def test_a_symbol_that_is_not_quoted_keeps_no_other_from_being_sold(
    desk: PaperDesk, monkeypatch, error
):
    add_basket(desk)
    execute(desk, aim(desk, BTC=0.2, ETH=0.2))
    desk.step()
    decision, real = aim(desk, SOL=0.2), execution.fetch_prices

    def quote(ledger, venue, symbol, as_of):
        if symbol == "BTC/USDT":
            raise error("Venue paper has nothing for BTC/USDT.")
        return real(ledger, venue, symbol, as_of)

    monkeypatch.setattr(execution, "fetch_prices", quote)
    with pytest.raises(error, match="BTC/USDT"):
        execute(desk, decision)
    assert held(desk, "ETH/USDT") < Decimal("0.001")
    (sold,) = load_orders(desk.ledger, decision=decision.id)
    assert (sold.symbol, sold.leg) == ("ETH/USDT", 1)
    monkeypatch.undo()
    assert [leg.order.status for leg in execute(desk, decision).legs] == [OrderStatus.FILLED] * 3


def test_purchases_wait_while_a_sale_has_no_answer_and_go_when_it_is_known(desk: PaperDesk):
    add_basket(desk)
    execute(desk, aim(desk, ETH=0.2))
    desk.step()
    decision = aim(desk, BTC=0.2)
    lost = [
        {"kind": "accept_then_timeout", "on": "POST order", "count": 1},
        {"kind": "read_lag", "count": 1000},
    ]
    desk.paper.control("faults", script=lost, options={"lag_ms": 60_000})
    sold, bought = execute(desk, decision).legs
    assert (sold.order.status, bought.order) == (OrderStatus.UNRESOLVED, None)
    assert bought.summary == "buy BTC/USDT: not ordered yet"
    desk.paper.control("faults", script=[])
    assert desk.reconcile().agrees
    sold, bought = execute(desk, decision).legs
    assert (sold.order.status, bought.order.status) == (OrderStatus.FILLED, OrderStatus.FILLED)
    assert orders_at_venue(desk) == {"BTC/USDT": 1, "ETH/USDT": 2, "SOL/USDT": 0}


def test_who_loses_the_lease_between_legs_orders_no_more(desk: PaperDesk, monkeypatch):
    add_basket(desk)
    decision, real = aim(desk, BTC=0.2, ETH=0.2), execution.submit_planned

    def take_over(ledger, venue, orders, held):
        done = real(ledger, venue, orders, held)
        release_lease(ledger, held)
        take_lease(ledger, held.name, "another")
        return done

    monkeypatch.setattr(execution, "submit_planned", take_over)
    with pytest.raises(LeaseLost):
        execute(desk, decision)
    assert orders_at_venue(desk) == {"BTC/USDT": 1, "ETH/USDT": 0, "SOL/USDT": 0}
    assert [order.leg for order in load_orders(desk.ledger, decision=decision.id)] == [0]


def test_a_leg_refused_while_positions_may_only_shrink_is_tried_again_after_it(desk: PaperDesk):
    add_basket(desk, decision={**AT_ONCE, "interval_minutes": 10_080})
    halt_trading(desk.ledger, "a test", TradingState.REDUCING)
    refused = execute(desk, decide(desk).decision).legs
    assert {one.limit_name for leg in refused for one in leg.refusals} == {"OnlyReducing"}
    resume_trading(desk.ledger)
    desk.step()
    assert decide(desk).decision.action == Action.ADJUST


def test_a_leg_refused_by_a_limit_of_the_day_is_tried_again_the_next_day(desk: PaperDesk):
    add_basket(desk, decision={**AT_ONCE, "interval_minutes": 10_080})
    limits = desk.settings.limits.model_copy(update={"max_trades_per_day": 0})
    refused = execute(desk, decide(desk).decision, limits=limits).legs
    assert {one.limit_name for leg in refused for one in leg.refusals} == {"TradesPerDay"}
    desk.step()
    assert decide(desk).decision.action == Action.HOLD
    desk.step(24 * 60)
    assert decide(desk).decision.action == Action.ADJUST
