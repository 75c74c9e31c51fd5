"""Operations: whether the desk works, how fast, and what needs a person."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
from sqlalchemy import func, select

from tradelib.candles.store import CandleStore, StoredSeries
from tradelib.clock import parse_time, timeframe_ms, utc_now
from tradelib.errors import DeskError
from tradelib.feed.status import StreamStatus, load_streams
from tradelib.services.addresses import Running, load_services
from tradelib.settings import DeskSettings, load_settings
from tradelib.trading import tables
from tradelib.trading.incidents import load_incidents
from tradelib.trading.ledger import Ledger, open_ledger
from tradelib.trading.orders import load_orders
from tradelib.trading.runs import Outcome, Run, load_runs
from tradelib.views.accounts import incidents_table
from tradelib.views.cells import Cell, count, moment, prose, span, word
from tradelib.views.dashboard import Dashboard, live_figure
from tradelib.views.halt import halt_banner
from tradelib.views.html import Html, cards, empty, heading, table
from tradelib.views.links import outcome_word, page_cell, record_url
from tradelib.views.orders import orders_table
from tradelib.views.theme import ACCENT, LOSS, themed
from tradelib.views.traffic import budget_section, cache_section
from tradelib.views.version import ledger_version

FETCH = "live/10_fetch_candles"
SHOWN_RUNS = 30
# A feed looks every few seconds.
_FEED_IS_DOWN = timedelta(minutes=1)
SHOWN_CYCLES = 120


@dataclass(frozen=True)
class CycleLine:
    """The runs of one cycle, from the first's start to the last's end."""

    cycle: str
    started_at: datetime
    took: timedelta
    failed: int


def load_cycles(ledger: Ledger, limit: int = SHOWN_CYCLES) -> list[CycleLine]:
    """Finished trading cycles of the last day of runs, oldest first; those that only reconcile
    between two of them, which have no fetch, are left out."""
    runs = tables.runs
    fetches = func.count(runs.c.id).filter(runs.c.notebook == FETCH)
    started, ended = func.min(runs.c.started_at), func.max(runs.c.ended_at)
    unfinished = func.count() - func.count(runs.c.ended_at)
    failed = func.count(runs.c.id).filter(runs.c.outcome == Outcome.FAILED)
    query = (
        select(runs.c.cycle, started.label("start"), ended.label("end"), failed.label("failed"))
        .where(runs.c.cycle.is_not(None), runs.c.started_at >= _last_day(ledger))
        .group_by(runs.c.cycle)
        .having(unfinished == 0, fetches > 0)
        .order_by(started.desc())
        .limit(limit)
    )
    return [_cycle_line(row) for row in reversed(ledger.mappings(query))]


def _cycle_line(row: Mapping[str, Any]) -> CycleLine:
    return CycleLine(row["cycle"], row["start"], row["end"] - row["start"], row["failed"])


def load_refusal_counts(ledger: Ledger) -> list[Mapping[str, Any]]:
    """How often each limit has refused an order, the most frequent first."""
    refusals = tables.refusals
    times = func.count().label("times")
    query = (
        select(refusals.c.limit_name, times, func.max(refusals.c.at).label("last"))
        .group_by(refusals.c.limit_name)
        .order_by(times.desc())
    )
    return ledger.mappings(query)


def load_market_times(ledger: Ledger) -> dict[str, datetime]:
    """The newest market time at which each venue was looked at, in the last day of runs."""
    runs = tables.runs
    query = (
        select(runs.c.venue, func.max(runs.c.as_of).label("as_of"))
        .where(runs.c.venue.is_not(None), runs.c.as_of.is_not(None))
        .where(runs.c.started_at >= _last_day(ledger))
        .group_by(runs.c.venue)
    )
    return {row["venue"]: row["as_of"] for row in ledger.mappings(query)}


def _last_day(ledger: Ledger) -> datetime:
    """A day before the newest run: what a page counts must not grow with the desk's history."""
    newest = load_runs(ledger, limit=1)
    return (newest[0].started_at if newest else utc_now()) - timedelta(days=1)


@dataclass(frozen=True)
class VenueUse:
    """What one trading cycle took from a venue, and what the store answered in its place.

    asked, stored: candles. used_weight: of the venue's budget in the minute of its last step.
    """

    venue: str
    asked: int
    stored: int
    used_weight: int | None

    @property
    def served(self) -> float | None:
        """The share of candles that came from the store; None when none was wanted."""
        wanted = self.stored
        return max(0.0, 1 - self.asked / wanted) if wanted else None


