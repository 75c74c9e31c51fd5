"""What a strategy is: a named, pure, vectorised function from candles to scores."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from tradelib.errors import InvalidInput
from tradelib.strategy.params import Params

CANDLES = "candles"


@dataclass(frozen=True, eq=False)
class Columns:
    """A score made of columns, so that a sweep computes each once for the parameters it rests on.

    functions: by the column's name. A function's arguments name what it takes: `candles`, other
        columns (as Series) and parameters; it can read nothing else.
    combine: the score of columns and parameters, which its arguments name. Arithmetic and numpy's
        elementwise functions alone, because a sweep compiles it; live trading calls it as it is.
    """

    functions: Mapping[str, Callable[..., pd.Series]]
    combine: Callable[..., np.ndarray]

    def compute(self, candles: pd.DataFrame, params: Params) -> pd.DataFrame:
        """The score, and after it the columns that it is combined of."""
        found: dict[tuple, pd.Series] = {}
        parts = {name: self.column(name, candles, params, found) for name in self.parts}
        score = self.combine(**self.arguments(parts, params))
        return pd.DataFrame({"score": score, **parts}, index=candles.index)

    def arguments(self, parts: Mapping[str, pd.Series], params: Params) -> dict[str, Any]:
        """What `combine` takes, its parts as arrays."""
        arrays = {name: part.to_numpy() for name, part in parts.items()}
        return arrays | {name: getattr(params, name) for name in self.numbers}

    def column(
        self,
        name: str,
        candles: pd.DataFrame,
        params: Params,
        found: MutableMapping[tuple, pd.Series],
    ) -> pd.Series:
        """The column of that name; from `found`, if it is there for the same parameters."""
        key = (name, *(getattr(params, one) for one in self.rests_on[name]))
        if (known := found.get(key)) is None:
            found[key] = known = self.functions[name](
                **{
                    argument: candles
                    if argument == CANDLES
                    else self.column(argument, candles, params, found)
                    if argument in self.functions
                    else getattr(params, argument)
                    for argument in _arguments(self.functions[name])
                }
            )
        return known

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The columns that `combine` takes."""
        return tuple(one for one in _arguments(self.combine) if one in self.functions)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """The parameters that `combine` takes."""
        return tuple(one for one in _arguments(self.combine) if one not in self.functions)

    @cached_property
    def rests_on(self) -> dict[str, tuple[str, ...]]:
        """The parameters that each column depends on, itself or through other columns."""
        return {name: tuple(sorted(self._parameters(name))) for name in self.functions}

    def _parameters(self, name: str) -> set[str]:
        if name not in self.functions:
            return {name} - {CANDLES}
        return set().union(*(self._parameters(one) for one in _arguments(self.functions[name])))


def _arguments(function: Callable) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


class TooShort(InvalidInput):
    """There are fewer candles than a first score needs."""


