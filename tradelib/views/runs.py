"""Runs: every execution of a notebook, newest first, and the record of the one that is chosen."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import ipywidgets as widgets
import plotly.graph_objects as go
from sqlalchemy import select

from tradelib.clock import parse_time
from tradelib.errors import InvalidInput
from tradelib.settings import DeskSettings, load_settings
from tradelib.trading import tables
from tradelib.trading.decisions import Action, Decision
from tradelib.trading.halts import Halt, active_halt
from tradelib.trading.ledger import Ledger, open_ledger
from tradelib.trading.orders import Order
from tradelib.trading.runs import Outcome, Run, load_run, load_run_values, load_runs
from tradelib.views.cells import Cell, count, moment, prose, span, word
from tradelib.views.dashboard import Dashboard, Picker, as_widget_html, live_figure
from tradelib.views.halt import halt_banner
from tradelib.views.html import Html, banner, cards, heading, table
from tradelib.views.links import outcome_word, page_cell
from tradelib.views.orders import action_word, decisions_table, orders_table
from tradelib.views.theme import ACCENT, themed

SHOWN = 50
_CYCLE_RUNS = 200
_REASON_LENGTH = 200
_ALL = ""  # None would be no choice at all, which a browser shows as an empty field
_FILTERS = ("bot", "notebook", "outcome")
# What Voilà hands a page's kernel of the address that was opened.
_QUERY_ENV = "QUERY_STRING"
_COLUMNS = ("started (UTC)", "notebook", "for", "outcome", "took", "kernel", "page",
            "what came of it")  # fmt: skip
_TIMINGS_TITLE = {"text": "Seconds by cell", "font": {"size": 13}, "x": 0.01}
_STATEMENT = re.compile(r"[A-Za-z_]")
_NONE_YET = (
    "Runs show here as soon as the first cycle begins; if the desk does not run, "
    "start it with `desk up`."
)


@dataclass(frozen=True)
class Made:
    """What runs decided and what was ordered for it, as the ledger has it now."""

    decisions: Mapping[str, Decision]
    orders: Mapping[str, Sequence[Order]]  # by decision


@dataclass(frozen=True)
class Shown:
    """All that a page of runs shows; another value is another picture."""

    halt: Halt | None
    choices: Mapping[str, Sequence[str]]
    runs: Sequence[Run]
    has_older: bool
    has_newer: bool
    made: Made
    picked: Run | None
    cycle: Sequence[Run]


def load_made(ledger: Ledger, runs: Sequence[Run]) -> Made:
    """The decisions that these runs made or executed, and their orders."""
    ids = {decision for run in runs if (decision := _decision_of(run))}
    decisions, orders = tables.decisions, tables.orders
    if not ids:
        return Made({}, {})
    found = ledger.rows(select(decisions).where(decisions.c.id.in_(ids)), Decision)
    followed: dict[str, list[Order]] = {}
    query = select(orders).where(orders.c.decision.in_(ids)).order_by(orders.c.created_at)
    for order in ledger.rows(query, Order):
        followed.setdefault(str(order.decision), []).append(order)
    return Made({decision.id: decision for decision in found}, followed)


def _decision_of(run: Run) -> str | None:
    return (run.result or {}).get("decision")


class RunsPage:
    """Runs on a page that keeps itself current, with filters, pages and a record."""

    def __init__(
        self, settings: DeskSettings, seconds: float, chosen: Mapping[str, str] | None = None
    ) -> None:
        """chosen: filters to begin with, and the `run` whose record is shown."""
        self.settings = settings
        self.ledger: Ledger | None = None
        self.shown: Shown | None = None
        self._anchor: dict[str, Run] = {}  # the run that the page is before or after
        self._still = False
        self._make_controls(chosen or {})
        self.record = widgets.HTML(layout={"flex": "1 1 480px", "margin": "2px 18px 2px 2px"})
        self.figure: go.FigureWidget | None = None
        self.chart = widgets.VBox([], layout={"flex": "1 1 400px", "overflow": "hidden"})
        beside = widgets.HBox(
            [self.record, self.chart], layout={"flex_flow": "row wrap", "width": "100%"}
        )
        self.dashboard = Dashboard(
            self.version,
            self.draw,
            layout=("halt", self.filters, "runs", self.pager, self.picker, "picked", beside,
                    "details"),
            seconds=seconds,
            name="runs",
        )  # fmt: skip

    def _make_controls(self, chosen: Mapping[str, str]) -> None:
        self.chosen = {name: _dropdown(name, chosen.get(name)) for name in _FILTERS}
        self.day = widgets.DatePicker(description="Day (UTC)", **_control("210px"))
        self.clear = _button("Show all", "Take every filter away.")
        self.newest = _button("Newest", "Back to the newest runs, and follow them.")
        self.newer, self.older = _button("‹ Newer"), _button("Older ›")
        self.where = widgets.HTML()
        self.picker = Picker(table="runs", picked=chosen.get("run", ""))
        controls = [*self.chosen.values(), self.day]
        self.filters = _row([*controls, self.clear])
        self.pager = _row([self.newest, self.newer, self.older, self.where])
        for control in controls:
            control.observe(self._filter, "value")
        self.picker.observe(lambda _: self.dashboard.look(), "picked")
        self.clear.on_click(lambda _: self._clear())
        self.newest.on_click(lambda _: self._turn({}))
        self.newer.on_click(lambda _: self._turn({"after": self._visible()[0]}))
        self.older.on_click(lambda _: self._turn({"before": self._visible()[-1]}))

    def _visible(self) -> Sequence[Run]:
        assert self.shown is not None  # the buttons are disabled until runs are shown
        return self.shown.runs

    def _filter(self, _: Any = None) -> None:
        if not self._still:
            self._turn({})

    def _clear(self) -> None:
        with self._quietly():
            self.day.value = None
            for dropdown in self.chosen.values():
                dropdown.value = _ALL
        self._turn({})

    def _turn(self, anchor: dict[str, Run]) -> None:
        """Show another part of the runs, from its top."""
        self._anchor = anchor
        self.picker.part = f"{self._wanted()} {[(k, run.id) for k, run in anchor.items()]}"
        self.dashboard.look()

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """While controls are set by the page itself, they ask for nothing."""
        self._still = True
        try:
            yield
        finally:
            self._still = False

    def _wanted(self) -> dict[str, Any]:
        chosen = {name: one.value or None for name, one in self.chosen.items()}
        return chosen | {"day": self.day.value}

    def version(self) -> object:
        """What is to be shown: it is quick to load, and says itself whether it has changed."""
        if self.ledger is None:
            self.ledger = open_ledger(self.settings, read_only=True)
        self.shown = self._load(self.ledger)
        return self.shown

    def _load(self, ledger: Ledger) -> Shown:
        runs = load_runs(ledger, limit=SHOWN + 1, **self._anchor, **self._wanted())
        if "after" in self._anchor and len(runs) <= SHOWN:
            self._anchor = {}  # so few are newer that they are the newest
            runs = load_runs(ledger, limit=SHOWN + 1, **self._wanted())
        after, more = "after" in self._anchor, len(runs) > SHOWN
        picked = _find(ledger, self.picker.picked)
        cycle = picked.cycle if picked else None
        alike = load_runs(ledger, limit=_CYCLE_RUNS, cycle=cycle) if cycle else []
        return Shown(
            halt=active_halt(ledger),
            choices={name: load_run_values(ledger, name) for name in _FILTERS},
            runs=runs[-SHOWN:] if after else runs[:SHOWN],
            has_older=after or more,
            has_newer=bool(self._anchor),
            made=load_made(ledger, [*runs, *alike, *([picked] if picked else [])]),
            picked=picked,
            cycle=alike,
        )

    def draw(self) -> Mapping[str, Html]:
        assert self.ledger is not None  # version() comes first and opens it
        assert self.shown is not None
        shown = self.shown
        self._draw_controls(shown)
        self.record.value = as_widget_html(record_table(shown.picked)) if shown.picked else ""
        self._draw_timings(shown.picked)
        filtered = any(self._wanted().values())
        picked, details = draw_record(self.ledger, shown, self.settings.reports)
        return {
            "halt": halt_banner(self.ledger),
            "runs": runs_table(shown, self.settings.reports, filtered=filtered),
            "picked": picked,
            "details": details,
        }

    def _draw_controls(self, shown: Shown) -> None:
        with self._quietly():
            for name, dropdown in self.chosen.items():
                _offer(dropdown, shown.choices[name])
        self.newest.disabled = self.newer.disabled = not (shown.has_newer and shown.runs)
        self.older.disabled = not (shown.has_older and shown.runs)
        self.where.value = as_widget_html(_where(shown))

    def _draw_timings(self, run: Run | None) -> None:
        if not run or not run.timings:
            self.chart.children = []
            return
        bars, height = timing_bars(run, self.settings.reports)
        if self.figure is None:
            self.figure = live_figure(_timings_figure(bars))
        with self.figure.batch_update():
            self.figure.data[0].update(x=bars.x, y=bars.y, text=bars.text)
            self.figure.layout.height = height
        self.chart.children = [self.figure]


def open_runs(refresh_seconds: float = 5.0) -> widgets.Widget:
    """The runs of the desk that DESK_HOME names; an address that ends in `?run=ID` opens that
    run's record, and one in `?bot=NAME` or the like shows those alone."""
    chosen = dict(parse_qsl(os.environ.get(_QUERY_ENV, "")))
    return RunsPage(load_settings(), refresh_seconds, chosen).dashboard.widget