def load_venue_use(ledger: Ledger, cycle: str) -> list[VenueUse]:
    """Each venue's part in a cycle, from what its pages recorded."""
    runs = tables.runs
    query = (
        select(runs.c.venue, runs.c.result)
        .where(runs.c.cycle == cycle, runs.c.result.is_not(None), runs.c.venue.is_not(None))
        .order_by(runs.c.ended_at)
    )
    results: dict[str, list[dict[str, Any]]] = {}
    for row in ledger.mappings(query):
        results.setdefault(row["venue"], []).append(row["result"])
    return [_venue_use(venue, told) for venue, told in sorted(results.items())]


def _venue_use(venue: str, results: Sequence[Mapping[str, Any]]) -> VenueUse:
    lines = [line for told in results for line in told.get("lines", [])]
    weights = [told["used_weight"] for told in results if told.get("used_weight") is not None]
    return VenueUse(
        venue=venue,
        asked=sum(line["requested"] for line in lines),
        stored=sum(told.get("candles", 0) for told in results),
        used_weight=weights[-1] if weights else None,
    )


class OperationsPage:
    """Operations on a page that keeps itself current."""

    def __init__(self, settings: DeskSettings, seconds: float) -> None:
        self.settings = settings
        self.store = CandleStore(settings.candles)
        self.ledger: Ledger | None = None
        self.figure: go.FigureWidget | None = None
        self.chart = widgets.VBox([])
        self.dashboard = Dashboard(
            self.version,
            self.draw,
            layout=("halt", "headline", "services", "attention", "runs", "cycles", self.chart,
                    "streams", "candles", "venues", "cache", "budget", "refusals", "disk"),
            seconds=seconds,
            name="operations",
        )  # fmt: skip

    def version(self) -> object:
        """Beside the ledger: services that came or went, and the minute, which moves ages."""
        if self.ledger is None:
            self.ledger = open_ledger(self.settings, read_only=True)
        alive = [(one.name, one.pid, one.alive) for one in _services(self.settings)]
        return ledger_version(self.ledger), alive, f"{utc_now():%H:%M}"

    def draw(self) -> Mapping[str, Html]:
        assert self.ledger is not None  # version() comes first and opens it
        cycles = load_cycles(self.ledger)
        self._draw_cycles(cycles)
        return draw_operations(self.settings, self.ledger, self.store, cycles)

    def _draw_cycles(self, cycles: Sequence[CycleLine]) -> None:
        bars = cycle_bars(cycles)
        if self.figure is None and cycles:
            self.figure = live_figure(_cycles_figure(bars))
            self.chart.children = [self.figure]
        elif self.figure is not None:
            with self.figure.batch_update():
                self.figure.data[0].update(x=bars.x, y=bars.y, marker=bars.marker)


def open_operations(refresh_seconds: float = 5.0) -> widgets.Widget:
    """Operations of the desk that DESK_HOME names."""
    return OperationsPage(load_settings(), refresh_seconds).dashboard.widget


def draw_operations(
    settings: DeskSettings, ledger: Ledger, store: CandleStore, cycles: Sequence[CycleLine]
) -> dict[str, Html]:
    """The sections, but for the chart of the cycles."""
    services = _services(settings)
    return {
        "halt": halt_banner(ledger),
        "headline": _headline(ledger, services, cycles),
        "services": heading("Services") + _services_table(services),
        "attention": _attention_section(ledger),
        "runs": heading("Runs", f"the newest {SHOWN_RUNS}")
        + _runs_table(load_runs(ledger, limit=SHOWN_RUNS), settings.reports),
        "cycles": _cycles_heading(cycles),
        "streams": _streams_section(settings),
        "candles": _candles_section(settings, ledger, store),
        "venues": _venue_section(ledger, cycles),
        "cache": cache_section(settings.home),
        "budget": budget_section(settings.home),
        "refusals": heading("Refused orders", "by limit") + _refusals_table(ledger),
        "disk": _disk_section(settings),
    }


