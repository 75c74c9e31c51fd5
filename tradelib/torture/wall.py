"""The wall clock of a campaign: every reading moves it on a little, and its driver by minutes."""

from __future__ import annotations

import mmap
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_START = datetime(2026, 1, 5, 12, tzinfo=UTC)
# Microseconds that a reading takes: time passes for whoever looks at it, and for nobody else, so
# that a busy machine changes nothing.
_TICK = 150


class SharedWall:
    """One clock for a process and all that it forks."""

    def __init__(self) -> None:
        self._cell = memoryview(mmap.mmap(-1, 8)).cast("q")
        self.reset()

    def reset(self) -> None:
        self._cell[0] = (_START - _EPOCH) // timedelta(microseconds=1)

    def pass_time(self, span: timedelta) -> None:
        """Only while no other process runs: two that write at once lose one's time."""
        self._cell[0] += span // timedelta(microseconds=1)

    def read(self) -> datetime:
        """The time, for those who live in it."""
        self._cell[0] += _TICK
        return self.peek()

    def peek(self) -> datetime:
        """The time, which stands still meanwhile."""
        return _EPOCH + timedelta(microseconds=self._cell[0])

    def read_ms(self) -> int:
        self._cell[0] += _TICK
        return self.peek_ms()

    def peek_ms(self) -> int:
        return self._cell[0] // 1000
