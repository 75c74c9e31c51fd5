"""Does a strategy know the future, or lean on where its candles begin? It is run again to see.

A score that changes when later candles are taken away has seen them: look-ahead. A score that has
its declared history and still changes with the first candle would differ live, where no more than
that history is loaded. Neither is seen in a backtest, which it only makes look better.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd

from tradelib.errors import InvalidInput
from tradelib.strategy.base import Strategy, find_fault
from tradelib.strategy.params import Params

LOOK_AHEAD, SHORT_HISTORY = "look-ahead", "insufficient history"

WORST = 10
"""Findings of each kind that a report lists, the largest changes first."""


@dataclass(frozen=True)
class Finding:
    """A score that changed. bar: its position, time: when its candle opened. size: by how much,
    None where a score appeared or vanished. edge: for look-ahead the last bar that was known, for
    insufficient history the first that was loaded."""

    kind: Literal["look-ahead", "insufficient history"]
    bar: int
    time: str
    size: float | None
    edge: int


@dataclass(frozen=True)
class BiasReport:
    """What `check_bias` found. candles: how many it ran on; cuts and starts: how often it took the
    future away and moved the start. look_ahead and insufficient_history: how many scores changed;
    findings: the worst of them. params: all the strategy's parameters."""

    strategy: str
    params: dict
    candles: int
    history: int
    cuts: int
    starts: int
    look_ahead: int
    insufficient_history: int
    findings: tuple[Finding, ...]

    @property
    def unbiased(self) -> bool:
        """Whether no score changed."""
        return not self.findings

    @property
    def verdict(self) -> str:
        """The report in one line."""
        if self.unbiased:
            return (
                f"{self.strategy}: no bias found in {self.candles:,} candles, "
                f"{self.cuts} cuts and {self.starts} starts."
            )
        told = {LOOK_AHEAD: self.look_ahead, SHORT_HISTORY: self.insufficient_history}
        why = {
            LOOK_AHEAD: "when the future is cut",
            SHORT_HISTORY: f"with the first candle, despite {self.history:,} candles of history",
        }
        parts = [
            f"{kind}: {count:,} scores change {why[kind]}, the worst {_worst(self.findings, kind)}"
            for kind, count in told.items()
            if count
        ]
        return f"{self.strategy}: {'; '.join(parts)}."

    def to_json(self) -> str:
        """The report as JSON, the same text for the same report."""
        return json.dumps(asdict(self), allow_nan=False)


def check_bias(
    strategy: Strategy,
    candles: pd.DataFrame,
    params: Params | None = None,
    *,
    cuts: int = 50,
    starts: int = 20,
    seed: int = 0,
    tolerance: float = 1e-9,
) -> BiasReport:
    """Run the strategy again without the future, and with other first candles, and compare.

    cuts: how many ends to try: the first and last bars, the end of the warm-up, bars at gaps and
    bars without volume, where filled data is found out, and seeded bars. A leak that few bars have
    is found by a cut right behind them alone: to be certain, give as many cuts as there are
    candles. starts: how many first candles to try, from the second to the last one that leaves the
    declared history; what is compared then has its history. tolerance: change of a score that
    counts as rounding. InvalidInput names strategy, parameters and bar where the strategy raises,
    is not a pure function of the candles, or gives a frame of the wrong shape, a score outside
    -1…1, or none after its warm-up.
    """
    params = strategy.params() if params is None else params
    if not isinstance(params, strategy.params_type):
        raise InvalidInput(
            f"Strategy {strategy.name!r} takes {strategy.params_type.__name__}, "
            f"not {type(params).__name__}."
        )
    subject = _Subject(strategy, params, candles)
    history = strategy.history(params)
    _check_call(subject, history, cuts, starts)
    random = np.random.default_rng(seed)
    whole = subject.scores(0, len(candles))
    if not np.array_equal(whole, subject.scores(0, len(candles)), equal_nan=True):
        raise InvalidInput(
            f"{subject.name} gave other scores for the same candles; it must be a pure function."
        )
    ends = _ends(candles, strategy.warm_up(params), cuts, random)
    begins = _begins(len(candles) - history, starts, random)
    ahead, short = _Changes(len(candles), tolerance), _Changes(len(candles), tolerance)
    for end in ends:
        ahead.compare(whole, subject.scores(0, end), 0, edge=end - 1)
    for begin in begins:
        settled = subject.scores(begin, len(candles))[history - 1 :]
        short.compare(whole, settled, begin + history - 1, edge=begin)
    found = (*ahead.worst(LOOK_AHEAD, candles), *short.worst(SHORT_HISTORY, candles))
    return BiasReport(
        strategy.name,
        params.model_dump(mode="json"),
        len(candles),
        history,
        len(ends),
        len(begins),
        ahead.count,
        short.count,
        found,
    )


