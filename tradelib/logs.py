"""The desk's log: one JSON line per event in `<home>/logs/desk.jsonl`, shared by every process,
rotated by size, with the id of the cycle that an event belongs to."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import re
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from tradelib.clock import format_time
from tradelib.settings import DeskSettings

CYCLE_ENV = "DESK_CYCLE"
LOG_FILE = "desk.jsonl"
MAX_BYTES = 5_000_000
KEPT_FILES = 5

cycle_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("cycle_id", default=None)

_SIGNED = re.compile(r"(?i)(signature|apikey|api_key|secret|token)=[^\s&'\"]+")


class JsonFileHandler(logging.Handler):
    """Appends each record as one line; several processes may write the same file at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = json.dumps(_as_json(record), default=str) + "\n"
            # One write to a file opened for appending is not torn by other writers.
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, line.encode())
                full = os.fstat(handle).st_size > MAX_BYTES
            finally:
                os.close(handle)
            if full:
                _rotate(self.path)
        except OSError:
            # A full disk must not stop a cancel; the ledger is what has to be written.
            self.handleError(record)


def configure_logging(settings: DeskSettings, cycle: str | None = None) -> None:
    """Send what the desk's own loggers say to its log file; calling again changes nothing."""
    if cycle or os.environ.get(CYCLE_ENV):
        cycle_id.set(cycle or os.environ[CYCLE_ENV])
    settings.logs.mkdir(parents=True, exist_ok=True)
    path = settings.logs / LOG_FILE
    for name in ("tradelib", "flows", "stamina"):
        logger = logging.getLogger(name)
        if not any(isinstance(h, JsonFileHandler) and h.path == path for h in logger.handlers):
            logger.addHandler(JsonFileHandler(path))
        logger.setLevel(logging.INFO)
        # Prefect gives the root logger a console of its own.
        logger.propagate = False


def read_log(
    settings: DeskSettings, *, cycle: str | None = None, limit: int = 200
) -> list[dict[str, Any]]:
    """The newest log lines, oldest first, of one cycle if asked."""
    kept: deque[dict[str, Any]] = deque(maxlen=limit)
    path = settings.logs / LOG_FILE
    older = [path.with_suffix(f".jsonl.{n}") for n in range(KEPT_FILES, 0, -1)]
    for file in [*older, path]:
        if file.exists():
            kept.extend(e for e in _lines(file) if cycle in (None, e.get("cycle")))
    return list(kept)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # the last line of a process that was killed


def _as_json(record: logging.LogRecord) -> dict[str, Any]:
    entry = {
        "time": format_time(datetime.fromtimestamp(record.created, UTC)),
        "level": record.levelname,
        "logger": record.name,
        "cycle": cycle_id.get(),
        "process": record.process,
        "message": _SIGNED.sub(r"\1=***", record.getMessage()),
    }
    return entry | getattr(record, "fields", {})


def _rotate(path: Path) -> None:
    with FileLock(path.with_suffix(".lock")):
        if path.exists() and path.stat().st_size <= MAX_BYTES:
            return  # another process was quicker
        for number in range(KEPT_FILES - 1, 0, -1):
            older = path.with_suffix(f".jsonl.{number}")
            if older.exists():
                older.replace(path.with_suffix(f".jsonl.{number + 1}"))
        path.replace(path.with_suffix(".jsonl.1"))
