"""Whether the code that was imported is still what lies on disk."""

from __future__ import annotations

import os
import sys

Files = dict[str, tuple[int, int]]


def imported_files() -> Files:
    """Size in bytes and time of change in ns of every file that a module came from."""
    paths = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    found = {path: look for path in paths if path and (look := _look(path))}
    return {sys.executable: _look(sys.executable) or (0, 0), **found}


def find_change(files: Files) -> str | None:
    """The first file that is not what it was, None when all are."""
    return next((path for path, seen in files.items() if _look(path) != seen), None)


def _look(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
