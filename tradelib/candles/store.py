"""The candle store: `<root>/<venue>/<BTC-USDT>/<1h>/2026-01.parquet`, plain Parquet.

Beside the months of a series lie `revisions.jsonl` (closed candles whose values a venue changed,
or that came late, with both values and the as-of time) and `gaps.json` (ranges in which the venue
has no candles). Writers take one lock per series and write the oldest month first; readers take
none and read the newest month first, so that they never see a hole where a writer is at work.
A long month may have a tail beside it, `2026-01.tail.parquet`: see partitions.py.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from tradelib.candles.partitions import (
    MONTH,
    append_lines,
    extend_month,
    first_open,
    is_compact,
    last_open,
    month_files,
    read_month,
    read_open_times,
    remove_leftovers,
    replace_file,
    storage,
    write_month,
)
from tradelib.candles.schema import (
    COLUMNS,
    Gap,
    candles_hash,
    empty_candles,
    gaps_between,
    open_ms,
    validate_candles,
)
from tradelib.clock import format_time, from_ms, parse_time, timeframe_ms, to_ms
from tradelib.errors import InvalidInput, StorageFailed

LOCK_TIMEOUT = 30.0
"""Seconds a writer waits for another writer of the same series."""

# Who asks seldom loses to who has just let go and asks again.
_LOCK_POLL = 0.002
_VENUE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]*$")


class StoredSeries(NamedTuple):
    """The name of one stored series, such as ('paper', 'BTC/USDT', '1h')."""

    venue: str
    symbol: str
    timeframe: str


@dataclass(frozen=True)
class AppendReport:
    """What an append changed. gaps: holes around the appended candles that nobody explained."""

    added: int = 0
    revised: int = 0
    gaps: tuple[Gap, ...] = ()


class Revision(NamedTuple):
    """One closed candle that changed: its values (open, high, low, close in quote per base,
    volume in base) before and after, and when that was seen, in the venue's time."""

    seen: datetime
    open_time: datetime
    old: tuple[float, ...]
    new: tuple[float, ...]


class LateCandles(NamedTuple):
    """Candles that came late, between others that were stored already: those that open from
    `first` to `last`, and when they were seen, in the venue's time."""

    seen: datetime
    first: datetime
    last: datetime
    candles: int


@dataclass(frozen=True)
class SeriesSummary:
    """What is stored of one series: candles opened from `first` to before `last_close`.

    open_gaps: holes that nobody explained; venue_gaps: those in which the venue has no candles;
    revisions: closed candles whose values changed; late: those that came after later ones.
    size: bytes of the candles' files, and `files` their number.
    """

    series: StoredSeries
    candles: int
    first: datetime
    last_close: datetime
    open_gaps: tuple[Gap, ...]
    venue_gaps: tuple[Gap, ...]
    revisions: int
    late: int
    files: int
    size: int


class Compaction(NamedTuple):
    """Files of a series' candles and their bytes, before and after it was compacted."""

    files_before: int
    files_after: int
    size_before: int
    size_after: int


@dataclass(frozen=True)
class CandleRead:
    """What one reading of the store gave: so many candles, opened from `first` to `last`, with
    the values known at `as_of`; None: the newest."""

    venue: str
    symbol: str
    timeframe: str
    first: datetime
    last: datetime
    as_of: datetime | None
    candles: int
    hash: str

    def to_json(self) -> dict[str, Any]:
        return {n: v.isoformat() if isinstance(v, datetime) else v for n, v in vars(self).items()}

    @staticmethod
    def from_json(told: dict[str, Any]) -> CandleRead:
        times = {n: told[n] and parse_time(told[n]) for n in ("first", "last", "as_of")}
        return CandleRead(**{**told, **times})


class _Known(NamedTuple):
    """Candles that were read; whole: there are no older ones."""

    frame: pd.DataFrame
    whole: bool

    def serves(self, limit: int | None) -> bool:
        return self.whole or (limit is not None and limit <= len(self.frame))


