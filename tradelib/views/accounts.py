"""Accounts as tables: balances by the book and by the venue, discrepancies, incidents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from tradelib.trading.accounts import Balance, load_balances
from tradelib.trading.incidents import Incident, load_incidents
from tradelib.trading.ledger import Ledger
from tradelib.views.cells import Cell, amount, moment, prose, word
from tradelib.views.html import Html, table


def balances_table(ledger: Ledger, venues: Sequence[str]) -> Html:
    """What the books say beside what the venue says; a difference is coloured."""
    balances = [found for venue in venues for found in load_balances(ledger, venue)]
    columns = ("venue", "asset", "booked", "venue's total", "free", "in orders", "as of (UTC)")
    first = "Balances show here after the first reconciliation."
    return table("balances", columns, map(_balance_row, balances), empty=first)


def _balance_row(balance: Balance) -> list[Cell]:
    total = amount(balance.total)
    tone = "" if balance.total == balance.booked else "loss"
    return [
        word(balance.venue),
        word(balance.asset),
        amount(balance.booked),
        Cell(total.text, total.value, tone, number=True),
        amount(balance.free),
        amount(balance.used),
        moment(balance.as_of),
    ]


def discrepancies_table(found: Iterable[dict[str, Any]]) -> Html:
    rows = (
        [
            word(one["kind"]),
            word(one["subject"]),
            prose(one["ledger"]),
            prose(one["venue"]),
            word(one["repair"]) if one["repair"] else word("open", "loss"),
        ]
        for one in found
    )
    columns = ("kind", "subject", "books", "venue", "repair")
    return table("discrepancies", columns, rows, empty="None: the books said what the venue says.")


def incidents_table(ledger: Ledger, venue: str | None = None) -> Html:
    """Open incidents, of one venue or all."""
    open_now = load_incidents(ledger, open_only=True)
    rows = (_incident_row(one) for one in open_now if venue in (None, one.venue))
    columns = ("opened (UTC)", "venue", "kind", "subject", "evidence")
    return table("incidents", columns, rows, empty="None: nothing is left open.")


def _incident_row(incident: Incident) -> list[Cell]:
    evidence = "; ".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in incident.evidence.items()
    )
    return [
        moment(incident.opened_at),
        word(incident.venue),
        word(incident.kind, "loss"),
        word(incident.subject),
        prose(evidence),
    ]
