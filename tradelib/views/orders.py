"""Orders, their events, fills and refusals as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select

from tradelib.trading import tables
from tradelib.trading.decisions import Action, Decision
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import Fill, Order, OrderStatus, Side
from tradelib.views.cells import Cell, amount, moment, money, price, prose, word
from tradelib.views.html import Html, table
from tradelib.views.links import load_decision_pages, load_pages, short_id

_TONES = {
    OrderStatus.FILLED: "gain",
    OrderStatus.DENIED: "warn",
    OrderStatus.REJECTED: "loss",
    OrderStatus.UNRESOLVED: "loss",
    OrderStatus.SUBMITTED: "warn",
}
_ACTION_TONES = {
    Action.BUY: "gain", Action.SELL: "loss", Action.HOLD: "muted", Action.ADJUST: "",
}  # fmt: skip


def orders_table(ledger: Ledger, orders: Sequence[Order], *, name: str, empty: str) -> Html:
    """Orders, each linked to the page that sent it and to the one that decided it."""
    pages = load_pages(ledger, (order.run for order in orders))
    deciders = load_decision_pages(ledger, (order.decision for order in orders))
    columns = (
        "market time (UTC)", "bot", "symbol", "side", "type", "amount (base)", "filled (base)",
        "expected price", "cost (quote)", "status", "order", "decision", "reason",
    )  # fmt: skip
    return table(name, columns, (_order_row(o, pages, deciders) for o in orders), empty=empty)


def _order_row(order: Order, pages: dict[str, str], deciders: dict[str, str]) -> list[Cell]:
    return [
        moment(order.as_of),
        word(order.bot),
        word(order.symbol),
        side_word(order.side),
        word(_type_words(order)),
        amount(order.amount),
        amount(order.filled),
        price(order.expected_price),
        money(order.cost, order.quote),
        status_word(order.status),
        short_id(order.client_id, pages, of=order.run),
        short_id(order.decision, deciders),
        prose(order.reason),
    ]


def _type_words(order: Order) -> str:
    """Its type with the price that it waits for, as 'stop loss 95'."""
    waits = order.stop_price or order.limit_price
    name = order.type.replace("_", " ")
    if order.trailing_bips:
        return f"{name} {order.trailing_bips / 100:g}%"
    return f"{name} {waits.normalize():f}" if waits else name


def fills_table(
    ledger: Ledger, fills: Sequence[Fill], orders: Iterable[Order], *, name: str, empty: str
) -> Html:
    """Fills, each with the order that it filled and the decision behind that."""
    known = {order.client_id: order for order in orders}
    pages = load_pages(ledger, (order.run for order in known.values()))
    deciders = load_decision_pages(ledger, (order.decision for order in known.values()))
    columns = (
        "market time (UTC)", "symbol", "side", "amount (base)", "price", "cost (quote)", "fee",
        "trade", "order", "decision",
    )  # fmt: skip
    rows = (_fill_row(fill, known.get(fill.client_id or ""), pages, deciders) for fill in fills)
    return table(name, columns, rows, empty=empty)


def _fill_row(
    fill: Fill, order: Order | None, pages: dict[str, str], deciders: dict[str, str]
) -> list[Cell]:
    fee = amount(fill.fee)
    return [
        moment(fill.at),
        word(fill.symbol),
        side_word(fill.side),
        amount(fill.amount),
        price(fill.price),
        money(fill.cost, fill.symbol.split("/")[1]),
        Cell(f"{fee.text} {fill.fee_currency}", fee.value, number=True),
        word(fill.trade_id),
        short_id(order.client_id, pages, of=order.run) if order else word("not ours", "warn"),
        short_id(order.decision if order else None, deciders),
    ]


def events_table(ledger: Ledger, client_id: str) -> Html:
    """An order's life, first event first."""
    events = tables.order_events
    query = select(events).where(events.c.client_id == client_id).order_by(events.c.id)
    rows = (
        [moment(event["at"]), status_word(event["status"]), prose(event["detail"])]
        for event in ledger.mappings(query)
    )
    return table(
        "order-events", ("at (UTC, wall clock)", "status", "detail"), rows, empty="No events."
    )


def decisions_table(
    ledger: Ledger, decisions: Sequence[Decision], *, name: str, empty: str
) -> Html:
    """Decisions, each linked to the page that made it."""
    pages = load_pages(ledger, (decision.run for decision in decisions))
    columns = (
        "candle close (UTC)", "bot", "action", "share", "temperature", "price", "reason",
        "decision",
    )  # fmt: skip
    return table(name, columns, (_decision_row(d, pages) for d in decisions), empty=empty)


def _decision_row(decision: Decision, pages: dict[str, str]) -> list[Cell]:
    return [
        moment(decision.candle_close),
        word(decision.bot),
        action_word(decision.action),
        Cell(f"{decision.fraction:.0%}", f"{decision.fraction:f}", number=True),
        word(decision.temperature.lower()),
        price(decision.price),
        prose(decision.reason),
        short_id(decision.id, pages, of=decision.run),
    ]


def side_word(side: str) -> Cell:
    return word(side, "gain" if Side(side) is Side.BUY else "loss")


def action_word(action: str) -> Cell:
    return word(action, _ACTION_TONES[Action(action)])


def status_word(status: str) -> Cell:
    return Cell(status.replace("_", " ").lower(), status, _TONES.get(OrderStatus(status), ""))