def _headline(ledger: Ledger, services: Sequence[Running], cycles: Sequence[CycleLine]) -> Html:
    up = sum(service.alive for service in services)
    unsettled = len(load_orders(ledger, unsettled=True))
    incidents = len(load_incidents(ledger, open_only=True))
    last = cycles[-1] if cycles else None
    return cards(
        {
            "Services up": Cell(
                f"{up} of {len(services)}",
                str(up),
                "" if services and up == len(services) else "loss",
            ),
            "Last cycle began (UTC)": moment(last.started_at if last else None),
            "Last cycle took": span(last.took if last else None),
            "Its failed runs": _zero_is_good(last.failed if last else 0),
            "Unsettled orders": _zero_is_good(unsettled),
            "Open incidents": _zero_is_good(incidents),
        },
        name="operations",
    )


def _zero_is_good(number: int) -> Cell:
    return Cell(str(number), str(number), "loss" if number else "gain")


def _services(settings: DeskSettings) -> list[Running]:
    """The services of the running desk; none when it does not run."""
    try:
        return list(load_services(settings).values())
    except DeskError:
        return []


def _services_table(services: Sequence[Running]) -> Html:
    columns = ("service", "state", "address", "process", "up since (UTC)")
    down = "The desk is not running; start it with `desk up`."
    return table("services", columns, map(_service_row, services), empty=down)


def _service_row(service: Running) -> list[Cell]:
    # The address without its token: whoever reads this page has a cookie, or has no business.
    address = word(service.url, href=f"{service.url}{service.link}" if service.link else "")
    return [
        word(service.name),
        word("up", "gain") if service.alive else word("down, being restarted", "loss"),
        address,
        Cell(str(service.pid), number=True),
        moment(parse_time(service.started_at)),
    ]


def _attention_section(ledger: Ledger) -> Html:
    unsettled = load_orders(ledger, unsettled=True, limit=50)
    fine = "None: the end of every order is known."
    return (
        heading("Unsettled orders", "their end at the venue is not known yet")
        + orders_table(ledger, unsettled, name="unsettled", empty=fine)
        + heading("Open incidents", "differences between books and venue that need a person")
        + incidents_table(ledger)
    )


def _runs_table(runs: Sequence[Run], reports: Path) -> Html:
    columns = ("started (UTC)", "notebook", "for", "outcome", "took", "reason", "page")
    soon = "Runs show here as soon as the first cycle begins."
    return table("runs", columns, (_run_row(run, reports) for run in runs), empty=soon)


def _run_row(run: Run, reports: Path) -> list[Cell]:
    return [
        moment(run.started_at, href=record_url(run.id)),
        word(run.notebook.removeprefix("live/"), title=run.id),
        word(run.bot or run.venue),
        outcome_word(run.outcome),
        span(run.took),
        prose(run.reason, "loss" if run.reason else ""),
        page_cell(run, reports),
    ]


def _cycles_heading(cycles: Sequence[CycleLine]) -> Html:
    title = heading("Trading cycles", "from the first run's start to the last one's end")
    if cycles:
        return title
    return title + empty("A bar for each cycle shows here once one has ended.", name="cycles")


def cycle_bars(cycles: Sequence[CycleLine]) -> go.Scatter:
    """Each cycle's seconds; those with a failed run are red."""
    return go.Scatter(
        x=[cycle.started_at for cycle in cycles],
        y=[cycle.took.total_seconds() for cycle in cycles],
        mode="lines+markers",
        line={"color": ACCENT, "width": 1},
        marker={"size": 7, "color": [LOSS if cycle.failed else ACCENT for cycle in cycles]},
        name="seconds",
    )


def _cycles_figure(bars: go.Scatter) -> go.Figure:
    figure = themed(go.Figure([bars]), 240, margin={"l": 60, "r": 20, "t": 10, "b": 36})
    figure.update_yaxes(title="cycle (s)", rangemode="tozero")
    return figure.update_xaxes(title="began (UTC, wall clock)")


def _streams_section(settings: DeskSettings) -> Html:
    """What each venue streams, and how long it was cut; REST makes up for what is missed."""
    columns = (
        "venue", "channel", "state", "last heard (UTC)", "messages", "by stream / by REST", "cuts",
        "made up for in", "last cut",
    )  # fmt: skip
    title = heading("Streams", "what comes without being asked for")
    none = "Streams show here while a desk runs; without one, each cycle asks by REST."
    return title + table("streams", columns, map(_stream_row, load_streams(settings)), empty=none)