@dataclass(frozen=True)
class _Subject:
    """The strategy, run on any part of the candles."""

    strategy: Strategy
    params: Params
    candles: pd.DataFrame

    @property
    def name(self) -> str:
        return self.strategy.told(self.params)

    def bar(self, position: int) -> str:
        return f"bar {position:,} ({self.candles.index[position].isoformat()})"

    def scores(self, first: int, end: int) -> np.ndarray:
        """Scores of the candles first…end - 1, run on those alone; InvalidInput as told there."""
        part = self.candles.iloc[first:end]
        where = f"on the candles from bar {first:,} to {self.bar(end - 1)}"
        try:
            frame = self.strategy.compute(part, self.params)
        except Exception as error:
            raise InvalidInput(self.strategy.failure(error, self.params, where)) from error
        warm_up = self.strategy.warm_up(self.params)
        if fault := find_fault(frame, part.index, warm_up, first):
            raise InvalidInput(f"{self.name} {fault}, {where}.")
        return pd.to_numeric(frame["score"]).to_numpy("float64")


class _Changes:
    """The largest change of each bar's score, and the edge that brought it."""

    def __init__(self, bars: int, tolerance: float) -> None:
        self.tolerance = tolerance
        self.size = np.zeros(bars)
        self.edge = np.zeros(bars, dtype="int64")

    @property
    def count(self) -> int:
        return int(np.sum(self.size > 0))

    def compare(self, whole: np.ndarray, part: np.ndarray, first: int, *, edge: int) -> None:
        """Note where `part`, whose first score is that of the bar `first`, differs from `whole`."""
        known = whole[first : first + len(part)]
        away = np.abs(known - part)
        away[np.isnan(known) & np.isnan(part)] = 0.0
        away[np.isnan(known) != np.isnan(part)] = np.inf
        rows = np.flatnonzero(away > np.maximum(self.tolerance, self.size[first:][: len(part)]))
        self.size[first + rows], self.edge[first + rows] = away[rows], edge

    def worst(self, kind: str, candles: pd.DataFrame) -> tuple[Finding, ...]:
        bars = np.argsort(-self.size, kind="stable")[: min(WORST, self.count)]
        return tuple(
            Finding(
                kind,
                int(bar),
                candles.index[bar].isoformat(),
                float(self.size[bar]) if np.isfinite(self.size[bar]) else None,
                int(self.edge[bar]),
            )
            for bar in bars
        )


def _check_call(subject: _Subject, history: int, cuts: int, starts: int) -> None:
    if cuts < 1 or starts < 1:
        raise InvalidInput(f"{cuts} cuts and {starts} starts show nothing; give at least 1 each.")
    if len(subject.candles) < history + 2:
        raise InvalidInput(
            f"{subject.name} needs {history:,} candles of history, and a few more to be checked; "
            f"got {len(subject.candles):,}."
        )


def _ends(candles: pd.DataFrame, warm_up: int, cuts: int, random: np.random.Generator) -> list[int]:
    """Where to end the candles, sorted: at the outermost bars, at the end of the warm-up, where
    the data has holes, and at seeded bars, one in each stretch, `cuts` at most."""
    count = len(candles)
    first = [count - 1, 1, warm_up + 1, max(warm_up, 1), 2, count - 2]
    first = [end for end in dict.fromkeys(first) if 0 < end < count][:cuts]
    steps = np.diff(candles.index.asi8)
    holes = np.flatnonzero(steps > steps.min()) + 1
    if "volume" in candles.columns:
        holes = np.union1d(holes, np.flatnonzero(candles["volume"].to_numpy() == 0) + 1)
    holes = np.setdiff1d(holes[holes < count], first)
    room = min((cuts - len(first) + 1) // 2, len(holes))
    chosen = np.union1d(first, random.choice(holes, room, replace=False))
    rest = np.setdiff1d(np.arange(1, count), chosen)
    return sorted({*chosen.tolist(), *_spread(rest, cuts - len(chosen), random)})


def _begins(last: int, starts: int, random: np.random.Generator) -> list[int]:
    """Where to begin the candles, sorted: the second, the last that leaves the history, seeded."""
    first = list(dict.fromkeys([last, 1]))[:starts]
    rest = np.setdiff1d(np.arange(1, last + 1), first)
    return sorted({*first, *_spread(rest, starts - len(first), random)})


def _spread(places: np.ndarray, count: int, random: np.random.Generator) -> list[int]:
    """One seeded place of each of `count` stretches of equal length."""
    count = min(count, len(places))
    edges = np.arange(count + 1) * len(places) // max(count, 1)
    return [int(places[random.integers(a, b)]) for a, b in pairwise(edges)]


def _worst(findings: tuple[Finding, ...], kind: str) -> str:
    one = next(finding for finding in findings if finding.kind == kind)
    size = "from or to none" if one.size is None else f"by {one.size:.3g}"
    return f"{size} at bar {one.bar:,} ({one.time})"
