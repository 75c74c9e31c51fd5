"""A campaign: many schedules on several cores, and what they came to."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.util import Finalize
from pathlib import Path
from random import Random
from typing import Any

from tradelib.errors import unknown_name
from tradelib.torture.processes import die_with_parent
from tradelib.torture.schedule import FOCUSES
from tradelib.torture.verdict import BALANCE, DUPLICATE, KINDS, LOST, UNRESOLVED
from tradelib.torture.worker import Result, Worker, open_worker

Progress = Callable[[Result], None]
# What must be zero, by the names in the report.
_COUNTED = {
    "duplicates": DUPLICATE,
    "lost": LOST,
    "unresolved": UNRESOLVED,
    "balance_differences": BALANCE,
}


@dataclass(frozen=True)
class Plan:
    """What to play. ledger_url: a database server's, whose database is emptied again and again;
    '{}' in it stands for the worker's number. prepare: called in each worker before it begins.
    folder: where what is left of a failing schedule is kept. stop_at_first: failure."""

    schedules: int
    seed: int
    workers: int = 1
    focus: str = ""
    ledger_url: str | None = None
    folder: Path | None = None
    prepare: Callable[[], None] | None = None
    stop_at_first: bool = False

    def seeds(self) -> list[int]:
        """Each schedule's own. The first is the campaign's, so that a schedule that failed is
        the first, and only, one of a campaign with its seed."""
        draw = Random(f"campaign/{self.seed}")
        return [self.seed, *(draw.randrange(2**32) for _ in range(self.schedules - 1))]


@dataclass
class Report:
    """The sums of a campaign. results: of each schedule, in the order of their seeds."""

    schedules: int = 0
    orders: int = 0
    attempts: int = 0
    trades: int = 0
    seconds: float = 0.0
    signals: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    passes: Counter[int] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    results: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.schedules += 1
        self.orders += result.orders
        self.attempts += result.attempts
        self.trades += result.trades
        self.seconds += result.seconds
        self.passes[result.passes] += 1
        for sums, found in (
            (self.signals, result.signals), (self.faults, result.faults), (self.acts, result.acts)
        ):  # fmt: skip
            sums.update(found)
        self.violations.update(violation.kind for violation in result.violations)
        self.results.append(result)

    @property
    def failures(self) -> list[Result]:
        """The schedules that broke a rule."""
        return [result for result in self.results if result.violations]

    @property
    def kills(self) -> int:
        return _sum(self.signals, "kill ")

    @property
    def sleeps(self) -> int:
        return _sum(self.signals, "sleep ")

    @property
    def counted(self) -> dict[str, int]:
        """What must be zero."""
        told = {name: self.violations[kind] for name, kind in _COUNTED.items()}
        others = {kind.replace(" ", "_"): self.violations[kind]
                  for kind in KINDS if kind not in _COUNTED.values()}  # fmt: skip
        return {**told, **others}

    def to_json(self) -> dict[str, Any]:
        return {
            "schedules": self.schedules,
            "kills": self.kills,
            "sleeps": self.sleeps,
            "faults": dict(self.faults.most_common()),
            "orders": self.orders,
            "orders_in_ledger": self.attempts,
            "trades": self.trades,
            **self.counted,
            "quiet_passes": {str(number): self.passes[number] for number in sorted(self.passes)},
            "acts": dict(self.acts.most_common()),
            "points": dict(sorted(self.signals.items())),
            "processor_seconds": round(self.seconds, 1),
            "failures": [
                {"seed": one.seed, "violations": [asdict(each) for each in one.violations]}
                for one in self.failures
            ],
        }


def _sum(counts: Mapping[str, int], beginning: str) -> int:
    return sum(count for name, count in counts.items() if name.startswith(beginning))


def run_campaign(plan: Plan, tell: Progress = lambda result: None) -> Report:
    """Play every schedule of a plan. tell: called with each result as it comes."""
    if plan.focus not in FOCUSES:
        raise unknown_name("focus", plan.focus, filter(None, FOCUSES))
    results: dict[int, Result] = {}
    with _settled_environment(), _pool(plan) as pool:
        asked = {pool.submit(_play, seed, plan.focus): number
                 for number, seed in enumerate(plan.seeds())}  # fmt: skip
        try:
            for future in as_completed(asked):
                results[asked[future]] = future.result()
                tell(future.result())
                if plan.stop_at_first and future.result().violations:
                    pool.shutdown(cancel_futures=True)
                    break
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    report = Report()
    for number in sorted(results):
        report.add(results[number])
    return report


def _pool(plan: Plan) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    numbers = context.Value("i", 0)
    return ProcessPoolExecutor(plan.workers, context, _open, (plan, numbers))


@contextmanager
def _settled_environment() -> Iterator[None]:
    """What workers must find when they are born: the same order of sets in each, and no threads
    of their own for arithmetic."""
    wanted = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ |= wanted
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# In a worker.


@dataclass
class _Here:
    """What a worker process keeps from one schedule to the next."""

    loop: asyncio.AbstractEventLoop
    worker: Worker
    folder: Path | None


_here: _Here


def _open(plan: Plan, numbers: Any) -> None:
    global _here
    die_with_parent()
    with numbers.get_lock():
        numbers.value += 1
        url = plan.ledger_url and plan.ledger_url.replace("{}", str(numbers.value))
    if plan.prepare is not None:
        plan.prepare()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    opened = open_worker(url)
    _here = _Here(loop, loop.run_until_complete(opened.__aenter__()), plan.folder)
    # Closed when the process ends, in whatever way the pool lets it.
    Finalize(
        None, lambda: loop.run_until_complete(opened.__aexit__(None, None, None)), exitpriority=10
    )


def _play(seed: int, focus: str) -> Result:
    async def play() -> Result:
        return await _here.worker.play(seed, focus)

    result = _here.loop.run_until_complete(play())
    if result.violations and _here.folder is not None:
        _keep(result, _here.folder / f"seed-{seed}")
    return result


def _keep(result: Result, folder: Path) -> None:
    """What is left of a schedule: its events, the exchange's record and the ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    broken = [f"{one.kind}: {one.text}" for one in result.violations]
    (folder / "events.txt").write_text("\n".join([*broken, "", *result.events]) + "\n")
    (folder / "record.json").write_text(json.dumps(result.record, indent=1))
    _here.worker.copy_ledger(folder / "ledger.sqlite")
