"""Bias checks: planted look-aheads are found and named, honest strategies pass."""

import json

import numpy as np
import pandas as pd
import pytest

from tradelib.errors import InvalidInput
from tradelib.research.bias import LOOK_AHEAD, SHORT_HISTORY, check_bias
from tradelib.research.samples import random_candles
from tradelib.strategy.base import Strategy
from tradelib.strategy.params import Params
from tradelib.strategy.registry import strategy, strategy_names


class OneParam(Params):
    window: int = 20


def planted(score, *, warm_up=20, history=40):
    """A strategy whose score is `score(candles)`."""
    return Strategy(
        "planted",
        OneParam,
        lambda candles, params: pd.DataFrame({"score": score(candles)}),
        warm_up=lambda params: warm_up,
        history=lambda params: history,
    )


@pytest.fixture(scope="module")
def candles():
    found = random_candles(2000, seed=5)
    # Hours without a trade, as a thin market has: a quote that means nothing and no volume.
    quiet = found.index[[700, 701, 1300]]
    found.loc[quiet, "volume"] = 0.0
    return found


def relative(close, base):
    return (close / base - 1).clip(-1, 1)


def centred(candles):
    return relative(candles["close"], candles["close"].rolling(21, center=True).mean()).ffill()


def shifted(candles):
    return np.sign(candles["close"].shift(-1) - candles["close"]).ffill().fillna(0.0)


def fitted(candles):
    close = candles["close"]
    return ((close - close.mean()) / (10 * close.std())).clip(-1, 1).fillna(0.0)


def back_filled(candles):
    traded = candles["close"].where(candles["volume"] > 0).bfill().ffill()
    return relative(traded, traded.rolling(20).mean())


def early_days(candles):
    """A day's close, known at the day's first hour."""
    days = candles["close"].resample("1D", label="left", closed="left").last()
    return relative(candles["close"], days.reindex(candles.index, method="ffill"))


LOOK_AHEADS = [centred, shifted, fitted, back_filled, early_days]


@pytest.mark.parametrize("score", LOOK_AHEADS)
def test_a_planted_look_ahead_is_found(candles, score):
    report = check_bias(planted(score), candles)
    assert report.look_ahead > 0
    assert not report.unbiased
    assert f"planted: look-ahead: {report.look_ahead:,} scores change" in report.verdict


def test_the_bar_and_the_size_of_a_look_ahead_are_told(candles):
    """One bar in two thousand knows the next trade's price; nothing else does."""
    lone = candles.assign(volume=1.0)
    lone.loc[lone.index[1234], "volume"] = 0.0
    report = check_bias(planted(back_filled), lone)
    (found,) = report.findings
    assert (found.kind, found.bar, found.edge) == (LOOK_AHEAD, 1234, 1234)
    assert found.time == lone.index[1234].isoformat()
    known = back_filled(lone.iloc[:1235]).iloc[-1]
    assert found.size == pytest.approx(abs(back_filled(lone).iloc[1234] - known))


def test_the_largest_change_of_a_bar_is_told_with_the_cut_that_brought_it(candles):
    few = candles.iloc[:90]
    report = check_bias(planted(fitted, history=80), few, cuts=90)
    parts = {end - 1: fitted(few.iloc[:end]) for end in range(20, 90)}
    for found in report.findings:
        if found.kind == LOOK_AHEAD and found.size is not None:
            whole = fitted(few).iloc[found.bar]
            changes = {
                edge: abs(whole - part.iloc[found.bar])
                for edge, part in parts.items()
                if edge >= found.bar
            }
            assert found.size >= max(changes.values()) - 1e-12
            told = fitted(few.iloc[: found.edge + 1]).iloc[found.bar]
            assert found.size == pytest.approx(abs(whole - told))
    assert any(found.kind == LOOK_AHEAD for found in report.findings)


def test_a_back_filled_warm_up_is_a_look_ahead_that_has_no_size(candles):
    def score(frame):
        return relative(frame["close"], frame["close"].rolling(20).mean()).bfill()

    report = check_bias(planted(score, warm_up=19), candles)
    assert report.look_ahead == 19
    assert report.findings[0].size is None
    assert "from or to none" in report.verdict
    assert json.loads(report.to_json())["findings"][0]["size"] is None


@pytest.mark.parametrize("name", strategy_names())
@pytest.mark.parametrize("seed", [1, 2])
def test_every_built_in_strategy_passes(name, seed, candles):
    report = check_bias(strategy(name), candles, seed=seed)
    assert report.findings == ()
    assert report.verdict.startswith(f"{name}: no bias found in 2,000 candles")


def test_gaps_alone_are_no_bias(candles):
    report = check_bias(strategy("weighted"), candles.drop(candles.index[500:520]), starts=5)
    assert report.unbiased


