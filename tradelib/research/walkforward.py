"""Walk-forward: choose parameters on what was known, trade what came next, and join the results.

A fold is made of positions of candles, so that a gap in time counts for nothing. Between the
candles that choose and those that are traded lies a purge. It must cover the strategy's history:
an out-of-sample score reads that many candles back, and so reads none that chose its parameters.
`walk_forward` refuses a shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd

from tradelib.errors import InvalidInput
from tradelib.research.backtest import DEFAULT_CASH, DEFAULT_FEE, Backtest, run_backtest
from tradelib.research.fills import NEXT_OPEN, FillModel
from tradelib.research.luck import sharpe_ratios
from tradelib.strategy.base import Strategy
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.params import Params


@dataclass(frozen=True, eq=False)
class Fold:
    """Positions of candles, ascending: `train` chooses, `test` is what the choice is tried on."""

    train: np.ndarray
    test: np.ndarray


def rolling_folds(count: int, *, train: int, test: int, purge: int = 0) -> list[Fold]:
    """Folds of `count` candles, each trained on the `train` candles before its purge.

    test: candles of each test; tests follow each other up to the last candle, so that what does
    not fill a fold is left out at the beginning. purge: candles left out before each test, at
    least the strategy's history. count=9, train=3, test=2, purge=1 trains on 1-3, 3-5 and tests
    on 5-6, 7-8.
    """
    return [
        Fold(np.arange(start - purge - train, start - purge), np.arange(start, start + test))
        for start in _starts(count, train, test, purge)
    ]


def anchored_folds(count: int, *, train: int, test: int, purge: int = 0) -> list[Fold]:
    """As `rolling_folds`, each trained on all candles before its purge, on `train` at least."""
    return [
        Fold(np.arange(start - purge), np.arange(start, start + test))
        for start in _starts(count, train, test, purge)
    ]


def combinatorial_folds(
    count: int, *, groups: int, tested: int, purge: int = 0, embargo: int = 0
) -> list[Fold]:
    """All ways to test `tested` of `groups` equal groups and to train on the rest.

    purge: candles left out of the training before each tested group, at least as many as a trade
    lasts, for its outcome lies in the test. embargo: candles left out behind each, at least the
    strategy's history, for their scores read the test. Groups differ by one candle at most.
    Source: López de Prado, Advances in financial machine learning, 2018, sections 7.4 and 12.4.
    """
    if not (1 <= tested < groups <= count) or min(purge, embargo) < 0:
        raise InvalidInput(
            f"{tested} of {groups} groups of {count} candles, with {purge} purged and {embargo} "
            f"embargoed, make no folds; test at least one group and fewer than all."
        )
    if math.comb(groups, tested) > 10_000:
        raise InvalidInput(
            f"{tested} of {groups} groups are {math.comb(groups, tested):,} folds; take fewer."
        )
    edges = np.arange(groups + 1) * count // groups
    folds = [
        _combined(edges, chosen, purge, embargo) for chosen in combinations(range(groups), tested)
    ]
    if any(fold.train.size == 0 for fold in folds):
        raise InvalidInput(
            f"A purge of {purge} and an embargo of {embargo} leave nothing to train on in groups "
            f"of {count // groups} candles; take fewer groups."
        )
    return folds


def _starts(count: int, train: int, test: int, purge: int) -> range:
    if min(train, test) < 1 or purge < 0:
        raise InvalidInput(
            f"Folds of {train} candles to train, {purge} to purge and {test} to test make no sense."
        )
    folds = (count - train - purge) // test
    if folds < 1:
        raise InvalidInput(
            f"{count:,} candles are too few for one fold of {train:,} to train, {purge:,} to purge "
            f"and {test:,} to test."
        )
    return range(count - folds * test, count, test)


def _combined(edges: np.ndarray, chosen: tuple[int, ...], purge: int, embargo: int) -> Fold:
    train, test = np.ones((2, edges[-1]), dtype=bool)
    test[:] = False
    for group in chosen:
        test[edges[group] : edges[group + 1]] = True
        train[max(edges[group] - purge, 0) : edges[group + 1] + embargo] = False
    return Fold(np.flatnonzero(train), np.flatnonzero(test))


@dataclass(frozen=True)
class Choice:
    """What a search chooses: the strategy's parameters and the decision's."""

    params: Params
    decision: DecisionParams = field(default_factory=DecisionParams)

    def values(self, *, changed: bool = False) -> dict[str, Any]:
        """All parameters by name, or those alone that differ from their defaults."""
        dumps = (one.model_dump(exclude_defaults=changed) for one in (self.decision, self.params))
        return {name: value for dump in dumps for name, value in dump.items()}


Search = Callable[[pd.DataFrame], Choice]
"""Training candles to the choice that is tried on the candles after them."""


@dataclass(frozen=True)
class Performance:
    """How a backtest went. growth: of the equity, a fraction. sharpe: per candle, not annualised;
    0 where the equity never moved. candles: how many it counts, warm-up left out. trades: fills."""

    growth: float
    sharpe: float
    candles: int
    trades: int


@dataclass(frozen=True)
class FoldResult:
    """One fold: when its first and last candles open, what was chosen, and how it went inside the
    training, warm-up left out, and outside."""

    train_from: pd.Timestamp
    train_to: pd.Timestamp
    test_from: pd.Timestamp
    test_to: pd.Timestamp
    choice: Choice
    inside: Performance
    outside: Performance


@dataclass(frozen=True)
class WalkForward:
    """All folds, oldest first, and the equity of trading one test after the other.

    equity: quote value at each tested candle's close, fees paid. Every fold begins with the
    equity the one before it ended with, and with nothing held: a position that is open at a
    fold's end counts as sold at its last close, and pays the fee and half the spread.
    """

    strategy: str
    timeframe: str
    folds: tuple[FoldResult, ...]
    equity: pd.Series = field(repr=False)
    fee: float
    cash: float

    @property
    def total_return(self) -> float:
        """Growth of the joined equity, a fraction."""
        return float(self.equity.iloc[-1]) / self.cash - 1

    @property
    def efficiency(self) -> float:
        """Logarithmic growth per candle outside over that inside; NaN where there was none inside.

        Near 1 the choice kept its promise, near 0 it was luck. Source: R. Pardo, The evaluation
        and optimization of trading strategies, 2008, chapter 11 (walk-forward efficiency).
        """
        inside, outside = (
            sum(math.log1p(one.growth) for one in side) / sum(one.candles for one in side)
            for side in zip(*((fold.inside, fold.outside) for fold in self.folds), strict=True)
        )
        return outside / inside if inside > 0 else math.nan

    def table(self) -> pd.DataFrame:
        """One row for each fold, by the time its test begins.

        Columns: each parameter that some fold chose other than its default, how it went inside and
        outside, the trades outside, and `lost`, the Sharpe ratio inside less that outside.
        """
        changed = {name for fold in self.folds for name in fold.choice.values(changed=True)}
        index = pd.DatetimeIndex([fold.test_from for fold in self.folds], name="test_from")
        return pd.DataFrame([_row(fold, changed) for fold in self.folds], index=index)


def _row(fold: FoldResult, parameters: set[str]) -> dict[str, Any]:
    chosen = fold.choice.values()
    return {
        **{name: value for name, value in chosen.items() if name in parameters},
        "inside_growth": fold.inside.growth,
        "outside_growth": fold.outside.growth,
        "inside_sharpe": fold.inside.sharpe,
        "outside_sharpe": fold.outside.sharpe,
        "lost": fold.inside.sharpe - fold.outside.sharpe,
        "trades": fold.outside.trades,
    }


def walk_forward(
    candles: pd.DataFrame,
    timeframe: str,
    strategy: Strategy,
    search: Search,
    folds: Sequence[Fold],
    *,
    fee: float = DEFAULT_FEE,
    cash: float = DEFAULT_CASH,
    fills: FillModel = NEXT_OPEN,
) -> WalkForward:
    """Search each fold's training candles, and trade its test with what was chosen.

    fee, cash, fills: as for `run_backtest`; a search has its own fee and fills. folds: as
    `rolling_folds` and `anchored_folds` make them, tests side by side. Before each test the
    strategy gets as many candles as its history, from the purge, and trades none of them.
    InvalidInput where folds do not follow each other, or where the choice's history is longer than
    the purge, with the purge to give.
    """
    _check_folds(folds, len(candles))
    results, curves, equity = [], [], cash
    for number, fold in enumerate(folds):
        train = candles.iloc[fold.train]
        choice = search(train)
        _check_purge(strategy, choice, fold, number)
        inside = run_backtest(
            train, timeframe, strategy, choice.params, choice.decision, fee=fee, cash=cash,
            fills=fills,
        )  # fmt: skip
        outside, curve = _trade(candles, timeframe, strategy, choice, fold, fee, equity, fills)
        results.append(
            FoldResult(
                train.index[0],
                train.index[-1],
                curve.index[0],
                curve.index[-1],
                choice,
                _performance(inside, inside.equity.iloc[strategy.warm_up(choice.params) :], cash),
                _performance(outside, curve, equity),
            )
        )
        curves.append(curve)
        equity = float(curve.iloc[-1])
    joined = pd.concat(curves).rename("equity")
    return WalkForward(strategy.name, timeframe, tuple(results), joined, fee, cash)


def best_in_sample(
    timeframe: str,
    strategy: Strategy,
    choices: Iterable[Choice],
    *,
    fee: float = DEFAULT_FEE,
    fills: FillModel = NEXT_OPEN,
) -> Search:
    """A search that tries every choice and takes that of the highest Sharpe ratio, the first of
    several."""
    choices = list(choices)

    def search(candles: pd.DataFrame) -> Choice:
        returns = trial_returns(candles, timeframe, strategy, choices, fee=fee, fills=fills)
        return choices[int(sharpe_ratios(returns.to_numpy()).argmax())]

    return search


def trial_returns(
    candles: pd.DataFrame,
    timeframe: str,
    strategy: Strategy,
    choices: Sequence[Choice],
    *,
    fee: float = DEFAULT_FEE,
    fills: FillModel = NEXT_OPEN,
) -> pd.DataFrame:
    """Returns of one backtest for each choice, fractions, one column each, as `luck` judges them.

    Rows are candles; those of the longest warm-up are left out for all, so that every choice is
    measured on the same time.
    """
    if not choices:
        raise InvalidInput("A search needs something to choose from and got nothing.")
    warm_up = max(strategy.warm_up(choice.params) for choice in choices)
    if len(candles) < warm_up + 3:
        raise InvalidInput(
            f"{len(candles):,} candles are too few for a warm-up of {warm_up:,} and three more."
        )
    curves = [
        run_backtest(
            candles, timeframe, strategy, choice.params, choice.decision, fee=fee, fills=fills
        ).equity
        for choice in choices
    ]
    equity = np.column_stack([curve.to_numpy()[warm_up:] for curve in curves])
    return pd.DataFrame(equity[1:] / equity[:-1] - 1, index=candles.index[warm_up + 1 :])


def _trade(
    candles: pd.DataFrame,
    timeframe: str,
    strategy: Strategy,
    choice: Choice,
    fold: Fold,
    fee: float,
    cash: float,
    fills: FillModel,
) -> tuple[Backtest, pd.Series]:
    """The fold's test, traded from `cash`, and its equity with nothing held at the end."""
    warm_up = strategy.history(choice.params)
    first, last = int(fold.test[0]), int(fold.test[-1])
    result = run_backtest(
        candles.iloc[first - warm_up : last + 1],
        timeframe,
        _silent_until(strategy, warm_up),
        choice.params,
        choice.decision,
        fee=fee,
        cash=cash,
        fills=fills,
    )
    curve = result.equity.iloc[warm_up:].copy()
    held = float(result.done[:, 0].sum())
    curve.iloc[-1] -= held * float(candles["close"].iloc[last]) * fills.leaving_share(fee)
    return result, curve


