"""Replay: a run's notebook executed once more on what the run read, and held against its record.

The replay's kernel is sealed: no venue, no program, no change to the desk. Its clock stands at the
run's start and its generators start from the run's seed. What the run knew of the ledger is in its
record; the candles are read again from the store, as they were known then.
"""

from __future__ import annotations

import dataclasses
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tradelib.candles.store import CandleRead, CandleStore
from tradelib.errors import DeskError
from tradelib.kernels.specs import find_kernel
from tradelib.notebooks.desk import REPLAY_ENV
from tradelib.notebooks.provenance import code_version, notebook_hash
from tradelib.notebooks.runner import Executed, execute_page, plain_environment
from tradelib.scrubber import desk_scrubber
from tradelib.settings import NOTEBOOKS, DeskSettings
from tradelib.trading.ledger import READ_ONLY_ENV
from tradelib.trading.runs import COMPUTED, Outcome, Run

PAGE = "replay.ipynb"
_MISSING = "nothing"
# Of what the desk's own pages compute: what is read comes first, then scores, then the decision.
_STAGES = (
    {"candle_close", "candles", "candles_hash", "price"},
    {"score", "scores_hash", "components"},
)


class Verdict(StrEnum):
    """SAME: all that was computed came out again, bit for bit. DIFFERS: something did not.
    FAILED: the replay did not get to its end. TALKED: the page computed nothing, for its work was
    to talk to a venue; its candles are as they were. SKIPPED: the run left nothing to hold against.
    """

    SAME = "SAME"
    DIFFERS = "DIFFERS"
    FAILED = "FAILED"
    TALKED = "TALKED"
    SKIPPED = "SKIPPED"

    @property
    def good(self) -> bool:
        return self not in (Verdict.DIFFERS, Verdict.FAILED)


@dataclass(frozen=True)
class Difference:
    """One value that did not come out again, by its name in the record."""

    name: str
    recorded: str
    replayed: str

    def __str__(self) -> str:
        return f"{self.name} was {self.recorded}, is {self.replayed}"


@dataclass(frozen=True)
class Replay:
    """What became of a replay: the differences, first things first; why they may be; the replay's
    page, kept where there is something to look at."""

    run: Run
    verdict: Verdict
    differences: tuple[Difference, ...] = ()
    causes: tuple[str, ...] = ()
    page: Path | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.run.id,
            "notebook": self.run.notebook,
            "bot": self.run.bot,
            "verdict": str(self.verdict),
            "differences": [vars(difference) for difference in self.differences],
            "causes": list(self.causes),
            "page": str(self.page) if self.page else None,
        }


def replay_runs(settings: DeskSettings, runs: Sequence[Run]) -> Iterator[Replay]:
    """Replay runs side by side, in as many kernels as the settings say; in the runs' order."""
    with ThreadPoolExecutor(settings.kernels, thread_name_prefix="replay") as pool:
        waiting = [pool.submit(replay_run, settings, run) for run in runs]
        try:
            for future in waiting:
                yield future.result()
        finally:
            for future in waiting:
                future.cancel()


def replay_run(settings: DeskSettings, run: Run) -> Replay:
    """Execute a run's notebook once more and compare; the ledger and the run's page stay as they
    are."""
    if run.outcome != Outcome.SUCCEEDED or run.result is None:
        return Replay(run, Verdict.SKIPPED, causes=(_why_skipped(run),))
    path = NOTEBOOKS / f"{run.notebook}.ipynb"
    try:
        candles = _candle_differences(CandleStore(settings.candles), run)
        notebook_hash(path)
    except (DeskError, OSError, ValueError, KeyError) as error:
        told = f"{run.notebook} or its candles cannot be read: {error}"
        return Replay(run, Verdict.FAILED, causes=(told,))
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        page = Path(folder) / PAGE
        done = _execute(settings, path, page, run)
        replay = _compare(run, done, candles)
        return replay if replay.verdict.good else _keep_page(settings, replay, page)


def _execute(settings: DeskSettings, path: Path, page: Path, run: Run) -> Executed:
    environment = plain_environment(settings) | {REPLAY_ENV: run.id, READ_ONLY_ENV: "1"}
    folders = ", ".join(repr(str(folder)) for folder in (settings.home, settings.reports))
    seal = f"from tradelib.notebooks.seal import seal; seal({folders})"
    kernel = find_kernel(run.kernel)
    scrubber = desk_scrubber(settings)
    return execute_page(
        settings, path, page, run, environment, scrubber, prepare=seal, kernel=kernel
    )


