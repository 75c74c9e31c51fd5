"""Files on disk: one Parquet file per month, replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tradelib.candles.schema import COLUMNS, TIME, candles_from_arrays, open_ms
from tradelib.errors import StorageFailed

MONTH = "%Y-%m"

_SCHEMA = pa.schema(
    [(TIME, pa.timestamp("ms", tz="UTC")), *((column, pa.float64()) for column in COLUMNS)]
)
_TEMPORARY = ".tmp"


def month_files(folder: Path) -> list[Path]:
    """The folder's month files, oldest first; none when there is no folder."""
    return sorted(folder.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9].parquet"))


def read_month(path: Path) -> pd.DataFrame:
    """The candles of one month file; StorageFailed when it is not one of ours or not whole."""
    try:
        with pq.ParquetFile(path) as file:
            # A month is small: threads would cost more than they bring, and do not survive a fork.
            table = file.read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StorageFailed(
            f"Candle file {path} cannot be read ({' '.join(str(error).split())}); "
            f"move it away and fetch its candles again."
        ) from error
    if not table.schema.equals(_SCHEMA):
        raise StorageFailed(
            f"Candle file {path} was not written by this store (it has "
            f"{', '.join(table.schema.names) or 'no columns'}); move it away."
        )
    values = [table[column].to_numpy() for column in COLUMNS]
    return candles_from_arrays(table[TIME].cast(pa.int64()).to_numpy(), *values)


def write_month(path: Path, frame: pd.DataFrame) -> None:
    """Replace the month file with the frame's candles."""
    columns = [pa.array(open_ms(frame), type=pa.int64()).cast(_SCHEMA.field(TIME).type)]
    columns += [pa.array(frame[column].to_numpy()) for column in COLUMNS]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=_SCHEMA), sink)
    replace_file(path, sink.getvalue())


def replace_file(path: Path, content: bytes | pa.Buffer) -> None:
    """Write the file so that a reader, or a crash, meets the old content or the new one."""
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
    """The new name itself must survive a power cut. Only POSIX can sync a folder."""
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
