"""Strategies by name."""

from __future__ import annotations

from tradelib.errors import InvalidInput, unknown_name
from tradelib.strategy.base import Strategy
from tradelib.strategy.breakout import BREAKOUT
from tradelib.strategy.buy_and_hold import BUY_AND_HOLD
from tradelib.strategy.mean_reversion import MEAN_REVERSION
from tradelib.strategy.momentum import MOMENTUM
from tradelib.strategy.trend import TREND
from tradelib.strategy.weighted import WEIGHTED

_built_in = (WEIGHTED, MOMENTUM, TREND, BREAKOUT, MEAN_REVERSION, BUY_AND_HOLD)
_known = {found.name: found for found in _built_in}


def strategy(name: str) -> Strategy:
    """The strategy of that name; an unknown one is refused with the nearest suggested."""
    if name not in _known:
        raise unknown_name("strategy", name, _known)
    return _known[name]


def strategy_names() -> list[str]:
    """Names of all strategies, sorted."""
    return sorted(_known)


def register(new: Strategy) -> Strategy:
    """Make a strategy of your own known by its name; a name that is taken is refused."""
    if _known.setdefault(new.name, new) is not new:
        raise InvalidInput(f"There is a strategy {new.name!r} already; choose another name.")
    return new
