"""Strategies of one's own: the source of a function from candles to scores becomes a Strategy.

    from typing import Annotated
    from pydantic import Field

    def score(candles, window: Annotated[int, Field(ge=2, le=500)] = 20):
        return (candles["close"] / candles["close"].shift(window) - 1).clip(-1, 1)

The source is its identity: a strategy is named by its name and the hash of its text, as
`my_idea@3f2a9c0d12e4b567`, so that what was found with one text is never taken for another's.

`score` gives a Series, an array, or a frame with a column `score` and others beside it. What it
takes beyond the candles are its parameters, each with a default, or one of a type made of `Params`.
`warm_up` and `history` may stand beside it, numbers or functions of parameters; what does not is
measured: see `_Needs`. Instead of `score` there may be a whole Strategy named STRATEGY.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import linecache
import os
import re
import sys
import sysconfig
import typing
from ast import Import, ImportFrom, parse, walk
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from pydantic import create_model

from tradelib.candles.walk import random_candles
from tradelib.errors import InvalidInput, StorageFailed
from tradelib.strategy.base import Strategy, describe_error, find_fault, source_name
from tradelib.strategy.params import Params

_NAME = re.compile(r"^[a-z][a-z0-9_]{0,39}$")
_HASH_DIGITS = 16
_WALKS = (1_000, 4_000, 16_000)
"""Candles of the random walks that a history is measured on, a longer one where it must be."""

_SETTLED = 1e-9
"""Change of a score that counts as rounding, as in the bias checks."""


@dataclass(frozen=True)
class Source:
    """The text of a strategy of one's own."""

    name: str
    text: str = field(repr=False)

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise InvalidInput(
                f"Strategy name {self.name!r} is not acceptable; use up to 40 of a-z, 0-9 and _, "
                f"a letter first."
            )

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the text in UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def reference(self) -> str:
        """The strategy's full name: the name, and the first digits of the hash."""
        return f"{self.name}@{self.hash[:_HASH_DIGITS]}"


def load_source(file: Path) -> Source:
    """The source in a file, which the file's name names."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"The strategy {file} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The strategy {file} is no text in UTF-8.") from error
    return Source(file.stem, text)


def save_source(folder: Path, source: Source) -> Path:
    """Write a source to its file, whole or not at all."""
    file = folder / f"{source.name}.py"
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The bytes that were hashed, whatever the system's line ends are.
        part.write_bytes(source.text.encode())
        part.replace(file)
    except OSError as error:
        raise StorageFailed(f"The strategy {file} cannot be written ({error.strerror}).") from error
    return file


@dataclass(frozen=True)
class _OwnStrategy(Strategy):
    """A strategy that travels to other processes as its source."""

    source: Source | None = None

    def __reduce__(self) -> Any:
        if self.source is None or make_strategy(self.source) is not self:
            return object.__reduce_ex__(self, 4)
        return make_strategy, (self.source,)


@cache
def make_strategy(source: Source) -> Strategy:
    """The source as a strategy whose name tells its hash.

    InvalidInput names the strategy and the line of what does not compile, raises, or is no
    strategy.
    """
    module = _run(source)
    function, whole = getattr(module, "score", None), getattr(module, "STRATEGY", None)
    if isinstance(whole, Strategy) and function is None:
        parts = {one.name: getattr(whole, one.name) for one in fields(Strategy)}
        return _OwnStrategy(**parts | {"name": source.reference}, source=source)
    if not callable(function) or whole is not None:
        raise InvalidInput(
            f"Strategy {source.name!r} needs either a function `score(candles, …)` or a Strategy "
            f"named STRATEGY, and has {'both' if function and whole else 'neither'}."
        )
    call, params_type = _signature(source, function)

    def compute(candles: pd.DataFrame, params: Params) -> pd.DataFrame:
        return _as_frame(call(candles, params), candles.index)

    bare = _OwnStrategy(
        source.reference, params_type, compute, lambda _: 0, lambda _: 1, source=source
    )
    needs = _Needs(bare, *(_declared(source, module, one) for one in ("warm_up", "history")))
    return replace(bare, warm_up=needs.warm_up, history=needs.history)


def find_local_imports(source: Source) -> list[str]:
    """Modules that the source imports and that lie with the user, not among installed packages:
    what they hold is not part of the hash."""
    names = {name.partition(".")[0] for name in _imported(source.text)}
    return sorted(name for name in names if not _is_installed(name))


def _imported(text: str) -> Iterator[str]:
    for node in walk(parse(text)):
        if isinstance(node, Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ImportFrom) and node.module:
            yield node.module


def _is_installed(name: str) -> bool:
    if name == "__main__":  # whatever runs just now
        return False
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin in ("built-in", "frozen"):
        return True  # nothing, or a part of Python
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return all(is_installed(Path(one)) for one in places)


def is_installed(file: Path) -> bool:
    """Whether a module's file came with Python, with a package or with Notedesk."""
    # By the folder's name, since one environment may lie over another.
    if not {"site-packages", "dist-packages"}.isdisjoint(file.parts):
        return True
    return any(file.is_relative_to(home) for home in (_STDLIB, _NOTEDESK))


