"""Time: aware UTC datetimes in Python, integer milliseconds at venues, timeframes as text."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tradelib.errors import InvalidInput

_UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_TIMEFRAME = re.compile(r"^([1-9][0-9]*)([mhdw])$")


def _machine_time() -> datetime:
    return datetime.now(UTC)


_source: Callable[[], datetime] = _machine_time


def utc_now() -> datetime:
    """The wall clock, aware and in UTC."""
    return _source()


def set_clock(source: Callable[[], datetime] | None) -> None:
    """Let another source, which tells aware UTC, be this process's wall clock; None: the
    machine's again. For rehearsals, in which hours pass in an instant."""
    global _source
    _source = source or _machine_time


def to_ms(time: datetime) -> int:
    """Milliseconds since 1970, exact; naive datetimes are refused."""
    if time.tzinfo is None:
        raise InvalidInput(f"Time {time.isoformat()} has no zone; give it one, such as +00:00.")
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def from_ms(milliseconds: int) -> datetime:
    """The UTC datetime of milliseconds since 1970, exact."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(milliseconds))


def parse_time(text: str, what: str = "time") -> datetime:
    """An ISO 8601 time as UTC; one without a zone is read as UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{what.capitalize()} {text!r} is not ISO 8601; write it as 2026-01-31T12:00:00Z."
        ) from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def format_time(time: datetime) -> str:
    """ISO 8601 in UTC with microseconds, of fixed width, so that text sorts as time does."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def timeframe_ms(timeframe: str) -> int:
    """Length of a timeframe such as '5m', '1h', '1d' in milliseconds."""
    match = _TIMEFRAME.match(timeframe)
    if not match:
        raise InvalidInput(f"Unknown timeframe {timeframe!r}; write it as 1m, 5m, 1h, 1d or 1w.")
    return int(match[1]) * _UNIT_MS[match[2]]


def floor_time(time: datetime, timeframe: str) -> datetime:
    """The start of the candle that holds `time`, which is also the close of the one before it."""
    step, first = timeframe_ms(timeframe), first_open_ms(timeframe)
    return from_ms((to_ms(time) - first) // step * step + first)


def first_open_ms(timeframe: str) -> int:
    """When the first candle since 1970 opens; 1970 began on a Thursday, weeks on the Monday."""
    return 4 * _UNIT_MS["d"] if timeframe.endswith("w") else 0
