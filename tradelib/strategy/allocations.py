"""The strategies over several symbols that ship: equal weights, inverse volatility, momentum."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pydantic import Field

from tradelib.errors import unknown_name
from tradelib.strategy.indicators import root_mean_square
from tradelib.strategy.params import Params
from tradelib.strategy.targets import Candles, TargetStrategy, columns_of


class EqualWeightParams(Params):
    """How much is invested at all."""

    invested: float = Field(
        0.8, gt=0, le=1, description="fraction of equity that all targets together are"
    )
    most: float = Field(
        0.28, gt=0, le=1, description="highest weight of one symbol; what is beyond stays cash"
    )


def compute_equal_weight(candles: Candles, params: EqualWeightParams) -> pd.DataFrame:
    """invested / number of symbols, but `most` at most, for each of them, at every candle."""
    closes = columns_of(candles, "close")
    weight = min(params.invested / closes.shape[1], params.most)
    return pd.DataFrame(weight, closes.index, closes.columns)


class InverseVolatilityParams(Params):
    """The window that noise is measured in."""

    window: int = Field(72, ge=2, le=5000, description="candles the volatility is measured over")
    invested: float = Field(
        0.8, gt=0, le=1, description="fraction of equity that all targets together are"
    )
    most: float = Field(
        0.28, gt=0, le=1, description="highest weight of one symbol; what is beyond stays cash"
    )


def compute_inverse_volatility(candles: Candles, params: InverseVolatilityParams) -> pd.DataFrame:
    """Weights in proportion to 1 / volatility, `most` at most.

    volatility: root mean square of the window's one-candle logarithmic returns, around zero. What
    stands still has none, and no weight.
    """
    returns = np.log(columns_of(candles, "close")).diff()
    volatility = returns.apply(root_mean_square, window=params.window)
    calm = 1 / volatility.where(volatility > 0)
    calm = calm.fillna(0.0).where(volatility.notna())
    total = calm.sum(axis=1, skipna=False)
    shares = calm.div(total.where(total > 0), axis=0).fillna(0.0).where(volatility.notna())
    return (shares * params.invested).clip(upper=params.most)


class TopMomentumParams(Params):
    """How many of the strongest are held, and what strong means."""

    window: int = Field(168, ge=1, le=5000, description="candles the return is taken over")
    skip: int = Field(0, ge=0, le=1000, description="newest candles that the return leaves out")
    top: int = Field(2, ge=1, le=50, description="symbols held at most")
    above: float = Field(
        0.0, gt=-1, le=10, description="return that a symbol must exceed to be held, a fraction"
    )
    invested: float = Field(
        0.8, gt=0, le=1, description="fraction of equity that the targets are when all are held"
    )
    most: float = Field(
        0.28, gt=0, le=1, description="highest weight of one symbol; what is beyond stays cash"
    )


def compute_top_momentum(candles: Candles, params: TopMomentumParams) -> pd.DataFrame:
    """invested / top, but `most` at most, for each of the `top` symbols that have risen most, and
    above the bound.

    Fewer that exceed the bound leave more in cash. Of equal returns the symbol named first counts
    as the higher.
    """
    closes = columns_of(candles, "close").shift(params.skip)
    returns = closes / closes.shift(params.window) - 1
    rank = (-returns).rank(axis=1, method="first")
    top = min(params.top, closes.shape[1])
    held = (rank <= top) & (returns > params.above)
    weight = min(params.invested / top, params.most)
    return held.astype("float64").where(returns.notna()) * weight


EQUAL_WEIGHT = TargetStrategy(
    "equal_weight",
    EqualWeightParams,
    compute_equal_weight,
    warm_up=lambda params: 0,
    history=lambda params: 1,
)
INVERSE_VOLATILITY = TargetStrategy(
    "inverse_volatility",
    InverseVolatilityParams,
    compute_inverse_volatility,
    warm_up=lambda params: params.window,
    history=lambda params: params.window + 1,
)
TOP_MOMENTUM = TargetStrategy(
    "top_momentum",
    TopMomentumParams,
    compute_top_momentum,
    warm_up=lambda params: params.window + params.skip,
    history=lambda params: params.window + params.skip + 1,
)

_known = {one.name: one for one in (EQUAL_WEIGHT, INVERSE_VOLATILITY, TOP_MOMENTUM)}


def target_strategy(name: str) -> TargetStrategy:
    """The strategy over several symbols of that name; an unknown one is refused with the nearest
    suggested."""
    if name not in _known:
        raise unknown_name("strategy", name, _known, "those over several symbols")
    return _known[name]


def target_strategy_names() -> list[str]:
    """Names of all strategies over several symbols, sorted."""
    return sorted(_known)
