"""An examination computes all that it tells, and its figures are those of its parts."""

import json

import numpy as np
import pytest

from tests.strategy.sources import REVERSAL
from tradelib.errors import InvalidInput
from tradelib.research.backtest import run_backtest
from tradelib.research.examination import examine
from tradelib.research.luck import backtest_overfitting, deflate, sharpe_ratios
from tradelib.research.samples import random_candles
from tradelib.research.walkforward import (
    Choice,
    best_in_sample,
    rolling_folds,
    trial_returns,
    walk_forward,
)
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.own import Source, make_strategy

CANDLES = random_candles(1200, seed=8)
IDEA = make_strategy(Source("idea", REVERSAL))
WINDOWS = [20, 10, 40]


def quick(tried=None, **more):
    tried = {"window": WINDOWS} if tried is None else tried
    return examine(CANDLES, "1h", IDEA, tried=tried, progress=False, **more)


def test_its_figures_are_those_of_a_walk_forward_and_of_all_trials():
    found = quick(folds=3)
    choices = [Choice(IDEA.params(window=window)) for window in WINDOWS]
    search = best_in_sample("1h", IDEA, choices)
    folds = rolling_folds(1200, train=560, test=200, purge=40)
    walked = walk_forward(CANDLES, "1h", IDEA, search, folds)
    outside = found.out_of_sample
    assert outside["total_return"] == walked.total_return
    assert outside["sharpe"] == sharpe_ratios(walked.equity.pct_change().dropna().to_numpy())[0]
    assert [fold["choice"] for fold in outside["folds"]] == [
        fold.choice.values(changed=True) for fold in walked.folds
    ]
    returns = trial_returns(CANDLES, "1h", IDEA, choices).to_numpy()
    assert found.luck["deflated_sharpe"] == deflate(returns).probability
    assert found.luck["overfitting"] == backtest_overfitting(returns).probability
    inside = run_backtest(CANDLES.iloc[:600], "1h", IDEA)
    assert found.in_sample["total_return"] == inside.total_return
    assert found.passed


def test_a_hold_out_trades_what_was_chosen_once_behind_all_that_is_known():
    found = quick({}, hold_out=0.25)
    folds = rolling_folds(1200, train=880, test=300, purge=20)
    walked = walk_forward(CANDLES, "1h", IDEA, lambda _: Choice(IDEA.params()), folds)
    assert found.out_of_sample["total_return"] == walked.total_return
    assert found.out_of_sample["from"] == CANDLES.index[900].isoformat()
    assert found.luck is None


def test_decision_parameters_are_tried_too_and_what_is_forbidden_is_no_trial():
    found = quick({"warm_from": [0.01, 0.1], "hot_from": [0.05, 0.2]})
    assert found.luck["trials"] == 3  # hot_from below warm_from makes no sense
    assert quick({"window": [20, 20, 21]}).luck["trials"] == 2


def test_what_is_promoted_is_one_of_the_trials_though_nobody_named_it():
    found = quick({"window": [10]}, params=IDEA.params(window=33))
    assert found.luck["trials"] == 2
    assert found.params == {"window": 33}


def test_all_of_it_is_json_and_small():
    told = json.dumps(quick().to_json(), allow_nan=False)
    assert len(told) < 50_000
    assert len(json.loads(told)["curves"]["in_sample"]["times"]) <= 300


def test_a_strategy_that_never_trades_has_no_out_of_sample_result():
    none = DecisionParams(hot_size=0.0, warm_size=0.0, cool_size=0.0)
    found = quick({}, hold_out=0.3, decision=none)
    assert not found.passed
    assert "it traded nothing there" in found.verdict
    assert np.isfinite(found.out_of_sample["total_return"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tried": {}}, "no out-of-sample result"),
        ({"folds": 0}, "0 folds are none"),
        ({"hold_out": 0.0}, "share of 0 cannot be held out"),
        ({"tried": {"window": [500]}}, "too few for 5 folds"),
    ],
)
def test_a_missing_result_is_a_refusal_with_what_to_do(more, words):
    found = quick(**more)
    assert not found.passed
    assert words in found.verdict


@pytest.mark.parametrize("value", ["many", -1.5, 0.5])
def test_a_value_that_cannot_have_been_tried_is_refused(value):
    with pytest.raises(InvalidInput, match=rf"window = {value!r} was never tried, for it cannot"):
        quick({"window": [10, value]})


def test_a_parameter_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(InvalidInput, match="did you mean 'window'"):
        quick({"windows": [3]})