@dataclass(frozen=True)
class Strategy:
    """A strategy and what it needs.

    compute: candles and parameters to a frame on the candles' index, column `score` in -1 sell …
        1 buy and one column per component; NaN while it warms up. Pure: same candles, same frame.
    warm_up: candles before the one that has the first score.
    history: candles to load so that a score no longer depends, to 1e-12, on where they begin.
    columns: what `compute` is made of, if it is made of columns: then a sweep is faster.
    """

    name: str
    params_type: type[Params]
    compute: Callable[[pd.DataFrame, Any], pd.DataFrame]
    warm_up: Callable[[Any], int]
    history: Callable[[Any], int]
    columns: Columns | None = None

    def __post_init__(self) -> None:
        if self.columns is None:
            return
        used = set(self.columns.numbers).union(*self.columns.rests_on.values())
        if odd := used ^ set(self.params_type.model_fields):
            raise InvalidInput(
                f"Strategy {self.name!r}: {', '.join(sorted(odd))} must be a parameter of "
                f"{self.params_type.__name__} and an argument of a column or of combine; "
                f"it is only one of the two."
            )

    def params(self, **values: Any) -> Params:
        """The strategy's parameters; those not named keep their default."""
        return self.params_type(**values)

    def score(self, candles: pd.DataFrame, params: Params | None = None) -> pd.DataFrame:
        """Score of every candle, column `score` first and its components after it."""
        params = self.params_type() if params is None else params
        if not isinstance(params, self.params_type):
            raise InvalidInput(
                f"Strategy {self.name!r} takes {self.params_type.__name__}, "
                f"not {type(params).__name__}."
            )
        try:
            # A shallow copy: what a strategy does to its candles is its own affair.
            scores = self.compute(candles.copy(deep=False), params)
        except Exception as error:
            where = f"on {_span(candles)}"
            raise InvalidInput(self.failure(error, params, where)) from error
        if fault := find_fault(scores, candles.index, self.warm_up(params)):
            raise InvalidInput(f"{self.told(params)} {fault}, on {_span(candles)}.")
        return scores

    def require_candles(self, params: Params, count: int) -> None:
        """Refuse candles that are all warm-up: nothing would be traded on them."""
        if lack := self.find_lack(params, count):
            raise TooShort(f"{self.told(params)}: {lack}.")

    def find_lack(self, params: Params, count: int) -> str | None:
        """What so many candles lack for a first score; None where they are enough."""
        needed = self.warm_up(params) + 1
        if count >= needed:
            return None
        return f"a first score needs {needed:,} candles, and there are {count:,}; give more"

    def told(self, params: Params) -> str:
        """The strategy with the parameters that differ from their defaults, for a message."""
        changed = params.model_dump(exclude_defaults=True)
        told = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        return f"Strategy {self.name!r} with {told or 'its default parameters'}"

    def failure(self, error: Exception, params: Params, where: str) -> str:
        """What is to be said of an error that the strategy raised, with the line of its source."""
        return f"{self.told(params)} raised {describe_error(error, self.name)} {where}: {error}"


def describe_error(error: BaseException, name: str) -> str:
    """The error's kind, and the line of a strategy's own source in which it was raised."""
    lines = [
        f"in line {frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == source_name(name)
    ]
    return " ".join([type(error).__name__, *lines[-1:]])


def source_name(strategy: str) -> str:
    """What Python knows the source of a user's strategy by."""
    return f"<strategy {strategy}>"


def find_fault(scores: Any, index: pd.Index, warm_up: int, first: int = 0) -> str | None:
    """What is wrong with a strategy's scores of candles with that index, and at which bar; None
    where nothing is.

    warm_up: how many may be NaN. first: number of the first of the candles.
    """
    if fault := find_shape_fault(scores, index):
        return fault
    values = pd.to_numeric(scores["score"], errors="coerce").to_numpy("float64")
    late = np.isnan(values)
    late[:warm_up] = False
    for bad, what in ((np.abs(values) > 1, "outside -1…1"), (late, "after its warm-up")):
        if bad.any():
            row = int(bad.argmax())
            return (
                f"gave the score {values[row]:g} {what} at bar {first + row:,} "
                f"({index[row].isoformat()}), one of {bad.sum():,}"
            )
    return None


def find_shape_fault(scores: Any, index: pd.Index) -> str | None:
    """Why these are no scores of candles with that index; None where they may be."""
    if not isinstance(scores, pd.DataFrame) or "score" not in scores.columns:
        return "gave no frame with a column 'score'"
    if len(scores) != len(index):
        return f"gave {len(scores)} scores for {len(index)} candles"
    if not scores.index.equals(index):
        row = int((scores.index != index).argmax())
        return (
            f"gave scores on other times than the candles', the first {scores.index[row]} where "
            f"the candle is {index[row]}"
        )
    return None


def _span(candles: pd.DataFrame) -> str:
    if candles.empty:
        return "no candles"
    return f"the {len(candles):,} candles from {candles.index[0]} to {candles.index[-1]}"


def ratio(part: pd.Series, whole: pd.Series) -> pd.Series:
    """part / whole, and 0 where the whole is 0: a market that stands still says nothing."""
    parts, wholes = part.to_numpy(), whole.to_numpy()
    nothing = np.where(np.isnan(parts), np.nan, 0.0)
    values = np.divide(parts, wholes, out=nothing, where=wholes != 0)
    return pd.Series(values, index=part.index)


def cut(values: pd.Series) -> pd.Series:
    """The values within -1…1."""
    # Many times as fast as pandas' own clip.
    return pd.Series(np.clip(values.to_numpy(), -1.0, 1.0), index=values.index)
