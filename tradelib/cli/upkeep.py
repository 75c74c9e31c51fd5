"""`desk backup|restore|resync|prune`: the ledger kept and mended, old pages removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tradelib.cli.common import (
    AsJson,
    Home,
    make_table,
    out,
    print_json,
    progress_bar,
    settings_for,
)
from tradelib.errors import InvalidInput, unknown_name
from tradelib.settings import DeskSettings

if TYPE_CHECKING:
    from tradelib.cli.markets import LocalMarket
    from tradelib.notebooks.retention import Pruning
    from tradelib.trading.resync import Resync
    from tradelib.venue import Venue

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

    with progress_bar("rows") as tell:
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

    with progress_bar("rows") as tell:
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


@upkeep_app.command()
def resync(
    venue: Annotated[
        str | None, typer.Argument(help="A venue of desk.toml; may be left away if it is the one.")
    ] = None,
    home: Home = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    market: Annotated[
        list[Path] | None, typer.Option("--market", help="The candle files of a replay's venue.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild a venue's orders, fills, balances and positions from its own history; the ledger is
    backed up first, and the desk must not run."""
    from tradelib.trading.backup import default_file, desk_at_rest
    from tradelib.trading.ledger import open_ledger
    from tradelib.trading.resync import resync as rebuild

    settings = settings_for(home)
    name = _choose_venue(settings, venue)
    ledger = open_ledger(settings)
    with (
        desk_at_rest(settings),
        _account(settings, name, tuple(market or ())) as account,
        progress_bar("rows") as tell,
    ):
        file = None if dry_run else default_file(settings)
        done = rebuild(ledger, account, backup=file, dry_run=dry_run, tell=tell)
    ledger.close()
    if as_json:
        print_json(done.to_json())
    else:
        _print_resync(done)


@upkeep_app.command()
def prune(
    home: Home = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would go, and remove nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove executed pages that are too old or too many (`[retention]` in desk.toml); the desk
    may run meanwhile, and the ledger keeps every run."""
    from tradelib.notebooks.retention import prune_pages
    from tradelib.trading.ledger import open_ledger

    settings = settings_for(home)
    with progress_bar("days") as tell:
        done = prune_pages(settings, open_ledger(settings), dry_run=dry_run, tell=tell)
    if as_json:
        print_json(vars(done))
    else:
        _print_pruning(settings, done)
    if done.failed:
        raise typer.Exit(1)


def _print_pruning(settings: DeskSettings, done: Pruning) -> None:
    out.print(done.summary, soft_wrap=True)
    for why, count in done.kept.most_common():
        out.print(f"  {count} kept: {why}")
    if done.unknown:
        out.print(
            f"{len(done.unknown)} old folders in {settings.reports} stay, since the ledger knows "
            f"no page there: {_some(done.unknown)}",
            soft_wrap=True,
        )
    if done.failed:
        told = [f"{folder} ({why})" for folder, why in done.failed.items()]
        out.print(f"{len(told)} could not be removed: {_some(told)}", soft_wrap=True)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _choose_venue(settings: DeskSettings, venue: str | None) -> str:
    if venue is None:
        if len(settings.venues) != 1:
            raise InvalidInput(
                f"This desk has {len(settings.venues)} venues "
                f"({', '.join(sorted(settings.venues)) or 'none'}); name the one to resync."
            )
        return next(iter(settings.venues))
    if venue not in settings.venues:
        raise unknown_name("venue", venue, settings.venues, "desk.toml")
    return venue


@contextmanager
def _account(settings: DeskSettings, name: str, files: tuple[Path, ...]) -> Iterator[Venue]:
    """The venue, to read from. The desk's own exchange is opened where it stands, since no desk
    runs it now; its market does not move meanwhile."""
    from tradelib.paper import PaperConfig, RateLimits, paper_exchange
    from tradelib.venue import Venue, load_keys, open_venue
    from tradelib.venue.client import venue_identity
    from tradelib.venue.source import PublicCandles

    chosen = settings.venues[name]
    if not chosen.is_local:
        yield open_venue(settings, name)
        return
    folder = settings.home / "paper" / name
    if not folder.exists():
        raise InvalidInput(f"Market {name} has no state in {folder}; it has not run yet.")
    market = _local_market(settings, name, files)
    config = PaperConfig(
        folder,
        seed=market.seed,
        files=files,
        source=PublicCandles(market.follow, home=settings.home) if market.follow else None,
        source_symbols=market.symbols,
        speed=1.0 if market.follow else 0.0,
        limits=RateLimits(weight=10**9),
    )
    with paper_exchange(config) as running:
        there = chosen.model_copy(update={"rest_url": running.url, "ws_url": None})
        keys = load_keys(chosen.keys, settings.home, name)
        yield Venue(name, there, keys, is_local=True, identity=venue_identity(name, chosen))


def _local_market(settings: DeskSettings, name: str, files: tuple[Path, ...]) -> LocalMarket:
    """The market that `desk up` runs under this name."""
    from tradelib.cli.markets import DEFAULT_SEED, file_market, followed_market, seeded_market
    from tradelib.trading.bots import load_bots
    from tradelib.trading.ledger import open_ledger

    tail = name.removeprefix("paper").removeprefix("-")
    if name.startswith("replay-"):
        found = file_market(files) if files else None
        if found is None or found.venue != name:
            raise InvalidInput(
                f"Venue {name} replays candle files; name the same ones with --market."
            )
        return found
    if tail.removeprefix("seed").isdigit() or not tail:
        return seeded_market(int(tail.removeprefix("seed") or DEFAULT_SEED))
    bots = load_bots(open_ledger(settings))
    return followed_market(tail, tuple(sorted({b.symbol for b in bots if b.venue == name})))


def _print_resync(done: Resync) -> None:
    if done.saved:
        out.print(f"What was there before is kept in {done.saved}", soft_wrap=True)
    if done.changes:
        table = make_table("What", "Which", "Before", "Now")
        for change in done.changes:
            table.add_row(
                f"{change.what} {change.kind}", change.subject, change.before or "-",
                change.after or "-",
            )  # fmt: skip
        out.print(table)
    told = sum(done.counts[f"{what} {kind}"] for what in ("orders", "fills")
               for kind in ("added", "removed", "changed"))  # fmt: skip
    if told > len(done.changes):
        out.print(f"... and {told - len(done.changes)} more.")
    table = make_table("Asset", "Booked before", "Booked now")
    for each in done.balances:
        before = "-" if each.before is None else f"{each.before:f}"
        table.add_row(each.asset, before, f"{each.after:f}")
    out.print(table)
    counted = ", ".join(f"{count} {name}" for name, count in done.counts.items() if count)
    would = "would change" if done.dry_run else "changed"
    out.print(
        f"{done.orders} orders and {done.fills} fills of {done.venue} were read; "
        + (f"{would}: {counted}." if counted else "nothing differs."),
        soft_wrap=True,
    )