class CandleStore:
    """Closed candles of many series under one folder, shared by any number of processes.

    on_read: hears of everything that `load` gives. as_of: the time that `load` looks from unless
    it is told one, for somebody who looks from there once: what was read is not read again; None:
    it gives the newest.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        on_read: Callable[[CandleRead], None] | None = None,
        as_of: datetime | None = None,
    ) -> None:
        self.root = Path(root)
        self._on_read, self._as_of = on_read, as_of
        self._known: dict[tuple[Any, ...], _Known] = {}

    def append(
        self, venue: str, symbol: str, timeframe: str, frame: pd.DataFrame, *, as_of: datetime
    ) -> AppendReport:
        """Keep those of the candles that are closed at `as_of`.

        Equal candles are kept once. A stored candle that differs is revised: the new values
        win, and both are written to `revisions.jsonl`.
        """
        frame = validate_candles(frame, timeframe, f"{venue} {symbol} {timeframe}")
        frame = _closed(frame, timeframe, as_of)
        if frame.empty:
            return AppendReport()
        with self._writing(venue, symbol, timeframe) as folder:
            files = month_files(folder)
            last = last_open(files[-1]) if files else None
            added, revised = 0, 0
            for path, part in _by_month(folder, frame):
                if last is None or open_ms(part)[0] > last:
                    extend_month(path, part)
                    added += len(part)
                    continue
                counts = _merge_month(path, part, timeframe, (first_open(files[0]), last), as_of)
                added, revised = added + counts[0], revised + counts[1]
            gaps = self._gaps_around(folder, timeframe, frame, last)
        return AppendReport(added, revised, tuple(gaps))

    def _gaps_around(
        self, folder: Path, timeframe: str, frame: pd.DataFrame, last: int | None
    ) -> list[Gap]:
        """Unexplained holes from the frame's first candle to its last. last: the newest open time
        before it was appended, in ms."""
        times = open_ms(frame)
        if last is not None and times[0] <= last:
            return _gaps(folder, timeframe, frame.index[0], frame.index[-1])
        known = times if last is None else np.concatenate([[last], times])
        return _without(gaps_between(known, timeframe), folder, timeframe)

    def load(
        self,
        venue: str,
        symbol: str,
        timeframe: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        as_of: datetime | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Stored candles with start <= open < end, oldest first; the newest `limit` of them.

        as_of: only candles closed by then, with the values known then, so that a page opened
            again reads what it read. The newest candle is the exception: one that had closed by
            then and that the venue served later is there.
        """
        as_of = as_of or self._as_of
        asked = (venue, symbol, timeframe, start, end, as_of)
        known = self._known.get(asked)
        if known is None or not known.serves(limit):
            known = self._read(*asked, limit)
            if self._as_of:
                self._known[asked] = known
        frame = known.frame.copy(deep=False)
        if limit is not None and len(frame) > limit:
            frame = frame.iloc[len(frame) - limit :]
        if self._on_read and len(frame):
            first, last = (from_ms(open_ms(frame)[row]) for row in (0, -1))
            self._on_read(
                CandleRead(
                    venue, symbol, timeframe, first, last, as_of, len(frame), candles_hash(frame)
                )
            )
        return frame

    def _read(
        self,
        venue: str,
        symbol: str,
        timeframe: str,
        start: datetime | None,
        end: datetime | None,
        as_of: datetime | None,
        limit: int | None,
    ) -> _Known:
        """What `load` looks in: the newest `limit` candles of those asked for, and maybe more."""
        folder = self._folder(venue, symbol, timeframe)
        changed = _changed_since(folder, timeframe, as_of)
        # A candle that was dropped again would be missed among the newest.
        newest = None if changed else limit
        before = _end_ms(end, as_of, timeframe)
        parts, count, is_whole = [], 0, True
        for path in reversed(_months_between(folder, start, end or as_of)):
            need = None if newest is None else newest - count
            part = _undo(read_month(path, before_ms=before, newest=need), changed)
            parts.append(_between(part, start, before))
            count += len(parts[-1])
            if limit is not None and count >= limit:
                is_whole = False
                break
        frame = _validate_stored(_put_together(parts[::-1]), timeframe, folder)
        return _Known(frame, is_whole)

    def hash_of(self, read: CandleRead) -> str:
        """The hash of the same candles as the store would give them now."""
        step = timedelta(milliseconds=timeframe_ms(read.timeframe))
        return candles_hash(
            self.load(
                read.venue,
                read.symbol,
                read.timeframe,
                start=read.first,
                end=read.last + step,
                as_of=read.as_of,
            )
        )

    def last_close(
        self, venue: str, symbol: str, timeframe: str, *, as_of: datetime | None = None
    ) -> datetime | None:
        """When the newest stored candle (of those closed at `as_of`) closed; None without one."""
        newest = self.load(venue, symbol, timeframe, as_of=as_of, limit=1)
        if newest.empty:
            return None
        return from_ms(open_ms(newest)[-1] + timeframe_ms(timeframe))

    def age(self, venue: str, symbol: str, timeframe: str, *, as_of: datetime) -> timedelta | None:
        """Time from the close of the newest candle to `as_of`, never negative; None without one."""
        last = self.last_close(venue, symbol, timeframe, as_of=as_of)
        return as_of - last if last else None

    def gaps(
        self,
        venue: str,
        symbol: str,
        timeframe: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> list[Gap]:
        """Holes between stored candles that reach into start…end, but for the recorded ones."""
        return _gaps(self._folder(venue, symbol, timeframe), timeframe, start, end)

    def record_gaps(self, venue: str, symbol: str, timeframe: str, gaps: Iterable[Gap]) -> None:
        """Remember that the venue itself has no candles in the gaps."""
        found = [(to_ms(gap.start), to_ms(gap.end)) for gap in gaps]
        if not found:
            return
        with self._writing(venue, symbol, timeframe) as folder:
            ranges = _joined([*_read_gaps(folder), *found])
            text = json.dumps([[format_time(from_ms(t)) for t in pair] for pair in ranges])
            replace_file(folder / "gaps.json", text.encode())

    def recorded_gaps(self, venue: str, symbol: str, timeframe: str) -> list[Gap]:
        """Ranges in which the venue itself has no candles, oldest first."""
        step = timeframe_ms(timeframe)
        return [
            Gap(from_ms(start), from_ms(end), (end - start) // step)
            for start, end in _read_gaps(self._folder(venue, symbol, timeframe))
        ]

    def revisions(self, venue: str, symbol: str, timeframe: str) -> list[Revision | LateCandles]:
        """Candles that the venue changed after they were stored, and late ones, as seen."""
        return _read_revisions(self._folder(venue, symbol, timeframe), timeframe)

    def missing(
        self, venue: str, symbol: str, timeframe: str, start: datetime, end: datetime
    ) -> list[Gap]:
        """What is neither stored between start and end nor known to be the venue's own gap,
        oldest first."""
        folder, step = self._folder(venue, symbol, timeframe), timeframe_ms(timeframe)
        times = [read_open_times(path) for path in reversed(_months_between(folder, start, end))]
        inside = np.concatenate([[], *times[::-1]]).astype("int64")
        inside = inside[(inside >= to_ms(start)) & (inside < to_ms(end))]
        fence = np.concatenate([[to_ms(start) - step], inside, [to_ms(end)]])
        return _without(gaps_between(fence, timeframe), folder, timeframe)

    def summary(self, venue: str, symbol: str, timeframe: str) -> SeriesSummary | None:
        """What is stored of a series; None when there is nothing."""
        folder, step = self._folder(venue, symbol, timeframe), timeframe_ms(timeframe)
        times = [read_open_times(path) for path in reversed(month_files(folder))]
        if not times:
            return None
        stored = np.concatenate(times[::-1])
        changes = _read_revisions(folder, timeframe)
        late = sum(one.candles for one in changes if isinstance(one, LateCandles))
        files = _candle_files(folder)
        return SeriesSummary(
            StoredSeries(venue, symbol, timeframe),
            len(stored),
            from_ms(stored[0]),
            from_ms(stored[-1] + step),
            tuple(_without(gaps_between(stored, timeframe), folder, timeframe)),
            tuple(self.recorded_gaps(venue, symbol, timeframe)),
            sum(isinstance(one, Revision) for one in changes),
            late,
            *files,
        )

    def compact(self, venue: str, symbol: str, timeframe: str) -> Compaction:
        """Make each month one file that reads fast. No candle changes; readers go on meanwhile."""
        with self._writing(venue, symbol, timeframe) as folder:
            before = _candle_files(folder)
            for path in month_files(folder):
                if not is_compact(path):
                    write_month(path, read_month(path))
            after = _candle_files(folder)
        return Compaction(before[0], after[0], before[1], after[1])

    def series(self) -> list[StoredSeries]:
        """Every stored series, sorted by name."""
        folders = sorted(path for path in self.root.glob("*/*/*") if month_files(path))
        return [
            StoredSeries(path.parent.parent.name, _symbol_of(path.parent.name), path.name)
            for path in folders
        ]

    def _folder(self, venue: str, symbol: str, timeframe: str) -> Path:
        timeframe_ms(timeframe)
        if not _VENUE.match(venue):
            raise InvalidInput(f"Venue name {venue!r} must be letters, digits, - and _.")
        return self.root / venue / _folder_of(symbol) / timeframe

    @contextmanager
    def _writing(self, venue: str, symbol: str, timeframe: str) -> Iterator[Path]:
        folder = self._folder(venue, symbol, timeframe)
        with storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = FileLock(folder / ".lock")
                with lock.acquire(LOCK_TIMEOUT, poll_interval=_LOCK_POLL):
                    remove_leftovers(folder)
                    yield folder
            except Timeout as error:
                raise StorageFailed(
                    f"Candles under {folder} stayed locked for {LOCK_TIMEOUT:g} s; "
                    f"look for a process that hangs while writing them."
                ) from error


def _folder_of(symbol: str) -> str:
    """'BTC/USDT' as 'BTC-USDT'; whatever is not safe in a file name is percent-encoded."""
    base, slash, quoted = symbol.partition("/")
    if not (base and slash and quoted):
        raise InvalidInput(f"Symbol {symbol!r} is not acceptable; write it as BTC/USDT.")
    return "-".join(quote(part, safe="").replace("-", "%2D") for part in (base, quoted))


def _symbol_of(folder: str) -> str:
    return "/".join(unquote(part) for part in folder.split("-", 1))


def _closed(frame: pd.DataFrame, timeframe: str, as_of: datetime) -> pd.DataFrame:
    return frame[open_ms(frame) + timeframe_ms(timeframe) <= to_ms(as_of)]


def _between(frame: pd.DataFrame, start: datetime | None, before_ms: int | None) -> pd.DataFrame:
    """The rows that open from `start` on and before a time (ms); the frame is in order."""
    times = open_ms(frame)
    first = 0 if start is None else int(np.searchsorted(times, to_ms(start)))
    last = len(times) if before_ms is None else int(np.searchsorted(times, before_ms))
    return frame if (first, last) == (0, len(times)) else frame.iloc[first:last]


def _put_together(parts: list[pd.DataFrame]) -> pd.DataFrame:
    if len(parts) == 1:
        return parts[0]
    return pd.concat(parts) if parts else empty_candles()


def _months_between(folder: Path, start: datetime | None, end: datetime | None) -> list[Path]:
    first = from_ms(to_ms(start)).strftime(MONTH) if start else ""
    last = from_ms(to_ms(end)).strftime(MONTH) if end else "9999"
    return [path for path in month_files(folder) if first <= path.stem <= last]


def _with_neighbours(files: list[Path], chosen: list[Path]) -> list[Path]:
    """The chosen months and the stored ones next to them: a hole may span a whole month."""
    if not chosen:
        return files
    first, last = files.index(chosen[0]), files.index(chosen[-1])
    return files[max(first - 1, 0) : last + 2]


def _candle_files(folder: Path) -> tuple[int, int]:
    """How many files hold candles, and their bytes."""
    sizes = [path.stat().st_size for path in folder.glob("*.parquet")]
    return len(sizes), sum(sizes)


def _end_ms(end: datetime | None, as_of: datetime | None, timeframe: str) -> int | None:
    """No candle that opens then or later is wanted."""
    ends = [to_ms(end)] if end else []
    if as_of:
        ends.append(to_ms(as_of) - timeframe_ms(timeframe) + 1)
    return min(ends, default=None)


def _gaps(folder: Path, timeframe: str, start: datetime | None, end: datetime | None) -> list[Gap]:
    files = _with_neighbours(month_files(folder), _months_between(folder, start, end))
    times = [read_open_times(path) for path in reversed(files)][::-1]
    holes = gaps_between(np.concatenate(times), timeframe) if times else []
    reaching = [
        gap
        for gap in holes
        if (start is None or gap.end > start) and (end is None or gap.start < end)
    ]
    return _without(reaching, folder, timeframe)


def _by_month(folder: Path, frame: pd.DataFrame) -> Iterator[tuple[Path, pd.DataFrame]]:
    """The frame's candles and the month's file in which each belongs, oldest first."""
    months = open_ms(frame).astype("datetime64[ms]").astype("datetime64[M]")
    first = np.flatnonzero(np.diff(months.astype("int64"), prepend=-1))
    for begin, end in pairwise([*first, len(frame)]):
        yield folder / f"{months[begin]}.parquet", frame.iloc[begin:end]


def _validate_stored(frame: pd.DataFrame, timeframe: str, folder: Path) -> pd.DataFrame:
    try:
        return validate_candles(frame, timeframe, str(folder))
    except InvalidInput as error:
        raise StorageFailed(f"Stored candles are damaged: {error}") from error


def _merge_month(
    path: Path,
    part: pd.DataFrame,
    timeframe: str,
    span: tuple[int, int],
    as_of: datetime,
) -> tuple[int, int]:
    """Merge candles, which are not all newer than the series, into their month; the numbers of
    added and of revised ones.

    span: first and last open time (ms) of the series before. A candle that comes late between
        them changes what a reader of an earlier as-of time would see, as a revision does.
    """
    first, last = span
    stored = read_month(path) if path.exists() else empty_candles()
    known = part.index.isin(stored.index)
    before = stored.loc[part.index[known]]
    changed = (before != part[known]).any(axis=1).to_numpy()
    new, revised = part[~known], part[known][changed]
    if new.empty and revised.empty:
        return 0, 0
    late = new[(open_ms(new) > first) & (open_ms(new) < last)]
    lines = [*_revision_lines(before[changed], revised, as_of)]
    lines += _late_lines(late, timeframe, as_of)
    if lines:
        # The log goes first: a crash between the two leaves a note too many, not one too few.
        append_lines(path.parent / "revisions.jsonl", lines)
    write_month(path, pd.concat([stored.drop(revised.index), revised, new]).sort_index())
    return len(new), len(revised)


def _revision_lines(old: pd.DataFrame, new: pd.DataFrame, as_of: datetime) -> Iterator[str]:
    both = zip(new.index, old.to_numpy().tolist(), new.to_numpy().tolist(), strict=True)
    for time, before, after in both:
        times = {"as_of": format_time(as_of), "open_time": format_time(time)}
        yield json.dumps({**times, "old": before, "new": after})


def _late_lines(late: pd.DataFrame, timeframe: str, as_of: datetime) -> Iterator[str]:
    """A line for each stretch of candles without a hole: a backfill may bring very many."""
    times = open_ms(late)
    begins = np.flatnonzero(np.diff(times, prepend=-1) != timeframe_ms(timeframe))
    for begin, end in pairwise([*begins, len(times)]):
        edges = {"open_time": times[begin], "last": times[end - 1]}
        told = {name: format_time(from_ms(time)) for name, time in edges.items()}
        yield json.dumps({"as_of": format_time(as_of), **told, "old": None})


def _read_revisions(folder: Path, timeframe: str) -> list[Revision | LateCandles]:
    path = folder / "revisions.jsonl"
    if not path.exists():
        return []
    with storage(folder):
        lines = path.read_text().splitlines()
    return [change for line in lines if (change := _parse_revision(line, timeframe))]


def _changed_since(
    folder: Path, timeframe: str, as_of: datetime | None
) -> list[Revision | LateCandles]:
    """What was seen after `as_of`, newest first; nothing when the newest values are wanted."""
    if as_of is None:
        return []
    changes = _read_revisions(folder, timeframe)
    return [one for one in changes if to_ms(one.seen) > to_ms(as_of)][::-1]


def _parse_revision(line: str, timeframe: str) -> Revision | LateCandles | None:
    """None for a line that a crash cut short: its candles were not replaced either."""
    try:
        note = json.loads(line)
        seen, first = parse_time(note["as_of"]), parse_time(note["open_time"])
        if note["old"] is not None:
            return Revision(seen, first, tuple(note["old"]), tuple(note["new"]))
        last = parse_time(note.get("last", note["open_time"]))
        step = timedelta(milliseconds=timeframe_ms(timeframe))
        return LateCandles(seen, first, last, (last - first) // step + 1)
    except (ValueError, KeyError, TypeError, InvalidInput):
        return None


def _undo(frame: pd.DataFrame, changes: list[Revision | LateCandles]) -> pd.DataFrame:
    """The frame as it was before the changes (newest first)."""
    if not changes or frame.empty:
        return frame
    frame = frame.copy()
    for change in changes:
        if isinstance(change, LateCandles):
            frame = frame[(frame.index < change.first) | (frame.index > change.last)].copy()
        elif (time := pd.Timestamp(change.open_time).as_unit("ms")) in frame.index:
            frame.loc[time, list(COLUMNS)] = list(change.old)
    return frame


def _read_gaps(folder: Path) -> list[tuple[int, int]]:
    path = folder / "gaps.json"
    if not path.exists():
        return []
    try:
        pairs = json.loads(path.read_text())
        return [(to_ms(parse_time(start)), to_ms(parse_time(end))) for start, end in pairs]
    except (OSError, ValueError, TypeError, InvalidInput) as error:
        raise StorageFailed(
            f"Recorded gaps {path} cannot be read ({error}); delete the file."
        ) from error


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted ranges, those that touch made one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _without(holes: list[Gap], folder: Path, timeframe: str) -> list[Gap]:
    """The parts of the holes (in order) that no recorded range covers."""
    left, step = [], timeframe_ms(timeframe)
    recorded = _read_gaps(folder) if holes else []
    ends = [end for _, end in recorded]
    for hole in holes:
        start, end = to_ms(hole.start), to_ms(hole.end)
        place = bisect_right(ends, start)
        while place < len(recorded) and recorded[place][0] < end:
            if recorded[place][0] > start:
                left.append((start, recorded[place][0]))
            start = recorded[place][1]
            place += 1
        if start < end:
            left.append((start, end))
    return [Gap(from_ms(start), from_ms(end), (end - start) // step) for start, end in left]
