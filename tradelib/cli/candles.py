"""`desk candles`: what is stored of the markets' history, and how to have more of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradelib.cli.common import (
    AsJson,
    Home,
    Limit,
    make_table,
    out,
    print_json,
    progress_bar,
    settings_for,
)
from tradelib.clock import parse_time
from tradelib.errors import unknown_name

if TYPE_CHECKING:
    from tradelib.candles.backfill import BackfillReport
    from tradelib.candles.store import CandleStore, LateCandles, Revision, SeriesSummary

candles_app = typer.Typer(
    help="The stored candles: list them, look into a series, fetch years of them, compact them.",
    invoke_without_command=True,
)

Venue = Annotated[str, typer.Argument(help="A venue of desk.toml.")]
Symbols = Annotated[list[str], typer.Argument(metavar="SYMBOL...", help="Such as BTC/USDT.")]
_WHEN = ("before", "after")

Timeframe = Annotated[str, typer.Option("--timeframe", help="Such as 1m, 5m, 1h.")]


@candles_app.callback()
def candles(context: typer.Context, home: Home = None, as_json: AsJson = False) -> None:
    """Every stored series: its range, its holes, and what the venue changed afterwards."""
    if context.invoked_subcommand:
        return
    store = _store(home)
    found = [told for series in store.series() if (told := store.summary(*series))]
    if as_json:
        print_json([_summary(one) for one in found])
        return
    table = make_table(
        "Symbol", "Venue", "Timeframe", "Candles", "From", "To", "Missing", "Not at the venue",
        "Revised", "Late", "Files", "MB",
    )  # fmt: skip
    for one in found:
        table.add_row(
            one.series.symbol, one.series.venue, one.series.timeframe, f"{one.candles:,}",
            f"{one.first:%F %R}", f"{one.last_close:%F %R}", _count(one.open_gaps),
            _count(one.venue_gaps), f"{one.revisions:,}", f"{one.late:,}", str(one.files),
            f"{one.size / 1e6:.1f}",
        )  # fmt: skip
    out.print(table if found else "No candles yet; fetch some with: desk candles backfill")


@candles_app.command("show")
def show(
    venue: Venue,
    symbol: Annotated[str, typer.Argument(help="Such as BTC/USDT.")],
    timeframe: Timeframe = "1m",
    limit: Limit = 20,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """One series: each hole, and each candle that was revised or came late."""
    store = _store(home)
    found = store.summary(venue, symbol, timeframe)
    if found is None:
        known = (" ".join(series) for series in store.series())
        raise unknown_name("series", f"{venue} {symbol} {timeframe}", known, "the stored candles")
    changes = store.revisions(venue, symbol, timeframe)[::-1]
    if as_json:
        told = [{"kind": _kind(one), **one._asdict()} for one in changes[:limit]]
        print_json(_summary(found) | {"changes": told})
        return
    out.print(
        f"{symbol} {timeframe} of {venue}: {found.candles:,} candles, {found.first:%F %R} to "
        f"{found.last_close:%F %R} UTC, in {found.files} files of {found.size / 1e6:.1f} MB."
    )
    _print_gaps(found, limit)
    _print_changes(changes[:limit])


@candles_app.command("backfill")
def backfill(
    venue: Venue,
    symbols: Symbols,
    since: Annotated[str, typer.Option("--since", help="From when on (ISO 8601).")],
    timeframe: Timeframe = "1m",
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, max=32, help="Symbols that are asked for at a time.")
    ] = 4,
    again: Annotated[
        bool,
        typer.Option("--again", help="Ask for what is stored too, and record what has changed."),
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the candles of years. What is stored is not asked for again, so that one that was
    stopped goes on."""
    from tradelib.candles.backfill import backfill_candles
    from tradelib.venue import open_venue

    settings = settings_for(home)
    begin = parse_time(since, "--since")
    client = open_venue(settings, venue)
    client.require_timeframe(timeframe)
    for symbol in symbols:
        client.fetch_instrument(symbol)
    with progress_bar(f"{timeframe} candles") as show:
        reports = backfill_candles(
            lambda: open_venue(settings, venue, bulk=True), _store(home), venue, symbols, timeframe,
            since=begin, as_of=client.fetch_time(), jobs=jobs, again=again, on_progress=show,
        )  # fmt: skip
    print_json([_report(one) for one in reports]) if as_json else _print_reports(reports)
    if failed := [one for one in reports if one.error]:
        raise failed[0].error


