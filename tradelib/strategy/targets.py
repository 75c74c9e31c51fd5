"""What a strategy over several symbols is: a pure, vectorised function from candles to weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tradelib.errors import InvalidInput
from tradelib.strategy.params import Params

Candles = Mapping[str, pd.DataFrame]
"""Candle frames by symbol."""

MOST_SYMBOLS = 50
# Weights that sum to 1 may exceed it by rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class TargetStrategy:
    """A strategy over several symbols and what it needs.

    compute: candles by symbol, all on one index, and parameters to a frame on that index with a
        column per symbol: the fraction of equity that the symbol ought to be worth. Fractions are
        0 or more and sum to 1 at most; the rest is cash. A row is NaN as a whole while it warms
        up. Pure: same candles, same frame.
    warm_up: candles before the one that has the first weights.
    history: candles to load so that weights no longer depend, to 1e-12, on where they begin.
    """

    name: str
    params_type: type[Params]
    compute: Callable[[Candles, Any], pd.DataFrame]
    warm_up: Callable[[Any], int]
    history: Callable[[Any], int]

    def params(self, **values: Any) -> Params:
        """The strategy's parameters; those not named keep their default."""
        return self.params_type(**values)

    def weights(self, candles: Candles, params: Params | None = None) -> pd.DataFrame:
        """Target weights at the close of every candle that all symbols have."""
        params = self.params_type() if params is None else params
        if not isinstance(params, self.params_type):
            raise InvalidInput(
                f"Strategy {self.name!r} takes {self.params_type.__name__}, "
                f"not {type(params).__name__}."
            )
        candles = align_candles(candles)
        weights = self.compute(candles, params)
        self._check(weights, candles)
        return weights

    def _check(self, weights: pd.DataFrame, candles: Candles) -> None:
        index = next(iter(candles.values())).index
        if list(weights.columns) != list(candles) or not weights.index.equals(index):
            raise InvalidInput(
                f"Strategy {self.name!r} must give one row for each candle and the columns "
                f"{', '.join(candles)}; it gave {', '.join(map(str, weights.columns))}."
            )
        values = weights.to_numpy(dtype="float64")
        known = values[~np.isnan(values).all(axis=1)]
        # A NaN among numbers fails each of the comparisons.
        sound = (known >= 0).all() and (known.sum(axis=1) <= 1 + _ROUNDING).all()
        if not sound:
            raise InvalidInput(
                f"Strategy {self.name!r} gave weights below 0, some that are NaN beside others "
                "that are not, or a sum above 1; correct it."
            )


def align_candles(candles: Candles) -> dict[str, pd.DataFrame]:
    """The candles that every symbol has. What one of them lacks is invented for none."""
    require_symbols(list(candles))
    index = next(iter(candles.values())).index
    for frame in candles.values():
        if not frame.index.equals(index):
            index = index.intersection(frame.index)
    return {symbol: frame.loc[index] for symbol, frame in candles.items()}


def require_symbols(symbols: Sequence[str]) -> None:
    """Refuse fewer than two symbols, too many, one named twice, and several quote currencies."""
    if not 2 <= len(symbols) <= MOST_SYMBOLS or len(set(symbols)) != len(symbols):
        raise InvalidInput(
            f"A portfolio needs 2 to {MOST_SYMBOLS} symbols, each once; "
            f"got {', '.join(symbols) or 'none'}."
        )
    for symbol in symbols:
        if symbol.count("/") != 1:
            raise InvalidInput(f"Symbol {symbol!r} is not a pair; write it as BTC/USDT.")
    if len({symbol.split("/")[1] for symbol in symbols}) > 1:
        raise InvalidInput(
            f"A portfolio's symbols must be quoted in one currency; got {', '.join(symbols)}."
        )


def columns_of(candles: Candles, name: str) -> pd.DataFrame:
    """One column of every symbol's candles, such as all closes."""
    return pd.DataFrame({symbol: frame[name] for symbol, frame in candles.items()})
