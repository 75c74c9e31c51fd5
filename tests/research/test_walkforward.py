"""Walk-forward: folds that keep apart, and results that know neither the test nor the future."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tradelib.errors import InvalidInput
from tradelib.research.backtest import run_backtest
from tradelib.research.luck import sharpe_ratios
from tradelib.research.samples import random_candles
from tradelib.research.walkforward import (
    Choice,
    Performance,
    anchored_folds,
    best_in_sample,
    combinatorial_folds,
    rolling_folds,
    trial_returns,
    walk_forward,
)
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.registry import strategy

MOMENTUM = strategy("momentum")
AT_ONCE = DecisionParams(
    confirmation_minutes=0, cooldown_minutes=0, hot_size=1.0, warm_size=1.0, cool_size=1.0
)
CHOICES = [
    Choice(MOMENTUM.params(window=window, full=full), AT_ONCE)
    for window in (12, 24, 48)
    for full in (1.0, 2.0)
]
PURGE = 49


def spans(folds):
    return [(int(f.train[0]), int(f.train[-1]), int(f.test[0]), int(f.test[-1])) for f in folds]


def test_rolling_folds_keep_their_length_and_end_with_the_last_candle():
    assert spans(rolling_folds(9, train=3, test=2, purge=1)) == [(1, 3, 5, 6), (3, 5, 7, 8)]


def test_anchored_folds_keep_their_beginning():
    assert spans(anchored_folds(9, train=3, test=2, purge=1)) == [(0, 3, 5, 6), (0, 5, 7, 8)]


@pytest.mark.parametrize("make", [rolling_folds, anchored_folds])
@pytest.mark.parametrize("count", [17, 100, 101])
def test_tests_tile_the_end_and_no_training_reaches_the_purge(make, count):
    folds = make(count, train=6, test=5, purge=4)
    tested = np.concatenate([fold.test for fold in folds])
    assert tested.tolist() == list(range(tested[0], count))
    assert tested[0] >= 10
    assert tested[0] - 10 < 5
    for fold in folds:
        assert fold.test[0] - fold.train[-1] == 5
        assert len(fold.train) >= 6


def test_combinatorial_folds_are_all_choices_and_each_group_is_tested_alike():
    folds = combinatorial_folds(61, groups=6, tested=2)
    assert len(folds) == math.comb(6, 2)
    assert np.bincount(np.concatenate([fold.test for fold in folds])).tolist() == [5] * 61
    for fold in folds:
        assert sorted([*fold.train, *fold.test]) == list(range(61))


def test_training_around_a_tested_group_is_purged_before_and_embargoed_behind():
    fold = combinatorial_folds(40, groups=4, tested=1, purge=2, embargo=3)[1]
    assert fold.test.tolist() == list(range(10, 20))
    assert fold.train.tolist() == [*range(8), *range(23, 40)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rolling_folds(10, train=6, test=4, purge=1), "10 candles are too few"),
        (lambda: rolling_folds(10, train=0, test=4), "make no sense"),
        (lambda: anchored_folds(10, train=2, test=2, purge=-1), "make no sense"),
        (lambda: combinatorial_folds(10, groups=4, tested=4), "fewer than all"),
        (lambda: combinatorial_folds(100, groups=40, tested=20), "take fewer"),
        (lambda: combinatorial_folds(8, groups=4, tested=2, purge=9), "nothing to train on"),
    ],
)
def test_folds_that_cannot_be_are_refused(make, words):
    with pytest.raises(InvalidInput, match=words):
        make()


@pytest.fixture(scope="module")
def candles():
    return random_candles(1200, seed=6)


@pytest.fixture(scope="module")
def folds():
    return rolling_folds(1200, train=300, test=150, purge=PURGE)


@pytest.fixture(scope="module")
def walked(candles, folds):
    return walk_forward(candles, "1h", MOMENTUM, best_in_sample("1h", MOMENTUM, CHOICES), folds)


def fixed(choice=CHOICES[0]):
    return lambda candles: choice


def test_the_equity_is_joined_over_all_tests(walked, candles, folds):
    tested = np.concatenate([fold.test for fold in folds])
    assert walked.equity.index.equals(candles.index[tested])
    assert walked.equity.iloc[0] == walked.cash
    growth = math.prod(1 + fold.outside.growth for fold in walked.folds)
    assert walked.total_return == pytest.approx(growth - 1)
    assert sum(fold.outside.trades for fold in walked.folds) > 10


def test_each_fold_takes_the_choice_that_was_best_in_its_training(walked, candles, folds):
    for fold, result in zip(folds, walked.folds, strict=True):
        returns = trial_returns(candles.iloc[fold.train], "1h", MOMENTUM, CHOICES)
        assert result.choice == CHOICES[int(sharpe_ratios(returns.to_numpy()).argmax())]
    assert len({id(result.choice) for result in walked.folds}) > 1


def test_a_test_is_the_backtest_of_its_candles_with_the_scores_of_all_candles(candles, folds):
    """Warm-up candles give the test the scores it would have in the whole, and no trade."""
    walked = walk_forward(candles, "1h", MOMENTUM, fixed(), folds[:1], fee=0.0)
    first, last = folds[0].test[0], folds[0].test[-1]
    scores = MOMENTUM.score(candles, CHOICES[0].params)
    told = scores["score"].iloc[first : last + 1]
    scripted = type(MOMENTUM)(
        "scripted",
        MOMENTUM.params_type,
        lambda part, params: pd.DataFrame({"score": told}),
        warm_up=lambda params: 0,
        history=lambda params: 1,
    )
    alone = run_backtest(
        candles.iloc[first : last + 1], "1h", scripted, CHOICES[0].params, AT_ONCE, fee=0.0
    )
    np.testing.assert_allclose(walked.equity, alone.equity, rtol=1e-9)
    assert len(alone.trades) == walked.folds[0].outside.trades > 0


def test_a_position_open_at_a_folds_end_is_sold_and_pays(candles, folds):
    holder = strategy("buy_and_hold")
    choice = Choice(holder.params(), AT_ONCE)
    walked = walk_forward(candles, "1h", holder, fixed(choice), folds[:1], fee=0.01, cash=1000.0)
    first, last = folds[0].test[0], folds[0].test[-1]
    amount = 1000 / 1.01 / candles["open"].iloc[first + 1]
    assert walked.equity.iloc[-1] == pytest.approx(amount * candles["close"].iloc[last] * 0.99)


def shaken(candles, first, last):
    """The candles with other prices from `first` to `last`."""
    other = candles.copy()
    prices = ["open", "high", "low", "close"]
    other.iloc[first:last, :4] = (
        other[prices].iloc[first:last] * np.linspace(0.5, 2, last - first)[:, None]
    )
    return other


def test_later_candles_change_no_earlier_fold(walked, candles, folds):
    start = int(folds[3].test[0])
    search = best_in_sample("1h", MOMENTUM, CHOICES)
    again = walk_forward(shaken(candles, start, 1200), "1h", MOMENTUM, search, folds)
    assert again.folds[:3] == walked.folds[:3]
    assert again.equity.iloc[:450].equals(walked.equity.iloc[:450])
    assert not again.equity.iloc[450:].equals(walked.equity.iloc[450:])


def test_a_test_reads_no_candle_that_chose_its_parameters(candles, folds):
    """With the choice fixed, other training candles leave the test as it was, to the bit."""
    one = folds[2:3]
    other = shaken(candles, int(one[0].train[0]), int(one[0].train[-1]) + 1)
    choice = fixed(CHOICES[-1])
    before = walk_forward(candles, "1h", MOMENTUM, choice, one)
    after = walk_forward(other, "1h", MOMENTUM, choice, one)
    assert after.equity.equals(before.equity)
    assert after.folds[0].inside != before.folds[0].inside


def test_a_purge_shorter_than_the_chosen_history_is_refused_with_the_one_to_give(candles):
    folds = rolling_folds(1200, train=300, test=150, purge=PURGE - 1)
    with pytest.raises(InvalidInput, match=r"Fold 0 chose .* purge is 48; give purge=49 or more"):
        walk_forward(candles, "1h", MOMENTUM, fixed(CHOICES[-1]), folds)


def test_folds_that_cannot_be_walked_are_refused(candles, folds):
    for some, words in (
        ([], "got none"),
        (folds[::2], "must follow each other"),
        (combinatorial_folds(1200, groups=4, tested=2), "cannot be walked"),
        (rolling_folds(1300, train=300, test=150, purge=PURGE), "beyond the 1,200 candles"),
    ):
        with pytest.raises(InvalidInput, match=words):
            walk_forward(candles, "1h", MOMENTUM, fixed(), some)


def test_the_table_has_a_row_for_each_fold(walked):
    table = walked.table()
    assert len(table) == len(walked.folds) == 5
    np.testing.assert_allclose(table["lost"], table["inside_sharpe"] - table["outside_sharpe"])
    # A fold that chose the default of 48 says so, and what no fold has changed is left out.
    assert table["window"].tolist() == [fold.choice.params.window for fold in walked.folds]
    assert 48 in table["window"].tolist()
    assert "stop_loss" not in table


def test_a_searched_random_walk_loses_outside_what_it_promised_inside():
    """On walks without an edge the chosen Sharpe ratio is luck; on average it is gone outside."""
    search = best_in_sample("1h", MOMENTUM, CHOICES, fee=0.0)
    lost, outside = [], []
    for seed in range(20):
        candles = random_candles(900, seed=seed)
        folds = rolling_folds(900, train=300, test=250, purge=PURGE)
        table = walk_forward(candles, "1h", MOMENTUM, search, folds, fee=0.0).table()
        lost.append(table["lost"].mean())
        outside.append(table["outside_sharpe"].mean())
    error = np.std(outside) / math.sqrt(20)
    assert abs(np.mean(outside)) < 4 * error
    assert np.mean(lost) > 3 * np.std(lost) / math.sqrt(20)


@pytest.mark.parametrize(("inside", "efficiency"), [(0.1, 0.5 * 300 / 150), (-0.1, math.nan)])
def test_the_efficiency_compares_growth_per_candle(walked, inside, efficiency):
    promised = Performance(inside, 0.0, 300, 1)
    kept = Performance(math.sqrt(1.1) - 1, 0.0, 150, 1)
    folds = tuple(replace(fold, inside=promised, outside=kept) for fold in walked.folds)
    assert replace(walked, folds=folds).efficiency == pytest.approx(efficiency, nan_ok=True)


def test_trial_returns_compound_to_each_backtests_growth(candles):
    returns = trial_returns(candles, "1h", MOMENTUM, CHOICES)
    assert returns.shape == (1200 - 48 - 1, len(CHOICES))
    whole = run_backtest(candles, "1h", MOMENTUM, CHOICES[-1].params, AT_ONCE)
    grown = (1 + returns[len(CHOICES) - 1]).prod()
    assert grown == pytest.approx(whole.equity.iloc[-1] / whole.equity.iloc[48])


def test_too_little_to_search_is_refused(candles):
    with pytest.raises(InvalidInput, match="got nothing"):
        trial_returns(candles, "1h", MOMENTUM, [])
    with pytest.raises(InvalidInput, match="50 candles are too few for a warm-up of 48"):
        trial_returns(candles.iloc[:50], "1h", MOMENTUM, CHOICES)