_STDLIB = sysconfig.get_path("stdlib")
_NOTEDESK = Path(__file__).parents[1]


def _run(source: Source) -> ModuleType:
    """The source as a module, kept as one so that pydantic and pickle find what it defines."""
    file, name = source_name(source.reference), f"_strategy_{source.name}_{source.hash}"
    module = ModuleType(name)
    module.__file__ = file
    # So that tracebacks and `inspect` can show it.
    linecache.cache[file] = (len(source.text), None, source.text.splitlines(True), file)
    sys.modules[name] = module
    try:
        exec(compile(source.text, file, "exec", dont_inherit=True), vars(module))
    except SyntaxError as error:
        raise InvalidInput(
            f"Strategy {source.name!r} does not compile: line {error.lineno}: {error.msg}: "
            f"{(error.text or '').strip()}"
        ) from error
    except (Exception, SystemExit) as error:
        told = describe_error(error, source.reference)
        raise InvalidInput(f"Strategy {source.name!r} raised {told}: {error}") from error
    return module


def _signature(source: Source, function: Callable) -> tuple[Callable, type[Params]]:
    """The function as one of candles and Params, and the type of its parameters."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        _, *rest = inspect.signature(function).parameters.values()
    except Exception as error:
        raise _refused(source, f"the arguments of `score` cannot be read ({error})") from error
    if len(rest) == 1 and _is_params(hints.get(rest[0].name)):
        return function, hints[rest[0].name]
    fields: dict[str, Any] = {}
    for one in rest:
        fields[one.name] = (_hint(source, one, hints), one.default)
    title = "".join(part.capitalize() for part in source.name.split("_"))
    try:
        params_type = create_model(f"{title}Params", __base__=Params, **fields)
        params_type(**{one.name: one.default for one in rest})  # a default may be out of range
    except InvalidInput:
        raise
    except Exception as error:
        raise _refused(source, f"its parameters make no sense ({error})") from error
    return lambda candles, params: function(candles, **dict(params)), params_type


def _is_params(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Params)


def _hint(source: Source, one: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD, one.POSITIONAL_ONLY):
        raise _refused(source, f"its parameter {one} has no name of its own; name each")
    if one.default is one.empty:
        raise _refused(source, f"its parameter {one.name} needs a default, as {one.name}: int = 20")
    if hasattr(Params, one.name) or one.name.startswith("_"):
        raise _refused(source, f"its parameter {one.name} has a name that is taken; choose another")
    if one.name not in hints and type(one.default) not in (int, float, bool, str):
        raise _refused(source, f"its parameter {one.name} needs a type, as {one.name}: int = 20")
    return hints.get(one.name, type(one.default))


def _refused(source: Source, why: str) -> InvalidInput:
    return InvalidInput(f"Strategy {source.name!r} is not acceptable: {why}.")


def _as_frame(scores: Any, index: pd.Index) -> Any:
    """What `score` gave, as a frame; what is no such thing is left for the checks to name."""
    if isinstance(scores, pd.Series):
        scores = scores.to_frame("score")
    elif isinstance(scores, np.ndarray) and scores.shape == (len(index),):
        scores = pd.DataFrame({"score": scores}, index=index)
    if not isinstance(scores, pd.DataFrame) or "score" not in scores.columns:
        return scores
    ordered = scores[["score", *(one for one in scores.columns if one != "score")]]
    return ordered.astype("float64")


def _declared(source: Source, module: ModuleType, name: str) -> Callable[[Params], int] | None:
    """A number or function of parameters that stands in the source, as a function of Params."""
    told, least = getattr(module, name, None), 1 if name == "history" else 0
    if told is None:
        return None

    def ask(params: Params) -> int:
        found = told
        if callable(told):
            wanted = inspect.signature(told).parameters
            values = dict(params) | {"params": params}
            found = told(**{one: values[one] for one in wanted})
        if not isinstance(found, int | np.integer) or isinstance(found, bool) or found < least:
            raise _refused(source, f"its {name} is {found!r}; give a number of candles")
        return int(found)

    return ask


class _Needs:
    """How many candles a strategy needs, declared or measured.

    Measured is on a seeded random walk of hourly candles, once for each set of parameters. warm_up:
    scores that are NaN at its beginning. history: the fewest candles from which the newest score
    comes out as from all of them, to 1e-9, at several places; rounded up to two digits. What a
    strategy remembers for longer, or counts in days, no measurement knows: declare it.
    """

    def __init__(
        self,
        strategy: Strategy,
        warm_up: Callable[[Params], int] | None,
        history: Callable[[Params], int] | None,
    ) -> None:
        self.strategy = strategy
        self._warm_up, self._history = warm_up, history
        self._measured = lru_cache(maxsize=4096)(self._measure)

    def warm_up(self, params: Params) -> int:
        return self._warm_up(params) if self._warm_up else self._measured(params)[0]

    def history(self, params: Params) -> int:
        return self._history(params) if self._history else self._measured(params)[1]

    def _measure(self, params: Params) -> tuple[int, int]:
        for count in _WALKS:
            candles = random_candles(count, seed=1)
            warm_up = self._warm_up(params) if self._warm_up else self._silence(candles, params)
            history = self._history(params) if self._history else None
            if warm_up < count // 2:
                history = history or self._memory(candles, params, warm_up)
                if history:
                    return warm_up, max(history, warm_up + 1)
        raise InvalidInput(
            f"{self.strategy.told(params)} has no history that could be measured: its newest score "
            f"rests on more than {_WALKS[-1] // 2:,} candles; say in its source how many it needs, "
            f"as history = 5000."
        )

    def _silence(self, candles: pd.DataFrame, params: Params) -> int:
        spoken = np.flatnonzero(~np.isnan(self._scores(candles, params)))
        return int(spoken[0]) if len(spoken) else len(candles)

    def _memory(self, candles: pd.DataFrame, params: Params, warm_up: int) -> int | None:
        """The least history that serves at some places, and then at all; None for none."""
        most = len(candles) // 2
        few, many = (self._newest(candles, params, places) for places in (3, 11))
        low = high = warm_up + 1
        while not self._serves(high, few, candles, params):
            if high == most:
                return None
            low, high = high + 1, min(2 * high, most)
        while low < high:
            middle = (low + high) // 2
            if self._serves(middle, few, candles, params):
                high = middle
            else:
                low = middle + 1
        history = _round_up(high)
        while history <= most and not self._serves(history, many, candles, params):
            history = _round_up(history * 3 // 2 + 1)
        return history if history <= most else None

    def _newest(self, candles: pd.DataFrame, params: Params, places: int) -> dict[int, np.float64]:
        """By the end of the candles, in as many places, the newest score of all before it."""
        ends = _places(len(candles), places)
        found = {end: self._scores(candles.iloc[:end], params)[-1] for end in ends}
        if np.isnan(list(found.values())).any():
            raise InvalidInput(
                f"{self.strategy.told(params)} gives the newest candle no score, as one does that "
                f"waits for later candles: that is look-ahead."
            )
        return found

    def _serves(
        self,
        history: int,
        newest: Mapping[int, np.float64],
        candles: pd.DataFrame,
        params: Params,
    ) -> bool:
        """Whether so many candles give the newest scores."""
        return all(
            abs(self._scores(candles.iloc[end - history : end], params)[-1] - score) <= _SETTLED
            for end, score in newest.items()
        )

    def _scores(self, candles: pd.DataFrame, params: Params) -> np.ndarray:
        where = f"on {len(candles):,} candles of a random walk"
        try:
            frame = self.strategy.compute(candles, params)
        except Exception as error:
            raise InvalidInput(self.strategy.failure(error, params, where)) from error
        if fault := find_fault(frame, candles.index, len(candles)):
            raise InvalidInput(f"{self.strategy.told(params)} {fault}, {where}.")
        return frame["score"].to_numpy("float64")


def _places(count: int, wanted: int) -> list[int]:
    """Ends of the candles, spread over their later half."""
    return [count - number * (count // 2 - 1) // wanted for number in range(wanted)]


def _round_up(number: int) -> int:
    """The next number of two digits and zeros, so that a hair's difference of two machines' floats
    makes none."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit


def own_names(folder: Path) -> Iterator[str]:
    """Names of the strategies in a folder, sorted; what has no acceptable name is none."""
    yield from sorted(file.stem for file in folder.glob("*.py") if _NAME.match(file.stem))
