"""From any fill to its order, from the order to its decision, from there to the run's page."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from sqlalchemy import select

from tradelib.trading import tables
from tradelib.trading.ledger import Ledger
from tradelib.views.cells import Cell, word

REPORTS = "/voila/render/reports/"


def page_url(page: str | None) -> str:
    """Path of a run's page on Voilà; empty when the run has left none (yet)."""
    return f"{REPORTS}{quote(page)}" if page else ""


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
