"""Runs: one execution of one notebook, with all that is needed to trust or repeat it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, or_, select

from tradelib.clock import format_time, utc_now
from tradelib.errors import InvalidInput
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, find, first, insert, select_values, update

COMPUTED = "computed"
"""The part of a result that a replay must give again, bit for bit; without it, all of it. Empty for
a page whose work was to talk to a venue."""


class Outcome(StrEnum):
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Run:
    """as_of: the market time up to which the run may look; started_at, ended_at: wall clock.

    kernel: the kernelspec's name; kernel_kind: 'warm' when it was forked, else 'cold'; python: its
    version. seed: what NumPy's and Python's generators start from. token_hash: SHA-256 of the token
    that the run's kernel holds; only that kernel may write. page: its path under the reports,
    None once it was removed at page_removed_at. timings: seconds of each code cell by its place.
    candles: what it read of the store, each as `CandleRead.to_json` tells. result: what the
    notebook recorded, None until it has.
    """

    id: str
    cycle: str | None
    notebook: str
    notebook_hash: str
    bot: str | None
    venue: str | None
    parameters: dict[str, Any]
    as_of: datetime | None
    git_commit: str | None
    git_clean: int | None
    lock_hash: str | None
    host: str
    kernel: str
    token_hash: str
    started_at: datetime
    kernel_kind: str | None = None
    python: str | None = None
    seed: int | None = None
    ended_at: datetime | None = None
    outcome: Outcome = Outcome.RUNNING
    reason: str | None = None
    page: str | None = None
    page_removed_at: datetime | None = None
    timings: dict[str, Any] | None = None
    candles: list[dict[str, Any]] | None = None
    result: dict[str, Any] | None = None

    @property
    def took(self) -> timedelta | None:
        """From its start to its end; None while it runs."""
        return self.ended_at - self.started_at if self.ended_at else None

    @property
    def provenance(self) -> dict[str, Any]:
        """What it runs on, as plain values: what is known before it starts, but for its token."""
        later = {"token_hash", "ended_at", "outcome", "reason", "kernel_kind", "timings", "result"}
        later |= {"page", "page_removed_at", "candles"}
        told = {name: value for name, value in vars(self).items() if name not in later}
        times = {n: format_time(v) for n, v in told.items() if isinstance(v, datetime)}
        return told | times

    @property
    def record(self) -> dict[str, str]:
        """What it ran on, in words: with this and its parameters it can be repeated."""
        clean = {None: "", 0: ", with changes that are in no commit", 1: ", clean"}[self.git_clean]
        told = {
            "Run": self.id,
            "Cycle": self.cycle,
            "Notebook": self.notebook,
            "Notebook's SHA-256": self.notebook_hash,
            "Commit": self.git_commit and f"{self.git_commit}{clean}",
            "Lock file's SHA-256": self.lock_hash,
            "Candles up to (UTC)": self.as_of and f"{self.as_of:%Y-%m-%d %H:%M:%S.%f}",
            "Seed": None if self.seed is None else str(self.seed),
            "Python": self.python,
            "Kernel": f"{self.kernel}, {self.kernel_kind}" if self.kernel_kind else self.kernel,
            "Host": self.host,
            "Started (UTC)": f"{self.started_at:%Y-%m-%d %H:%M:%S.%f}",
            "Ended (UTC)": self.ended_at and f"{self.ended_at:%Y-%m-%d %H:%M:%S.%f}",
            "Page removed (UTC)": self.page_removed_at
            and f"{self.page_removed_at:%Y-%m-%d %H:%M:%S}",
        }
        return {name: text for name, text in told.items() if text}


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def start_run(ledger: Ledger, run: Run) -> None:
    with ledger.write() as books:
        insert(books, tables.runs, run)


def finish_run(
    ledger: Ledger,
    run_id: str,
    outcome: Outcome,
    *,
    reason: str | None = None,
    page: str | None = None,
    kernel_kind: str | None = None,
    timings: dict[str, Any] | None = None,
    candles: list[dict[str, Any]] | None = None,
    result: dict[str, Any] | None = None,
) -> None:
    """Close a run; from here on its kernel's token opens nothing."""
    changed = {
        "outcome": outcome,
        "reason": reason,
        "page": page,
        "kernel_kind": kernel_kind,
        "timings": timings,
        "candles": candles,
        "result": result,
        "ended_at": utc_now(),
    }
    with ledger.write() as books:
        update(books, tables.runs, changed, id=run_id)


def find_outcome(books: Connection, run_id: str) -> str | None:
    """How a run stands, None where there is none of that id."""
    return books.execute(_OUTCOME, {"run": run_id}).scalar()


_OUTCOME = select(tables.runs.c.outcome).where(tables.runs.c.id == bindparam("run"))


