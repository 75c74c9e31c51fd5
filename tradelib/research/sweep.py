"""A sweep: the live decision step folded over history for thousands of combinations.

Each combination is one pass over the candles, and leaves one row of metrics: no matrix of
combinations × candles exists. What a score is made of is computed once for the parameters that it
rests on. Rows are worked on in chunks, by one thread for each core, and kept in Parquet if there is
a folder; a sweep that was stopped goes on from there.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tradelib.candles.schema import candles_hash, validate_candles
from tradelib.errors import InvalidInput, unknown_name
from tradelib.research.backtest import (
    DEFAULT_CASH,
    DEFAULT_FEE,
    Account,
    compiled_steps,
    fold_times,
    market_return,
)
from tradelib.research.metrics import (
    METRICS,
    Tally,
    check_metrics,
    metrics_of,
    start_tally,
    tally_close,
    tally_fill,
)
from tradelib.research.space import Combination, Space, make_space
from tradelib.strategy.base import Columns, Strategy
from tradelib.strategy.decision import DecisionParams, DecisionState
from tradelib.strategy.params import Params

COLUMN_BYTES = 256_000_000
"""Columns that a sweep remembers at a time, all threads together."""


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    frame: a row for each valid combination, by its number in the space: its parameters, the
    metrics, and `error`, which says why a combination has none. total: combinations of the space;
    skipped: those that the parameters themselves forbid, as a fast window above the slow one;
    first_skip: why the first of them is.
    """

    strategy: str
    frame: pd.DataFrame = field(repr=False)
    metrics: tuple[str, ...]
    total: int
    skipped: int
    first_skip: str = ""

    @property
    def failures(self) -> pd.DataFrame:
        """The combinations that have an error instead of metrics."""
        return self.frame[self.frame["error"].notna()]

    def best(self, metric: str = "sharpe", count: int = 10) -> pd.DataFrame:
        """The combinations with the highest of a metric, best first; undefined ones never are."""
        if metric not in self.metrics:
            raise unknown_name("metric", metric, self.metrics)
        return self.frame.dropna(subset=[metric]).nlargest(count, metric)


