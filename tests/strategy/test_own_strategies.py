"""A user's source becomes a strategy that is named by its hash, or is refused by one sentence."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.strategy.sources import AVERAGES, FALLING, LEAK, REVERSAL, WHOLE
from tradelib.errors import InvalidInput, StorageFailed
from tradelib.research.backtest import run_backtest
from tradelib.research.bias import check_bias
from tradelib.research.samples import random_candles
from tradelib.research.sweep import sweep
from tradelib.settings import PROJECT, load_settings
from tradelib.strategy.own import Source, find_local_imports, make_strategy
from tradelib.strategy.registry import remember_frozen, save_strategy, strategy, strategy_file

CANDLES = random_candles(600, seed=5)


def make(text: str, name: str = "idea"):
    return make_strategy(Source(name, text))


@pytest.mark.parametrize("text", [REVERSAL, FALLING, AVERAGES], ids=["pandas", "numba", "vectorbt"])
def test_a_plain_function_becomes_a_strategy_that_knows_its_needs(text):
    found = make(text)
    params = found.params()
    assert found.name == f"idea@{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    assert check_bias(found, CANDLES).unbiased
    assert found.score(CANDLES)["score"].first_valid_index() == CANDLES.index[found.warm_up(params)]
    assert run_backtest(CANDLES, "1h", found).strategy == found.name


def test_a_score_is_what_its_function_says():
    close = CANDLES["close"]
    expected = (close.rolling(7).mean() - close) / (2 * close.rolling(7).std())
    found = make(REVERSAL)
    pd.testing.assert_series_equal(
        found.score(CANDLES, found.params(window=7))["score"],
        expected.clip(-1, 1),
        check_names=False,
    )


def test_a_whole_strategy_is_taken_as_it_is():
    assert make(WHOLE).score(CANDLES)["score"].eq(0).all()


def test_parameters_keep_the_ranges_that_the_function_gives_them():
    with pytest.raises(InvalidInput, match="window = 51"):
        make(FALLING).params(window=51)
    with pytest.raises(InvalidInput, match="did you mean 'window'"):
        make(FALLING).params(windw=5)


def test_components_stand_beside_the_score_that_comes_first():
    text = (
        "def score(candles, n: int = 3):\n"
        "    part = candles['close'].diff(n)\n"
        "    return part.to_frame('part').assign(score=part.clip(-1, 1))\n"
    )
    assert list(make(text).score(CANDLES)) == ["score", "part"]


def test_a_declared_need_may_depend_on_parameters():
    text = REVERSAL + "\ndef history(window):\n    return 3 * window\n"
    found = make(text)
    assert found.history(found.params(window=7)) == 21


def test_a_long_memory_is_measured_on_a_longer_walk():
    text = (
        "def score(candles, span: int = 150):\n"
        "    close = candles['close']\n"
        "    return (close / close.ewm(span=span).mean() - 1).clip(-1, 1)\n"
    )
    found = make(text)
    history = found.history(found.params())
    candles = random_candles(4_000, seed=9)
    whole = found.score(candles)["score"].iloc[-1]
    assert 1_000 < history < 3_000
    assert found.score(candles.iloc[-history:])["score"].iloc[-1] == pytest.approx(whole, abs=1e-8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", "'idea' does not compile: line 1: invalid syntax: def f"),
        ("x = 1\ny = x / 0\n", "'idea' raised ZeroDivisionError in line 2: division by zero"),
        ("raise SystemExit(3)", "'idea' raised SystemExit in line 1: 3"),
        ("def scor(c): pass", "function `score.*has neither"),
        (WHOLE + REVERSAL, "has both"),
        ("score = 3", "has neither"),
        ("def score(): return 1", "arguments of `score` cannot be read"),
        ("def score(candles, x): return 1", "x needs a default"),
        ("def score(candles, *more): return 1", "name each"),
        ("def score(candles, changed=1): return 1", "changed has a name that is taken"),
        ("def score(candles, x=None): return 1", "x needs a type"),
        ("def score(candles, n: int = 'many'): return 1", "n = 'many'"),
        ("import numba\n@numba.njit(cache=True)\ndef f(x): return x\n", "cannot cache"),
    ],
)
def test_what_is_no_strategy_is_refused_with_its_line(text, words):
    with pytest.raises(InvalidInput, match=words):
        make(text)


@pytest.mark.parametrize("told", ["-1", "'many'", "0.5", "True"])
def test_a_need_that_is_no_number_is_refused(told):
    found = make(f"history = {told}\n{REVERSAL}")
    with pytest.raises(InvalidInput, match="its history is"):
        found.history(found.params())


def test_a_measured_need_tells_a_score_that_waits_for_the_future():
    found = make(
        LEAK.replace("warm_up, history = 24, 60", "").replace(", min_periods=window // 2", "")
    )
    with pytest.raises(InvalidInput, match="later candles: that is look-ahead"):
        found.history(found.params())


def test_a_history_without_end_is_to_be_declared():
    found = make("def score(candles): return (candles['close'].cumsum() % 1).clip(-1, 1)")
    with pytest.raises(InvalidInput, match="say in its source how many it needs"):
        found.history(found.params())


def test_an_error_names_the_line_of_the_users_source():
    found = make("warm_up, history = 0, 1\ndef score(candles):\n    return candles['clse']\n")
    with pytest.raises(InvalidInput, match=r"raised KeyError in line 3 on the 600 candles"):
        found.score(CANDLES)
    rows = sweep(CANDLES, "1h", make(REVERSAL.replace("2 *", "2 / (window - 9) *")),
                 {"window": [8, 9]}, progress=False).failures  # fmt: skip
    assert rows["window"].tolist() == [9]
    assert rows["error"].str.contains("ZeroDivisionError in line 6").all()


def test_a_strategy_is_found_by_its_name_and_a_changed_one_is_another(home):
    first = save_strategy(Source("idea", REVERSAL))
    assert strategy("idea") is first
    assert strategy_file("idea").read_text() == REVERSAL
    second = save_strategy(Source("idea", REVERSAL.replace("2 *", "3 *")))
    assert strategy("idea").name == second.name != first.name
    assert strategy(second.name) is second
    with pytest.raises(InvalidInput, match=f"{first.name} is neither in the ledger nor in a file"):
        strategy(first.name)
    with pytest.raises(InvalidInput, match="did you mean 'idea'"):
        strategy("ideas")


def test_results_name_the_hash_so_that_two_versions_never_mix(tmp_path):
    names = set()
    for factor in ("2 *", "4 *"):
        found = make(REVERSAL.replace("2 *", factor))
        result = sweep(CANDLES, "1h", found, {"window": [5, 9]}, folder=tmp_path, progress=False)
        names.add(result.strategy)
        assert not result.frame["total_return"].isna().any()
    assert len(names) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_the_name_of_a_strategy_that_ships_is_taken(home):
    for name in ("weighted", "equal_weight", "Weighted", "my idea", "../idea", ""):
        with pytest.raises(InvalidInput, match=r"already|not acceptable"):
            save_strategy(Source(name, REVERSAL))
    assert not load_settings().strategies.exists()


def test_a_frozen_text_that_does_not_hash_to_its_name_is_refused():
    reference = Source("altered", REVERSAL).reference
    remember_frozen(reference, REVERSAL + "# more")
    with pytest.raises(StorageFailed, match=f"{reference} was changed"):
        strategy(reference)


def test_imports_of_a_users_own_files_are_found(tmp_path, monkeypatch):
    (tmp_path / "my_helpers.py").write_text("x = 1")
    (tmp_path / "my_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        "import math, numba, __main__, my_folder.part\nfrom my_helpers import x\n"
        "from tradelib.errors import DeskError\nfrom nowhere import y\n"
    )
    near = find_local_imports(Source("idea", text + REVERSAL))
    assert near == ["__main__", "my_folder", "my_helpers"]


@pytest.mark.parametrize("text", [REVERSAL, FALLING, WHOLE], ids=["pandas", "numba", "whole"])
def test_a_strategy_travels_to_another_process_as_its_text(text):
    sent = make(text, "traveller")
    code = (
        "import pickle, sys\n"
        "from tradelib.research.samples import random_candles\n"
        "found = pickle.load(sys.stdin.buffer)\n"
        "print(found.name, repr(float(found.score(random_candles(600, seed=5))['score'].iloc[-1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(sent), capture_output=True, check=True,
        cwd=PROJECT,
    )  # fmt: skip
    expected = float(sent.score(CANDLES)["score"].iloc[-1])
    assert done.stdout.decode().split() == [sent.name, repr(expected)]


def test_a_strategy_cannot_alter_the_candles_it_is_given():
    found = make(
        "warm_up, history = 0, 1\ndef score(c):\n    c['close'] = 1.0\n    return c['close'] * 0"
    )
    before = CANDLES.copy()
    found.score(CANDLES)
    assert np.array_equal(before["close"], CANDLES["close"])
