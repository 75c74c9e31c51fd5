"""Strategies over several symbols: what each weighs, and that none of them knows the future."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from tests.strategy.markets import path_candles, torn_candles
from tradelib.candles.walk import START, random_candles
from tradelib.errors import InvalidInput
from tradelib.strategy.allocations import target_strategy, target_strategy_names
from tradelib.strategy.params import Params
from tradelib.strategy.targets import TargetStrategy, align_candles, require_symbols

NAMES = ("A/USDT", "B/USDT", "C/USDT")
every_strategy = pytest.mark.parametrize("name", target_strategy_names())


def market(count=600, seed=1, make=random_candles):
    return {symbol: make(count, seed=seed + i) for i, symbol in enumerate(NAMES)}


def weigh(name, closes, **values):
    """The newest weights after these closes of A, B, … on candles of an hour."""
    candles = {symbol: path_candles(path) for symbol, path in zip(NAMES, closes, strict=False)}
    found = target_strategy(name)
    return found.weights(candles, found.params(**({"most": 1.0} | values))).iloc[-1].tolist()


def test_equal_weight_gives_each_the_same():
    assert weigh("equal_weight", [[1, 2], [5, 4]], invested=0.5) == [0.25, 0.25]


def test_inverse_volatility_gives_the_calmer_more_and_what_stands_still_nothing():
    calm, wild, still = [100, 101, 100, 101], [100, 102.01, 100, 102.01], [5, 5, 5, 5]
    a, b, c = weigh("inverse_volatility", [calm, wild, still], window=3, invested=0.9)
    assert (a / b, a + b, c) == (pytest.approx(2.0), pytest.approx(0.9), 0.0)
    assert weigh("inverse_volatility", [still, still], window=3) == [0.0, 0.0]


def test_top_momentum_holds_the_strongest_that_have_risen():
    up, more, down = [100, 100, 110], [100, 100, 120], [100, 100, 90]
    assert weigh("top_momentum", [up, more, down], window=2, top=1, invested=0.6) == [0, 0.6, 0]
    assert weigh("top_momentum", [up, down, down], window=2, top=2, invested=0.6) == [0.3, 0, 0]
    assert weigh("top_momentum", [up, up, up], window=2, top=2, invested=0.6) == [0.3, 0.3, 0]
    assert weigh("top_momentum", [up, more, down], window=1, skip=1, top=2) == [0, 0, 0]
    assert weigh("top_momentum", [up, more], window=2, top=5, invested=0.6) == [0.3, 0.3]


@every_strategy
def test_no_symbol_weighs_more_than_it_may_and_the_rest_stays_cash(name):
    weights = target_strategy(name).params(invested=1.0, most=0.2)
    found = target_strategy(name).weights(market(), weights).dropna()
    assert found.to_numpy().max() == 0.2
    assert found.sum(axis=1).max() <= 0.6 + 1e-12


@every_strategy
@pytest.mark.parametrize("make", [random_candles, torn_candles])
def test_weights_rest_on_the_past_and_on_no_more_of_it_than_the_history(name, make):
    candles, found = market(1000, make=make), target_strategy(name)
    whole = found.weights(candles)
    history, index = found.history(found.params()), whole.index
    for row in (len(index) // 2, len(index) - 1):
        cut = {s: frame[frame.index <= index[row]] for s, frame in candles.items()}
        pd.testing.assert_frame_equal(found.weights(cut), whole.iloc[: row + 1], check_exact=True)
        late = {
            s: frame[index[row - history + 1] : index[row]]
            for s, frame in align_candles(candles).items()
        }
        np.testing.assert_allclose(
            found.weights(late).iloc[-1], whole.iloc[row], rtol=0, atol=1e-12
        )


@every_strategy
def test_the_first_weights_come_after_the_warm_up(name):
    found = target_strategy(name)
    known = found.weights(market()).notna()
    assert known.all(axis=1).equals(known.any(axis=1))
    assert int(known.all(axis=1).to_numpy().argmax()) == found.warm_up(found.params())


def test_only_candles_that_all_symbols_have_count():
    candles = market(20)
    candles["B/USDT"] = candles["B/USDT"].drop(START + timedelta(hours=7))
    weights = target_strategy("equal_weight").weights(candles)
    assert len(weights) == 19
    assert START + timedelta(hours=7) not in weights.index


class NoParams(Params):
    pass


def scripted(weights):
    """A strategy that gives these weights at each candle."""
    return TargetStrategy(
        "scripted",
        NoParams,
        lambda candles, params: pd.DataFrame(
            weights, index=next(iter(candles.values())).index, columns=list(candles)
        ),
        warm_up=lambda params: 0,
        history=lambda params: 1,
    )


@pytest.mark.parametrize(
    "weights", [[[-0.1, 0.5, 0.5]], [[0.5, 0.5, 0.5]], [[np.nan, 0.5, 0.2]], [[np.inf, 0, 0]]]
)
def test_weights_that_are_no_share_of_anything_are_refused(weights):
    with pytest.raises(InvalidInput, match="below 0, some that are NaN"):
        scripted(weights).weights(market(1))


def test_a_frame_of_other_symbols_is_refused():
    wrong = TargetStrategy(
        "wrong", NoParams, lambda candles, params: pd.DataFrame({"A/USDT": [1.0]}),
        warm_up=lambda params: 0, history=lambda params: 1,
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="the columns A/USDT, B/USDT, C/USDT"):
        wrong.weights(market(1))


@pytest.mark.parametrize(
    ("symbols", "told"),
    [
        (["A/USDT"], "2 to 50 symbols"),
        (["A/USDT", "A/USDT"], "each once"),
        (["A/USDT", "B/BTC"], "one currency"),
        (["A/USDT", "B"], "not a pair"),
    ],
)
def test_symbols_that_make_no_portfolio_are_refused(symbols, told):
    with pytest.raises(InvalidInput, match=told):
        require_symbols(symbols)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(InvalidInput, match="did you mean 'equal_weight'"):
        target_strategy("equal_weigt")


def test_parameters_of_another_strategy_are_refused():
    with pytest.raises(InvalidInput, match="takes EqualWeightParams"):
        target_strategy("equal_weight").weights(market(3), NoParams())
