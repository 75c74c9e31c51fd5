"""The market's clock: it runs with the wall's, faster, or stands until it is stepped."""

from __future__ import annotations

import time
from collections.abc import Callable

Wall = Callable[[], int]


def wall_ms() -> int:
    """The wall clock in ms since 1970."""
    return time.time_ns() // 1_000_000


class MarketClock:
    """Market time in ms. speed: market seconds per second of the wall; 0 stands still.

    A clock never passes `end`, where the candles end.
    """

    def __init__(self, start: int, speed: float, end: int, wall: Wall = wall_ms) -> None:
        self.speed, self.end, self.wall = speed, end, wall
        self._start, self._began = start, wall()

    @property
    def is_stepped(self) -> bool:
        return self.speed == 0

    def now(self) -> int:
        passed = int((self.wall() - self._began) * self.speed) if self.speed else 0
        return min(self._start + passed, self.end)

    def set(self, time: int) -> None:
        """Puts a stepped clock to a later time."""
        self._start, self._began = time, self.wall()