@candles_app.command("compact")
def compact(
    venue: Annotated[str | None, typer.Argument(help="Of one venue only.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make each month one file that reads fast; traders and readers may go on meanwhile."""
    store = _store(home)
    chosen = [one for one in store.series() if venue in (None, one.venue)]
    if venue and not chosen:
        known = {one.venue for one in store.series()}
        raise unknown_name("venue", venue, known, "the stored candles")
    done = {}
    with progress_bar("series") as show:
        for number, series in enumerate(chosen, 1):
            done[series] = store.compact(*series)
            show(number, len(chosen))
    if as_json:
        print_json([one._asdict() | result._asdict() for one, result in done.items()])
        return
    files, sizes = (
        [sum(getattr(one, f"{what}_{when}") for one in done.values()) for when in _WHEN]
        for what in ("files", "size")
    )
    out.print(
        f"{len(done)} series: {files[0]} files of {sizes[0] / 1e6:.1f} MB are now {files[1]} of "
        f"{sizes[1] / 1e6:.1f} MB."
    )


def _store(home: Any) -> CandleStore:
    from tradelib.candles.store import CandleStore

    return CandleStore(settings_for(home).candles)


def _print_gaps(found: SeriesSummary, limit: int) -> None:
    gaps = [(gap, "missing") for gap in found.open_gaps]
    gaps += [(gap, "not at the venue") for gap in found.venue_gaps]
    table = make_table("From", "To", "Candles", "")
    for gap, why in sorted(gaps)[-limit:]:
        table.add_row(f"{gap.start:%F %R}", f"{gap.end:%F %R}", f"{gap.missing:,}", why)
    out.print(table if gaps else "No candle is missing.")


def _print_changes(changes: list[Revision | LateCandles]) -> None:
    table = make_table("Seen", "Candle", "", "Open", "High", "Low", "Close", "Volume")
    for one in changes:
        seen = f"{one.seen:%F %T}"
        if _kind(one) == "revised":
            pairs = zip(one.old, one.new, strict=True)
            values = [f"{a:.12g} → {b:.12g}" if a != b else f"{a:.12g}" for a, b in pairs]
            table.add_row(seen, f"{one.open_time:%F %R}", "revised", *values)
        else:
            table.add_row(seen, f"{one.first:%F %R}", f"late, {one.candles:,} from there on")
    out.print(table if changes else "No candle was changed after it was stored.")


def _count(gaps: tuple[Any, ...]) -> str:
    if not gaps:
        return "0"
    return f"{sum(gap.missing for gap in gaps):,} in {len(gaps):,}"


def _kind(change: Any) -> str:
    return "late" if hasattr(change, "candles") else "revised"


def _summary(found: SeriesSummary) -> dict[str, Any]:
    gaps = {
        name: [gap._asdict() for gap in getattr(found, name)]
        for name in ("open_gaps", "venue_gaps")
    }
    return found.series._asdict() | {
        "candles": found.candles, "first": found.first, "last_close": found.last_close, **gaps,
        "revisions": found.revisions, "late": found.late, "files": found.files,
        "size": found.size,
    }  # fmt: skip


def _report(one: BackfillReport) -> dict[str, Any]:
    return vars(one) | {"error": str(one.error) if one.error else None}


def _print_reports(reports: list[BackfillReport]) -> None:
    table = make_table(
        "Symbol", "Requests", "Added", "Revised", "Not at the venue", "Still missing", "Error"
    )
    for one in reports:
        table.add_row(
            one.symbol, f"{one.requests:,}", f"{one.added:,}", f"{one.revised:,}",
            f"{one.recorded:,}", f"{one.missing:,}", str(one.error or ""),
        )  # fmt: skip
    out.print(table)
