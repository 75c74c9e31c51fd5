"""The examination that a strategy passes before it trades: bias, and what it did out of sample.

All of it is computed here, from the strategy and its candles: no result is taken from elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from tradelib.candles.schema import validate_candles
from tradelib.errors import InvalidInput, unknown_name
from tradelib.research.backtest import DEFAULT_CASH, DEFAULT_FEE, run_backtest
from tradelib.research.bias import check_bias
from tradelib.research.luck import backtest_overfitting, deflate, sharpe_ratios
from tradelib.research.progress import show_progress
from tradelib.research.walkforward import (
    Choice,
    Fold,
    Search,
    WalkForward,
    rolling_folds,
    trial_returns,
    walk_forward,
)
from tradelib.strategy.base import Strategy
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.params import Params

MOST_CHOICES = 1_000
_POINTS = 300
"""Points of a curve that an examination keeps."""


@dataclass(frozen=True)
class Examination:
    """What `examine` found.

    bias: the report of `check_bias`, None where it could not run. in_sample: metrics of a backtest
    up to the first candle that was traded out of sample. out_of_sample: how the candles went that
    chose nothing, None without such. luck: what so many trials say, None for a single one. curves:
    equity in and out of sample beside holding, thinned out. refusals: why it does not pass; notes:
    what else a person should know.
    """

    strategy: str
    params: dict[str, Any]
    decision: dict[str, Any]
    bias: dict[str, Any] | None = None
    in_sample: dict[str, Any] | None = None
    out_of_sample: dict[str, Any] | None = None
    luck: dict[str, Any] | None = None
    curves: dict[str, Any] = field(default_factory=dict, repr=False)
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.refusals

    @property
    def verdict(self) -> str:
        """In one line: passed, or why not."""
        if self.passed:
            return f"{self.strategy} passes."
        return (
            f"{self.strategy} does not pass: {'; '.join(one.rstrip('.') for one in self.refusals)}."
        )

    def to_json(self) -> dict[str, Any]:
        """All of it but the strategy, which others name."""
        told = asdict(self)
        return {name: _plain(told[name]) for name in told.keys() - {"strategy"}}


def examine(
    candles: pd.DataFrame,
    timeframe: str,
    strategy: Strategy,
    params: Params | None = None,
    decision: DecisionParams | None = None,
    *,
    tried: Mapping[str, Iterable[Any]] | None = None,
    hold_out: float | None = None,
    folds: int = 5,
    fee: float = DEFAULT_FEE,
    cash: float = DEFAULT_CASH,
    progress: bool = True,
) -> Examination:
    """Check the strategy for bias, trade it out of sample, and ask whether it was luck.

    params, decision: those that shall trade. tried: by parameter, of the strategy or the decision,
    all values that were looked at to find them; their product is chosen from anew in each of
    `folds` folds that walk forward over the later half of the candles. hold_out: instead, the last
    share of the candles (0…1) that nobody has looked at; it is traded once with what is given. With
    neither there is no out-of-sample result. InvalidInput for what makes no sense; what speaks
    against the strategy is a refusal in the result.
    """
    candles = validate_candles(candles, timeframe, "examination")
    chosen = Choice(params or strategy.params(), decision or DecisionParams())
    choices = _choices(strategy, chosen, tried or {})
    case = _Case(candles, timeframe, strategy, chosen, choices, fee, cash)
    try:
        strategy.history(chosen.params)
    except InvalidInput as error:  # nothing can be run
        return case.result(refusals=(str(error),))
    refusals: list[str] = []
    bias = case.bias(refusals)
    total = len(choices) * ((folds if hold_out is None else 0) + 1)
    asked = bool(tried) or hold_out is not None
    with show_progress(f"examine {strategy.name}", total, wanted=progress) as advance:
        walked = case.walk(hold_out, folds, refusals, advance) if asked else None
        luck, notes = case.luck(advance)
    if not asked:
        refusals.append(
            "there is no out-of-sample result: name all values that were tried, or the share of "
            "the candles that was held out"
        )
    inside, curves = case.inside(walked, refusals)
    kind = "walk-forward" if hold_out is None else "hold-out"
    return case.result(
        bias=bias,
        in_sample=inside,
        out_of_sample=case.outside(walked, kind, refusals, notes),
        luck=luck,
        curves=curves,
        refusals=tuple(refusals),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Case:
    """What is examined. choices: all that were tried, the chosen one first."""

    candles: pd.DataFrame
    timeframe: str
    strategy: Strategy
    chosen: Choice
    choices: tuple[Choice, ...]
    fee: float
    cash: float

    def result(self, **found: Any) -> Examination:
        params, decision = self.chosen.params, self.chosen.decision
        return Examination(
            self.strategy.name,
            params.model_dump(mode="json"),
            decision.model_dump(mode="json"),
            **found,
        )

    def bias(self, refusals: list[str]) -> dict[str, Any] | None:
        try:
            report = check_bias(self.strategy, self.candles, self.chosen.params)
        except InvalidInput as error:
            refusals.append(f"the bias check could not run: {error}")
            return None
        if not report.unbiased:
            refusals.append(f"the bias check failed: {report.verdict}")
        return asdict(report) | {"verdict": report.verdict, "unbiased": report.unbiased}

    def walk(
        self,
        hold_out: float | None,
        folds: int,
        refusals: list[str],
        advance: Callable[[int], None],
    ) -> WalkForward | None:
        """The candles that chose nothing, traded; None with the reason why that cannot be."""
        try:
            cut = self._folds(hold_out, folds)
            search = self._search(advance) if hold_out is None else lambda _: self.chosen
            return walk_forward(
                self.candles, self.timeframe, self.strategy, search, cut, fee=self.fee,
                cash=self.cash,
            )  # fmt: skip
        except InvalidInput as error:
            refusals.append(f"the out-of-sample result is missing: {error}")
            return None

    def _folds(self, hold_out: float | None, folds: int) -> list[Fold]:
        count = len(self.candles)
        if hold_out is not None and not 0 < hold_out < 1:
            raise InvalidInput(f"A share of {hold_out:g} cannot be held out; give 0…1.")
        if folds < 1:
            raise InvalidInput(f"{folds} folds are none; walk forward over 1 or more.")
        parts = 1 if hold_out is not None else folds
        test = int(count * (hold_out or 0.5)) // parts
        purge = max(self.strategy.history(choice.params) for choice in self.choices)
        warm_up = max(self.strategy.warm_up(choice.params) for choice in self.choices)
        train = count - parts * test - purge
        if test < 2 or train < warm_up + 3:
            raise InvalidInput(
                f"{count:,} candles are too few for {parts} folds of {test:,} to test, a history "
                f"of {purge:,} before each, and a training beyond a warm-up of {warm_up:,}"
            )
        return rolling_folds(count, train=train, test=test, purge=purge)

    def _search(self, advance: Callable[[int], None]) -> Search:
        """The choice with the highest Sharpe ratio in the training."""

        def search(train: pd.DataFrame) -> Choice:
            returns = self._returns(train, advance)
            return self.choices[int(sharpe_ratios(returns.to_numpy()).argmax())]

        return search

    def _returns(self, candles: pd.DataFrame, advance: Callable[[int], None]) -> pd.DataFrame:
        found = trial_returns(candles, self.timeframe, self.strategy, self.choices, fee=self.fee)
        advance(len(self.choices))
        return found

    def luck(self, advance: Callable[[int], None]) -> tuple[dict[str, Any] | None, list[str]]:
        """What the number of trials makes of the best one, and what could not be told of it."""
        if len(self.choices) < 2:
            return None, []
        try:
            returns = self._returns(self.candles, advance).to_numpy()
            found = deflate(returns)
            told = {
                "trials": len(self.choices),
                "effective_trials": found.trials,
                "best_sharpe": found.sample.sharpe,
                "expected_sharpe": found.expected,
                "deflated_sharpe": found.probability,
                "chosen_sharpe": float(sharpe_ratios(returns)[0]),
            }
            overfitting = backtest_overfitting(returns)
        except InvalidInput as error:
            return None, [f"whether it was luck cannot be told: {error}"]
        return told | {"overfitting": overfitting.probability, "loss": overfitting.loss}, []

    def inside(
        self, walked: WalkForward | None, refusals: list[str]
    ) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The chosen one's backtest up to the first test, and the curves of both."""
        until = len(self.candles) if walked is None else self._row(walked.equity.index[0])
        try:
            found = run_backtest(
                self.candles.iloc[:until], self.timeframe, self.strategy, self.chosen.params,
                self.chosen.decision, fee=self.fee, cash=self.cash,
            )  # fmt: skip
        except InvalidInput as error:
            refusals.append(f"it cannot be traded: {error}")
            return None, {}
        curves = {"in_sample": self._curve(found.equity)}
        if walked is not None:
            curves["out_of_sample"] = self._curve(walked.equity)
        told = {**asdict(found.metrics), **self._span(found.equity)}
        return told, curves

    def outside(
        self, walked: WalkForward | None, kind: str, refusals: list[str], notes: list[str]
    ) -> dict[str, Any] | None:
        if walked is None:
            return None
        trades = sum(fold.outside.trades for fold in walked.folds)
        if not trades:
            refusals.append("the out-of-sample result is missing: it traded nothing there")
        if trades and walked.total_return < 0:
            notes.append(f"it lost {-walked.total_return:.1%} out of sample")
        returns = walked.equity.pct_change().dropna().to_numpy()
        return {
            "kind": kind,
            **self._span(walked.equity),
            "total_return": walked.total_return,
            "sharpe": float(sharpe_ratios(returns)[0]) if len(returns) > 1 else None,
            "trades": trades,
            "efficiency": walked.efficiency,
            "folds": [
                {
                    "test_from": fold.test_from.isoformat(),
                    "test_to": fold.test_to.isoformat(),
                    "choice": fold.choice.values(changed=True),
                    "inside_growth": fold.inside.growth,
                    "outside_growth": fold.outside.growth,
                    "trades": fold.outside.trades,
                }
                for fold in walked.folds
            ],
        }

    def _row(self, time: pd.Timestamp) -> int:
        return int(self.candles.index.get_loc(time))

    def _span(self, equity: pd.Series) -> dict[str, Any]:
        closes = self.candles["close"].loc[equity.index]
        return {
            "from": equity.index[0].isoformat(),
            "to": equity.index[-1].isoformat(),
            "candles": len(equity),
            "market_return": float(closes.iloc[-1] / closes.iloc[0]) - 1,
        }

    def _curve(self, equity: pd.Series) -> dict[str, Any]:
        """Equity and holding, from one value at its beginning."""
        rows = np.unique(np.linspace(0, len(equity) - 1, _POINTS).round().astype(int))
        closes = self.candles["close"].loc[equity.index].to_numpy()
        held = closes / closes[0] * float(equity.iloc[0])
        return {
            "times": [time.isoformat() for time in equity.index[rows]],
            "equity": [round(float(one), 4) for one in equity.to_numpy()[rows]],
            "holding": [round(float(one), 4) for one in held[rows]],
        }


