"""A sweep: the live decision step folded over history for thousands of combinations.

Each combination is one pass over the candles, and leaves one row of metrics: no matrix of
combinations × candles exists. What a score is made of is computed once for the parameters that it
rests on. Rows are worked on in chunks, by one thread for each core or by a Dask cluster, and kept
in Parquet if there is a folder; a sweep that was stopped goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tradelib.candles.schema import candles_hash
from tradelib.errors import InvalidInput, unknown_name
from tradelib.research.backtest import DEFAULT_CASH, DEFAULT_FEE
from tradelib.research.bench import Bench, make_bench
from tradelib.research.cluster import cluster_pool
from tradelib.research.code_version import code_version
from tradelib.research.fills import NEXT_OPEN, FillModel
from tradelib.research.metrics import METRICS, Tally, check_metrics
from tradelib.research.progress import show_progress
from tradelib.research.space import Combination, Space, make_space
from tradelib.strategy.base import Strategy, TooShort, describe_error
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.params import Params


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
    fills: FillModel = NEXT_OPEN,
    metrics: Sequence[str] = METRICS,
    folder: str | Path | None = None,
    workers: int | None = None,
    cluster: Any = None,
    progress: bool = True,
) -> SweepResult:
    """Backtest every combination of the strategy's and the decision step's parameters.

    space, decision_space: values by parameter, a list, a range or one value; what is not named
    keeps its default. samples: draw so many combinations instead, by the seed; values may then be
    a `Span` too. fee, cash, fills: `run_backtest`'s, whose numbers each row equals. folder: where
    finished chunks stay; the same call goes on from there, and one with other candles, values or
    code begins anew beside it. workers: threads; None: one for each core. cluster: a Dask cluster
    that does the work instead, with the same rows: its scheduler's address, a Dask client or
    cluster, or Prefect's `DaskTaskRunner`.
    """
    if cluster is not None and workers is not None:
        raise InvalidInput("A cluster has its own workers; leave out `workers`, or the cluster.")
    wanted = check_metrics(metrics)
    combinations = make_space(strategy, space, decision_space, samples=samples, seed=seed)
    bench = make_bench(candles, timeframe, strategy, fee, cash, fills)
    work = Work(bench, combinations, wanted)
    store = _Store(Path(folder) / work.key()) if folder is not None else None
    pool = _thread_pool(work, workers) if cluster is None else cluster_pool(work, cluster)
    return result_of(work, _run(work, store, pool, progress))


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
            repr(bench.fills),
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
            kind = "" if isinstance(error, InvalidInput) else f"{describe_error(error, name)}: "
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


Submit = Callable[[int], "Future[Chunk]"]
Pool = AbstractContextManager[tuple[Submit, Callable[[], int]]]
"""Who folds chunks by their number, and how many of them it should be given at a time."""


def _run(work: Work, store: _Store | None, pool: Pool, progress: bool) -> list[Chunk]:
    """All chunks in order: those on disk, and the others, from the pool."""
    done = {n: found for n in range(work.chunks) if store and (found := store.load(n))}
    missing = deque(number for number in range(work.chunks) if number not in done)
    begun = sum(chunk.combinations for chunk in done.values())
    if missing:
        with progress_bar(work, begun, progress) as advance, pool as (submit, room):
            for number, chunk in _finished(missing, submit, room):
                if store:
                    store.save(number, chunk)
                done[number] = chunk
                advance(chunk.combinations)
    return [done[number] for number in range(work.chunks)]


def _finished(
    missing: deque[int], submit: Submit, room: Callable[[], int]
) -> Iterator[tuple[int, Chunk]]:
    """The missing chunks, as they are folded."""
    running: dict[Future[Chunk], int] = {}
    while missing or running:
        while missing and len(running) < room():
            number = missing.popleft()
            running[submit(number)] = number
        for future in sorted(wait(running, return_when=FIRST_COMPLETED).done, key=running.get):
            yield running.pop(future), future.result()


@contextmanager
def _thread_pool(work: Work, workers: int | None) -> Iterator[tuple[Submit, Callable[[], int]]]:
    count = workers or os.cpu_count() or 1
    with threads(count) as (pool, stop):
        yield lambda n: pool.submit(work.run, work.numbered(n), stop), lambda: 2 * count


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
    title = f"sweep {work.bench.strategy.name}"
    with show_progress(title, len(work.space), done=done, wanted=wanted) as advance:
        yield advance


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
