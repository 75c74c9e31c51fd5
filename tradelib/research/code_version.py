"""A hash of the code that a result depends on, so that what was kept is not taken for what is."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from tradelib.strategy.base import Strategy

_FOLD = ("backtest", "bench", "counted", "exact", "fills", "metrics", "space", "sweep")
_PAPER = ("counts", "liquidity")
_LIBRARIES = ("numpy", "pandas", "numba")


def code_version(strategy: Strategy) -> str:
    """A hash of the code that a row depends on: strategies, the fold, the strategy's own parts."""
    version = hashlib.sha256(engine_version().encode())
    seen: set[int] = set()
    for part in strategy_parts(strategy):
        version.update(_code(part, seen).encode())
    return version.hexdigest()


def engine_version() -> str:
    """A hash of the code and the libraries that fold any strategy."""
    version = hashlib.sha256("".join(map(metadata.version, _LIBRARIES)).encode())
    here = Path(__file__).parent
    paper = (here.parent / "paper" / f"{name}.py" for name in _PAPER)
    files = [*here.parent.glob("strategy/*.py"), *(here / f"{name}.py" for name in _FOLD), *paper]
    for path in sorted(files):
        version.update(path.read_bytes())
    return version.hexdigest()


def strategy_parts(strategy: Strategy) -> list[Callable]:
    """What a sweep calls of a strategy."""
    used: list[Callable] = [strategy.compute, strategy.warm_up, strategy.params_type]
    if strategy.columns:
        used += [*strategy.columns.functions.values(), strategy.columns.combine]
    return used


def _code(part: Any, seen: set[int]) -> str:
    """What a function does: its source, what it encloses, and its module's functions and numbers
    that it names; so that one changed in a notebook is another strategy."""
    if not callable(part):
        return _ADDRESS.sub("", repr(part))
    if id(part) in seen:
        return ""
    seen.add(id(part))
    function = inspect.unwrap(getattr(part, "__func__", part))
    if not inspect.isfunction(function):
        return _ADDRESS.sub("", _source(part) + repr(getattr(part, "model_fields", part)))
    inside = inspect.getclosurevars(function)
    told = [_source(function), _ADDRESS.sub("", repr(function.__defaults__))]
    for name, value in sorted({**inside.nonlocals, **inside.globals}.items()):
        ours = getattr(value, "__module__", None) == function.__module__
        if name in inside.nonlocals or isinstance(value, int | float | str | tuple) or ours:
            told += [name, _code(value, seen)]
    return "\n".join(told)


def _source(part: Any) -> str:
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):
        code = getattr(part, "__code__", None)
        return f"{code.co_code!r}{code.co_consts!r}{code.co_names!r}" if code else ""


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