def sweep(
    candles: pd.DataFrame,
    timeframe: str,
    strategy: Strategy,
    space: Mapping[str, Any],
    decision_space: Mapping[str, Any] | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
    fee: float = DEFAULT_FEE,
    cash: float = DEFAULT_CASH,
    metrics: Sequence[str] = METRICS,
    folder: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> SweepResult:
    """Backtest every combination of the strategy's and the decision step's parameters.

    space, decision_space: values by parameter, a list, a range or one value; what is not named
    keeps its default. samples: draw so many combinations instead, by the seed; values may then be
    a `Span` too. fee, cash: as for `run_backtest`, whose numbers each row equals. folder: where
    finished chunks stay; the same call goes on from there, and one with other candles, values or
    code begins anew beside it. workers: threads; None: one for each core.
    """
    wanted = check_metrics(metrics)
    combinations = make_space(strategy, space, decision_space, samples=samples, seed=seed)
    bench = make_bench(candles, timeframe, strategy, fee, cash)
    work = Work(bench, combinations, wanted)
    store = _Store(Path(folder) / work.key()) if folder is not None else None
    chunks = _run(work, store, workers or os.cpu_count() or 1, progress)
    return result_of(work, chunks)


@dataclass(frozen=True)
class Bench:
    """Candles and a strategy, ready to fold any parameters over; threads may share it."""

    strategy: Strategy
    candles: pd.DataFrame = field(repr=False)
    timeframe: str
    fee: float
    cash: float
    market_return: float
    times: tuple[np.ndarray, ...] = field(repr=False)
    columns: ColumnCache = field(repr=False)

    def scores(self, params: Params) -> np.ndarray:
        """The score of every candle, or InvalidInput that says what is wrong with it, and where."""
        warm_up = self.strategy.warm_up(params)
        if warm_up >= len(self.candles):
            raise TooShort(
                f"a first score needs {warm_up + 1:,} candles, and there are "
                f"{len(self.candles):,}; give more"
            )
        if self.strategy.columns is None:
            scores = self._whole(self.strategy.compute(self.candles, params))
        else:
            scores = self._combined(self.strategy.columns, params)
        self._check(scores, warm_up)
        return scores

    def _whole(self, frame: pd.DataFrame) -> np.ndarray:
        if len(frame) != len(self.candles):
            raise InvalidInput(f"{len(frame):,} scores for {len(self.candles):,} candles")
        return np.ascontiguousarray(frame["score"].to_numpy(dtype="float64"))

    def _combined(self, columns: Columns, params: Params) -> np.ndarray:
        parts = {
            name: columns.column(name, self.candles, params, self.columns) for name in columns.parts
        }
        for name, part in parts.items():
            if len(part) != len(self.candles):
                raise InvalidInput(
                    f"column {name} has {len(part):,} values for {len(self.candles):,} candles"
                )
        return compiled_combine(columns.combine)(**columns.arguments(parts, params))

    def _check(self, scores: np.ndarray, warm_up: int) -> None:
        # One pass where all is well: nan is neither above nor below.
        warm = scores[warm_up:]
        if warm.min() >= -1 and warm.max() <= 1 and not (np.abs(scores[:warm_up]) > 1).any():
            return
        bad = np.abs(scores) > 1
        bad[warm_up:] |= np.isnan(warm)
        row = int(bad.argmax())
        raise InvalidInput(
            f"score {scores[row]:.6g} at {self.candles.index[row]:%Y-%m-%dT%H:%MZ}, candle {row:,},"
            f" after {warm_up:,} of warm-up; scores are -1…1"
        )

    def tallies(self, scores: np.ndarray, decisions: Sequence[DecisionParams]) -> np.ndarray:
        """The sums of each decision step's way through the scores, one row each."""
        out = np.empty((len(decisions), len(Tally._fields)))
        steps = np.array([tuple(one.step()) for one in decisions], dtype=_step_type())
        start = Account(DecisionState(), self.cash), start_tally(self.cash)
        compiled_tallies()(*start, *self.times, scores, steps, self.fee, out)
        return out

    def metrics(self, tallies: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of such sums."""
        return metrics_of(tallies, self.timeframe, self.cash, self.market_return)


class TooShort(InvalidInput):
    """There are fewer candles than a first score needs."""


def make_bench(
    candles: pd.DataFrame, timeframe: str, strategy: Strategy, fee: float, cash: float
) -> Bench:
    """The bench for these candles, checked."""
    if not 0 <= fee < 1 or not cash > 0:
        raise InvalidInput(f"A fee of {fee} or cash of {cash} makes no sense; give 0…1 and > 0.")
    candles = validate_candles(candles, timeframe, "sweep")
    if len(candles) < 2:
        raise InvalidInput(f"A sweep needs candles and got {len(candles)}; give it 2 or more.")
    times = fold_times(candles, timeframe)
    compiled_tallies()  # made once, before threads ask for it at the same time
    return Bench(
        strategy, candles, timeframe, float(fee), float(cash), market_return(candles), times,
        ColumnCache(COLUMN_BYTES),
    )  # fmt: skip


class ColumnCache(OrderedDict):
    """Columns by name and parameters; the one not asked for the longest goes first."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._most, self._bytes, self._lock = most_bytes, 0, threading.Lock()

    def get(self, key: tuple, default: Any = None) -> Any:
        """The column, if it is remembered."""
        with self._lock:
            if key not in self:
                return default
            self.move_to_end(key)
            return self[key]

    def __setitem__(self, key: tuple, column: pd.Series) -> None:
        with self._lock:
            if key not in self:
                self._bytes += column.nbytes
            super().__setitem__(key, column)
            while self._bytes > self._most and len(self) > 1:
                _, oldest = self.popitem(last=False)
                self._bytes -= oldest.nbytes


def fold_tallies(
    step: Callable,
    decide: Callable,
    after_fill: Callable,
    tally_close: Callable,
    tally_fill: Callable,
    account: Account,
    tally: Tally,
    opens_ms: np.ndarray,
    closes_ms: np.ndarray,
    opens: np.ndarray,
    closes: np.ndarray,
    scores: np.ndarray,
    params: Any,
    fee: float,
    out: np.ndarray,
) -> None:
    """Step through every candle for each of the params, and write the sums to its row of out."""
    for k in range(len(params)):
        mine, sums = account, tally
        for i in range(len(closes)):
            mine, done = step(
                decide, after_fill, mine, opens_ms[i], closes_ms[i], opens[i], closes[i],
                scores[i], params[k], fee,
            )  # fmt: skip
            if done.bought != 0.0:
                sums = tally_fill(sums, done.bought, opens[i], done.fee)
            sums = tally_close(sums, done.equity, mine.state.amount)
        for j in range(len(sums)):
            out[k, j] = sums[j]


@cache
def compiled_tallies() -> Callable:
    """`fold_tallies`, compiled, of the step that live trading takes; it holds no lock."""
    import numba

    inlined = numba.njit(forceinline=True)
    step, decide, after_fill = compiled_steps()
    close, fill, fold = inlined(tally_close), inlined(tally_fill), numba.njit(fold_tallies)

    # The functions are constants of this one: as arguments, numba would look at them in every call.
    @numba.njit(nogil=True)
    def compiled(
        account: Account,
        tally: Tally,
        opens_ms: np.ndarray,
        closes_ms: np.ndarray,
        opens: np.ndarray,
        closes: np.ndarray,
        scores: np.ndarray,
        params: Any,
        fee: float,
        out: np.ndarray,
    ) -> None:
        fold(
            step, decide, after_fill, close, fill, account, tally, opens_ms, closes_ms, opens,
            closes, scores, params, fee, out,
        )  # fmt: skip

    return compiled


@cache
def compiled_combine(combine: Callable) -> Callable:
    """A strategy's `combine`, compiled; it holds no lock."""
    import numba

    return numba.njit(combine, nogil=True, error_model="numpy")


@cache
def _step_type() -> np.dtype:
    step = DecisionParams().step()
    return np.dtype([(name, type(value)) for name, value in step._asdict().items()])


@dataclass(frozen=True)
class Chunk:
    """Rows of the combinations from one number to another, and what became of the others."""

    rows: pd.DataFrame
    skipped: int
    first_skip: str
    too_short: int
    first_error: str

    @property
    def combinations(self) -> int:
        """How many it has dealt with."""
        return len(self.rows) + self.skipped


@dataclass(frozen=True)
class Work:
    """What a sweep has to do: fold the combinations of a space over the bench's candles."""

    bench: Bench
    space: Space
    metrics: tuple[str, ...]

    @property
    def size(self) -> int:
        """Combinations of a chunk: enough chunks to share out, and not too many files."""
        return min(max(-(-len(self.space) // 32), 16), 2048)

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return -(-len(self.space) // self.size)

    def key(self) -> str:
        """A name for all that the rows depend on: candles, values, code."""
        bench = self.bench
        told = (
            candles_hash(bench.candles), bench.timeframe, bench.strategy.name, bench.fee,
            bench.cash, repr(self.space), self.size, self.metrics, code_version(bench.strategy),
        )  # fmt: skip
        return hashlib.sha256(repr(told).encode()).hexdigest()[:24]

    def numbered(self, chunk: int) -> Iterator[tuple[int, Combination]]:
        """The combinations of the chunk of that number."""
        first = chunk * self.size
        for number in range(first, min(first + self.size, len(self.space))):
            yield number, self.space[number]

    def run(
        self, numbered: Iterable[tuple[int, Combination]], stop: threading.Event | None = None
    ) -> Chunk:
        """The combinations' rows; those so far if `stop` comes between."""
        gathered = Gathered()
        for _, group in groupby(numbered, key=lambda pair: pair[1].strategy):
            if stop and stop.is_set():
                break
            self._run_scores(list(group), gathered)
        return gathered.chunk(self)

    def _run_scores(self, group: list[tuple[int, Combination]], gathered: Gathered) -> None:
        """Combinations that differ in the decision alone, and so share their scores."""
        valid = list(self._valid(group, gathered))
        if not valid:
            return
        name, params = self.bench.strategy.name, valid[0][2]
        try:
            scores = self.bench.scores(params)
            tallies = self.bench.tallies(scores, [decision for *_, decision in valid])
        # A strategy of the user's own may raise anything, and the sweep goes on.
        except Exception as error:
            kind = "" if isinstance(error, InvalidInput) else f"{type(error).__name__}: "
            gathered.too_short += len(valid) if isinstance(error, TooShort) else 0
            for number, combination, *_ in valid:
                gathered.add(number, combination, None, f"{name} with {combination}: {kind}{error}")
            return
        for (number, combination, *_), tally in zip(valid, tallies, strict=True):
            gathered.add(number, combination, tally, None)

    def _valid(
        self, group: list[tuple[int, Combination]], gathered: Gathered
    ) -> Iterator[tuple[int, Combination, Params, DecisionParams]]:
        params = None
        for number, combination in group:
            try:
                params = params or self.bench.strategy.params(**combination.strategy)
                decision = DecisionParams(**combination.decision)
            except InvalidInput as refusal:
                gathered.skipped += 1
                gathered.first_skip = gathered.first_skip or str(refusal)
            else:
                yield number, combination, params, decision


class Gathered:
    """Rows on their way to a chunk."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.values: list[Combination] = []
        self.tallies: list[np.ndarray] = []
        self.errors: list[str | None] = []
        self.skipped, self.first_skip, self.too_short = 0, "", 0

    def add(
        self, number: int, values: Combination, tally: np.ndarray | None, error: str | None
    ) -> None:
        """Take a row; without a tally its metrics are undefined."""
        self.numbers.append(number)
        self.values.append(values)
        self.tallies.append(np.full(len(Tally._fields), np.nan) if tally is None else tally)
        self.errors.append(error)

    def chunk(self, work: Work) -> Chunk:
        """All that was taken."""
        told = [{**one.strategy, **one.decision} for one in self.values]
        tallies = np.array(self.tallies).reshape(-1, len(Tally._fields))
        failed = np.array([error is not None for error in self.errors], dtype=bool)
        found = work.bench.metrics(tallies)
        index = pd.Index(self.numbers, name="combination", dtype="int64")
        rows = pd.DataFrame(
            {
                **{name: [one[name] for one in told] for name in work.space.names},
                **{name: np.where(failed, np.nan, found[name]) for name in work.metrics},
                "error": pd.Series(self.errors, index=index, dtype="str"),
            },
            index=index,
        )
        first_error = next((error for error in self.errors if error), "")
        return Chunk(rows, self.skipped, self.first_skip, self.too_short, first_error)


@dataclass(frozen=True)
class _Store:
    """Finished chunks on disk. What is half written has another name, and is written anew."""

    folder: Path

    def load(self, number: int) -> Chunk | None:
        path = self._path(number)
        try:
            rows = pd.read_parquet(path)
            return Chunk(rows, **rows.attrs.pop("chunk"))
        except (OSError, ValueError, KeyError):  # absent, or torn by a machine that lost power
            return None

    def save(self, number: int, chunk: Chunk) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(number)
        part = path.with_suffix(f".{os.getpid()}.part")
        told = {name: value for name, value in vars(chunk).items() if name != "rows"}
        rows = chunk.rows.copy(deep=False)
        rows.attrs["chunk"] = told
        rows.to_parquet(part)
        os.replace(part, path)

    def _path(self, number: int) -> Path:
        return self.folder / f"chunk-{number:05d}.parquet"


def _run(work: Work, store: _Store | None, workers: int, progress: bool) -> list[Chunk]:
    """All chunks in order: those on disk, and the others, by the threads."""
    done = {n: found for n in range(work.chunks) if store and (found := store.load(n))}
    missing = (number for number in range(work.chunks) if number not in done)

    def finish(number: int, stop: threading.Event) -> Chunk:
        chunk = work.run(work.numbered(number), stop)
        if store and not stop.is_set():
            store.save(number, chunk)
        return chunk

    begun = sum(chunk.combinations for chunk in done.values())
    with progress_bar(work, begun, progress) as advance, threads(workers) as (pool, stop):
        running: dict[Future[Chunk], int] = {}
        while True:
            for number in islice(missing, 2 * workers - len(running)):
                running[pool.submit(finish, number, stop)] = number
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(future)
                done[number] = future.result()
                advance(done[number].combinations)
    return [done[number] for number in range(work.chunks)]


@contextmanager
def threads(workers: int) -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
    """Threads that are told to stop when the caller is stopped."""
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers, "sweep")
    try:
        yield pool, stop
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextmanager
def progress_bar(work: Work, done: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """A bar of combinations, in a terminal and in a notebook; nothing in a log."""
    console, total = Console(stderr=True), len(work.space)
    shown = wanted and (console.is_terminal or console.is_jupyter)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not shown, transient=True
    ) as bar:
        task = bar.add_task(f"sweep {work.bench.strategy.name}", total=total)
        bar.update(task, completed=done)
        yield lambda count: bar.advance(task, count)


def result_of(work: Work, chunks: Sequence[Chunk]) -> SweepResult:
    """The chunks as one result, or InvalidInput where all was in vain."""
    total, skipped = len(work.space), sum(chunk.skipped for chunk in chunks)
    first_skip = next((chunk.first_skip for chunk in chunks if chunk.skipped), "")
    if skipped == total:
        raise InvalidInput(f"None of the {total:,} combinations is valid; the first: {first_skip}")
    if sum(chunk.too_short for chunk in chunks) == total - skipped:
        error = next(chunk.first_error for chunk in chunks if chunk.too_short)
        raise InvalidInput(f"No combination has candles enough; the first: {error}.")
    frame = pd.concat([chunk.rows for chunk in chunks if len(chunk.rows)])
    return SweepResult(work.bench.strategy.name, frame, work.metrics, total, skipped, first_skip)


_FOLD = ("backtest", "metrics", "space", "sweep")
_LIBRARIES = ("numpy", "pandas", "numba")


def code_version(strategy: Strategy) -> str:
    """A hash of the code that a row depends on: strategies, the fold, the strategy's own parts."""
    version = hashlib.sha256("".join(map(metadata.version, _LIBRARIES)).encode())
    here = Path(__file__).parent
    files = [*here.parent.glob("strategy/*.py"), *(here / f"{name}.py" for name in _FOLD)]
    for path in sorted(files):
        version.update(path.read_bytes())
    used = [strategy.compute, strategy.warm_up, strategy.params_type]
    if strategy.columns:
        used += [*strategy.columns.functions.values(), strategy.columns.combine]
    seen: set[int] = set()
    for part in used:
        version.update(_code(part, seen).encode())
    return version.hexdigest()


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
