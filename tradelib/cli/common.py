"""What the desk's commands share: their options, and how they print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tradelib.clock import timeframe_ms
from tradelib.errors import InvalidInput
from tradelib.settings import DeskSettings, load_settings

# What is shown may hold brackets and colons of its own: it is never markup.
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
# Into a pipe or a file, lines are as long as they are.
out = Console(width=None if sys.stdout.isatty() else 240, **_PLAIN)
err = Console(stderr=True, soft_wrap=True, **_PLAIN)


def _use_home(home: Path | None) -> Path | None:
    """Make --home the home of this whole process, also of what is told once a command failed."""
    if home:
        os.environ["DESK_HOME"] = str(home)
    return home


Home = Annotated[
    Path | None,
    typer.Option(
        "--home", callback=_use_home, help="The desk's folder; else DESK_HOME, else .desk."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many, newest first.")]


def settings_for(home: Path | None) -> DeskSettings:
    return load_settings(home)


def make_table(*columns: str) -> Table:
    """A plain table whose first column, the id that other commands take, is never cut."""
    table = Table(box=None)
    for place, name in enumerate(columns):
        table.add_column(name, no_wrap=True, overflow="fold" if place == 0 else "ellipsis",
                         min_width=12 if place == 0 else None)  # fmt: skip
    return table


def print_json(value: Any) -> None:
    print(json.dumps(value, default=_plain, indent=2))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def parse_pairs(pairs: list[str], what: str) -> dict[str, Any]:
    """`name=value` arguments as a dictionary; a value is a number or true or false where it can
    be, else text."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise InvalidInput(f"{what} {pair!r} is not of the form name=value.")
        values[name] = _parse_value(text, f"{what} {name}")
    return values


def _parse_value(text: str, what: str) -> Any:
    try:
        value = json.loads(text)
    except RecursionError:
        value = []
    except ValueError:
        return text
    if isinstance(value, list | dict):
        raise InvalidInput(f"{what} is a list or a table; give it one number or word.")
    return value


def parse_span(told: str) -> timedelta:
    """The span of time that --since names."""
    try:
        return timedelta(milliseconds=timeframe_ms(told))
    except (InvalidInput, OverflowError):
        raise InvalidInput(f"--since {told!r} is no span of time; write it as 12h or 7d.") from None


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar while it lasts, for those who sit at a terminal; it is told what is done, and of how
    many, None where that is not known."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, of: shown.update(task, completed=done, total=of)
