"""Fill models: by hand, against the live path to the last digit, and against vectorbt."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import require
from tests.paper.conftest import DATA
from tests.research.live import GivenMarket, Live, Walk, frame_of, told_by, walk_live
from tests.research.test_backtest import AT_ONCE, HOUR, NoParams
from tradelib.candles.schema import candles_from_rows
from tradelib.errors import InvalidInput
from tradelib.paper.fees import Fees
from tradelib.paper.filed import FileMarket
from tradelib.paper.instruments import Instrument
from tradelib.paper.liquidity import Shape
from tradelib.research import exact
from tradelib.research.backtest import (
    compiled_fold,
    fold_inputs,
    fold_plainly,
    run_backtest,
)
from tradelib.research.fills import (
    FILL_MODELS,
    NEXT_OPEN,
    FillModel,
    fill_model,
    venue_fills,
)
from tradelib.research.samples import random_candles
from tradelib.research.sweep import sweep
from tradelib.research.tune import tune
from tradelib.research.walkforward import Choice, rolling_folds, walk_forward
from tradelib.settings import LimitSettings
from tradelib.strategy.base import Strategy
from tradelib.strategy.decision import ENTRY_PLANS, DecisionParams
from tradelib.strategy.registry import strategy

EAGER = DecisionParams(
    buy_threshold=0.1, sell_threshold=-0.1, confirmation_minutes=0, cooldown_minutes=0
)
UNEVEN = fill_model("book", name="uneven", salt=77, symbol="AAAUSD", growth=0, top="0.2")
CAREFUL = fill_model(
    "venue", name="careful", rest="carries", volume_share="0.05", max_daily_loss_share="0.005",
    max_orders_per_day=3, min_cash_share="0.2", spread_bp=3, max_position_share="0.4",
)  # fmt: skip
MODELS = [*(fill_model(name) for name in FILL_MODELS), UNEVEN, CAREFUL]


def given_scores(scores):
    """A strategy that says these."""
    return Strategy(
        "given",
        NoParams,
        lambda candles, params: pd.DataFrame({"score": scores}, index=candles.index, dtype=float),
        warm_up=lambda params: 0,
        history=lambda params: 1,
    )


def flat(prices, volume=100.0):
    """Candles that open and close at the same price."""
    return candles_from_rows([(i * HOUR, p, p, p, p, volume) for i, p in enumerate(prices)])


def run(model, candles, scores, decision=AT_ONCE, **more):
    return run_backtest(candles, "1h", given_scores(scores), None, decision, fills=model, **more)


def cents(count, seed):
    """A random walk in cents."""
    return random_candles(count, seed=seed).round(2)


# By hand.


def test_a_spread_is_paid_by_halves():
    model = fill_model("spread", spread_bp=100)
    result = run(model, flat([100, 100, 100, 100]), [1, -1, 0, 0], fee=0.0, cash=1000.0)
    assert result.trades["price"].tolist() == [100.5, 99.5]
    amount = math.floor(250 / 100.5 * 1e8) / 1e8
    assert result.trades["amount"].tolist() == [amount, amount]
    assert result.equity.iloc[-1] == pytest.approx(1000 - amount, abs=2e-8)


def test_a_venue_takes_whole_lots_and_its_fee_out_of_what_is_bought():
    model = fill_model("venue", tick="0.01", lot="0.1", min_notional=5)
    result = run(model, flat([100, 100, 100, 100]), [1, -1, 0, 0], fee=0.001, cash=1000.0)
    bought, sold = result.trades.to_dict("records")
    assert (bought["amount"], bought["fee_base"]) == (2.5, 0.0025)
    assert bought["fee"] == pytest.approx(0.25)
    # 2.4975 is held: 24 lots go, and what is left is dust.
    assert (sold["amount"], sold["fee"], sold["fee_base"]) == (2.4, 0.24, 0.0)
    assert result.equity.iloc[-1] == 1000 - 250 + 240 - 0.24 + 0.0975 * 100
    assert result.decisions["reason"].iloc[-1] == "no signal"


@pytest.mark.parametrize(
    ("changes", "cash", "why"),
    [
        ({"lot": "10"}, 1000.0, "less than the venue takes"),
        ({"min_amount": "3"}, 1000.0, "less than the venue takes"),
        ({"min_notional": "250.01"}, 1000.0, "less than the venue takes"),
        ({"smallest_order": "251"}, 1000.0, "outside the allowed order values"),
        ({"largest_order": "249.99"}, 1000.0, "outside the allowed order values"),
        ({"min_cash_share": "0.76"}, 1000.0, "too little cash would stay"),
        ({"max_position_share": "0.24"}, 1000.0, "the position would be too large"),
        ({"max_orders_per_day": 0}, 1000.0, "too many orders in a day"),
        ({"volume_share": "0.00001"}, 1000.0, "nothing is traded"),
        ({"spread_bp": 20}, 4.0, "less than the venue takes"),
    ],
)
def test_an_order_that_cannot_be_is_not_made_and_says_why(changes, cash, why):
    model = fill_model("venue", **{"lot": "0.01", **changes})
    result = run(model, flat([100, 100, 100]), [1, 0, 0], cash=cash)
    assert result.trades.empty
    (refused,) = result.refused.to_dict("records")
    assert (refused["refused"], refused["side"]) == (why, 1)
    assert refused["decided_on"] == result.candles.index[0]
    assert (result.equity == cash).all()


def test_limits_at_their_bound_let_an_order_pass():
    model = fill_model(
        "venue", lot="0.01", min_notional=250, largest_order=250, min_cash_share="0.75",
        max_position_share="0.25",
    )  # fmt: skip
    assert len(run(model, flat([100, 100, 100]), [1, 0, 0], cash=1000.0).trades) == 1


def test_a_purchase_beyond_the_cash_is_refused_by_a_venue_and_cut_by_the_others():
    decision = AT_ONCE.changed(hot_size=1.0, stop_loss=1.0)
    candles = flat([100, 101, 101])
    whole = run(fill_model("venue"), candles, [1, 0, 0], decision, cash=1000.0)
    assert whole.trades["amount"].tolist() == [9.90099]
    # The second level costs more than the whole order was reckoned at.
    deep = fill_model("venue", levels=2, gap_bp=100)
    beyond = run(deep, candles, [1, 0, 0], decision, cash=1000.0)
    assert beyond.refused["refused"].tolist() == ["more than the balance"]
    cut = run(fill_model("spread"), candles, [1, 0, 0], decision, cash=1000.0, fee=0.01)
    spent = cut.trades["amount"].iloc[0] * cut.trades["price"].iloc[0] * 1.01
    assert spent <= 1000
    assert spent == pytest.approx(1000)


def test_an_order_walks_down_the_book():
    # The best level holds a tenth of the volume, ten units; each further one half of that more.
    model = FillModel(name="steps", levels=3, gap_bp=100, top="0.1", growth="0.5", tick=1)
    candles = flat([100] * 30)
    sizes = AT_ONCE.changed(hot_size=1.0, stop_loss=1.0)
    result = run(model, candles, [1] + [0] * 29, sizes, fee=0.0, cash=2520.0)
    (trade,) = result.trades.to_dict("records")
    # 25.2 wanted: 10 at 100, and 15 for 101; what is left of the cash pays for no more at 102.
    assert trade["amount"] == pytest.approx(10 + 15 + (2520 - 1000 - 1515) / 102)
    assert trade["amount"] * trade["price"] == pytest.approx(2520)
    small = run(model, candles, [1] + [0] * 29, sizes, fee=0.0, cash=900.0)
    assert small.trades["price"].tolist() == [100.0]


@pytest.mark.parametrize(("rest", "amounts"), [("lapses", [10.0]), ("carries", [10.0, 10.0, 5.0])])
def test_a_share_of_the_volume_fills_and_the_rest_lapses_or_carries_over(rest, amounts):
    model = FillModel(name="part", volume_share="0.1", rest=rest)
    result = run(model, flat([100] * 6), [1, 0, 0, 0, 0, 0], fee=0.0, cash=10_000.0)
    assert result.trades["amount"].tolist() == amounts
    assert set(result.trades["decided_on"]) == {result.candles.index[0]}
    # Parts of one entry are one entry.
    plan = AT_ONCE.changed(entry_plan="equal", tranches=2, tranche_spacing=0.0, hot_size=0.5)
    planned = run(model, flat([100] * 8), [1] * 8, plan, fee=0.0, cash=10_000.0)
    assert planned.decisions["reason"].iloc[1] != "all entries of the plan are made"


def test_what_carries_over_gives_way_to_the_next_decision():
    model = FillModel(name="part", volume_share="0.1", rest="carries")
    result = run(model, flat([100] * 5), [1, -1, 0, 0, 0], fee=0.0, cash=10_000.0)
    assert result.trades["side"].tolist() == [1, -1]
    assert result.trades["amount"].tolist() == [10.0, 10.0]


def test_across_a_gap_an_order_meets_the_last_close():
    rows = [(i * HOUR, p, p, p, p, 10) for i, p in ((0, 100), (1, 100), (5, 200), (6, 200))]
    candles = candles_from_rows(rows)
    result = run(fill_model("venue"), candles, [0, 1, 0, 0])
    assert result.trades["price"].tolist() == [100.0]
    assert result.trades.index.tolist() == [candles.index[2]]
    assert run(NEXT_OPEN, candles, [0, 1, 0, 0]).trades["price"].tolist() == [200.0]


def test_with_less_cash_than_the_smallest_order_nothing_is_decided():
    decision = AT_ONCE.changed(hot_size=0.9)
    model = fill_model("venue", smallest_order=200)
    result = run(model, flat([100] * 4), [1, 1, 1, 1], decision, cash=150.0)
    assert set(result.decisions["reason"]) == {"cannot afford an order"}


def test_a_day_that_has_lost_too_much_buys_nothing_more():
    prices = [100, 100, 100, 90, 90, 90] + [90] * 30
    model = fill_model("venue", max_daily_loss_share="0.02")
    scores = [1, 0, 0, -1] + [1] * 32
    decision = AT_ONCE.changed(hot_size=0.5, stop_loss=1.0)
    result = run(model, flat(prices), scores, decision)
    assert set(result.refused["refused"]) == {"the day has lost too much"}
    again = result.trades.index[2]
    assert again == pd.Timestamp(24 * HOUR, unit="ms", tz="UTC")


# The live path.


def assert_as_live(live, candles, scores, decision, model, fee=0.001):
    """Decisions, equities, orders, prices and fees, digit for digit."""
    walk = walk_live(live, candles, scores, decision)
    # The model does not know purchases one by one: see docs/research.md.
    rows = live.torn or len(candles)
    result = run_backtest(
        candles[:rows], live.market.base, given_scores(scores[:rows]), None, decision, fills=model,
        cash=float(live.cash), fee=fee,
    )  # fmt: skip
    walk = Walk(walk.taken[:rows], walk.equities[:rows], walk.orders[: rows - 1])
    seen = list(zip(result.decisions["action"], result.decisions["fraction"], strict=True))
    assert seen == [(taken.action, taken.fraction) for taken in walk.taken]
    assert result.equity.tolist() == [float(equity) for equity in walk.equities]
    place = result.candles.index.get_indexer
    found = [
        {"row": row, "side": one.side, "amount": one.amount, "price": one.price,
         "fee": one.fee_base if one.side > 0 else one.fee}
        for row, one in zip(place(result.trades.index), result.trades.itertuples(), strict=True)
    ] + [
        {"row": row, "side": one.side, "amount": one.amount, "refused": True}
        for row, one in zip(place(result.refused.index), result.refused.itertuples(), strict=True)
    ]  # fmt: skip
    orders = told_by(walk)
    for ours, theirs in zip(sorted(found, key=lambda one: one["row"]), orders, strict=True):
        price = ours.pop("price", 0.0), theirs.pop("price", 0.0)
        assert price[0] == pytest.approx(price[1], rel=1e-14)
        assert ours == theirs
    return walk, result


def live_model(live, shape, **limits):
    """The model of the market that a live walk is on."""
    parts = {name: getattr(shape, name) for name in ("spread_bp", "gap_bp", "top", "growth")}
    salted = {"salt": live.market.salt, "symbol": live.name, "levels": shape.levels}
    return venue_fills(live.rules, **parts, **salted, **limits)


def open_limits(quote, least="0.0001"):
    return LimitSettings(
        order_notional={quote: {"min": least, "max": "100000000"}},
        max_position_share="1", min_cash_share="0", max_trades_per_day=10**6,
    )  # fmt: skip


def limits_of(limits, quote):
    values = limits.notional_for(quote)
    return {
        "smallest_order": values.min,
        "largest_order": values.max,
        "min_cash_share": limits.min_cash_share,
        "max_position_share": limits.max_position_share,
        "max_orders_per_day": limits.max_trades_per_day,
    }


def blocky(count, seed):
    """Scores that last three candles each."""
    random = np.random.default_rng(seed)
    return np.clip(np.repeat(random.normal(0, 0.5, count // 3 + 1), 3)[:count], -1, 1)


@pytest.mark.parametrize(
    "name",
    [
        "binance_ADA-BTC_5m", "binance_ETH-BTC_5m", "binance_LTC-BTC_5m", "binance_XMR-BTC_5m",
        "coinbase_BTC-USD_1h",
    ],
)  # fmt: skip
@pytest.mark.parametrize("entry_plan", ["single", "adaptive"])
def test_a_venue_fills_as_the_live_path_does_on_real_candles(name, entry_plan):
    file = DATA / f"{name}.csv"
    require(file.exists(), "the shared candles are not here")
    market = FileMarket([file])
    quote = market.instruments[0].quote
    cash = Decimal("2.34567891") if quote == "BTC" else Decimal("345.67")
    limits = open_limits(quote) if entry_plan == "single" else LimitSettings(
        order_notional={quote: {"min": "0.001", "max": "100"}}, max_trades_per_day=30,
        max_position_share="0.5",
    )  # fmt: skip
    live = Live(market, cash, limits)
    candles = frame_of(market, 700)
    model = live_model(live, market.shape, **limits_of(limits, quote))
    decision = EAGER.changed(
        entry_plan=entry_plan, tranche_spacing=0.001, hot_size=0.45, warm_size=0.3, stop_loss=0.01
    )
    walk, result = assert_as_live(live, candles, blocky(700, 3), decision, model)
    assert len(result.trades) > 50
    assert any(taken.action < 0 for taken in walk.taken)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tick=st.sampled_from(["0.01", "0.5", "0.001", "2"]),
    lot=st.sampled_from(["0.00001", "0.01", "0.25", "1"]),
    fee=st.sampled_from(["0", "0.001", "0.00075", "0.0026"]),
    spread=st.sampled_from(["0", "1", "7.5", "250"]),
    top=st.sampled_from(["0.00001", "0.01", "1"]),
    levels=st.sampled_from([1, 5, 100]),
    size=st.sampled_from([0.08, 0.3, 0.95, 1.0]),
    cash=st.sampled_from(["7.5", "1000", "123456.78901234", "50000000"]),
    plan=st.sampled_from(ENTRY_PLANS),
    strict=st.booleans(),
)
def test_a_venue_fills_as_the_live_path_does_whatever_its_steps(
    seed, tick, lot, fee, spread, top, levels, size, cash, plan, strict
):
    frame = random_candles(90, seed=seed, volatility=0.03)
    prices = ["open", "high", "low", "close"]
    step = float(tick)
    frame[prices] = ((frame[prices] / step).round() * step).round(8)
    frame = frame.drop(frame.index[[30, 31, 60]])
    frame["volume"] = frame["volume"].round(8)
    shape = Shape(Decimal(spread), Decimal(3), Decimal(top), Decimal("0.15"), levels)
    rules = Instrument("AAA", "USD", Decimal(tick), Decimal(lot))
    market = GivenMarket(frame, "1h", rules, shape, salt=seed)
    limits = LimitSettings() if strict else open_limits("USD", "5")
    live = Live(market, Decimal(cash), limits, Fees(Decimal(fee), Decimal(fee)))
    decision = EAGER.changed(
        hot_size=size, warm_size=size, cool_size=size, entry_plan=plan, tranche_spacing=0.01,
        stop_loss=0.04,
    )  # fmt: skip
    model = live_model(live, shape, **limits_of(limits, "USD"))
    assert_as_live(live, frame_of(market), blocky(len(frame), seed), decision, model, float(fee))


# Every model.


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("seed", [1, 2])
def test_compiled_and_plain_folds_agree_to_the_bit_for_every_model(model, seed):
    candles = cents(600, seed)
    scores = strategy("weighted").score(candles)
    decision = EAGER.changed(entry_plan="adaptive", stop_loss=0.03)
    arguments = (*fold_inputs(candles, "1h", scores), decision.step(), 0.00123, 10_000.0)
    market = model.market(candles, "1h")
    fast = compiled_fold(model)(*arguments, market=market)
    plain = fold_plainly(*arguments, fills=model, market=market)
    assert np.count_nonzero(fast[2][:, 0]) > 5
    assert [part.tobytes() for part in fast] == [part.tobytes() for part in plain]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_vectorbt_gives_the_same_equity_for_the_same_fills_of_every_model(model):
    result = run_backtest(
        cents(900, 3), "1h", strategy("weighted"), None, EAGER, fills=model, fee=0.002
    )
    portfolio = result.portfolio()
    assert portfolio.orders.count() == len(result.trades) > 5
    np.testing.assert_allclose(portfolio.value(), result.equity, rtol=1e-9)
    assert portfolio.total_return() == pytest.approx(result.metrics.total_return, abs=1e-9)
    assert portfolio.orders.fees.sum() == pytest.approx(result.metrics.fees, rel=1e-9)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("seed", [4, 5])
def test_nothing_is_made_or_lost(model, seed):
    candles = cents(600, seed)
    result = run_backtest(
        candles, "1h", strategy("momentum"), None, EAGER, fills=model, cash=5000.0
    )
    trades = result.trades
    worth = trades["side"] * trades["amount"]
    held = (worth - trades["fee_base"]).sum()
    cost = (result.done[:, 2] * result.done[:, 3])[result.done[:, 0] != 0]
    fee_quote = trades["fee"].to_numpy() * (trades["fee_base"].to_numpy() == 0)
    cash = 5000.0 - (trades["side"].to_numpy() * cost).sum() - fee_quote.sum()
    assert cash >= -1e-9
    assert held >= -1e-9
    last = float(candles["close"].iloc[-1])
    assert cash + held * last == pytest.approx(result.equity.iloc[-1], rel=1e-10)


def test_neutral_parameters_are_the_default_to_the_bit():
    candles = random_candles(500, seed=8)
    usual = run_backtest(candles, "1h", strategy("weighted"), None, EAGER)
    neutral = fill_model("book", spread_bp=0, levels=0)
    same = run_backtest(candles, "1h", strategy("weighted"), None, EAGER, fills=neutral)
    assert same.equity.equals(usual.equity)
    assert same.trades.equals(usual.trades)
    assert same.decisions.equals(usual.decisions)


def test_without_costs_or_steps_counting_changes_nothing_that_is_seen():
    candles = cents(500, 9)
    decision = EAGER.changed(hot_size=0.2, warm_size=0.2, cool_size=0.2, smallest_step=0.2)
    usual = run_backtest(candles, "1h", strategy("weighted"), None, decision)
    counted = FillModel(name="counted", tick="0.01", lot="0.00000001")
    found = run_backtest(candles, "1h", strategy("weighted"), None, decision, fills=counted)
    assert len(found.trades) == len(usual.trades) > 10
    np.testing.assert_allclose(found.equity, usual.equity, rtol=1e-8)


@pytest.mark.parametrize("model", MODELS[1:], ids=lambda model: model.name)
def test_a_backtest_of_every_model_does_not_know_the_future(model):
    candles = cents(500, 4)
    whole = run_backtest(candles, "1h", strategy("weighted"), None, EAGER, fills=model)
    part = run_backtest(candles.iloc[:300], "1h", strategy("weighted"), None, EAGER, fills=model)
    assert part.equity.equals(whole.equity.iloc[:300])
    assert part.decisions.equals(whole.decisions.iloc[:300])


# What else takes a model.


def test_a_sweep_and_a_tuning_of_a_model_equal_its_backtests(tmp_path):
    candles, model = cents(500, 6), fill_model("venue", spread_bp=5)
    momentum, space = strategy("momentum"), {"buy_threshold": [0.1, 0.3], "stop_loss": [0.05]}
    found = sweep(
        candles, "1h", momentum, {}, space, fills=model, folder=tmp_path, progress=False
    ).frame
    tuned = tune(candles, "1h", momentum, {}, space, trials=4, fills=model, progress=False).frame
    for row in [*found.to_dict("records"), *tuned.to_dict("records")]:
        decision = DecisionParams(buy_threshold=row["buy_threshold"], stop_loss=row["stop_loss"])
        alone = run_backtest(candles, "1h", momentum, None, decision, fills=model)
        assert row["trades"] == alone.metrics.trades > 1
        assert row["total_return"] == pytest.approx(alone.metrics.total_return, rel=1e-12)
        assert row["exposure"] == alone.metrics.exposure
    sweep(candles, "1h", momentum, {}, space, folder=tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_walk_forward_pays_half_the_spread_for_leaving():
    candles = cents(400, 2)
    holder = strategy("buy_and_hold")
    choice = Choice(holder.params(), AT_ONCE.changed(stop_loss=1.0))
    folds = rolling_folds(400, train=100, test=100, purge=5)[:2]
    model = fill_model("spread", spread_bp=40)
    walked = walk_forward(
        candles, "1h", holder, lambda train: choice, folds, fee=0.01, cash=1000.0, fills=model
    )
    first = folds[0].test
    alone = run_backtest(
        candles.iloc[first[0] : first[-1] + 1], "1h", holder, choice.params, choice.decision,
        fee=0.01, cash=1000.0, fills=model,
    )  # fmt: skip
    worth = alone.held.iloc[-1] * candles["close"].iloc[first[-1]]
    left = alone.equity.iloc[-1] - worth * (1 - 0.998 * 0.99)
    assert walked.equity.loc[candles.index[first[-1]]] == pytest.approx(left, rel=1e-6)
    assert walked.folds[1].outside.trades == 1


# Bad input.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fill_model("venus"), "did you mean 'venue'"),
        (lambda: fill_model("venue", lots=1), "did you mean 'lot'"),
        (lambda: FillModel(lot=0), "lot = 0"),
        (lambda: FillModel(lot=-1), "lot = -1"),
        (lambda: FillModel(tick="0.000000001"), "decimal places"),
        (lambda: FillModel(spread_bp=10_000), "less than 10000"),
        (lambda: FillModel(volume_share=1.5), "volume_share"),
        (lambda: FillModel(volume_share=0), "volume_share"),
        (lambda: FillModel(rest="waits"), "'lapses' or 'carries'"),
        (lambda: FillModel(lot=float("nan")), "lot"),
        (lambda: fill_model("venue").start(1e10), "at most 1,000,000,000"),
        (lambda: fill_model("venue").rules(0.0000000123), "finer than 1e-8"),
        (lambda: fill_model("venue").market(flat([1e-9, 1e-9]), "1h"), "cannot be counted"),
        (lambda: fill_model("book").market(flat([5e9, 5e9]), "1h"), "gap_bp"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(InvalidInput, match=words):
        make()


def test_an_order_beyond_all_counting_is_refused():
    model = FillModel(name="counted", lot="0.00000001")
    result = run(model, flat([1e-8, 1e-8, 1e-8]), [1, 0, 0], cash=1e9)
    assert result.refused["refused"].tolist() == ["more than can be counted"]


# Exact numbers.


@given(st.integers(1, 2**62), st.integers(1, 2**62))
def test_a_quotient_is_rounded_once(part, whole):
    assert exact.over(part, whole) == part / whole


@given(st.integers(0, 2**55), st.integers(0, 2**50), st.integers(1, 2**40))
def test_an_equity_is_rounded_once(cash, held, price):
    if held * price < 2**62 * 10**8:
        assert exact.equity_of(cash, held, price) == (cash * 10**8 + held * price) / 10**16


@given(st.floats(1e-6, 1.0) | st.decimals(0, 1, places=6).map(float))
def test_a_fraction_is_the_decimal_that_it_is_written_as(value):
    if value >= 1e-6:
        high, low = exact.as_written(value)
        written = Fraction(Decimal(repr(value)))
        assert abs(Fraction(high) + Fraction(low) - written) <= written / 10**30


@given(st.integers(0, 2**62), st.integers(1, 10**12))
def test_a_whole_number_is_never_missed_by_rounding(whole, divisor):
    product = exact.multiplied(exact.pair_of(whole), exact.pair_of(divisor))
    assert exact.whole_below(exact.divided(product, exact.pair_of(divisor))) == whole
    less = exact.added(product, (-1.0, 0.0))
    if 0 < whole * divisor < 10**24:
        assert exact.whole_below(exact.divided(less, exact.pair_of(divisor))) == whole - 1
