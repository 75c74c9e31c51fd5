"""What a strategy may do wrong, wherever it is asked: one error that names strategy, parameter and
bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from tests.trading.test_entry_plans import begin_run
from tradelib.candles.store import CandleStore
from tradelib.clock import utc_now
from tradelib.errors import InvalidInput
from tradelib.research.backtest import run_backtest
from tradelib.research.bench import make_bench
from tradelib.research.bias import check_bias
from tradelib.research.samples import random_candles
from tradelib.research.sweep import sweep
from tradelib.settings import LimitSettings, load_settings
from tradelib.strategy.own import Source, make_strategy
from tradelib.strategy.registry import remember_frozen
from tradelib.trading.accounts import Balance, save_balance
from tradelib.trading.bots import new_bot
from tradelib.trading.deciding import score_bot
from tradelib.trading.ledger import Ledger, open_ledger

COUNT, ROW = 40, 30
CANDLES = random_candles(COUNT, seed=2)
BAR = CANDLES.index[ROW]

HEAD = f"""
import numpy as np
import pandas as pd

warm_up, history = 10, {COUNT}


def score(candles, mild: float = 0.5):
    scores = pd.Series(mild, candles.index)
"""
FAULTS = {
    "nan": (f"    scores.iloc[{ROW}] = np.nan\n    return scores", "score nan"),
    "infinite": (f"    scores.iloc[{ROW}] = np.inf\n    return scores", "score inf"),
    "outside": (f"    scores.iloc[{ROW}] = -1.5\n    return scores", "score -1.5"),
    "length": ("    return scores.iloc[1:]", f"gave {COUNT - 1} scores for {COUNT} candles"),
    "times": ("    return scores.shift(freq='1h')", "on other times"),
    "nothing": ("    return None", "no frame with a column 'score'"),
    "raises": ("    raise ValueError('of all things')", "ValueError in line 10"),
}
WITH_A_BAR = {"nan", "infinite", "outside"}


def source(fault: str) -> Source:
    return Source("faulty", HEAD + FAULTS[fault][0] + "\n")


@pytest.fixture
def books(home: Path) -> Iterator[tuple[Ledger, CandleStore]]:
    settings = load_settings(home)
    ledger, store = open_ledger(settings, migrate=True), CandleStore(settings.candles)
    store.append("v", "A/USD", "1h", CANDLES, as_of=datetime(2040, 1, 1, tzinfo=UTC))
    cash = Decimal(10_000)
    with ledger.write() as connection:
        save_balance(connection, Balance("v", "USD", cash, cash, Decimal(0), utc_now()))
    begin_run(ledger, "run")
    yield ledger, store
    ledger.close()


def live(ledger: Ledger, store: CandleStore, of: Source) -> Callable[[], object]:
    remember_frozen(of.reference, of.text)
    bot = new_bot("one", "v", "A/USD", "1h", of.reference, {"mild": 0.25},
                  {"confirmation_minutes": 0})  # fmt: skip
    close = CANDLES.index[-1].to_pydatetime() + timedelta(hours=1)
    return lambda: score_bot(ledger, store, LimitSettings(), bot, close, "run").record(ledger)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", ["score", "backtest", "bias", "live"])
def test_one_error_names_strategy_parameter_and_bar(books, fault, place):
    of = source(fault)
    found = make_strategy(of)
    params = found.params(mild=0.25)
    ask = {
        "score": lambda: found.score(CANDLES, params),
        "backtest": lambda: run_backtest(CANDLES, "1h", found, params),
        "bias": lambda: check_bias(found, pd.concat([CANDLES, later()]), params),
        "live": live(*books, of),
    }[place]
    with pytest.raises(InvalidInput) as told:
        ask()
    text = str(told.value)
    assert text.startswith(f"Strategy '{of.reference}' with mild=0.25 ")
    words = FAULTS[fault][1]
    assert words in text or (place == "bias" and fault == "length" and "scores for" in text)
    if fault in WITH_A_BAR:
        assert BAR.isoformat() in text


def later() -> pd.DataFrame:
    """Candles behind the others, since a bias check wants more than a history."""
    return random_candles(60, seed=3, start=CANDLES.index[-1].to_pydatetime() + timedelta(hours=1))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bench_names_the_bar_and_a_sweep_goes_on_and_names_the_rest(fault):
    text = source(fault).text.replace("    scores = pd", "    good = pd").replace(
        "candles.index)\n", "candles.index)\n    if mild > 0.3:\n        return good\n"
        "    scores = good.copy()\n", 1
    )  # fmt: skip
    found = make_strategy(Source("faulty", text))
    words = FAULTS[fault][1].replace("line 10", "line 13")
    bench = make_bench(CANDLES, "1h", found, 0.001, 10_000)
    with pytest.raises((InvalidInput, ValueError)) as told:
        bench.scores(found.params(mild=0.25))
    assert words in str(told.value) or fault == "raises"
    assert f"{BAR:%Y-%m-%dT%H:%M}" in str(told.value) or fault not in WITH_A_BAR
    result = sweep(CANDLES, "1h", found, {"mild": [0.25, 0.5]}, progress=False)
    assert result.failures["mild"].tolist() == [0.25]
    (error,) = result.failures["error"]
    assert error.startswith(f"{found.name} with mild = 0.25: ")
    assert words in error
    assert result.frame["total_return"].notna().sum() == 1


def test_candles_that_are_all_warm_up_are_refused_and_a_live_bot_waits_for_more(books):
    of = Source(
        "patient",
        f"warm_up, history = {COUNT}, 100\ndef score(c):\n    return c['close'] * float('nan')",
    )
    found = make_strategy(of)
    told = f"a first score needs {COUNT + 1} candles, and there are {COUNT}; give more"
    with pytest.raises(InvalidInput, match=rf"'{of.reference}' with its default .*: {told}"):
        run_backtest(CANDLES, "1h", found)
    with pytest.raises(InvalidInput, match=told):
        sweep(CANDLES, "1h", found, {}, progress=False)
    remember_frozen(of.reference, of.text)
    ledger, store = books
    bot = new_bot("one", "v", "A/USD", "1h", of.reference)
    close = CANDLES.index[-1].to_pydatetime() + timedelta(hours=1)
    decision = score_bot(ledger, store, LimitSettings(), bot, close, "run").record(ledger).decision
    assert (decision.action, decision.reason) == ("HOLD", "warming up")


def test_an_empty_grid_is_refused_with_the_parameters_name():
    found = make_strategy(source("nan"))
    with pytest.raises(InvalidInput, match="The space is empty: mild has no value"):
        sweep(CANDLES, "1h", found, {"mild": []}, progress=False)