def _silent_until(strategy: Strategy, first: int) -> Strategy:
    """The strategy without scores for its first candles: a bot that warms up trades nothing."""

    def compute(candles: pd.DataFrame, params: Any) -> pd.DataFrame:
        scores = strategy.compute(candles, params)
        return scores.assign(score=scores["score"].where(np.arange(len(scores)) >= first))

    return replace(strategy, compute=compute, warm_up=lambda _: first, columns=None)


def _performance(result: Backtest, equity: pd.Series, before: float) -> Performance:
    """Of the equity from its first candle on, `before` being what it began with."""
    values = np.concatenate([[before], equity.to_numpy()])
    returns = values[1:] / values[:-1] - 1
    sharpe = float(sharpe_ratios(returns)[0]) if len(returns) > 1 else 0.0
    return Performance(float(values[-1] / before) - 1, sharpe, len(returns), len(result.trades))


def _check_folds(folds: Sequence[Fold], count: int) -> None:
    if not folds:
        raise InvalidInput("A walk-forward needs folds and got none.")
    for fold in folds:
        if min(fold.train.size, fold.test.size) == 0 or fold.test[-1] >= count:
            raise InvalidInput(f"A fold is empty or reaches beyond the {count:,} candles.")
        if (np.diff(fold.test) != 1).any() or fold.train[-1] >= fold.test[0]:
            raise InvalidInput(
                "A fold's test must be unbroken and come after its training; combinatorial folds "
                "cannot be walked."
            )
    for before, after in pairwise(folds):
        if after.test[0] != before.test[-1] + 1:
            raise InvalidInput(
                f"Tests must follow each other: one ends at candle {before.test[-1]}, the next "
                f"begins at {after.test[0]}."
            )


def _check_purge(strategy: Strategy, choice: Choice, fold: Fold, number: int) -> None:
    history = strategy.history(choice.params)
    purge = int(fold.test[0] - fold.train[-1] - 1)
    if purge < history:
        chosen = choice.values(changed=True) or "the defaults"
        raise InvalidInput(
            f"Fold {number} chose {chosen} of {strategy.name!r}, whose "
            f"scores read {history:,} candles, and the purge is {purge:,}; give "
            f"purge={history} or more."
        )