def _stream_row(one: StreamStatus) -> list[Cell]:
    silent = utc_now() - one.looked_at > _FEED_IS_DOWN
    joined = word("on", "gain") if one.joined else word("cut", "warn")
    gaps = sorted(one.gaps)
    took = f"{median(gaps):.2f} s, at most {gaps[-1]:.2f} s" if gaps else "–"
    return [
        word(one.venue),
        word(one.channel),
        word("feed is down", "loss") if silent else joined,
        moment(one.heard_at),
        count(one.messages),
        Cell("–" if one.told is None else f"{one.told:,} / {one.asked:,}", number=True),
        count(one.cuts),
        Cell(took, number=True),
        prose(one.why),
    ]


def _candles_section(settings: DeskSettings, ledger: Ledger, store: CandleStore) -> Html:
    times = load_market_times(ledger)
    limit = settings.limits.max_candle_age
    rows = (_series_row(store, one, times.get(one.venue), limit) for one in store.series())
    columns = ("venue", "symbol", "timeframe", "newest close (UTC)", "behind", "fresh")
    told = heading("Candles", f"behind the venue's newest known time; {limit:g} timeframes allowed")
    return told + table("candles", columns, rows, empty="Series show here after the first fetch.")


def _series_row(
    store: CandleStore, series: StoredSeries, market_time: datetime | None, limit: float
) -> list[Cell]:
    close = store.last_close(*series)
    behind = max(market_time - close, timedelta()) if market_time and close else None
    allowed = timedelta(milliseconds=limit * timeframe_ms(series.timeframe))
    fresh = behind is not None and behind <= allowed
    return [
        word(series.venue),
        word(series.symbol),
        word(series.timeframe),
        moment(close),
        span(behind),
        word("yes", "gain") if fresh else word("no", "loss"),
    ]


def _venue_section(ledger: Ledger, cycles: Sequence[CycleLine]) -> Html:
    """How much the last cycle asked of each venue, and how much the candle store spared it."""
    uses = load_venue_use(ledger, cycles[-1].cycle) if cycles else []
    columns = (
        "venue", "candles asked for", "candles read from the store", "served by the store",
        "request weight used in its minute",
    )  # fmt: skip
    title = heading("Venue use and cache", "in the last cycle")
    soon = "What a cycle asks of each venue shows here once one has ended."
    return title + table("venue-use", columns, map(_use_row, uses), empty=soon)


def _use_row(use: VenueUse) -> list[Cell]:
    served = "–" if use.served is None else f"{use.served:.1%}"
    weight = "–" if use.used_weight is None else str(use.used_weight)
    return [
        word(use.venue),
        count(use.asked),
        count(use.stored),
        Cell(served, number=True),
        Cell(weight, number=True),
    ]


def _refusals_table(ledger: Ledger) -> Html:
    rows = (
        [word(row["limit_name"]), count(row["times"]), moment(row["last"])]
        for row in load_refusal_counts(ledger)
    )
    none = "None: no limit has refused an order."
    return table("refusal-counts", ("limit", "orders refused", "last (UTC)"), rows, empty=none)


def _disk_section(settings: DeskSettings) -> Html:
    free = shutil.disk_usage(settings.home).free
    rows = [[word(name), _bytes(size)] for name, size in _sizes(settings)]
    told = f"{_bytes(free).text} free on the disk of {settings.home}"
    return heading("Disk", told) + table(
        "disk", ("what", "size"), rows, empty="Nothing is stored yet."
    )


def _sizes(settings: DeskSettings) -> list[tuple[str, int]]:
    """Bytes in the ledger, in candles, in logs; reports are too many files to count each time."""
    return [
        ("ledger (SQLite)", sum(map(_size, settings.home.glob("ledger.sqlite*")))),
        ("candles", _size_below(settings.candles)),
        ("logs", _size_below(settings.logs)),
    ]


def _size_below(folder: Path) -> int:
    return sum(_size(Path(place, name)) for place, _, names in os.walk(folder) for name in names)


def _size(path: Path) -> int:
    """Bytes in a file; 0 when a writer has just replaced it."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _bytes(size: int) -> Cell:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return Cell(f"{size / scale:.1f} {unit}", str(size), number=True)
    return Cell(f"{size / 1e3:.0f} kB", str(size), number=True)
