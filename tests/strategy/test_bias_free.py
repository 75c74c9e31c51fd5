"""Built-in strategies neither know the future nor lean on where candles begin, whatever these are.

Their columns, compiled for a sweep, give the plain score.
"""

from datetime import UTC, datetime

import numpy as np
import pytest

from tests.strategy.markets import torn_candles
from tradelib.research.bench import make_bench
from tradelib.research.bias import check_bias
from tradelib.research.samples import random_candles
from tradelib.strategy.registry import strategy, strategy_names

CHOICES = [
    ("mean_reversion", {}),
    ("mean_reversion", {"window": 2, "width": 1.0, "trend_window": 200}),
    ("breakout", {}),
    ("breakout", {"window": 55, "exit_window": 55, "hold": 10}),
    ("breakout", {"window": 1, "exit_window": 1, "hold": 1}),
    ("trend", {"coarse_multiple": 12}),
    ("trend", {"slow_window": 15, "range_window": 40, "middle_multiple": 3, "coarse_multiple": 7}),
]
every_choice = pytest.mark.parametrize(("name", "values"), CHOICES)


@every_choice
@pytest.mark.parametrize("timeframe", ["1m", "1h", "1d", "1w", "7d"])
def test_no_bias_is_found(name, values, timeframe):
    found = strategy(name)
    params = found.params(**values)
    # Weeks open on Mondays, seven days on Thursdays, as 1970 did.
    start = datetime(2026, 1, 5 if timeframe == "1w" else 1, tzinfo=UTC)
    for candles in (
        random_candles(700, seed=21, timeframe=timeframe, start=start),
        torn_candles(900, seed=22, timeframe=timeframe, start=start, volatility=0.002),
    ):
        report = check_bias(found, candles, params, cuts=25, starts=15, tolerance=1e-12)
        assert report.unbiased, report.verdict
        assert found.score(candles, params)["score"].abs().max() > 0.3


@every_choice
def test_one_candle_less_than_the_warm_up_and_one_has_no_score(name, values):
    found = strategy(name)
    params = found.params(**values)
    for count in range(found.warm_up(params), found.warm_up(params) + 30, 7):
        scores = found.score(torn_candles(1200, seed=count).iloc[:count], params)["score"]
        assert np.flatnonzero(scores.notna()).tolist() == list(range(found.warm_up(params), count))


@pytest.mark.parametrize("name", [one for one in strategy_names() if strategy(one).columns])
def test_compiled_columns_give_the_plain_score(name):
    found = strategy(name)
    candles = torn_candles(1500, seed=23)
    bench = make_bench(candles, "1h", found, 0.001, 10_000.0)
    for params in (found.params(), *(found.params(**v) for one, v in CHOICES if one == name)):
        plain = found.score(candles, params)["score"].to_numpy()
        np.testing.assert_allclose(bench.scores(params), plain, rtol=0, atol=1e-12)