def _find(ledger: Ledger, run_id: str) -> Run | None:
    try:
        return load_run(ledger, run_id) if run_id else None
    except InvalidInput:
        return None


def _dropdown(name: str, value: str | None) -> widgets.Dropdown:
    """A filter; one that an address names is there before the ledger was asked for others."""
    width = {"bot": "210px", "notebook": "280px", "outcome": "180px"}[name]
    dropdown = widgets.Dropdown(
        description=name.capitalize(), options=[("all", _ALL)], **_control(width)
    )
    if value:
        dropdown.options = [("all", _ALL), (value, value)]
        dropdown.value = value
    return dropdown


def _control(width: str) -> dict[str, Any]:
    return {
        "layout": {"width": width, "margin": "2px 14px 2px 2px"},
        "style": {"description_width": "initial"},
    }


def _offer(dropdown: widgets.Dropdown, choices: Sequence[str]) -> None:
    """New choices, and what was chosen among them stays chosen."""
    kept = dropdown.value
    known = choices if kept == _ALL or kept in choices else [*choices, kept]
    options = (("all", _ALL), *((_short(one), one) for one in known))
    if dropdown.options != options:
        dropdown.options = options
        dropdown.value = kept


def _short(name: str) -> str:
    """A notebook without its folder, an outcome in small letters."""
    return name.lower() if name in list(Outcome) else name.removeprefix("live/")


