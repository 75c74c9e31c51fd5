"""From any fill to its order, from the order to its decision, from there to the run's page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from urllib.parse import quote, urlencode

from sqlalchemy import select

from tradelib.services.definitions import DASHBOARDS, dashboard_path
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger
from tradelib.trading.runs import Outcome, Run
from tradelib.views.cells import Cell, word
from tradelib.views.html import Html

REPORTS = "/voila/render/reports/"


_OUTCOME_TONES = {Outcome.SUCCEEDED: "gain", Outcome.FAILED: "loss", Outcome.RUNNING: "warn"}


def navigation(here: str) -> Html:
    """Links to the desk's dashboards; `here` is the one that is open."""
    links = (
        f"<strong>{escape(name)}</strong>"
        if name == here
        else f'<a href="{escape(dashboard_path(name))}">{escape(name)}</a>'
        for name in DASHBOARDS
    )
    return Html(f'<nav class="nav" data-testid="nav">{"".join(links)}</nav>')


def record_url(run: str) -> str:
    """Path on Voilà of a run's record."""
    return f"{dashboard_path('runs')}?{urlencode({'run': run})}"


def promotion_url(bot: str) -> str:
    """Path on Voilà of the promotion that put a bot on the desk."""
    return f"{dashboard_path('promotions')}?{urlencode({'bot': bot})}"


def page_url(page: str | None) -> str:
    """Path of a run's page on Voilà; empty when the run has left none (yet)."""
    return f"{REPORTS}{quote(page)}" if page else ""


def outcome_word(outcome: str) -> Cell:
    return word(outcome.lower(), _OUTCOME_TONES[Outcome(outcome)])


def page_cell(run: Run, reports: Path) -> Cell:
    """A link to a run's page, or why there is none."""
    if run.page and (reports / run.page).is_file():
        return word("open", href=page_url(run.page), title=run.id)
    if run.page:
        return word("missing", "warn", title=f"{run.page} is not in {reports}")
    if run.page_removed_at:
        when = f"{run.page_removed_at:%Y-%m-%d}"
        return Cell(f"removed {when}", tone="muted", title=f"{run.id}: its record stays", wrap=True)
    return word(None)


def load_pages(ledger: Ledger, runs: Iterable[str | None]) -> dict[str, str]:
    """URL of the page of each run that has one."""
    wanted = {run for run in runs if run}
    query = select(tables.runs.c.id, tables.runs.c.page).where(tables.runs.c.id.in_(wanted))
    return {row["id"]: page_url(row["page"]) for row in ledger.mappings(query) if row["page"]}


def load_decision_pages(ledger: Ledger, decisions: Iterable[str | None]) -> dict[str, str]:
    """URL of the page that made each decision."""
    wanted = {decision for decision in decisions if decision}
    query = (
        select(tables.decisions.c.id, tables.runs.c.page)
        .join(tables.runs, tables.runs.c.id == tables.decisions.c.run)
        .where(tables.decisions.c.id.in_(wanted))
    )
    return {row["id"]: page_url(row["page"]) for row in ledger.mappings(query) if row["page"]}


def short_id(identity: str | None, pages: dict[str, str], of: str | None = None) -> Cell:
    """An id's first characters, linked to the page of `of` (by default itself)."""
    if not identity:
        return word(None)
    text = identity if len(identity) <= 12 else f"{identity[:11]}…"
    return Cell(text, identity, href=pages.get(of or identity, ""), title=identity)
