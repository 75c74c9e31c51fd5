"""What the desk's commands share: their options, and how they print."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, is_dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tradelib.errors import InvalidInput
from tradelib.settings import DeskSettings, load_settings

# Into a pipe or a file, lines are as long as they are.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Home = Annotated[
    Path | None, typer.Option("--home", help="The desk's folder; else DESK_HOME, else .desk.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="How many, newest first.")]


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
    """`name=value` arguments as a dictionary; values are JSON where they can be."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise InvalidInput(f"{what} {pair!r} is not of the form name=value.")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values