def _button(text: str, tooltip: str = "") -> widgets.Button:
    return widgets.Button(description=text, tooltip=tooltip, layout={"width": "96px"})


def _row(parts: Sequence[widgets.Widget]) -> widgets.HBox:
    return widgets.HBox(parts, layout={"flex_flow": "row wrap", "align_items": "center"})


def _where(shown: Shown) -> Html:
    if not shown.runs:
        return Html("")
    newest, oldest = shown.runs[0].started_at, shown.runs[-1].started_at
    told = f"{len(shown.runs)} runs, {newest:%Y-%m-%d %H:%M:%S} back to {oldest:%Y-%m-%d %H:%M:%S}"
    follows = "" if shown.has_newer else "; new ones appear by themselves"
    return Html(f'<span class="muted" data-testid="where">{escape(told + follows)}</span>')


def runs_table(shown: Shown, reports: Path, *, filtered: bool = False) -> Html:
    """A page of runs; a click on a row chooses it."""
    none = "No run meets these filters." if filtered else _NONE_YET
    rows = (_run_row(run, shown.made, reports) for run in shown.runs)
    return table("runs", _COLUMNS, rows, empty=none)


def _run_row(run: Run, made: Made, reports: Path) -> list[Cell]:
    outcome = outcome_word(run.outcome)
    return [
        moment(run.started_at, pick=run.id),
        word(run.notebook.removeprefix("live/"), title=run.id),
        prose(run.bot or run.venue),
        Cell(outcome.text, str(run.outcome), outcome.tone, title=run.reason or ""),
        span(run.took),
        word(run.kernel_kind),
        page_cell(run, reports),
        _came_of(run, made),
    ]


def _came_of(run: Run, made: Made) -> Cell:
    """In a few words: why it failed, what it decided and what became of that, what it found."""
    told = run.result or {}
    if run.reason:
        return _clipped(run.reason)
    if decision := made.decisions.get(told.get("decision", "")):
        return _decided(decision, made.orders.get(decision.id, ()))
    if "agrees" in told:
        booked = f", {told['fills_booked']} fills booked" if told.get("fills_booked") else ""
        if told["agrees"]:
            return word(f"books agree{booked}")
        return word(f"books differ in {len(told.get('discrepancies', ()))}{booked}", "warn")
    if lines := told.get("lines"):
        added = sum(line.get("added", 0) for line in lines)
        errors = sum(bool(line.get("error")) for line in lines)
        return word(f"{added} candles, {errors} errors" if errors else f"{added} candles",
                    "loss" if errors else "")  # fmt: skip
    return word(None)


def _clipped(reason: str) -> Cell:
    text = " ".join(reason.split())
    cut = text if len(text) <= _REASON_LENGTH else f"{text[: _REASON_LENGTH - 1]}…"
    return Cell(cut, reason, "loss clipped", title=reason, wrap=True)


def _decided(decision: Decision, orders: Sequence[Order]) -> Cell:
    action = action_word(Action(decision.action))
    states = ", ".join(str(order.status).replace("_", " ").lower() for order in orders)
    text = f"{action.text} → {states}" if states else action.text
    return word(text, action.tone, title=decision.reason)


