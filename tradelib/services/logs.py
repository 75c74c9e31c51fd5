"""A service's log file: rotated by size at its start, read back for its last words."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO

MAX_BYTES = 5_000_000
KEPT = 3
_TAIL = 20_000
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TOKENS = re.compile(r"(token=)[^\s&\"']+")


def open_log(file: Path) -> IO[bytes]:
    """`file` for appending, readable by its owner alone; a large one is moved to `file`.1 first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and file.stat().st_size > MAX_BYTES:
        _rotate(file)
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "wb")


def _rotate(file: Path) -> None:
    numbered = [file, *(file.with_name(f"{file.name}.{number}") for number in range(1, KEPT + 1))]
    for older, newer in zip(numbered[:0:-1], numbered[-2::-1], strict=True):
        if newer.exists():
            newer.replace(older)


def last_line(file: Path, since: int = 0) -> str:
    """The last line with text in `file` after byte `since`, without colours or tokens."""
    with file.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(since, size - _TAIL))
        text = _COLOURS.sub("", log.read().decode(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip(" \t│╭╮╰╯─")]
    return _TOKENS.sub(r"\1…", lines[-1])[:300] if lines else ""
