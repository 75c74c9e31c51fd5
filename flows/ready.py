"""Telling the desk that a process of flows is ready."""

from __future__ import annotations

import os
from pathlib import Path


def announce_ready() -> None:
    """Make the file that DESK_READY_FILE names, if it does."""
    ready = os.environ.get("DESK_READY_FILE")
    if ready:
        Path(ready).touch()
