"""Whether the code that was imported is still what lies on disk."""

from __future__ import annotations

import os
import sys
from pathlib import Path

Files = dict[str, tuple[int, int]]


def files_under(folder: Path) -> Files:
    """Size in bytes and time of change in ns of every Python file under the folder."""
    return {str(path): look for path in folder.rglob("*.py") if (look := _look(str(path)))}


def imported_files(seen_before: Files) -> Files:
    """Size and time of change of every file that a module came from.

    seen_before: looks that are older than the imports, and count where there are any: a file that
    was changed between is not what was imported.
    """
    paths = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    found = {p: look for p in paths if p and (look := seen_before.get(p) or _look(p))}
    return {sys.executable: _look(sys.executable) or (0, 0), **found}


def settings_files() -> Files:
    """The same of the files in which a user may configure this user's kernels."""
    from IPython.core.application import ENV_CONFIG_DIRS, SYSTEM_CONFIG_DIRS
    from IPython.paths import get_ipython_dir

    profile = os.path.join(get_ipython_dir(), "profile_default")
    folders = [Path(one) for one in (profile, *ENV_CONFIG_DIRS, *SYSTEM_CONFIG_DIRS)]
    patterns = ("*.py", "*.json", "startup/*.py", "startup/*.ipy")
    paths = [str(path) for folder in folders for one in patterns for path in folder.glob(one)]
    paths.append(os.environ.get("PYTHONSTARTUP", ""))
    return {path: look for path in paths if (look := _look(path))}


def find_change(files: Files) -> str | None:
    """The first file that is not what it was, None when all are."""
    return next((path for path, seen in files.items() if _look(path) != seen), None)


def _look(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
