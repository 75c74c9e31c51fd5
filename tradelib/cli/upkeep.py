"""`desk backup|restore`: the ledger, kept and mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tradelib.cli.common import AsJson, Home, err, make_table, out, print_json, settings_for

if TYPE_CHECKING:
    from tradelib.trading.backup import Tell

upkeep_app = typer.Typer()


@upkeep_app.command()
def backup(
    file: Annotated[
        Path | None, typer.Argument(help="Else a new one in the home's backups folder.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Copy the whole ledger into one file; the desk may run meanwhile."""
    from tradelib.trading.backup import back_up_desk

    with _progress("rows") as tell:
        made = back_up_desk(settings_for(home), file, tell)
    if as_json:
        print_json({"file": made.file, **vars(made.contents), "rows": made.contents.rows})
        return
    out.print(f"Backed up {made.contents.rows} rows to {made.file}", soft_wrap=True)


@upkeep_app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="Made by `desk backup`.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the ledger's place, which is backed up first; the desk must not run."""
    from tradelib.trading.backup import restore_desk

    with _progress("rows") as tell:
        done = restore_desk(settings_for(home), file, tell)
    if as_json:
        print_json({"file": file, "saved": done.saved, "tables": done.tables, "notes": done.notes})
        return
    if done.saved:
        out.print(f"What was there before is kept in {done.saved}", soft_wrap=True)
    table = make_table("Table", "Rows before", "Rows now")
    for name, (before, after) in done.tables.items():
        table.add_row(name, str(before), str(after))
    out.print(table)
    for note in done.notes:
        out.print(note, soft_wrap=True)
    made_at = done.backup.contents.made_at
    out.print(
        f"The ledger is as it was at {made_at:%F %T}Z; "
        "`desk resync` brings it up to what a venue has by now.",
        soft_wrap=True,
    )


@contextmanager
def _progress(what: str) -> Iterator[Tell]:
    """A bar while it lasts, for those who sit at a terminal."""
    shown = Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=err, transient=True, disable=not err.is_terminal,
    )  # fmt: skip
    with shown:
        task: Any = shown.add_task(what, total=None)
        yield lambda done, of: shown.update(task, completed=done, total=of)
