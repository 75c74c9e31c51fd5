"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(seen: Callable[[], T], seconds: float = 60.0) -> T:
    """What `seen` gives once it is true; fails when that takes longer than any machine needs."""
    end = time.monotonic() + seconds
    while not (found := seen()):
        if time.monotonic() > end:
            raise AssertionError(f"still {found!r} after {seconds:g} s")
        time.sleep(0.02)
    return found