def attach_page(ledger: Ledger, run_id: str, page: str, timings: dict[str, Any] | None) -> None:
    """Record the page of a run that acted before it had one."""
    with ledger.write() as books:
        update(books, tables.runs, {"page": page, "timings": timings}, id=run_id)


def load_run(ledger: Ledger, run_id: str) -> Run:
    with ledger.read() as books:
        found = first(find(books, tables.runs, Run, id=run_id))
    if found is None:
        raise InvalidInput(f"There is no run {run_id!r} in the ledger; `desk runs` lists them.")
    return found


def latest_run(ledger: Ledger, notebook: str) -> Run | None:
    """The newest successful run of a notebook, or None."""
    return first(load_runs(ledger, limit=1, notebook=notebook, outcome=Outcome.SUCCEEDED))


def load_runs(
    ledger: Ledger,
    *,
    limit: int | None = 50,
    since: datetime | None = None,
    cycle: str | None = None,
    bot: str | None = None,
    notebook: str | None = None,
    outcome: Outcome | None = None,
    day: date | None = None,
    before: Run | None = None,
    after: Run | None = None,
) -> list[Run]:
    """Runs, newest first: those that meet all that is given.

    limit: how many at most; None: all. since: of those that started then or later. day: of their
    start, in UTC. before, after: of those that started before, or after, a run, the nearest to it.
    """
    started, run_id = tables.runs.c.started_at, tables.runs.c.id
    query = select(tables.runs).where(*_conditions(cycle, bot, notebook, outcome)).limit(limit)
    if since:
        query = query.where(started >= since)
    if day:
        begin = datetime.combine(day, time(), UTC)
        query = query.where(started >= begin, started < begin + timedelta(days=1))
    if before:
        earlier = or_(started < before.started_at, run_id < before.id)
        query = query.where(started <= before.started_at, earlier)
    if after:
        later = or_(started > after.started_at, run_id > after.id)
        query = query.where(started >= after.started_at, later)
        return ledger.rows(query.order_by(started, run_id), Run)[::-1]
    return ledger.rows(query.order_by(started.desc(), run_id.desc()), Run)


def _conditions(
    cycle: str | None, bot: str | None, notebook: str | None, outcome: Outcome | None
) -> list[ColumnElement[bool]]:
    """Only what narrows most is looked up in its index; without statistics a database may well
    choose the one of the runs that succeeded, which are nearly all."""
    succeeded = Outcome.SUCCEEDED if outcome == Outcome.SUCCEEDED else None
    rare = None if succeeded else outcome
    narrowing = (("cycle", cycle), ("outcome", rare), ("bot", bot), ("notebook", notebook),
                 ("outcome", succeeded))  # fmt: skip
    given = [(tables.runs.c[name], value) for name, value in narrowing if value]
    # A text with nothing added is the same text, and in no index.
    others = [column.concat("") == value for column, value in given[1:]]
    return [column == value for column, value in given[:1]] + others


def load_run_values(ledger: Ledger, column: str) -> list[str]:
    """The bots, notebooks or outcomes that runs have, each once, in order."""
    return [row["value"] for row in ledger.mappings(select_values(tables.runs.c[column]))]


def load_run_bots(ledger: Ledger, notebook: str, day: date) -> list[tuple[str, str]]:
    """Venue and bot of a notebook's runs that started on a UTC day, each pair once, in order."""
    runs, begin = tables.runs.c, datetime.combine(day, time(), UTC)
    query = select(runs.venue, runs.bot).distinct()
    query = query.where(runs.notebook == notebook, runs.started_at >= begin)
    query = query.where(runs.started_at < begin + timedelta(days=1), runs.bot.is_not(None))
    found = ledger.mappings(query.order_by(runs.venue, runs.bot))
    return [(row["venue"], row["bot"]) for row in found]


def mark_pages_removed(books: Connection, runs: Collection[str]) -> None:
    """Let these runs, all of which have ended, say that their pages are gone."""
    books.execute(
        tables.runs.update()
        .where(tables.runs.c.id.in_(runs), tables.runs.c.page_removed_at.is_(None))
        .values(page=None, page_removed_at=utc_now())
    )


def fail_abandoned_runs(ledger: Ledger, before: datetime, *, host: str) -> int:
    """Close this host's runs that were still open when the desk that ran them ended."""
    query = (
        tables.runs.update()
        .where(
            tables.runs.c.outcome == Outcome.RUNNING,
            tables.runs.c.started_at < before,
            tables.runs.c.host == host,
        )
        .values(outcome=Outcome.FAILED, reason="the desk ended while it ran", ended_at=utc_now())
    )
    with ledger.write() as books:
        return books.execute(query).rowcount
