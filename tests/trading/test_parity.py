"""Live against the backtest: nothing differs where nothing went wrong, and what did go wrong is
named where it arose, with what it cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.conftest import require
from tests.replays import BINANCE, seeded_file
from tradelib.candles.files import read_candle_file
from tradelib.candles.store import CandleStore
from tradelib.cli.stepped import BotPlan, check, rehearsal, run_in_process, run_pages
from tradelib.clock import timeframe_ms
from tradelib.paper.filed import FileMarket
from tradelib.research.backtest import run_backtest
from tradelib.research.fills import venue_fills
from tradelib.strategy.decision import DecisionParams, DecisionState
from tradelib.strategy.registry import strategy
from tradelib.trading.backtested import find_mismatches
from tradelib.trading.decisions import Action
from tradelib.trading.expected import Standing, make_course, walk
from tradelib.trading.halts import halt_trading, resume_trading
from tradelib.trading.incidents import LIVE_DIFFERS, load_incidents
from tradelib.trading.live_steps import load_live
from tradelib.trading.orders import load_fills
from tradelib.trading.parity import Cause, Gap, Parity, compare
from tradelib.trading.parity_check import check_bot, keep_incident
from tradelib.trading.positions import Position
from tradelib.trading.risk import Refusal
from tradelib.venue import Instrument

ALL_IN = {"hot_size": 1.0, "warm_size": 1.0, "cool_size": 1.0}
QUICK = {"confirmation_minutes": 0, "cooldown_minutes": 0}
PLANS = {
    "all in at once": BotPlan("momentum", {"window": 8}, {**ALL_IN, **QUICK}),
    "equal parts, stopped": BotPlan(
        "momentum", {"window": 5, "full": 1.0},
        {**QUICK, "stop_loss": 0.002, "entry_plan": "equal", "tranche_spacing": 0.0005},
    ),
    "growing parts": BotPlan(
        "mean_reversion", {},
        {**ALL_IN, **QUICK, "entry_plan": "pyramid_up", "tranche_spacing": 0.0005},
    ),
    "shrinking parts, confirmed": BotPlan(
        "momentum", {"window": 6},
        {**ALL_IN, "confirmation_minutes": 1, "cooldown_minutes": 3,
         "entry_plan": "pyramid_down", "tranche_spacing": 0.0005},
    ),
    "as the price moves": BotPlan(
        "momentum", {"window": 5, "full": 1.5},
        {**ALL_IN, "confirmation_minutes": 0, "cooldown_minutes": 2, "entry_plan": "adaptive",
         "tranches": 5, "tranche_spacing": 0.0005},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return seeded_file(tmp_path_factory.mktemp("candles"), hours=12)


def run_for(desk, candles: int) -> None:
    for _ in run_in_process(desk, candles):
        pass


@pytest.mark.parametrize("name", PLANS)
def test_every_value_of_the_live_path_is_the_backtests(home, file, name):
    with rehearsal(home, file, PLANS[name]) as desk:
        assert len(list(run_in_process(desk, 200))) == 200
        found = check(desk)
    assert found.mismatches == ()
    assert found.decisions == found.candles == 200
    assert found.fills > 10
    assert found.equity == found.backtest


def test_orders_that_walk_a_thin_book_or_lack_the_cash_end_as_in_the_backtest(home):
    require(BINANCE, "the candle files of real markets are not here")
    with rehearsal(home, BINANCE[0], PLANS["all in at once"]) as desk:
        run_for(desk, 150)
        found = check(desk)
    assert found.mismatches == ()
    assert found.fills > found.orders - found.refused > 3
    assert found.refused > 0


def test_so_is_every_value_of_the_live_notebooks(home, file):
    with rehearsal(home, file, PLANS["equal parts, stopped"]) as desk:
        assert len(list(run_pages(desk, 20))) == 20
        found = check(desk)
    assert found.mismatches == ()
    assert found.decisions == found.candles == 20
    assert found.fills > 0


@pytest.mark.parametrize("name", PLANS)
def test_what_is_expected_in_decimals_is_the_compiled_backtest(file, name):
    plan, told = PLANS[name], read_candle_file(file)
    market = FileMarket([file])
    rules = rules_of(market, told.symbol)
    rows = strategy(plan.strategy)
    candles = rounded(told.frame)
    scores = rows.score(candles, rows.params(**plan.parameters))["score"].tolist()
    params = DecisionParams(**plan.decision)
    length = timedelta(milliseconds=timeframe_ms(told.timeframe))
    course = make_course(
        candles, range(len(candles)), length, rules, scores, [params.step()] * len(candles)
    )
    start = Standing(DecisionState(), Decimal(10_000), Position(told.symbol))
    done = list(walk(course, 0, start))
    tested = run_backtest(
        candles, told.timeframe, rows, rows.params(**plan.parameters), params,
        fills=venue_fills(rules),
    )  # fmt: skip
    assert [float(one.choice.equity) for one in done] == tested.equity.tolist()
    assert [float(one.choice.fraction) for one in done] == tested.decisions["fraction"].tolist()
    assert [one.choice.reason for one in done] == tested.decisions["reason"].tolist()
    assert len(tested.trades) > 30


def rules_of(market: FileMarket, symbol: str) -> Instrument:
    (own,) = market.instruments
    fee = Decimal("0.001")
    return Instrument(
        symbol, own.base, own.quote, own.tick, own.step, own.step, None, own.min_notional, True,
        fee, fee,
    )  # fmt: skip


def rounded(frame):
    return frame.round(8)


# A bot that met with misfortune


@pytest.fixture(scope="module")
def lived(tmp_path_factory, file):
    """300 candles, of which five were missed and 60 lay under a halt."""
    with rehearsal(tmp_path_factory.mktemp("desk"), file, PLANS["as the price moves"]) as desk:
        run_for(desk, 100)
        desk.step(5)
        run_for(desk, 60)
        halt_trading(desk.ledger, "a test")
        run_for(desk, 60)
        resume_trading(desk.ledger)
        run_for(desk, 75)
        yield desk


@pytest.fixture(scope="module")
def parts(lived):
    """What `compare` takes."""
    bot = lived.bot
    return (
        bot,
        load_live(lived.ledger, bot.name),
        CandleStore(lived.settings.candles).load(bot.venue, bot.symbol, bot.timeframe),
        lived.venue().fetch_instrument(bot.symbol),
        load_fills(lived.ledger, bot=bot.name),
    )


def test_missed_candles_and_refusals_are_named_with_what_they_cost(parts):
    found = compare(*parts)
    (missed,) = [gap for gap in found.gaps if gap.what == "5 candles"]
    assert (missed.cause, missed.live) == (Cause.TIMING, "missed")
    refused = [gap for gap in found.gaps if gap.cause is Cause.REFUSAL]
    assert {gap.live for gap in refused} == {"NotHalted"}
    assert found.costs().keys() == {Cause.TIMING, Cause.REFUSAL}
    assert found.residue == 0
    assert found.difference != 0
    assert found.curve[-1].live == float(found.equity)
    assert found.curve[-1].backtest == float(found.backtest)


def test_a_candle_that_was_revised_since_is_a_gap_of_data(parts):
    bot, live, candles, rules, fills = parts
    before = compare(bot, live, candles, rules, fills).costs()
    changed = candles.copy()
    row = candles.index.get_loc(live[40].close) - 1
    changed.iloc[row, changed.columns.get_loc("close")] *= 1.0001
    changed["high"] = changed[["high", "close"]].max(axis=1)
    found = compare(bot, live, changed, rules, fills)
    first = next(gap for gap in found.gaps if gap.cause is Cause.DATA)
    assert first.close == live[40].close
    assert Cause.DATA not in before
    assert Cause.SIGNAL not in found.costs()


def test_another_decision_on_the_same_candles_is_a_gap_of_signal(parts):
    bot, live, candles, rules, fills = parts
    place = next(n for n, step in enumerate(live) if step.decision.action == Action.HOLD and n > 30)
    odd = replace(live[place].decision, action=Action.SELL, fraction=Decimal("0.5"))
    changed = [*live[:place], replace(live[place], decision=odd), *live[place + 1 :]]
    found = compare(bot, changed, candles, rules, fills)
    (gap,) = [gap for gap in found.gaps if gap.cause is Cause.SIGNAL]
    assert (gap.close, gap.what) == (live[place].close, "decision")
    assert gap.live.startswith("SELL 0.5")
    assert found.residue == 0


def first_filled(live) -> int:
    return next(n for n, step in enumerate(live) if len(step.fills) == 1 and n > 10)


def change_order(parts, change) -> Gap:
    """The gap that a change of one filled step makes there."""
    bot, live, candles, rules, fills = parts
    place = first_filled(live)
    changed = change(live[place])
    own = {one.trade_id for one in live[place].fills}
    fills = [one for one in fills if one.trade_id not in own] + list(changed.fills)
    # What is decided next was decided without the change.
    steps = [*live[:place], changed, live[place + 1]]
    found = compare(bot, steps, candles, rules, fills)
    assert found.residue == 0
    (gap,) = [gap for gap in found.gaps if gap.close == changed.close]
    return gap


def test_a_worse_price_is_a_gap_of_fill_and_costs_the_difference(parts):
    def worsen(step):
        (one,) = step.fills
        worse = replace(one, price=one.price + 1, cost=one.cost + one.amount)
        return replace(step, fills=(worse,))

    gap = change_order(parts, worsen)
    assert (gap.cause, gap.what) == (Cause.FILL, "fill")
    assert gap.cost > 0


def test_another_fee_is_a_gap_of_fee(parts):
    def charge(step):
        (one,) = step.fills
        return replace(step, fills=(replace(one, fee=one.fee * 2),))

    gap = change_order(parts, charge)
    assert (gap.cause, gap.what) == (Cause.FEE, "fee")
    assert gap.cost > 0


def test_a_quote_that_moved_until_the_order_came_is_a_gap_of_timing(parts):
    def delay(step):
        (one,) = step.fills
        late = replace(
            step.order, as_of=step.close + timedelta(seconds=20),
            expected_price=step.order.expected_price + 1,
        )  # fmt: skip
        worse = replace(one, price=one.price + 1, cost=one.cost + one.amount)
        return replace(step, order=late, fills=(worse,))

    gap = change_order(parts, delay)
    assert (gap.cause, gap.what) == (Cause.TIMING, "quote")
    assert gap.cost > 0


def test_an_order_refused_for_its_candles_age_is_a_gap_of_timing(parts):
    def refuse(step):
        old = Refusal("FreshCandles", "0:05:00", "0:02:00", "too old")
        return replace(step, refusals=(old,), fills=())

    gap = change_order(parts, refuse)
    assert (gap.cause, gap.what, gap.live) == (Cause.TIMING, "order", "FreshCandles")


def test_a_decision_that_nobody_executed_is_a_gap_of_timing(parts):
    gap = change_order(parts, lambda step: replace(step, order=None, fills=()))
    assert (gap.cause, gap.live) == (Cause.TIMING, "never executed")


def test_a_sale_by_hand_is_named_as_none_of_the_backtests(parts):
    bot, live, candles, rules, fills = parts
    place = next(
        n for n, step in enumerate(live)
        if step.inputs and step.inputs.state.amount and n > 20 and not step.fills
    )  # fmt: skip
    bought = next(one for one in fills if one.side == "buy")
    by_hand = replace(
        bought, trade_id="999999", client_id="by hand", side="sell", amount=Decimal("0.001"),
        price=bought.price, cost=Decimal("0.001") * bought.price,
        at=live[place].close + timedelta(seconds=10),
    )  # fmt: skip
    found = compare(bot, live, candles, rules, sorted([*fills, by_hand], key=lambda f: f.at))
    (gap,) = [gap for gap in found.gaps if gap.cause is Cause.OTHER]
    assert gap.close == live[place].close
    assert found.residue == 0


def test_a_gap_at_the_last_candle_costs_nothing_that_was_seen(parts):
    bot, live, *rest = parts
    place = next(n for n, s in enumerate(live) if s.refusals)
    found = compare(bot, live[: place + 1], *rest)
    assert (found.gaps[-1].close, found.gaps[-1].cost) == (live[place].close, 0)
    assert found.residue == 0


def test_a_window_in_the_middle_goes_on_from_the_position_held_then(parts):
    bot, live, *rest = parts
    for first in (30, 47, 120):
        whole = [gap for gap in compare(*parts).gaps if live[first].close < gap.close]
        found = compare(bot, live[first:], *rest)
        assert {(g.close, g.cause) for g in found.gaps if g.close > live[first].close} == {
            (g.close, g.cause) for g in whole
        }
        assert found.residue == 0


def test_a_day_is_told_by_the_wall_clock_and_is_read_from_its_record_again(lived):
    ledger, store = lived.ledger, CandleStore(lived.settings.candles)
    found = check_bot(ledger, store, lived.bot.name)
    assert Parity.from_json(found.to_json()) == found
    begun = load_live(ledger, lived.bot.name)[0].decision.decided_at
    nothing = check_bot(ledger, store, lived.bot.name, until=begun)
    assert (nothing.closes, nothing.gaps, nothing.agrees) == (None, (), True)


def test_what_ought_not_to_differ_is_an_incident_until_a_check_finds_it_gone(lived, parts):
    ledger, wrong = lived.ledger, compare(*parts)
    assert keep_incident(ledger, wrong, Decimal(1))
    (incident,) = load_incidents(ledger, open_only=True)
    assert (incident.kind, incident.subject) == (LIVE_DIFFERS, lived.bot.name)
    assert "timing" in incident.evidence["gaps"]
    lived.venue()
    assert not keep_incident(ledger, replace(wrong, gaps=()), Decimal(1))
    assert load_incidents(ledger, open_only=True) == []
    # However it came about, a difference that large is one.
    assert keep_incident(ledger, replace(wrong, gaps=()), Decimal(0))
    assert not keep_incident(ledger, Parity(wrong.bot, wrong.venue, wrong.quote), Decimal(0))


def test_every_kind_of_value_that_differs_from_a_backtest_is_found(parts, lived):
    bot, live, candles, *_ = parts
    rows = candles[candles.index < live[99].close]
    tested = run_backtest(rows, bot.timeframe, bot.rules, bot.strategy_params, bot.decision_params)
    # It fills at no book and takes its fee in quote: the first order tells.
    found = find_mismatches(live[:100], tested)
    assert {"amount", "fee", "equity"} <= {one.what for one in found}
    first = min(one.close for one in found)
    assert first == next(step.close for step in live if step.order)
