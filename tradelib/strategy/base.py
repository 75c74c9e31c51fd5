"""What a strategy is: a named, pure, vectorised function from candles to scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tradelib.errors import InvalidInput
from tradelib.strategy.params import Params


@dataclass(frozen=True)
class Strategy:
    """A strategy and what it needs.

    compute: candles and parameters to a frame on the candles' index, column `score` in -1 sell …
        1 buy and one column per component; NaN while it warms up. Pure: same candles, same frame.
    warm_up: candles before the one that has the first score.
    history: candles to load so that a score no longer depends, to 1e-12, on where they begin.
    """

    name: str
    params_type: type[Params]
    compute: Callable[[pd.DataFrame, Any], pd.DataFrame]
    warm_up: Callable[[Any], int]
    history: Callable[[Any], int]

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
        scores = self.compute(candles, params)
        if (np.abs(scores["score"].to_numpy()) > 1).any():
            raise InvalidInput(f"Strategy {self.name!r} gave a score outside -1…1; correct it.")
        return scores


def ratio(part: pd.Series, whole: pd.Series) -> pd.Series:
    """part / whole, and 0 where the whole is 0: a market that stands still says nothing."""
    return (part / whole).where(whole != 0, 0.0).where(part.notna() & whole.notna())