def _compare(run: Run, done: Executed, candles: tuple[Difference, ...]) -> Replay:
    if done.reason or done.result is None:
        told = (f"the replay failed: {done.reason}", *_causes(run, candles))
        return Replay(run, Verdict.FAILED, candles, told)
    if COMPUTED in done.result and COMPUTED not in (run.result or {}):
        return Replay(run, Verdict.SKIPPED, causes=("the run is older than such records",))
    recorded, again = (_computed(result) for result in (run.result or {}, done.result))
    computed = sorted(_differences("", recorded, again), key=_causal_order)
    found = (*candles, *computed)
    if found:
        return Replay(run, Verdict.DIFFERS, found, _causes(run, candles))
    return Replay(run, Verdict.SAME if recorded else Verdict.TALKED)


def _computed(result: dict[str, Any]) -> dict[str, Any]:
    computed: dict[str, Any] = result.get(COMPUTED, result)
    return computed


def _why_skipped(run: Run) -> str:
    if run.outcome == Outcome.FAILED:
        return f"the run failed: {run.reason}"
    return "the run has not ended" if run.outcome == Outcome.RUNNING else "it recorded no result"


def _candle_differences(store: CandleStore, run: Run) -> tuple[Difference, ...]:
    """The run's readings of the store that would give something else now."""
    found = []
    for read in map(CandleRead.from_json, run.candles or ()):
        now = store.hash_of(read)
        if now != read.hash:
            span = f"{read.first:%F %H:%M} to {read.last:%F %H:%M}"
            name = f"candles of {read.symbol} {read.timeframe} at {read.venue}, {span}"
            found.append(Difference(name, read.hash[:12], now[:12]))
    return tuple(found)


def _differences(name: str, recorded: Any, again: Any) -> Iterable[Difference]:
    """Every value that differs, in the order of the record; floats by all their bits."""
    if isinstance(recorded, dict) and isinstance(again, dict):
        for key in recorded | again:
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(inner, recorded.get(key, _MISSING), again.get(key, _MISSING))
    elif isinstance(recorded, list) and isinstance(again, list) and len(recorded) == len(again):
        for place, (one, other) in enumerate(zip(recorded, again, strict=True)):
            yield from _differences(f"{name}[{place}]", one, other)
    elif repr(recorded) != repr(again):
        yield Difference(name, _short(recorded), _short(again))


def _causal_order(difference: Difference) -> int:
    """What comes first among differences: a page keeps its values by the alphabet."""
    name = difference.name.partition(".")[0]
    return next((place for place, names in enumerate(_STAGES) if name in names), len(_STAGES))


def _short(value: Any) -> str:
    told = str(value)
    return told if len(told) <= 60 else f"{told[:57]}…"


def _causes(run: Run, candles: tuple[Difference, ...]) -> tuple[str, ...]:
    """What has changed since the run and may be why it comes out otherwise."""
    now, path = code_version(), NOTEBOOKS / f"{run.notebook}.ipynb"
    then = _commit(run.git_commit, run.git_clean)
    here = _commit(now.git_commit, now.git_clean)
    unclean = 0 in (run.git_clean, now.git_clean)
    told = {
        "candles were altered in the store": bool(candles),
        "the notebook was changed": notebook_hash(path) != run.notebook_hash,
        f"the code was changed: the run's is {then}, this is {here}": then != here or unclean,
        "other versions of libraries are installed": now.lock_hash != run.lock_hash,
        f"the run's Python was {run.python}": run.python not in (None, platform.python_version()),
    }
    causes = tuple(cause for cause, holds in told.items() if holds)
    return causes or (
        "nothing that the record names has changed, so the page reads something else: a file, a "
        "clock, the network, or chance that does not start from the run's seed",
    )


def _commit(commit: str | None, clean: int | None) -> str:
    changes = {0: " with changes of its own", 1: "", None: ""}[clean]
    return f"{(commit or 'unknown')[:10]}{changes}"


def _keep_page(settings: DeskSettings, replay: Replay, page: Path) -> Replay:
    """Move the replay's page beside the run's own."""
    run = replay.run
    folder = settings.reports / f"{run.started_at:%Y-%m-%d}" / run.id
    if not page.exists():
        return replay
    folder.mkdir(parents=True, exist_ok=True)
    shutil.move(page, folder / PAGE)
    return dataclasses.replace(replay, page=folder / PAGE)
