"""What the desk asks of its venues, what their limits leave it, and what the cache spares it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tradelib.traffic.records import (
    CacheUse,
    PoolUse,
    Spending,
    load_budgets,
    load_cache_uses,
)
from tradelib.views.cells import Cell, count, prose, word
from tradelib.views.html import Html, heading, table

_MINUTES = 60
_SHOWN = 20


def budget_section(home: Path) -> Html:
    """The rate limits of every venue now, and who spent most of them lately."""
    report = load_budgets(home, _MINUTES)
    pools = table(
        "budget-pools",
        ("venue", "counted", "used", "limit", "in", "state"),
        map(_pool_row, report.pools),
        empty="Limits show here once a venue has been asked.",
    )
    if not report.pools:
        return heading("Rate limits", "shared by all processes") + pools
    return (
        heading("Rate limits", "shared by all processes")
        + pools
        + heading("Who asked", f"in the last {_MINUTES} minutes, the most first")
        + _spent_table(report.spent[:_SHOWN])
    )


def _pool_row(pool: PoolUse) -> list[Cell]:
    share = pool.used / pool.limit if pool.limit else 0.0
    state = f"closed for {pool.closed_for:.0f} s: {pool.reason}" if pool.closed_for else "open"
    return [
        word(pool.address),
        word(pool.pool),
        Cell(f"{pool.used:,}", str(pool.used), "loss" if share > 0.75 else "", number=True),
        count(pool.limit),
        Cell(f"{pool.seconds} s", str(pool.seconds), number=True),
        prose(state, "loss" if pool.closed_for else "gain"),
    ]


def _spent_table(spent: Sequence[Spending]) -> Html:
    columns = ("who", "bot", "endpoint", "requests", "units", "refused")
    return table("budget-spent", columns, map(_spent_row, spent), empty="Nothing was asked.")


def _spent_row(one: Spending) -> list[Cell]:
    return [
        word(one.kind, title=one.address),
        word(one.bot),
        word(one.endpoint),
        count(one.requests),
        count(one.units),
        Cell(str(one.refused), str(one.refused), "loss" if one.refused else "", number=True),
    ]


def cache_section(home: Path) -> Html:
    """What the shared cache did lately, by kind of value."""
    columns = (
        "kind", "hit rate", "calls", "calls saved", "served while refreshed", "mean age", "oldest"
    )  # fmt: skip
    rows = map(_cache_row, load_cache_uses(home, _MINUTES))
    soon = "What processes share shows here once a venue has been asked."
    title = heading("Shared quotes and instruments", f"in the last {_MINUTES} minutes")
    return title + table("cache-uses", columns, rows, empty=soon)


def _cache_row(use: CacheUse) -> list[Cell]:
    return [
        word(use.kind),
        Cell(f"{use.hit_rate:.1%}", str(use.hit_rate), number=True),
        count(use.calls),
        count(use.served),
        count(use.stale),
        Cell(f"{use.age:.2f} s", str(use.age), number=True),
        Cell(f"{use.oldest:.2f} s", str(use.oldest), number=True),
    ]