def draw_record(ledger: Ledger, shown: Shown, reports: Path) -> tuple[Html, Html]:
    """The chosen run: what stands above its record, and what below."""
    run = shown.picked
    if run is None:
        hint = "Click a run to see its record." if shown.runs else ""
        return Html(f'<p class="muted" data-testid="hint">{hint}</p>' if hint else ""), Html("")
    code = "Code, with changes" if run.git_clean == 0 else "Code"
    figures = {
        "Outcome": outcome_word(run.outcome),
        "Took": span(run.took),
        code: _code_cell(run),
        "Page": page_cell(run, reports),
    }
    head = heading("Record", run.id) + cards(figures, name="record")
    if run.reason:
        head += banner(run.reason, "stop", name="reason")
    return head, _reads_section(run) + _made_section(ledger, run, shown.made) + _cycle_section(
        shown, reports
    )


def _code_cell(run: Run) -> Cell:
    """The commit, which stands out unless what ran was exactly that."""
    commit = run.git_commit or ""
    return word(commit[:10], "" if run.git_clean else "warn", title=commit)


def record_table(run: Run) -> Html:
    """What a run ran on; hashes in full, so that they can be compared and copied."""
    told = {**run.record, "Parameters": json.dumps(run.parameters, ensure_ascii=False)}
    lines = "".join(
        f'<tr><td class="label">{escape(name)}</td><td class="wrap hash">{escape(text)}</td></tr>'
        for name, text in told.items()
    )
    return Html(
        '<div class="scroll whole" data-testid="record"><table>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _reads_section(run: Run) -> Html:
    columns = ("venue", "symbol", "timeframe", "candles", "first opened (UTC)",
               "last opened (UTC)", "SHA-256")  # fmt: skip
    none = "It read no candles from the store."
    reads = table("reads", columns, map(_read_row, run.candles or ()), empty=none)
    return heading("Candles it read", "the same hash is the same candles") + reads


def _read_row(read: Mapping[str, Any]) -> list[Cell]:
    return [
        word(read["venue"]),
        word(read["symbol"]),
        word(read["timeframe"]),
        count(read["candles"]),
        moment(parse_time(read["first"])),
        moment(parse_time(read["last"])),
        Cell(f"{read['hash'][:16]}…", read["hash"], title=read["hash"]),
    ]


def _made_section(ledger: Ledger, run: Run, made: Made) -> Html:
    decision = made.decisions.get(_decision_of(run) or "")
    if decision is None:
        return Html("")
    page = heading("What came of it", "as it stands now")
    page += decisions_table(ledger, [decision], name="record-decision", empty="")
    orders = made.orders.get(decision.id, ())
    if orders:
        page += Html("<p></p>") + orders_table(ledger, orders, name="record-orders", empty="")
    return page


def _cycle_section(shown: Shown, reports: Path) -> Html:
    if len(shown.cycle) < 2:
        return Html("")
    rows = (_run_row(run, shown.made, reports) for run in reversed(shown.cycle))
    title = heading("Its cycle", f"{shown.cycle[0].cycle}, in order")
    return title + table("cycle", _COLUMNS, rows, empty="")


def timing_bars(run: Run, reports: Path) -> tuple[go.Bar, int]:
    """Each code cell's seconds, the first on top, and the height in pixels that they take."""
    timings = {int(place): seconds for place, seconds in (run.timings or {}).items()}
    sources = _cell_sources(run, reports)
    bars = go.Bar(
        x=list(timings.values()),
        y=[f"{place}  {sources.get(place, 'cell')}" for place in timings],
        text=[f"{seconds:.3f} s" for seconds in timings.values()],
        orientation="h",
        marker={"color": ACCENT},
        textposition="auto",
        hoverinfo="skip",
    )
    return bars, 90 + 28 * len(timings)


def _cell_sources(run: Run, reports: Path) -> dict[int, str]:
    """The last statement of each of the page's cells, which is what a cell is for, as a chart's
    label; none where the page is gone."""
    try:
        page = json.loads((reports / (run.page or "")).read_text(encoding="utf-8"))
        sources = ["".join(cell["source"]) for cell in page["cells"]]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {place: _label(source) for place, source in enumerate(sources)}


def _label(source: str) -> str:
    """The line that the last statement begins with; charts take what they show for markup."""
    line = next((one for one in reversed(source.splitlines()) if _STATEMENT.match(one)), "")
    return escape(line if len(line) <= 26 else f"{line[:25]}…", quote=False)


def _timings_figure(bars: go.Bar) -> go.Figure:
    figure = themed(go.Figure([bars]), 240, margin={"l": 20, "r": 20, "t": 34, "b": 40})
    figure.update_layout(hovermode=False, bargap=0.35, title=_TIMINGS_TITLE)
    figure.update_yaxes(autorange="reversed", type="category", gridcolor="rgba(0,0,0,0)")
    return figure.update_xaxes(rangemode="tozero", title=None)
