"""Strategies: scores in -1…1 that depend on nothing but the candles so far."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradelib.candles.schema import candles_from_arrays
from tradelib.errors import InvalidInput
from tradelib.research.samples import random_candles
from tradelib.strategy.base import Strategy
from tradelib.strategy.registry import strategy, strategy_names
from tradelib.strategy.weighted import WeightedParams

every_strategy = pytest.mark.parametrize("name", strategy_names())


def still_candles(count, price=100.0):
    times = np.arange(count) * 3_600_000
    flat = np.full(count, price)
    return candles_from_arrays(times, flat, flat, flat, flat, flat * 0)


@every_strategy
def test_scores_begin_right_after_the_warm_up_and_stay_in_range(name):
    found = strategy(name)
    params = found.params()
    candles = random_candles(1000, seed=7)
    score = found.score(candles, params)["score"]
    assert score.index.equals(candles.index)
    assert score.iloc[: found.warm_up(params)].isna().all()
    assert score.iloc[found.warm_up(params) :].between(-1, 1).all()


@every_strategy
def test_a_score_does_not_know_the_future(name):
    candles = random_candles(1000, seed=8)
    whole = strategy(name).score(candles)["score"]
    for length in (60, 151, 299, 750, 999):
        part = strategy(name).score(candles.iloc[:length])["score"]
        np.testing.assert_array_equal(part, whole.iloc[:length])


@every_strategy
def test_history_is_enough_for_the_same_last_score(name):
    found = strategy(name)
    candles = random_candles(3000, seed=9)
    recent = candles.iloc[-found.history(found.params()) :]
    last = found.score(recent)["score"].iloc[-1]
    assert last == pytest.approx(found.score(candles)["score"].iloc[-1], abs=1e-9)


@every_strategy
def test_scoring_leaves_the_candles_alone(name):
    candles = random_candles(200, seed=10)
    before = candles.copy()
    strategy(name).score(candles)
    assert candles.equals(before)


@every_strategy
@pytest.mark.parametrize("count", [0, 1, 30])
def test_few_candles_score_nothing_and_raise_nothing(name, count):
    assert len(strategy(name).score(random_candles(200, seed=1).iloc[:count])) == count


@pytest.mark.parametrize("name", sorted({*strategy_names()} - {"buy_and_hold"}))
def test_a_market_that_stands_still_scores_zero(name):
    found = strategy(name)
    scores = found.score(still_candles(1000))["score"].iloc[found.warm_up(found.params()) :]
    assert len(scores) > 0
    assert (scores == 0).all()


@every_strategy
def test_the_unit_of_price_does_not_matter(name):
    candles = random_candles(1000, seed=11)
    small = candles.assign(
        **{column: candles[column] * 2**-20 for column in ("open", "high", "low", "close")}
    )
    np.testing.assert_allclose(
        strategy(name).score(small)["score"], strategy(name).score(candles)["score"], atol=1e-9
    )


def test_momentum_buys_a_rise_and_sells_a_fall():
    rise = np.exp(np.linspace(0, 1, 100))
    times = np.arange(100) * 3_600_000
    for path, sign in ((rise, 1), (rise[::-1], -1)):
        candles = candles_from_arrays(times, path, path, path, path, path)
        assert strategy("momentum").score(candles)["score"].iloc[-1] == sign


def test_weighted_is_the_weighted_sum_of_its_components():
    scores = strategy("weighted").score(random_candles(300, seed=12)).dropna()
    assert list(scores.columns) == ["score", "rsi", "averages", "macd"]
    total = 0.2 * scores["rsi"] + 0.5 * scores["averages"] + 0.3 * scores["macd"]
    np.testing.assert_allclose(scores["score"], total, atol=1e-12)


def test_weights_that_sum_to_nine_tenths_are_refused_with_the_sum():
    with pytest.raises(InvalidInput, match=r"sum to 1; they sum to 0\.9"):
        WeightedParams(rsi_weight=0.1)


@settings(max_examples=50)
@given(st.floats(0, 1), st.floats(0, 1))
def test_weights_that_sum_to_one_are_accepted(first, share):
    second = (1 - first) * share
    WeightedParams(
        rsi_weight=first, averages_weight=second, macd_weight=max(1 - first - second, 0.0)
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rsi_windw": 3}, "did you mean 'rsi_window'"),
        ({"rsi_window": 1}, "rsi_window = 1"),
        ({"rsi_window": "many"}, "rsi_window = 'many'"),
        ({"rsi_oversold": float("nan")}, "rsi_oversold = nan"),
        ({"fast_window": 60}, "fast_window = 60 must be less than slow_window = 50"),
        ({"macd_fast": 26}, "macd_fast = 26 must be less than macd_slow = 26"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(values, words):
    with pytest.raises(InvalidInput, match=words):
        strategy("weighted").params(**values)


def test_parameters_are_frozen_and_changed_by_a_checked_copy():
    params = WeightedParams()
    assert params.changed(rsi_window=20).rsi_window == 20
    with pytest.raises(InvalidInput):
        params.changed(rsi_weight=0.9)
    with pytest.raises(Exception, match="frozen"):
        params.rsi_window = 3


def test_every_parameter_tells_its_unit():
    for name in strategy_names():
        for field in strategy(name).params_type.model_fields.values():
            assert field.description


def test_an_unknown_strategy_is_refused_with_the_nearest_name():
    with pytest.raises(InvalidInput, match="did you mean 'weighted'"):
        strategy("weigted")


def test_a_strategy_refuses_anothers_parameters():
    with pytest.raises(InvalidInput, match="takes MomentumParams, not WeightedParams"):
        strategy("momentum").score(random_candles(100, seed=1), WeightedParams())


def test_a_score_out_of_range_is_refused():
    loud = Strategy(
        "loud",
        WeightedParams,
        lambda candles, params: candles.assign(score=2.0)[["score"]],
        warm_up=lambda params: 0,
        history=lambda params: 1,
    )
    with pytest.raises(InvalidInput, match=r"outside -1…1"):
        loud.score(random_candles(10, seed=1))
