"""What a sweep goes through: every combination of values, or a seeded sample of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tradelib.errors import InvalidInput, unknown_name
from tradelib.strategy.base import Strategy
from tradelib.strategy.decision import DecisionParams

Value = int | float | str


@dataclass(frozen=True)
class Span:
    """All numbers from low to high, both included; whole ones alone where both ends are whole.

    log: draw evenly by the logarithm, for what spans orders of magnitude.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.log and self.low <= 0):
            raise InvalidInput(
                f"A span from {self.low} to {self.high} holds nothing to draw; give low <= high"
                f"{', both above 0' if self.log else ''}."
            )

    @property
    def whole(self) -> bool:
        """Whether it is made of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def draw(self, random: np.random.Generator) -> int | float:
        """One of its numbers."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high + self.whole)
            drawn = min(math.exp(random.uniform(low, high)), self.high + 0.5 * self.whole)
            return min(int(drawn), int(self.high)) if self.whole else min(drawn, self.high)
        if self.whole:
            return int(random.integers(self.low, self.high, endpoint=True))
        return float(random.uniform(self.low, self.high))


Axis = Span | tuple[Value, ...]


@dataclass(frozen=True)
class Combination:
    """One set of values: those of the strategy, and those of the decision step."""

    strategy: dict[str, Value]
    decision: dict[str, Value]

    def __str__(self) -> str:
        told = {**self.strategy, **self.decision}
        return ", ".join(f"{name} = {value}" for name, value in told.items()) or "defaults"


@dataclass(frozen=True)
class Space:
    """Combinations by number, from 0; none is kept.

    samples: None goes through all of them, the decision's values fastest; a number draws as many,
    each by its own number and the seed, so that a sample does not depend on the others.
    """

    strategy: Mapping[str, Axis]
    decision: Mapping[str, Axis]
    samples: int | None = None
    seed: int = 0

    def __len__(self) -> int:
        if self.samples is not None:
            return self.samples
        return math.prod(len(axis) for axis in self.axes.values())

    def __getitem__(self, number: int) -> Combination:
        values = self._drawn(number) if self.samples is not None else self._counted(number)
        return self.combination(values)

    def combination(self, values: Mapping[str, Value]) -> Combination:
        """Values by parameter, as the strategy's and the decision step's."""
        return Combination(
            {name: values[name] for name in self.strategy},
            {name: values[name] for name in self.decision},
        )

    @cached_property
    def axes(self) -> dict[str, Axis]:
        """The values of every parameter, the strategy's first."""
        return {**self.strategy, **self.decision}

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that vary, or are set, the strategy's first."""
        return tuple(self.axes)

    def _counted(self, number: int) -> dict[str, Value]:
        found = {}
        for name, axis in reversed(self.axes.items()):
            number, place = divmod(number, len(axis))
            found[name] = axis[place]
        return found

    def _drawn(self, number: int) -> dict[str, Value]:
        random = np.random.default_rng([self.seed, number])
        return {
            name: axis.draw(random) if isinstance(axis, Span) else axis[random.integers(len(axis))]
            for name, axis in self.axes.items()
        }


def make_space(
    strategy: Strategy,
    space: Mapping[str, Any],
    decision_space: Mapping[str, Any] | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
) -> Space:
    """The space of a strategy's and the decision step's parameters, its names checked.

    Each value is a list, a range, a single value, or, where samples are drawn, a `Span`.
    """
    decision_space = decision_space or {}
    for given, kind in ((space, strategy.params_type), (decision_space, DecisionParams)):
        for name in given:
            if name not in kind.model_fields:
                raise unknown_name("parameter", name, kind.model_fields, kind.__name__)
    if twice := set(space) & set(decision_space):
        raise InvalidInput(f"{', '.join(sorted(twice))} is swept twice; rename the strategy's.")
    if samples is not None and samples < 1:
        raise InvalidInput(f"A sample of {samples} combinations is empty; draw 1 or more.")
    return Space(
        {name: _axis(name, values, samples) for name, values in space.items()},
        {name: _axis(name, values, samples) for name, values in decision_space.items()},
        samples,
        seed,
    )


def _axis(name: str, values: Any, samples: int | None) -> Axis:
    if isinstance(values, Span):
        if samples is None:
            raise InvalidInput(f"{name} is a span, which has no end of values; list them, or draw.")
        return values
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = (values,)
    axis = tuple(one.item() if isinstance(one, np.generic) else one for one in values)
    if not axis:
        raise InvalidInput(f"The space is empty: {name} has no value; give it one or more.")
    return axis