def _choices(
    strategy: Strategy, chosen: Choice, tried: Mapping[str, Iterable[Any]]
) -> tuple[Choice, ...]:
    """The product of all values that were tried, the chosen one first; what the parameters forbid
    was no trial."""
    decisions, own = DecisionParams.model_fields, strategy.params_type.model_fields
    values = {name: tuple(dict.fromkeys(told)) for name, told in tried.items()}
    for name, told in values.items():
        if name not in own and name not in decisions:
            raise unknown_name("parameter", name, [*own, *decisions], strategy.name)
        if not told:
            raise InvalidInput(f"Of {name} no value was tried; name one or more, or leave it out.")
    if (count := math.prod(map(len, values.values()))) > MOST_CHOICES:
        raise InvalidInput(
            f"{count:,} combinations are more than the {MOST_CHOICES:,} that an examination walks "
            f"through; name fewer values."
        )
    found, idle = [chosen], {(name, value) for name, told in values.items() for value in told}
    refusal = ""
    for combination in product(*values.values()):
        told = dict(zip(values, combination, strict=True))
        try:
            one = Choice(
                chosen.params.changed(**{n: v for n, v in told.items() if n in own}),
                chosen.decision.changed(**{n: v for n, v in told.items() if n not in own}),
            )
        except InvalidInput as error:
            refusal = refusal or str(error)
            continue
        idle -= told.items()
        if one not in found:
            found.append(one)
    if idle:
        name, value = min(idle, key=str)
        raise InvalidInput(f"{name} = {value!r} was never tried, for it cannot be: {refusal}")
    return tuple(found)


def _plain(value: Any) -> Any:
    """The value as JSON knows it: no NaN, no infinity, no tuples."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
