"""The sweep: each row equals a backtest of its own, whatever is stopped, wrong or in vain."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from tests.slopes import FAILING, SlopeParams, changed, plain, raising, slope
from tradelib.errors import InvalidInput
from tradelib.research.backtest import fold_inputs, fold_plainly, run_backtest
from tradelib.research.bench import ColumnCache
from tradelib.research.code_version import code_version
from tradelib.research.metrics import METRICS, metrics_of, start_tally, tally_close, tally_fill
from tradelib.research.samples import random_candles
from tradelib.research.space import Span, make_space
from tradelib.research.sweep import sweep
from tradelib.strategy.base import Columns, Strategy
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.registry import strategy

CANDLES = random_candles(600, seed=7)
WEIGHTED = strategy("weighted")
SPACE = {"fast_window": [5, 20, 60], "slow_window": [30, 50], "averages_full": [1.0, 2.0]}
DECISIONS = {
    "buy_threshold": [0.1, 0.3],
    "confirmation_minutes": [0.0, 120.0],
    "entry_plan": ["single", "pyramid_down"],
}


def quick(found, space=None, **more):
    return sweep(CANDLES, "1h", found, space or {"window": [3, 10]}, progress=False, **more)


def test_each_row_equals_the_backtest_of_its_parameters():
    result = sweep(CANDLES, "1h", WEIGHTED, SPACE, DECISIONS, fee=0.002, progress=False)
    assert (result.total, result.skipped, len(result.frame)) == (96, 32, 64)
    assert "must be less than" in result.first_skip
    assert result.failures.empty
    assert result.frame["trades"].nunique() > 5
    for row in result.frame.iloc[::3].to_dict("records"):
        alone = run_backtest(
            CANDLES,
            "1h",
            WEIGHTED,
            WEIGHTED.params(**{name: row[name] for name in SPACE}),
            DecisionParams(**{name: row[name] for name in DECISIONS}),
            fee=0.002,
        )
        for name, value in asdict(alone.metrics).items():
            assert row[name] == pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True), name


def test_rows_equal_the_plain_fold():
    decision = DecisionParams(buy_threshold=0.1, cooldown_minutes=300, stop_loss=0.02)
    (row,) = sweep(
        CANDLES, "1h", WEIGHTED, {"fast_window": 9}, dict(decision), progress=False
    ).frame.to_dict("records")
    params = WEIGHTED.params(fast_window=9)
    inputs = fold_inputs(CANDLES, "1h", WEIGHTED.score(CANDLES, params))
    equity, _, fills = fold_plainly(*inputs, decision.step(), 0.001, 10_000.0)
    tally = start_tally(10_000.0)
    for value, (bought, fee, price) in zip(equity, fills[:, :3], strict=True):
        if bought:
            tally = tally_fill(tally, bought, price, fee)
        tally = tally_close(tally, value, tally.entry_amount)
    growth = CANDLES["close"].iloc[-1] / CANDLES["close"].iloc[0] - 1
    found = metrics_of(np.array([tally]), "1h", 10_000.0, growth)
    assert found["trades"] > 1
    for name in METRICS:
        assert row[name] == pytest.approx(found[name][0], rel=1e-9, abs=1e-9, nan_ok=True), name


def test_a_column_is_computed_once_for_its_parameters():
    asked = []

    def mean(candles, window):
        asked.append(window)
        return candles["close"].rolling(window).mean()

    columns = Columns(
        {"mean": mean, "distance": lambda candles, mean: candles["close"] / mean - 1},
        lambda distance, full: np.minimum(np.maximum(distance * 20 / full, -1.0), 1.0),
    )
    shared = Strategy(
        "distance", SlopeParams, columns.compute, lambda params: params.window - 1, len, columns
    )
    space = {"window": [3, 10, 30], "full": [0.5, 1.0, 2.0]}
    result = quick(shared, space, workers=1)
    assert sorted(asked) == [3, 10, 30]
    apart = quick(Strategy("distance", SlopeParams, columns.compute, shared.warm_up, len), space)
    assert result.frame.equals(apart.frame)


def test_a_combine_that_cannot_be_compiled_works_all_the_same():
    def combine(change, full):
        with np.errstate(invalid="ignore"):  # unknown to numba
            return np.clip(change / full, -1.0, 1.0)

    columns = Columns(
        {"change": lambda candles, window: candles["close"].pct_change(window) * 20}, combine
    )
    stubborn = Strategy("slope", SlopeParams, columns.compute, plain().warm_up, len, columns)
    assert quick(stubborn).frame.equals(quick(plain()).frame)


def test_a_strategy_of_columns_can_be_a_key():
    assert {WEIGHTED: 1}[strategy("weighted")] == 1


def test_a_parameter_that_no_column_takes_is_refused():
    columns = Columns({"close": lambda candles, window: candles["close"]}, lambda close: close)
    with pytest.raises(InvalidInput, match="full must be a parameter of SlopeParams and an arg"):
        Strategy("deaf", SlopeParams, columns.compute, len, len, columns)


def test_the_cache_forgets_the_column_not_asked_for_the_longest():
    cache, column = ColumnCache(2 * 80), pd.Series(np.zeros(10))
    cache["a"], cache["b"] = column, column
    assert cache.get("a") is not None
    cache["c"] = column
    assert sorted(cache) == ["a", "c"]
    assert cache.get("b") is None


@pytest.mark.parametrize(("compute", "told"), FAILING)
def test_a_combination_that_fails_says_why_and_the_sweep_goes_on(compute, told):
    result = quick(
        plain(compute), {"window": [3, 10]}, decision_space={"buy_threshold": [0.2, 0.4]}
    )
    assert len(result.frame) == 4
    failed = result.failures
    assert (failed["window"] == 10).sum() == 2
    assert failed[list(METRICS)].isna().all().all()
    errors = failed.loc[failed["window"] == 10, "error"]
    assert errors.str.startswith("slope with window = 10, buy_threshold = 0.").all()
    assert errors.str.contains(told, regex=False).all()


def test_parameters_that_are_out_of_range_are_skipped_and_counted():
    result = quick(plain(), {"window": [0, 3]})
    assert (result.total, result.skipped, result.frame["window"].tolist()) == (2, 1, [3])
    assert "window = 0" in result.first_skip


@pytest.mark.parametrize(
    ("space", "more", "told"),
    [
        ({"window": []}, {}, "The space is empty: window has no value"),
        ({"window": [0, -1]}, {}, "None of the 2 combinations is valid; the first: Slope"),
        ({"window": [600, 900]}, {}, "needs 601 candles, and there are 600; give more"),
        ({"windw": [3]}, {}, "did you mean 'window'"),
        ({"window": Span(3, 5)}, {}, "list them, or draw"),
        ({"window": [3]}, {"metrics": ["sharp"]}, "did you mean 'sharpe'"),
        ({"window": [3]}, {"samples": 0}, "A sample of 0"),
        ({"window": [3]}, {"fee": 1.5}, "makes no sense"),
        ({"window": [3]}, {"decision_space": {"stop": [1]}}, "did you mean 'stop_loss'"),
    ],
)
def test_a_sweep_in_vain_is_refused_with_one_error(space, more, told):
    with pytest.raises(InvalidInput, match=told):
        quick(plain(), space, **more)


def test_no_candles_are_refused():
    with pytest.raises(InvalidInput, match="needs candles and got 0"):
        sweep(CANDLES.iloc[:0], "1h", plain(), {"window": [3]})


def test_the_best_have_the_highest_metric_and_never_an_undefined_one():
    result = quick(plain(), {"window": [3, 10, 30, 590]})
    assert result.frame["sharpe"].isna().any()
    best = result.best("sharpe", 2)
    assert best["sharpe"].tolist() == sorted(result.frame["sharpe"].dropna(), reverse=True)[:2]
    with pytest.raises(InvalidInput, match="did you mean 'sharpe'"):
        result.best("shape")


def test_only_the_metrics_asked_for_are_kept():
    result = quick(plain(), metrics=("sharpe", "trades"))
    assert list(result.frame) == ["window", "sharpe", "trades", "error"]


def test_a_sample_is_the_same_for_its_seed_and_within_its_spans():
    space = {"window": Span(2, 50), "full": Span(0.01, 10.0, log=True)}
    one, again, other = (quick(plain(), space, samples=40, seed=seed).frame for seed in (1, 1, 2))
    assert one.equals(again)
    assert not one.equals(other)
    assert one["window"].between(2, 50).all()
    assert one["full"].between(0.01, 10).all()
    assert (one["full"] < 0.5).sum() > 10
    fewer = quick(plain(), space, samples=10, seed=1).frame
    assert fewer.equals(one.iloc[:10])


def test_whole_spans_reach_both_their_ends():
    drawn = make_space(plain(), {"window": Span(1, 3, log=True)}, samples=200)
    counts = pd.Series([drawn[number].strategy["window"] for number in range(200)]).value_counts()
    assert sorted(counts.index) == [1, 2, 3]


@pytest.mark.parametrize("span", [(3, 2, False), (0, 2, True)])
def test_a_span_of_nothing_is_refused(span):
    with pytest.raises(InvalidInput, match="holds nothing"):
        Span(*span)


ASKED: list[int] = []


def stopping(candles, params):
    ASKED.append(params.window)
    if len(ASKED) == 20:
        raise KeyboardInterrupt
    return slope(candles, params)


def test_a_sweep_that_was_stopped_goes_on_where_it_was(tmp_path):
    ASKED.clear()
    space = {"window": range(1, 51)}
    with pytest.raises(KeyboardInterrupt):
        quick(plain(stopping), space, folder=tmp_path, workers=1)
    (folder,) = tmp_path.iterdir()
    kept = sorted(folder.glob("*.parquet"))
    assert 0 < len(kept) < 4
    (folder / "chunk-00003.1.part").write_bytes(b"half")
    (folder / "chunk-00002.parquet").write_bytes(b"PAR1 torn")
    before = len(ASKED)
    result = quick(plain(stopping), space, folder=tmp_path, workers=1)
    assert 50 - 16 <= len(ASKED) - before < 50
    assert result.frame["window"].tolist() == list(space["window"])
    done = len(ASKED)
    assert quick(plain(stopping), space, folder=tmp_path).frame.equals(result.frame)
    assert len(ASKED) == done
    assert result.frame.equals(quick(plain(), space).frame)


def test_skips_and_errors_are_kept_too(tmp_path):
    found, space = plain(raising), {"window": [0, 3, 10]}
    one, again = (quick(found, space, folder=tmp_path) for _ in range(2))
    assert one.frame.equals(again.frame)
    assert (again.skipped, len(again.failures), again.first_skip) == (1, 1, one.first_skip)


@pytest.mark.parametrize(
    "change",
    [
        {"candles": CANDLES.iloc[1:]},
        {"space": {"window": [3, 11]}},
        {"fee": 0.5},
        {"strategy": plain(raising)},
        {"strategy": plain(changed(3, 0.5))},
        {"metrics": ("sharpe",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_sweep_does_not_go_on_from_this_one(change, tmp_path):
    usual = {"candles": CANDLES, "timeframe": "1h", "strategy": plain(), "space": {"window": [3]}}
    for asked in (usual, usual | change):
        sweep(**asked, folder=tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_threads_share_columns_and_agree():
    space = {"fast_window": range(3, 20), "slow_window": [25, 40], "rsi_window": [7, 14]}
    frames = [
        sweep(CANDLES, "1h", WEIGHTED, space, progress=False, workers=workers).frame
        for workers in (1, 4)
    ]
    assert frames[0].equals(frames[1])


def test_code_is_the_same_until_something_that_it_uses_changes(monkeypatch):
    def version(row=3, value=0.5):
        return code_version(plain(changed(row, value)))

    first = version()
    assert version() == first
    assert version(row=4) != first
    monkeypatch.setattr("tests.slopes.slope", raising)
    assert version() != first
