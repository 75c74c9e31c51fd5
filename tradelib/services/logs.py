"""A service's log file: moved aside when it grew large, read back for its last words."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

MAX_BYTES = 5_000_000
KEPT = 3
_TAIL = 20_000
_HEAD = 1_000_000
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TOKENS = re.compile(r"(token=)[^\s&\"']+")


def open_log(file: Path) -> IO[bytes]:
    """`file` for appending, readable by its owner alone; a large one is moved to `file`.1 first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and file.stat().st_size > MAX_BYTES:
        _rotate(file)
    return _open_private(file)


def trim_log(file: Path) -> bool:
    """Copy a large `file` to `file`.1 and empty it, for a service that holds it open; tells
    whether it did.

    What is written between the two is lost. Since the file is open for appending, the service's
    next line is the first of the emptied one.
    """
    with suppress(OSError):  # a full disk or a file that someone removed must not end the desk
        if file.stat().st_size > MAX_BYTES:
            _shift(file)
            with file.open("rb") as full, _open_private(file.with_name(f"{file.name}.1")) as copy:
                shutil.copyfileobj(full, copy)
            os.truncate(file, 0)
            return True
    return False


def _rotate(file: Path) -> None:
    _shift(file)
    file.replace(file.with_name(f"{file.name}.1"))


def _shift(file: Path) -> None:
    """Make room for a new `file`.1; the oldest is dropped."""
    numbered = [file.with_name(f"{file.name}.{number}") for number in range(1, KEPT + 1)]
    for older, newer in zip(numbered[:0:-1], numbered[-2::-1], strict=True):
        if newer.exists():
            newer.replace(older)


def _open_private(file: Path) -> IO[bytes]:
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "wb")


def last_line(file: Path, since: int = 0) -> str:
    """The last line with text in `file` after byte `since`, without colours or tokens."""
    with file.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(since, size - _TAIL))
        lines = _lines(log.read())
    return _shown(lines[-1]) if lines else ""


def find_line(file: Path, what: re.Pattern[str], since: int = 0) -> str:
    """The first line of `file` after byte `since` in which `what` is found, as `last_line` shows
    it; empty where there is none. The log of one start is read, at most its first megabyte.
    """
    with file.open("rb") as log:
        log.seek(since)
        lines = _lines(log.read(_HEAD))
    return next((_shown(line) for line in lines if what.search(line)), "")


def _lines(written: bytes) -> list[str]:
    text = _COLOURS.sub("", written.decode(errors="replace"))
    return [line.strip() for line in text.splitlines() if line.strip(" \t│╭╮╰╯─")]


def _shown(line: str) -> str:
    return _TOKENS.sub(r"\1…", line)[:300]
