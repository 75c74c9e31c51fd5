"""The desk's log: one JSON line per event in `<home>/logs/desk.jsonl`, shared by every process,
rotated by size, with the id of the cycle that an event belongs to."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import sys
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from tradelib.clock import format_time
from tradelib.scrubber import desk_scrubber
from tradelib.settings import DeskSettings

CYCLE_ENV = "DESK_CYCLE"
LOG_FILE = "desk.jsonl"
MAX_BYTES = 5_000_000
KEPT_FILES = 5

cycle_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("cycle_id", default=None)
# Prefect keeps what these say in its database and shows it on its pages.
_PREFECT = ("prefect", "prefect.flow_runs", "prefect.task_runs")
_tracebacks = logging.Formatter()


class JsonFileHandler(logging.Handler):
    """Appends each record as one line, without secrets; several processes may write the same file
    at once."""

    def __init__(self, settings: DeskSettings) -> None:
        super().__init__(logging.INFO)
        self.settings = settings
        self.path = settings.logs / LOG_FILE

    def emit(self, record: logging.LogRecord) -> None:
        try:
            told = json.loads(json.dumps(_as_json(record), default=str))
            line = json.dumps(desk_scrubber(self.settings).scrub_all(told)) + "\n"
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
            logger.addHandler(JsonFileHandler(settings))
        logger.setLevel(logging.INFO)
        # Prefect gives the root logger a console of its own.
        logger.propagate = False
    _scrub_prefect(settings)


class _ScrubbedRecords(logging.Filter):
    """Takes the secrets out of a record before its handler sees it."""

    def __init__(self, settings: DeskSettings) -> None:
        super().__init__()
        self.settings = settings

    def filter(self, record: logging.LogRecord) -> bool:
        scrubber = desk_scrubber(self.settings)
        record.msg, record.args = scrubber.scrub(record.getMessage()), None
        if record.exc_info or record.exc_text:
            record.exc_text = scrubber.scrub(_traceback_of(record))
            record.exc_info = None
        return True


def _scrub_prefect(settings: DeskSettings) -> None:
    if "prefect" not in sys.modules:  # a notebook's kernel, a command
        return
    for name in _PREFECT:
        for handler in logging.getLogger(name).handlers:
            others = [f for f in handler.filters if not isinstance(f, _ScrubbedRecords)]
            handler.filters = [*others, _ScrubbedRecords(settings)]


def _traceback_of(record: logging.LogRecord) -> str:
    if record.exc_text or not record.exc_info:
        return record.exc_text or ""
    return _tracebacks.formatException(record.exc_info)


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
        "message": record.getMessage(),
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
