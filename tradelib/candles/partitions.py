"""Files on disk: one Parquet file per month, replaced whole or not at all.

A long month that is still growing has a second one, its tail, so that a new candle costs a small
write. Both are plain Parquet of the same columns, and no candle is in both but for the moment in
which a tail is folded into its month.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence, Sized
from itertools import pairwise
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tradelib.candles.schema import (
    COLUMNS,
    PRICES,
    TIME,
    candle_values,
    candles_from_arrays,
    empty_candles,
    open_ms,
)
from tradelib.clock import to_ms
from tradelib.errors import StorageFailed

T = TypeVar("T", bound=Sized)

MONTH = "%Y-%m"
TAIL_ROWS = 1440
"""Most candles of a tail: a day of minutes. A month that is no longer than this has none."""

_SCHEMA = pa.schema(
    [(TIME, pa.timestamp("ms", tz="UTC")), *((column, pa.float64()) for column in COLUMNS)]
)
_GROUP_ROWS = 8192
# Open times are evenly spaced and prices repeat themselves; volumes do neither.
_ENCODING = {
    "use_dictionary": list(PRICES),
    "column_encoding": {TIME: "DELTA_BINARY_PACKED", "volume": "PLAIN"},
    "row_group_size": _GROUP_ROWS,
}
# What is so short is written anew with every candle: to pack it takes twice as long as to write it.
_SHORT_ENCODING = {"use_dictionary": False, "compression": "none", "write_statistics": [TIME]}
_TEMPORARY = ".tmp"


def month_files(folder: Path) -> list[Path]:
    """The folder's month files, oldest first; none when there is no folder."""
    return sorted(folder.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9].parquet"))


def tail_of(path: Path) -> Path:
    """Where the newest candles of a month wait until they are many: beside the month's file."""
    return path.with_suffix(".tail.parquet")


def read_month(
    path: Path, *, before_ms: int | None = None, newest: int | None = None
) -> pd.DataFrame:
    """The candles of one month; StorageFailed when a file is not one of ours or not whole.

    before_ms: rows that open later are not needed. newest: nor are more than the newest so many;
    more than what is needed may come all the same.
    """
    # The tail first: whoever folds it into the month in between cannot make a hole.
    tail = _read_if_there(tail_of(path))
    # Of a fold that was cut short, the tail is left over: the month has all of it, and newer ones.
    if newest is not None and len(tail) and open_ms(tail)[-1] > _last_open(path):
        inside = len(tail) if before_ms is None else int((open_ms(tail) < before_ms).sum())
        if inside >= newest:
            return tail
        newest -= inside
    month = _read_file(path, before_ms, newest)
    if tail.empty:
        return month
    tail = tail[open_ms(tail) > open_ms(month)[-1]] if len(month) else tail
    return pd.concat([month, tail]) if len(tail) else month


def read_open_times(path: Path) -> np.ndarray:
    """The open times of one month's candles, in ms, without their values."""
    tail = _read_if_there(tail_of(path))
    with _reading(path) as file:
        times = _times(file.read(columns=[TIME], use_threads=False))
    return np.concatenate([times, (found := open_ms(tail))[found > times[-1]]])


def first_open(path: Path) -> int:
    """Open time (ms) of a month's first candle, as its file tells without being read."""
    return _groups_of(path, _identity(path))[0].first


def last_open(path: Path) -> int:
    """Open time (ms) of a month's last candle, as its files tell without being read."""
    tail = tail_of(path)
    return max(_last_open(path), _last_open(tail) if tail.exists() else 0)


def write_month(path: Path, frame: pd.DataFrame) -> None:
    """Replace the month's candles with the frame's."""
    _write_file(path, frame)
    tail_of(path).unlink(missing_ok=True)


