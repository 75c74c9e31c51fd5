"""`desk torture`: random schedules of killed processes and faults, on the paper exchange."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tradelib.cli.common import AsJson, make_table, out, print_json, progress_bar

if TYPE_CHECKING:
    from tradelib.torture.campaign import Report

torture_app = typer.Typer()


@torture_app.command()
def torture(
    schedules: Annotated[int, typer.Option("--schedules", min=1, help="How many to play.")] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything drawn.")] = 1,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that play.")] = 1,
    focus: Annotated[str, typer.Option("--focus", help="What to do more of; see the docs.")] = "",
    keep: Annotated[
        Path | None, typer.Option("--keep", help="Folder for what is left of a failing schedule.")
    ] = None,
    ledger_url: Annotated[
        str | None,
        typer.Option("--ledger-url", help="A PostgreSQL database to empty, {} for the worker."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Kill, stop and mislead the desk on a paper exchange, and compare its books at the end."""
    from tradelib.torture.campaign import Plan, run_campaign

    plan = Plan(schedules, seed, workers, focus, ledger_url, keep)
    done = itertools.count(1)
    with progress_bar("schedules") as tell:
        report = run_campaign(plan, lambda _: tell(next(done), schedules))
    if as_json:
        print_json(report.to_json())
    else:
        _print(report, focus)
    raise typer.Exit(1 if report.failures else 0)


def _print(report: Report, focus: str) -> None:
    table = make_table("What", "Count")
    sums = {"schedules": report.schedules, "kills": report.kills, "sleeps": report.sleeps}
    for name, count in sums.items():
        table.add_row(name, str(count))
    for kind, count in report.faults.most_common():
        table.add_row(f"fault {kind}", str(count))
    table.add_row("orders", str(report.orders))
    for name, count in report.counted.items():
        table.add_row(name.replace("_", " "), str(count))
    out.print(table)
    for place, count in sorted(_places(report).items()):
        out.print(f"  {count:6} {place}")
    more = f" --focus {focus}" if focus else ""
    for failure in report.failures:
        out.print(f"desk torture --schedules 1 --seed {failure.seed}{more} shows again:")
        for violation in failure.violations:
            out.print(f"  {violation.kind}: {violation.text}", soft_wrap=True)


def _places(report: Report) -> dict[str, int]:
    """Signals by the kind of point and what was signalled."""
    places: dict[str, int] = {}
    for name, count in report.signals.items():
        signal, act, phase, *_ = name.split()
        key = f"{signal} {act} {phase}"
        places[key] = places.get(key, 0) + count
    return places
