"""Retention: which executed pages are kept, and the removal of all others.

A run's row says that its page is gone before the page's folder goes. So a removal that is killed
leaves folders that the ledger has disowned, which the next one takes away, and never a row that
points to nothing. Rows stay: decisions and orders refer to them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, select

from tradelib.clock import utc_now
from tradelib.errors import ReadOnly, StorageFailed
from tradelib.settings import DeskSettings
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, select_values
from tradelib.trading.orders import UNSETTLED, OrderStatus
from tradelib.trading.runs import Outcome, mark_pages_removed

# Rows marked in one transaction, which takes some 10 ms, so that no order waits for longer.
BATCH = 200
_LOOKED_UP = 500
_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}$")
# A run makes its date's folder just before its own; none is made in dates that are past.
_DATE_IS_PAST = timedelta(days=2)
# By how much the clocks of two machines that share a ledger may differ.
_CLOCKS_DIFFER = timedelta(hours=1)
Tell = Callable[[int, int], None]


class Kept(StrEnum):
    """Why a page stays."""

    WITHIN_LIMITS = "within the limits of age and number"
    NOT_ENDED = "its run has not ended"
    LIVE_ORDER = "one of its orders is not settled"
    REAL_VENUE = "one of its orders went to a real venue"
    NEWEST_DECISION = "it made its bot's newest decision"


@dataclass
class Pruning:
    """What was removed, or would be, and what stays.

    freed: bytes of files. leftovers: of the removed, those that an earlier removal had disowned.
    unknown: folders over the age limit whose run, or whose page, is another than the ledger's:
    nobody removes them but a person. failed: folders that could not be removed, and why.
    """

    dry_run: bool
    removed: int = 0
    freed: int = 0
    leftovers: int = 0
    kept: Counter[Kept] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        verb = "would be removed" if self.dry_run else "removed"
        told = f"{self.removed} pages {verb} ({self.freed / 1e6:.1f} MB)"
        if self.leftovers:
            told += f", {self.leftovers} of them left over from a removal that was interrupted"
        return f"{told}; {self.kept.total()} kept."


@dataclass(frozen=True)
class _Page:
    """A page's folder `reports/<date>/<id>`, and what the ledger says of its run."""

    id: str
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome
    page: str | None
    page_removed_at: datetime | None

    def lies_in(self, date: str) -> bool:
        """Whether the run's page is in this date's folder, and nowhere else."""
        here = self.page is None or self.page.startswith(f"{date}/{self.id}/")
        return here and f"{self.started_at:%Y-%m-%d}" == date


def prune_pages(
    settings: DeskSettings, ledger: Ledger, *, dry_run: bool = False, tell: Tell | None = None
) -> Pruning:
    """Remove the pages that `settings.retention` does not keep; the desk may run meanwhile.

    What it costs grows with the pages on disk, not with the runs in the ledger. tell: hears of
    dates done, and of how many there are.

    Raises StorageFailed when the reports or the ledger cannot be used; run it again then.
    """
    if ledger.read_only and not dry_run:
        raise ReadOnly("Pages are removed by the desk command and the schedule alone.")
    pruner = _Pruner(settings, ledger, dry_run)
    if not settings.reports.exists():  # no run has left a page yet
        return pruner.done
    try:
        with _open_folder(settings.reports) as reports:
            dates = sorted(filter(_DATE.match, _folders_in(reports)), reverse=True)
            for done, date in enumerate(dates, 1):
                with suppress(FileNotFoundError):  # another process has just emptied it
                    pruner.prune_date(reports, date)
                if tell:
                    tell(done, len(dates))
    except OSError as error:
        raise StorageFailed(
            f"The reports in {settings.reports} cannot be read ({error.strerror}); "
            "mend their permissions."
        ) from error
    return pruner.done