def extend_month(path: Path, frame: pd.DataFrame) -> None:
    """Add candles that are newer than all of the month's, at the cost of its tail alone."""
    if not path.exists():
        write_month(path, frame)
        return
    groups = _groups_of(path, _identity(path))
    rows, last = sum(group.rows for group in groups), groups[-1].last
    tail = _read_if_there(tail_of(path))
    tail = tail[open_ms(tail) > last]
    grown = pd.concat([tail, frame]) if len(tail) else frame
    if rows + len(grown) <= TAIL_ROWS or len(grown) > TAIL_ROWS:
        write_month(path, pd.concat([_read_file(path), grown]))
    else:
        _write_file(tail_of(path), grown)


def is_compact(path: Path) -> bool:
    """Whether a month is one file, with groups of rows of the size that is read best."""
    if tail_of(path).exists():
        return False
    rows = [group.rows for group in _groups_of(path, _identity(path))]
    return all(count == _GROUP_ROWS for count in rows[:-1]) and rows[-1] <= _GROUP_ROWS


def _read_if_there(path: Path) -> pd.DataFrame:
    if not path.exists():
        return empty_candles()
    try:
        return _read_file(path)
    except StorageFailed:
        if path.exists():
            raise
        return empty_candles()  # just folded into its month


def _read_file(path: Path, before_ms: int | None = None, newest: int | None = None) -> pd.DataFrame:
    """What a file holds; the same again, unread, for who asks the same of the same file.

    One decision looks at its newest candles several times. Files are only ever replaced, so that a
    file's number, size and time tell whether it is the one that was read.
    """
    while True:
        identity = _identity(path)
        groups = _choose(_groups_of(path, identity), before_ms, newest)
        frame = _LAST_READ.get((path, identity, groups))
        if frame is None:
            frame = _read_groups(path, groups)
            if _identity(path) != identity:
                continue  # replaced meanwhile: its groups may be others
            if len(frame) <= _GROUP_ROWS:  # years of candles are read once, and fill the memory
                _LAST_READ.put((path, identity, groups), frame)
        return frame.copy(deep=False)  # whoever changes it changes a copy


def _read_groups(path: Path, groups: range) -> pd.DataFrame:
    with _reading(path) as file:
        if groups.stop > file.num_row_groups:
            return empty_candles()  # replaced meanwhile, which the caller sees
        # A month is small: threads would cost more than they bring, and survive no fork.
        table = file.read_row_groups([*groups], use_threads=False)
    times = _times(table)
    if not (np.diff(times) > 0).all():
        raise StorageFailed(
            f"Candle file {path} is damaged: its open times are not in order; "
            "move it away and fetch its candles again."
        )
    return candles_from_arrays(times, *(table[column].to_numpy() for column in COLUMNS))


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; None where there is none."""
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_ino, told.st_size, told.st_mtime_ns


class _Recent(Generic[T]):
    """What was put last, by key: so many parts of all of it together."""

    def __init__(self, room: int) -> None:
        self._room, self._lock = room, threading.Lock()
        self._kept: OrderedDict[tuple, T] = OrderedDict()

    def get(self, key: tuple) -> T | None:
        with self._lock:
            return self._kept.get(key)

    def put(self, key: tuple, value: T) -> None:
        with self._lock:
            before = self._kept.pop(key, None)
            self._room += 0 if before is None else len(before)
            self._kept[key] = value
            self._room -= len(value)
            while self._room < 0:
                self._room += len(self._kept.popitem(last=False)[1])


class _Group(NamedTuple):
    """A file's group of rows: open times (ms) of the first and the last."""

    first: int
    last: int
    rows: int


_LAST_READ: _Recent[pd.DataFrame] = _Recent(400_000)
_GROUPS: _Recent[tuple[_Group, ...]] = _Recent(10_000)


def _choose(groups: Sequence[_Group], before_ms: int | None, newest: int | None) -> range:
    """The groups of rows, next to each other, that hold what is needed."""
    end = len(groups)
    if before_ms is not None:
        while end > 0 and groups[end - 1].first >= before_ms:
            end -= 1
    if newest is None:
        return range(end)
    first, found = end, 0
    while first > 0 and found < newest:
        first -= 1
        within = before_ms is None or groups[first].last < before_ms
        found += groups[first].rows if within else 0
    return range(first, end)


