"""Candle files that a user brings: CSV or Parquet, read strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tradelib.candles.schema import COLUMNS, TIME, Gap, find_gaps, open_ms, validate_candles
from tradelib.clock import timeframe_ms
from tradelib.errors import InvalidInput

TIME_NAMES = ("date", "open_time", "timestamp", "time")

_NAME = re.compile(
    r"^(?:[^_]+_)?(?P<base>[A-Za-z0-9]+)-(?P<quote>[A-Za-z][A-Za-z0-9]*)(?:_(?P<timeframe>[0-9]+[mhdw]))?$"
)
_SYMBOL = re.compile(r"^[A-Z0-9]+/[A-Z0-9]+$")
_EPOCH_TOPS = (("s", 1e11), ("ms", 1e14), ("us", 1e17))
_UNITS = (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000))


@dataclass(frozen=True)
class CandleFile:
    """What a candle file holds. symbol: as 'BTC/USD'; gaps: recorded, never filled."""

    path: Path
    symbol: str
    timeframe: str
    frame: pd.DataFrame = field(repr=False, compare=False)
    gaps: tuple[Gap, ...] = ()


def read_candle_file(
    path: Path | str, symbol: str | None = None, timeframe: str | None = None
) -> CandleFile:
    """The candles of a CSV or Parquet file, or InvalidInput that says what is wrong with it.

    The symbol and the timeframe come from the arguments, else from a name such as
    `coinbase_BTC-USD_1h.csv`; a timeframe that neither tells is the rows' commonest spacing.
    Times are ISO text (UTC when it names no zone) or seconds or milliseconds since 1970.
    """
    path = Path(path)
    table = _read_table(path)
    named_symbol, named_timeframe = _read_name(path)
    symbol = _check_symbol(symbol or named_symbol, path)
    frame = _as_candles(table, path)
    timeframe = timeframe or named_timeframe or _commonest_spacing(frame, path)
    frame = validate_candles(frame, timeframe, str(path))
    _refuse_other_timeframe(frame, timeframe, path)
    return CandleFile(path, symbol, timeframe, frame, tuple(find_gaps(frame, timeframe)))


def _read_table(path: Path) -> pd.DataFrame:
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder; name a candle file in it.")
    if not path.exists():
        raise InvalidInput(f"There is no candle file {path}; check the path.")
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput(f"{path} is neither .csv nor .parquet; save its candles as one of them.")
    try:
        if path.stat().st_size == 0:
            raise InvalidInput(f"{path} is empty; give a file with candles.")
        table = reader(path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error}); check the file.") from error
    table.columns = [str(column).strip().lower() for column in table.columns]
    _refuse_columns(table, path)
    if table.empty:
        raise InvalidInput(f"{path} has a header and no rows; give a file with candles.")
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, encoding="utf-8-sig", low_memory=False)
    except pd.errors.EmptyDataError as error:
        raise InvalidInput(f"{path} is empty; give a file with candles.") from error
    except (ValueError, pd.errors.ParserError) as error:
        why = " ".join(str(error).split())
        raise InvalidInput(f"{path} is not CSV text ({why}); save its candles anew.") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise InvalidInput(f"{path} has rows with more fields than its header; mend its rows.")
    return table


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read().to_pandas()
    except (pa.ArrowException, ValueError) as error:
        raise InvalidInput(
            f"{path} is not a whole Parquet file ({error}); save its candles anew."
        ) from error
    return table if isinstance(table.index, pd.RangeIndex) else table.reset_index()


def _refuse_columns(table: pd.DataFrame, path: Path) -> None:
    missing = [column for column in COLUMNS if list(table.columns).count(column) != 1]
    times = [column for column in table.columns if column in TIME_NAMES]
    if not times or len(times) != len(set(times)):
        missing.insert(0, f"time (one of {', '.join(TIME_NAMES)})")
    if missing:
        raise InvalidInput(
            f"{path} needs one column each of: {', '.join(missing)}; "
            f"its columns are {', '.join(map(repr, list(table.columns)[:10]))}."
        )


def _as_candles(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    times = table[next(name for name in TIME_NAMES if name in table.columns)]
    index = pd.DatetimeIndex(_as_times(times, path), name=TIME)
    numbers = {column: _as_numbers(table[column], index, path) for column in COLUMNS}
    return pd.DataFrame(numbers).set_index(index)


def _as_times(times: pd.Series, path: Path) -> pd.DatetimeIndex:
    unit = _epoch_unit(times) if times.dtype.kind in "iuf" else None
    try:
        parsed = (
            pd.to_datetime(times, unit=unit, utc=True, errors="coerce")
            if unit or times.dtype.kind == "M"
            else pd.to_datetime(times, format="ISO8601", utc=True, errors="coerce")
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(f"{path} has times that cannot be read ({error}).") from error
    if (bad := parsed.isna().to_numpy()).any():
        row = int(bad.argmax())
        raise InvalidInput(
            f"{path}, row {row + 1}: {times.name} {times.iloc[row]!r} is not a time; "
            f"write ISO text or milliseconds since 1970."
        )
    return pd.DatetimeIndex(parsed)


def _epoch_unit(times: pd.Series) -> str:
    """Seconds reach 1e11 in the year 5138, milliseconds passed it in 1973."""
    largest = times.abs().max()
    return next((unit for unit, top in _EPOCH_TOPS if largest < top), "ns")


def _as_numbers(values: pd.Series, index: pd.DatetimeIndex, path: Path) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    if (bad := (numbers.isna() & values.notna()).to_numpy()).any():
        row = int(bad.argmax())
        raise InvalidInput(
            f"{path}: the {values.name} {values.iloc[row]!r} at {index[row].isoformat()} is not a "
            f"number; correct that row."
        )
    return numbers


def _read_name(path: Path) -> tuple[str | None, str | None]:
    match = _NAME.match(path.stem)
    if not match:
        return None, None
    return f"{match['base']}/{match['quote']}".upper(), match["timeframe"]


def _check_symbol(symbol: str | None, path: Path) -> str:
    if symbol is None:
        raise InvalidInput(
            f"The name of {path} tells no symbol; name it as coinbase_BTC-USD_1h.csv "
            f"or give the symbol, such as BTC/USD."
        )
    if not _SYMBOL.match(symbol):
        raise InvalidInput(f"Symbol {symbol!r} for {path} is not acceptable; write it as BTC/USD.")
    return symbol


def _commonest_spacing(frame: pd.DataFrame, path: Path) -> str:
    steps = np.diff(open_ms(frame))
    lengths, counts = np.unique(steps[steps > 0], return_counts=True)
    if not lengths.size or (length := int(lengths[counts.argmax()])) % 60_000:
        raise InvalidInput(
            f"The rows of {path} tell no timeframe; name the file as coinbase_BTC-USD_1h.csv "
            f"or give the timeframe."
        )
    unit, size = next((unit, size) for unit, size in _UNITS if length % size == 0)
    return f"{length // size}{unit}"


def _refuse_other_timeframe(frame: pd.DataFrame, timeframe: str, path: Path) -> None:
    """Hourly rows under a name that says 5m would pass for a file that is mostly gaps."""
    steps = np.diff(open_ms(frame))
    if steps.size > 1 and timeframe_ms(timeframe) not in steps:
        raise InvalidInput(
            f"{path} is told to hold {timeframe} candles and its rows are "
            f"{_commonest_spacing(frame, path)} apart; correct the timeframe."
        )