class _Pruner:
    """Goes from the newest date to the oldest, so that it holds one date's pages at a time."""

    def __init__(self, settings: DeskSettings, ledger: Ledger, dry_run: bool) -> None:
        self.limits, self.ledger, self.now = settings.retention, ledger, utc_now()
        self.local = {name for name, venue in settings.venues.items() if venue.is_local}
        self.done = Pruning(dry_run)
        self.seen: Counter[bool] = Counter()  # pages so far, of failed runs and of others
        with ledger.read() as books:
            self.protected = find_protected(books, self.local)

    def prune_date(self, reports: int, date: str) -> None:
        with _open_folder(date, reports) as folder:
            pages = self._known_pages(date, _folders_in(folder))
            leftovers = [page for page in pages if page.page_removed_at]
            self.done.leftovers += len(leftovers)
            self._remove(folder, date, leftovers)
            present = (page for page in pages if not page.page_removed_at)
            newest_first = sorted(present, key=lambda page: page.started_at, reverse=True)
            going = [page for page in newest_first if not self._stays(page)]
            for batch in _chunks(going, BATCH):
                self._remove(folder, date, self._disown(batch))
        if not self.done.dry_run and date < f"{self.now - _DATE_IS_PAST:%Y-%m-%d}":
            with suppress(OSError):  # pages are in it
                os.rmdir(date, dir_fd=reports)

    def _known_pages(self, date: str, names: Sequence[str]) -> list[_Page]:
        known = {page.id: page for page in self._look_up(names) if page.lies_in(date)}
        if date < f"{self.now - timedelta(days=self.limits.page_days):%Y-%m-%d}":
            self.done.unknown += sorted(f"{date}/{name}" for name in names if name not in known)
        return list(known.values())

    def _look_up(self, names: Sequence[str]) -> Iterator[_Page]:
        columns = [tables.runs.c[name] for name in _Page.__dataclass_fields__]
        for some in _chunks(names, _LOOKED_UP):
            yield from self.ledger.rows(select(*columns).where(tables.runs.c.id.in_(some)), _Page)

    def _stays(self, page: _Page) -> bool:
        why = self._why_kept(page)
        if why:
            self.done.kept[why] += 1
        return why is not None

    def _why_kept(self, page: _Page) -> Kept | None:
        if page.ended_at is None:
            return Kept.NOT_ENDED
        failed = page.outcome == Outcome.FAILED
        self.seen[failed] += 1
        limits = self.limits
        days, count = (
            (limits.failed_page_days, limits.failed_pages)
            if failed
            else (limits.page_days, limits.pages)
        )
        young = self.now - page.started_at <= timedelta(days=days)
        if young and self.seen[failed] <= count:
            return Kept.WITHIN_LIMITS
        return self.protected.get(page.id)

    def _disown(self, batch: Sequence[_Page]) -> list[_Page]:
        """Let the ledger say that these are gone, but for those that became protected since."""
        if self.done.dry_run:
            return list(batch)
        with self.ledger.write() as books:
            protected = find_protected(books, self.local, since=self.now - _CLOCKS_DIFFER)
            going = [page for page in batch if page.id not in protected]
            mark_pages_removed(books, [page.id for page in going])
        self.done.kept.update(protected[page.id] for page in batch if page.id in protected)
        return going

    def _remove(self, folder: int, date: str, pages: Sequence[_Page]) -> None:
        for page in pages:
            try:
                self.done.freed += _remove_folder(page.id, folder, self.done.dry_run)
                self.done.removed += 1
            except OSError as error:
                self.done.failed[f"{date}/{page.id}"] = error.strerror or str(error)


def find_protected(
    books: Connection, local: Collection[str], since: datetime | None = None
) -> dict[str, Kept]:
    """Runs whose pages are never removed, and why: those that decided or sent an order that is
    not settled or went to a real venue, and those of each bot's newest decision.

    local: the names of the desk's own exchanges; every other venue counts as real. since: of
    orders at real venues, only those that have changed since.
    """
    found = dict.fromkeys(_newest_deciders(books), Kept.NEWEST_DECISION)
    orders = tables.orders.c
    for venue in books.execute(select_values(tables.orders.c.venue)).scalars().all():
        if venue not in local:
            went = [orders.venue == venue, orders.status != OrderStatus.DENIED]
            went += [orders.updated_at >= since] if since else []
            found |= dict.fromkeys(_runs_behind(books, *went), Kept.REAL_VENUE)
        for live in (orders.status.in_(UNSETTLED), orders.fills_complete == 0):
            runs = _runs_behind(books, orders.venue == venue, live)
            found |= dict.fromkeys(runs, Kept.LIVE_ORDER)
    return found


def _newest_deciders(books: Connection) -> Sequence[str]:
    """The run of each bot's newest decision."""
    decisions = tables.decisions.c
    bots = select_values(decisions.bot).subquery()
    newest = select(decisions.run).where(decisions.bot == bots.c.value)
    newest = newest.order_by(decisions.candle_close.desc()).limit(1)
    return books.execute(select(newest.scalar_subquery()).select_from(bots)).scalars().all()


def _runs_behind(books: Connection, *which: ColumnElement[bool]) -> set[str]:
    """The runs that sent these orders, that decided on them, or that sent others of the same
    decisions, such as an attempt before."""
    orders, decisions, others = tables.orders, tables.decisions, tables.orders.alias()
    query = (
        select(orders.c.run, decisions.c.run, others.c.run)
        .outerjoin(decisions, decisions.c.id == orders.c.decision)
        .outerjoin(others, others.c.decision == orders.c.decision)
        .where(*which)
    )
    return {run for row in books.execute(query) for run in row if run}


@contextmanager
def _open_folder(name: str | os.PathLike[str], within: int | None = None) -> Iterator[int]:
    """A folder's descriptor. Inside the reports, no symbolic link is followed to it; the reports
    themselves may be a link to another disk."""
    follow = os.O_NOFOLLOW if within is not None else 0
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | follow, dir_fd=within)
    try:
        yield folder
    finally:
        os.close(folder)


def _folders_in(folder: int) -> list[str]:
    """Names of the folders in a folder; links to folders are none."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _remove_folder(name: str, within: int, dry_run: bool) -> int:
    """Remove a folder and what is in it; the bytes of its files. What another process removes
    meanwhile is no error."""
    freed = 0
    with suppress(FileNotFoundError):
        with _open_folder(name, within) as folder:
            with os.scandir(folder) as entries:
                found = list(entries)
            for entry in found:
                freed += _remove_entry(entry, folder, dry_run)
        if not dry_run:
            os.rmdir(name, dir_fd=within)
    return freed


def _remove_entry(entry: os.DirEntry[str], folder: int, dry_run: bool) -> int:
    if entry.is_dir(follow_symlinks=False):
        return _remove_folder(entry.name, folder, dry_run)
    with suppress(FileNotFoundError):
        size = os.stat(entry.name, dir_fd=folder, follow_symlinks=False).st_size
        if not dry_run:
            os.unlink(entry.name, dir_fd=folder)
        return size
    return 0


def _chunks(values: Sequence, size: int) -> Iterator[Sequence]:
    return (values[place : place + size] for place in range(0, len(values), size))