def _groups_of(path: Path, identity: object) -> tuple[_Group, ...]:
    """Of the file that has this identity; the same again without opening it."""
    known = _GROUPS.get((path, identity))
    if known is not None:
        return known
    with _reading(path) as file:
        found = []
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            told = group.column(0).statistics
            found.append(_Group(to_ms(told.min), to_ms(told.max), group.num_rows))
    _GROUPS.put((path, identity), tuple(found))
    return tuple(found)


def _last_open(path: Path) -> int:
    return _groups_of(path, _identity(path))[-1].last


def _times(table: pa.Table) -> np.ndarray:
    return table[TIME].cast(pa.int64()).to_numpy()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    """An open file of this store; what cannot be read comes out as StorageFailed."""
    try:
        with pq.ParquetFile(path) as file:
            _refuse_foreign(file, path)
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StorageFailed(
            f"Candle file {path} cannot be read ({' '.join(str(error).split())}); "
            f"move it away and fetch its candles again."
        ) from error


def _refuse_foreign(file: pq.ParquetFile, path: Path) -> None:
    if not file.schema_arrow.equals(_SCHEMA):
        raise StorageFailed(
            f"Candle file {path} was not written by this store (it has "
            f"{', '.join(file.schema_arrow.names) or 'no columns'}); move it away."
        )
    if not file.metadata.num_rows:
        raise StorageFailed(f"Candle file {path} holds no candles; move it away.")


def _write_file(path: Path, frame: pd.DataFrame) -> None:
    times = open_ms(frame)
    columns = [pa.array(times).cast(_SCHEMA.field(TIME).type)]
    columns += [pa.array(values) for values in candle_values(frame).T]
    sink = pa.BufferOutputStream()
    encoding = _SHORT_ENCODING if len(frame) <= TAIL_ROWS else _ENCODING
    pq.write_table(pa.table(columns, schema=_SCHEMA), sink, **encoding)
    # After a power cut the old file may be there again, as if the last candles had not come.
    replace_file(path, sink.getvalue(), syncs_name=False)
    # Whoever wrote it is often who reads it next; under the series' lock, it is still the same.
    identity = _identity(path)
    cuts = [*range(0, len(frame), _GROUP_ROWS), len(frame)]
    _GROUPS.put(
        (path, identity),
        tuple(
            _Group(int(times[begin]), int(times[end - 1]), end - begin)
            for begin, end in pairwise(cuts)
        ),
    )
    if len(frame) <= _GROUP_ROWS:
        # A copy: a slice would keep all that it was cut from.
        _LAST_READ.put((path, identity, range(1)), frame.copy())


def replace_file(path: Path, content: bytes | pa.Buffer, *, syncs_name: bool = True) -> None:
    """Write the file so that a reader, or a crash, meets the old content or the new one; with
    `syncs_name`, a power cut the new one from the moment this returns."""
    handle, temporary = tempfile.mkstemp(suffix=_TEMPORARY, prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if syncs_name:
        _sync_folder(path.parent)


def append_lines(path: Path, lines: list[str]) -> None:
    """Add lines to a text file; a line that a crash cut short before stays alone on its line."""
    with open(path, "ab+") as file:
        torn = file.tell() > 0 and not _ends_in_newline(file)
        file.write(("\n" * torn + "".join(f"{line}\n" for line in lines)).encode())
        file.flush()
        os.fsync(file.fileno())


def _ends_in_newline(file) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed writer left half-written; call it under the series' lock."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Only POSIX can sync a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def storage(folder: Path) -> Iterator[None]:
    """Turn the system's errors into StorageFailed that names the folder."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"Candles under {folder} cannot be read or written ({error}); "
            f"see to the disk's space and permissions."
        ) from error
