"""`desk budget`: what the desk asks of its venues, and what it may still ask."""

from __future__ import annotations

from typing import Annotated

import typer

from tradelib.cli.common import AsJson, Home, make_table, out, print_json, settings_for

traffic_app = typer.Typer()


@traffic_app.command()
def budget(
    home: Home = None,
    minutes: Annotated[
        int, typer.Option("--minutes", min=1, max=1440, help="Of spending, up to a day.")
    ] = 60,
    runs: Annotated[bool, typer.Option("--runs", help="A row for each run.")] = False,
    as_json: AsJson = False,
) -> None:
    """What each venue's rate limits leave, and who spent how much."""
    from tradelib.traffic.records import load_budgets

    report = load_budgets(settings_for(home).home, minutes, by_run=runs)
    if as_json:
        print_json(report)
        return
    if not report.pools:
        out.print("No venue was asked yet.")
        return
    table = make_table("Venue", "Pool", "Used", "Limit", "Seconds", "Closed for")
    for pool in report.pools:
        closed = f"{pool.closed_for:.0f} s: {pool.reason}" if pool.closed_for else ""
        table.add_row(pool.address, pool.pool, str(pool.used), str(pool.limit),
                      str(pool.seconds), closed)  # fmt: skip
    out.print(table)
    out.print()
    columns = ["Venue", "Who", *(["Run"] if runs else []), "Bot", "Endpoint"]
    spent = make_table(*columns, "Requests", "Units", "Refused")
    for one in report.spent:
        who = [one.address, one.kind, *([one.run] if runs else []), one.bot, one.endpoint]
        spent.add_row(*who, str(one.requests), str(one.units), str(one.refused))
    out.print(spent)
