"""The chain from a fill back to the page that decided it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from tradelib.errors import InvalidInput
from tradelib.trading import tables
from tradelib.trading.decisions import Decision, load_decision
from tradelib.trading.ledger import Ledger, first
from tradelib.trading.orders import Fill, Order, load_fills, load_order, load_orders
from tradelib.trading.runs import Run, load_run


@dataclass(frozen=True)
class Chain:
    """What led to what; parts are None where there is nothing, as for a foreign fill."""

    fills: tuple[Fill, ...]
    order: Order | None
    decision: Decision | None
    run: Run | None


def find_chain(ledger: Ledger, record: str) -> Chain:
    """The chain that an order's, fill's, decision's or run's id belongs to.

    A fill's id is the venue's, alone or as venue/symbol/id. Raises InvalidInput when there is no
    such record, or several fills of that id.
    """
    if record.startswith("nd-"):
        return _from_order(ledger, load_order(ledger, record))
    if record.startswith("d-"):
        return _from_decision(ledger, load_decision(ledger, record))
    found = _find_fills(ledger, record)
    if len(found) > 1:
        ids = ", ".join(f"{f.venue}/{f.symbol}/{f.trade_id}" for f in found)
        raise InvalidInput(f"Several fills are called {record!r}; name one of {ids}.")
    if found:
        return _from_fill(ledger, found[0])
    return _from_run(ledger, load_run(ledger, record))


def _find_fills(ledger: Ledger, record: str) -> list[Fill]:
    venue, _, rest = record.partition("/")
    symbol, _, trade_id = rest.rpartition("/")
    query = select(tables.fills).where(tables.fills.c.trade_id == (trade_id or record))
    if symbol:
        query = query.where(tables.fills.c.venue == venue, tables.fills.c.symbol == symbol)
    return ledger.rows(query, Fill)


def _from_fill(ledger: Ledger, fill: Fill) -> Chain:
    if fill.client_id is None:
        return Chain((fill,), None, None, None)
    chain = _from_order(ledger, load_order(ledger, fill.client_id))
    return Chain((fill,), chain.order, chain.decision, chain.run)


def _from_order(ledger: Ledger, order: Order) -> Chain:
    fills = tuple(load_fills(ledger, client_id=order.client_id))
    decision = load_decision(ledger, order.decision) if order.decision else None
    run_id = decision.run if decision else order.run
    return Chain(fills, order, decision, load_run(ledger, run_id) if run_id else None)


def _from_decision(ledger: Ledger, decision: Decision) -> Chain:
    order = first(load_orders(ledger, decision=decision.id))
    if order:
        return _from_order(ledger, order)
    return Chain((), None, decision, load_run(ledger, decision.run))


def _from_run(ledger: Ledger, run: Run) -> Chain:
    """A run that decided or executed leads to its decision; any other stands alone."""
    told = (run.result or {}).get("decision")
    if not told:
        return Chain((), None, None, run)
    chain = _from_decision(ledger, load_decision(ledger, told))
    return Chain(chain.fills, chain.order, chain.decision, run)
