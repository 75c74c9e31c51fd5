"""Tuning: the same rows for the same seed, and better than drawing in the dark."""

import logging

import pandas as pd
import pytest
from pydantic import Field

from tests.slopes import FAILING, plain
from tradelib.errors import InvalidInput
from tradelib.research.samples import random_candles
from tradelib.research.space import Span
from tradelib.research.sweep import sweep
from tradelib.research.tune import tune
from tradelib.strategy.base import Strategy
from tradelib.strategy.params import Params

CANDLES = random_candles(300, seed=3)
# Always in the market but for the far end of `offset`; the size then decides what is earned.
SPACE = {"window": Span(2, 60), "offset": Span(-0.5, 0.5)}
DECISIONS = {"entry_plan": ["single", "equal"], "stop_loss": Span(0.01, 1.0, log=True)}


class TrendParams(Params):
    window: int = Field(10, ge=1)
    offset: float = 0.0


def trend(candles, params):
    change = candles["close"].pct_change(params.window) * 10 + params.offset
    return pd.DataFrame({"score": change.clip(-1, 1)})


TREND = Strategy("trend", TrendParams, trend, lambda params: params.window, len)


def tuned(**more):
    asked = {"trials": 30, "seed": 5, "progress": False, **more}
    return tune(CANDLES, "1h", TREND, SPACE, DECISIONS, **asked)


def test_the_same_seed_gives_the_same_rows_by_any_number_of_threads():
    one, four = tuned(workers=1), tuned(workers=4)
    assert one.frame.equals(four.frame)
    assert not one.frame.equals(tuned(seed=6).frame)
    assert one.frame.index.tolist() == list(range(30))


def test_each_row_is_what_the_sweep_finds_for_it():
    row = tuned().frame.iloc[17]
    values = {name: [row[name]] for name in (*SPACE, *DECISIONS)}
    alone = sweep(
        CANDLES, "1h", TREND, {name: values[name] for name in SPACE},
        {name: values[name] for name in DECISIONS}, progress=False,
    ).frame.iloc[0]  # fmt: skip
    assert alone.drop("error").to_dict() == pytest.approx(row.drop("error").to_dict(), nan_ok=True)


def test_it_learns_which_trials_were_good():
    found = tuned(trials=80, metric="total_return").frame["total_return"]
    drawn = sweep(CANDLES, "1h", TREND, SPACE, DECISIONS, samples=80, seed=5, progress=False).frame[
        "total_return"
    ]
    assert found.tail(40).mean() > drawn.mean() + 0.5 * drawn.std()


def test_it_can_seek_the_least():
    frames = [
        tuned(trials=60, metric="fees", maximise=most).frame["fees"].tail(20).mean()
        for most in (True, False)
    ]
    assert frames[0] > frames[1]


@pytest.mark.parametrize(("compute", "told"), FAILING)
def test_what_is_invalid_or_fails_is_a_trial_in_vain(compute, told):
    space = {"window": [0, 5, 10, 20, 900]}
    result = tune(CANDLES, "1h", plain(compute), space, trials=30, progress=False)
    assert 0 < result.skipped < 30
    errors = result.failures["error"]
    assert set(result.failures["window"]) == {10, 900}
    assert errors[result.failures["window"] == 10].str.contains(told, regex=False).all()
    assert errors[result.failures["window"] == 900].str.contains("needs 901 candles").all()
    assert set(result.best(count=30)["window"]) == {5, 20}


def test_optuna_logs_as_before_afterwards():
    import optuna

    before = optuna.logging.get_verbosity()
    tuned(trials=2)
    assert optuna.logging.get_verbosity() == before == logging.INFO


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trials": 0}, "A sample of 0"),
        ({"metric": "sharp"}, "did you mean 'sharpe'"),
    ],
)
def test_a_search_in_vain_is_refused(changes, told):
    with pytest.raises(InvalidInput, match=told):
        tuned(**changes)


def test_a_search_of_nothing_is_refused():
    with pytest.raises(InvalidInput, match="no parameter is to be tuned"):
        tune(CANDLES, "1h", TREND, {}, trials=3)
