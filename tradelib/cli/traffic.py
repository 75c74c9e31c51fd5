"""`desk budget|cache`: what the desk asks of its venues, may still ask, and is spared."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tradelib.cli.common import AsJson, Home, make_table, out, print_json, settings_for

if TYPE_CHECKING:
    from tradelib.traffic.cache import SharedCache

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


@traffic_app.command()
def cache(
    home: Home = None,
    clear: Annotated[
        str | None,
        typer.Option("--clear", metavar="PATTERN", help="Forget these keys: 'quotes:*'."),
    ] = None,
    minutes: Annotated[
        int, typer.Option("--minutes", min=1, max=1440, help="Of use, up to a day.")
    ] = 60,
    as_json: AsJson = False,
) -> None:
    """What all processes share of what venues told: what that spared, and how old it is."""
    from tradelib.traffic.cache import SharedCache
    from tradelib.traffic.records import load_cache_uses

    settings = settings_for(home)
    shared = SharedCache(settings.home, settings.cache.url)
    if clear is not None:
        _clear(shared, clear, as_json)
        return
    uses, keys = load_cache_uses(settings.home, minutes), shared.list_keys()
    if as_json:
        told = [asdict(use) | {"hit_rate": use.hit_rate} for use in uses]
        print_json({"uses": told, "keys": keys})
        return
    if not keys and not uses:
        out.print("Nothing is shared yet; the first cycle shares what it asks.")
        return
    table = make_table("Kind", "Hit rate", "Calls", "Calls saved", "Mean age", "Oldest")
    for use in uses:
        table.add_row(use.kind, f"{use.hit_rate:.1%}", str(use.calls), str(use.served),
                      f"{use.age:.2f} s", f"{use.oldest:.2f} s")  # fmt: skip
    out.print(table)
    out.print()
    kept = make_table("Key", "Age", "Venue's time (UTC)", "Bytes")
    for key in keys:
        kept.add_row(key.key, f"{key.age:.1f} s", key.venue_time, str(key.size))
    out.print(kept)


def _clear(shared: SharedCache, pattern: str, as_json: bool) -> None:
    gone = shared.clear(pattern)
    if as_json:
        print_json({"cleared": gone})
        return
    for key in gone:
        out.print(key, soft_wrap=True)
    out.print(f"{len(gone)} keys cleared." if gone else f"No key matches {pattern!r}.")
