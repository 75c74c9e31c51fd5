"""Tuning: Optuna proposes the next combinations from what the ones before have earned.

Fewer backtests than a grid where parameters are many; but what is found by looking long enough is
the more likely to be luck.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd

from tradelib.errors import InvalidInput
from tradelib.research.backtest import DEFAULT_CASH, DEFAULT_FEE
from tradelib.research.bench import make_bench
from tradelib.research.fills import NEXT_OPEN, FillModel
from tradelib.research.metrics import METRICS, check_metrics
from tradelib.research.space import Axis, Span, make_space
from tradelib.research.sweep import SweepResult, Work, progress_bar, result_of, threads
from tradelib.strategy.base import Strategy

if TYPE_CHECKING:
    import optuna

BATCH = 8
"""Trials proposed at a time, for threads to share; the same everywhere, for the same result."""


def tune(
    candles: pd.DataFrame,
    timeframe: str,
    strategy: Strategy,
    space: Mapping[str, Any],
    decision_space: Mapping[str, Any] | None = None,
    *,
    trials: int,
    seed: int = 0,
    metric: str = "sharpe",
    maximise: bool = True,
    fee: float = DEFAULT_FEE,
    cash: float = DEFAULT_CASH,
    fills: FillModel = NEXT_OPEN,
    metrics: Sequence[str] = METRICS,
    workers: int | None = None,
    progress: bool = True,
) -> SweepResult:
    """So many trials in search of the highest metric, each a row as in `sweep`, in their order.

    space, decision_space, fills: as for `sweep`; a `Span` is searched, a list chosen from. What
    is invalid, fails or has no such metric is a trial in vain. Optuna's TPE sampler by the seed:
    the same call gives the same rows, whatever the number of workers.
    """
    wanted = check_metrics(metrics if metric in metrics else (*metrics, metric))
    asked = make_space(strategy, space, decision_space, samples=trials, seed=seed)
    if not asked.names:
        raise InvalidInput("The space is empty: no parameter is to be tuned; name one.")
    work = Work(make_bench(candles, timeframe, strategy, fee, cash, fills), asked, wanted)
    chunks = []
    with (
        _study(seed, maximise) as study,
        progress_bar(work, 0, progress) as advance,
        threads(workers or os.cpu_count() or 1) as (pool, _),
    ):
        axes = {name: _distribution(axis) for name, axis in asked.axes.items()}
        for first in range(0, trials, BATCH):
            batch = [study.ask(axes) for _ in range(min(BATCH, trials - first))]
            proposed = [(trial.number, asked.combination(trial.params)) for trial in batch]
            found = list(pool.map(lambda one: work.run([one]), proposed))
            for trial, chunk in zip(batch, found, strict=True):
                _tell(study, trial, chunk.rows[metric])
                advance(1)
            chunks += found
    return result_of(work, chunks)


@contextmanager
def _study(seed: int, maximise: bool) -> Iterator[optuna.Study]:
    """A study in memory; Optuna, which logs each step, is silent the while."""
    import optuna

    spoken = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        yield optuna.create_study(sampler=sampler, direction="maximize" if maximise else "minimize")
    finally:
        optuna.logging.set_verbosity(spoken)


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if not isinstance(axis, Span):
        return CategoricalDistribution(axis)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(float(axis.low), float(axis.high), log=axis.log)


def _tell(study: optuna.Study, trial: optuna.Trial, found: pd.Series) -> None:
    from optuna.trial import TrialState

    if found.empty or found.isna().any():
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, float(found.iloc[0]))
