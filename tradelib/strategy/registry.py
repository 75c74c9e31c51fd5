"""Strategies by name: those that ship, a user's own, and the frozen ones that bots trade."""

from __future__ import annotations

from pathlib import Path

from tradelib.errors import InvalidInput, StorageFailed, unknown_name
from tradelib.settings import load_settings
from tradelib.strategy.allocations import target_strategy_names
from tradelib.strategy.base import Strategy
from tradelib.strategy.breakout import BREAKOUT
from tradelib.strategy.buy_and_hold import BUY_AND_HOLD
from tradelib.strategy.mean_reversion import MEAN_REVERSION
from tradelib.strategy.momentum import MOMENTUM
from tradelib.strategy.own import Source, load_source, make_strategy, own_names, save_source
from tradelib.strategy.trend import TREND
from tradelib.strategy.weighted import WEIGHTED

_built_in = (WEIGHTED, MOMENTUM, TREND, BREAKOUT, MEAN_REVERSION, BUY_AND_HOLD)
_known = {found.name: found for found in _built_in}
# Texts of frozen strategies by the names that they should hash to.
_frozen: dict[str, str] = {}


def strategy(name: str) -> Strategy:
    """The strategy of that name; an unknown one is refused with the nearest suggested.

    `my_idea` is the one in the desk's folder of strategies, as it stands there now;
    `my_idea@3f2a9c0d12e4b567` the one with that hash and no other.
    """
    source = find_source(name)
    return _known[name] if source is None else make_strategy(source)


def find_source(name: str) -> Source | None:
    """The source of a user's strategy, by its name with or without its hash; None for one that
    ships."""
    if name in _known:
        return None
    if is_own(name):
        return _frozen_source(name)
    file = strategy_file(name)
    if name.isidentifier() and file.is_file():
        return load_source(file)
    raise unknown_name("strategy", name, [*_known, *own_names(file.parent)])


def strategy_names() -> list[str]:
    """Names of the strategies that ship, sorted."""
    return sorted(_known)


def is_own(name: str) -> bool:
    """Whether a strategy's name tells the hash of a user's source."""
    return "@" in name


def strategy_file(name: str) -> Path:
    """Where the desk keeps a user's own strategy of that name."""
    return load_settings().strategies / f"{name}.py"


def save_strategy(source: Source) -> Strategy:
    """Keep a source in the desk's folder of strategies, if it is one; the one before it goes."""
    require_free(source.name)
    made = make_strategy(source)
    save_source(strategy_file(source.name).parent, source)
    return made


def require_free(name: str) -> None:
    """Refuse a name of a strategy that ships."""
    if name in _known or name in target_strategy_names():
        raise InvalidInput(f"There is a strategy {name!r} already; choose another name.")


def remember_frozen(reference: str, text: str) -> None:
    """Let this process know the text of a frozen strategy; it is looked at when it is asked for."""
    _frozen[reference] = text


def knows_frozen(reference: str) -> bool:
    """Whether this process knows the text of a frozen strategy."""
    return reference in _frozen


def _frozen_source(reference: str) -> Source:
    """The source with that hash, as the ledger told it or as it stands in the folder."""
    name = reference.partition("@")[0]
    if reference in _frozen:
        source = Source(name, _frozen[reference])
        if source.reference != reference:
            raise StorageFailed(
                f"The ledger's source of strategy {reference} was changed: it is "
                f"{source.reference} now; restore a backup, or promote the strategy anew."
            )
        return source
    file = strategy_file(name)
    present = load_source(file) if name.isidentifier() and file.is_file() else None
    if present is None or present.reference != reference:
        told = f"; {file} is {present.reference}" if present else ""
        raise InvalidInput(f"Strategy {reference} is neither in the ledger nor in a file{told}.")
    return present