def test_a_history_declared_too_short_is_told_from_a_look_ahead(candles):
    weighted = strategy("weighted")
    hasty = Strategy(
        "hasty", weighted.params_type, weighted.compute, weighted.warm_up, lambda params: 60
    )
    report = check_bias(hasty, candles)
    assert report.look_ahead == 0
    assert report.insufficient_history > 0
    assert {found.kind for found in report.findings} == {SHORT_HISTORY}
    worst = report.findings[0]
    assert worst.bar == worst.edge + 59  # the first bar that has the history it declared
    assert "insufficient history" in report.verdict


def test_a_history_one_candle_short_is_found(candles):
    mean = planted(lambda frame: relative(frame["close"], frame["close"].shift(40)), warm_up=40)
    report = check_bias(mean, candles, tolerance=0.0)
    assert report.unbiased is False
    enough = planted(
        lambda frame: relative(frame["close"], frame["close"].shift(40)), warm_up=40, history=41
    )
    assert check_bias(enough, candles, tolerance=0.0).unbiased


def test_as_many_cuts_as_candles_are_every_bar(candles):
    report = check_bias(strategy("momentum"), candles.iloc[:80], cuts=80, starts=80)
    assert (report.cuts, report.starts) == (79, 31)


def test_the_same_seed_gives_the_same_report(candles):
    first = check_bias(planted(centred), candles, seed=3).to_json()
    assert first == check_bias(planted(centred), candles, seed=3).to_json()
    assert first != check_bias(planted(centred), candles, seed=4).to_json()


def test_the_report_as_json_tells_all_of_it(candles):
    report = check_bias(planted(shifted), candles, OneParam(window=7))
    told = json.loads(report.to_json())
    assert told["params"] == {"window": 7}
    assert (told["strategy"], told["candles"], told["history"]) == ("planted", 2000, 40)
    assert len(told["findings"]) == len(report.findings) >= 10


def at(value, position):
    """Scores of zero, but for one."""
    return lambda frame: pd.Series(0.0, frame.index).mask(np.arange(len(frame)) == position, value)


def raising(frame):
    if len(frame) < 1500:
        raise ZeroDivisionError("no candles left")
    return pd.Series(0.0, frame.index)


def moody(frame):
    return pd.Series(np.random.default_rng().uniform(-1, 1, len(frame)), frame.index)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (at(1.5, 300), r"score 1\.5 outside -1…1 at bar 300 \(2026-01-13T12:00:00\+00:00\)"),
        (at(np.nan, 300), r"score nan after its warm-up at bar 300 "),
        (at(-np.inf, 300), r"score -inf outside -1…1 at bar 300 "),
        (raising, r"raised ZeroDivisionError .* bar 0 to bar 0 .*: no candles left"),
        (moody, "must be a pure function"),
        (lambda frame: pd.Series(0.0, frame.index).iloc[1:], "gave 1999 scores for 2000 candles"),
        (lambda frame: pd.Series(0.0, frame.index).shift(freq="1h"), "on other times"),
    ],
)
def test_a_broken_strategy_is_named_with_its_parameters_and_bar(candles, score, words):
    with pytest.raises(InvalidInput, match=words) as told:
        check_bias(planted(score), candles, OneParam(window=9))
    assert str(told.value).startswith("Strategy 'planted' with window=9 ")


def test_a_frame_without_scores_is_refused(candles):
    nameless = Strategy(
        "nameless", OneParam, lambda frame, _: frame, lambda params: 0, lambda params: 1
    )
    with pytest.raises(InvalidInput, match="no frame with a column 'score'"):
        check_bias(nameless, candles)


def test_a_strategy_cannot_alter_the_candles_it_is_checked_on(candles):
    def greedy(frame):
        frame["close"] *= 2
        return pd.Series(0.0, frame.index)

    before = candles.copy()
    assert check_bias(planted(greedy), candles).unbiased
    assert candles.equals(before)


@pytest.mark.parametrize(
    ("count", "options", "words"),
    [
        (41, {}, "needs 40 candles of history, and a few more to be checked; got 41"),
        (2000, {"cuts": 0}, "0 cuts"),
        (2000, {"starts": 0}, "0 starts"),
    ],
)
def test_a_check_that_could_show_nothing_is_refused(candles, count, options, words):
    with pytest.raises(InvalidInput, match=words):
        check_bias(planted(centred), candles.iloc[:count], **options)


def test_anothers_parameters_are_refused(candles):
    with pytest.raises(InvalidInput, match="'weighted' takes WeightedParams, not OneParam"):
        check_bias(strategy("weighted"), candles, OneParam())
