"""Whether the ledger has news, without reading it all."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select

from tradelib.trading import tables
from tradelib.trading.ledger import Ledger
from tradelib.trading.runs import Outcome

_SIGNS: tuple[ColumnElement, ...] = (
    func.max(tables.runs.c.started_at),
    func.max(tables.orders.c.updated_at),
    func.max(tables.order_events.c.id),
    func.count(tables.fills.c.trade_id),
    func.count(tables.decisions.c.id),
    func.count(tables.equity.c.as_of),
    func.max(tables.balances.c.as_of),
    func.count(tables.incidents.c.id),
    func.count(tables.incidents.c.closed_at),
    func.count(tables.halts.c.id),
    func.count(tables.halts.c.resumed_at),
    func.max(tables.bots.c.updated_at),
    func.count(tables.bots.c.name),
)
# Of a run that ends, this or its start differs; its end is in no index, and there are many runs.
_RUNNING = select(func.count()).where(tables.runs.c.outcome == Outcome.RUNNING)


def ledger_version(ledger: Ledger) -> tuple[object, ...]:
    """Differs whenever something on a dashboard would."""
    looks = (*map(select, _SIGNS), _RUNNING)
    query = select(*(look.scalar_subquery() for look in looks))
    with ledger.read() as books:
        return tuple(books.execute(query).one())
