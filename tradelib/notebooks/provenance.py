"""Where a result comes from: the notebook's hash, the commit, the lock file, the machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic

from tradelib.settings import PROJECT


@dataclass(frozen=True)
class CodeVersion:
    """git_clean: 1 when the tree had no uncommitted change, None outside a checkout."""

    git_commit: str | None
    git_clean: int | None
    lock_hash: str | None


# Seconds for which git's answer counts: pages that start together need not ask one by one.
_FRESH = 5.0
_asking = threading.Lock()
_known: tuple[float, CodeVersion] | None = None


def code_version() -> CodeVersion:
    """The code that pages run now, as git told in the last few seconds."""
    global _known
    with _asking:
        if _known is None or monotonic() - _known[0] > _FRESH:
            _known = monotonic(), _ask_for_version()
        return _known[1]


@cache
def imported_version() -> CodeVersion:
    """The code that this process itself runs: what is imported stays as it was."""
    return _ask_for_version()


def _ask_for_version() -> CodeVersion:
    asked = [_start_git("rev-parse", "HEAD"), _start_git("status", "--porcelain")]
    commit, changes = map(_read, asked)
    return CodeVersion(
        git_commit=commit or None,
        git_clean=None if changes is None else int(not changes),
        lock_hash=_file_hash(PROJECT / "uv.lock"),
    )


def notebook_hash(path: Path) -> str:
    """SHA-256 over the cells' types and sources alone, so that outputs and metadata that an
    editor adds do not make another notebook of it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = [[cell["cell_type"], "".join(cell["source"])] for cell in cells]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def _file_hash(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _start_git(*arguments: str) -> subprocess.Popen[str] | None:
    try:
        return subprocess.Popen(
            ["git", "-C", str(PROJECT), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError:
        return None


def _read(asked: subprocess.Popen[str] | None) -> str | None:
    """What git said, None when it failed or was not there."""
    if asked is None:
        return None
    with asked:
        try:
            answer, _ = asked.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            asked.kill()
            return None
    return answer.strip() if asked.returncode == 0 else None
