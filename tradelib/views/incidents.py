"""The incident page: each open discrepancy with what it means, both sides' word, and everything
that the ledger knows of its subject."""

from __future__ import annotations

from sqlalchemy import or_, select

from tradelib.trading import tables
from tradelib.trading.incidents import Incident, load_incidents
from tradelib.trading.ledger import Ledger, first
from tradelib.trading.orders import Fill, Order, load_fills, load_orders
from tradelib.views.cells import moment, prose, word
from tradelib.views.html import Html, empty, heading, note, table
from tradelib.views.orders import events_table, fills_table, orders_table

_SHOWN = 10

# What each kind means, and what a person can do about it.
_MEANINGS = {
    "order unresolved": "Its request got no answer. It is looked up until the venue has it, or has "
    "had the time to show it; until then its bot waits.",
    "order vanished": "The venue acknowledged the order and does not know it any more. Look it up "
    "on the venue's own page; `desk resync` rebuilds the books from the venue's history.",
    "foreign order": "Somebody else placed it on this account. The desk never touches it; it stays "
    "named here for as long as it is open.",
    "fills missing": "The venue says it filled and does not list the executions yet.",
    "balance differs": "The booked balance is not the venue's, and no execution explains it: a "
    "deposit, a withdrawal or a trade in a symbol that no bot trades. `desk resync` takes it over.",
    "venue contradicts itself": "The venue tells a state that cannot follow what it told before. "
    "The ledger keeps what it has.",
    "decision ordered twice": "An order that the venue had proven absent turned up after it was "
    "sent again. Sell what is too much, and raise the venue's time-out in desk.toml.",
    "order missing from the ledger": "The venue has an order of this desk's that the ledger does "
    "not know, as after a restored backup. No entry goes until `desk resync` has brought it back.",
    "symbol no longer traded": "The venue does not list it any more. Stop its bot; what was held "
    "is told by the balances.",
    "positions exceed account": "The bots' positions are more than the account holds: somebody "
    "sold their coins. Stop the bots concerned, or buy the coins back.",
    "position without stop": "What ought to rest at the venue does not. It is placed with the next "
    "pass, unless trading is halted or the venue refuses it.",
    "stop without position": "An order rests that protects nothing. It is cancelled with the next "
    "pass.",
    "live differs from backtest": "On a day of its own the bot read other candles, decided "
    "otherwise or missed candles, or lost more than was agreed to. Its page of that day names each "
    "gap; the next day's check closes this when it finds none.",
    "no healthy cycle": "No cycle has seen the market and settled the books for a while. Resting "
    "entries were cancelled; look at `desk logs` and at Prefect's page.",
}


def incidents_page(ledger: Ledger, venue: str) -> Html:
    """Every open incident of a venue, newest first, with its evidence."""
    found = [one for one in load_incidents(ledger, open_only=True) if one.venue == venue]
    page = heading("Open incidents now")
    if not found:
        return page + empty("None: nothing is left open.", name="incidents")
    for incident in found:
        page += _incident(ledger, incident)
    return page


def _incident(ledger: Ledger, incident: Incident) -> Html:
    title = heading(f"{incident.kind}: {incident.subject}", f"since {incident.opened_at:%F %T}Z")
    meaning = note(_MEANINGS.get(incident.kind, "The books and the venue differ."))
    return title + meaning + _both_sides(incident) + _known(ledger, incident)


def _both_sides(incident: Incident) -> Html:
    rows = [[word(side), prose(str(told))] for side, told in incident.evidence.items()]
    columns = ("side", "what it says")
    return table("incidents", columns, rows, empty="Neither side was written down.")


def _known(ledger: Ledger, incident: Incident) -> Html:
    """What the ledger holds of the subject: an order, a bot's orders, or an asset's fills."""
    order = _find_order(ledger, incident.subject)
    if order:
        return _order(ledger, order)
    bots = load_orders(ledger, bot=incident.subject, limit=_SHOWN)
    if bots:
        return orders_table(ledger, bots, name="incident-orders", empty="")
    fills = _fills_of(ledger, incident)
    if not fills:
        return Html("")
    return fills_table(ledger, fills, load_orders(ledger, limit=500), name="incident-fills",
                       empty="")  # fmt: skip


def _find_order(ledger: Ledger, subject: str) -> Order | None:
    return first(
        ledger.rows(select(tables.orders).where(tables.orders.c.client_id == subject), Order)
    )


def _order(ledger: Ledger, order: Order) -> Html:
    fills = load_fills(ledger, client_id=order.client_id)
    return (
        orders_table(ledger, [order], name="incident-order", empty="")
        + events_table(ledger, order.client_id)
        + fills_table(ledger, fills, [order], name="incident-fills", empty="No fills are booked.")
    )


def _fills_of(ledger: Ledger, incident: Incident) -> list[Fill]:
    """The newest fills that moved an asset."""
    fills, asset = tables.fills.c, incident.subject
    query = select(tables.fills).where(
        fills.venue == incident.venue,
        or_(
            fills.symbol.startswith(f"{asset}/", autoescape=True),
            fills.symbol.endswith(f"/{asset}", autoescape=True),
            fills.fee_currency == asset,
        ),
    )
    return ledger.rows(query.order_by(fills.at.desc()).limit(_SHOWN), Fill)


def closed_incidents(ledger: Ledger, venue: str, limit: int = 20) -> Html:
    """Incidents that are over, newest first, and what ended them."""
    found = [one for one in load_incidents(ledger, limit=200) if one.venue == venue]
    rows = [
        [moment(one.opened_at), moment(one.closed_at), word(one.kind), word(one.subject),
         prose(one.repair)]
        for one in found if one.closed_at
    ][:limit]  # fmt: skip
    columns = ("opened (UTC)", "closed (UTC)", "kind", "subject", "what ended it")
    return heading("Closed before") + table("closed-incidents", columns, rows, empty="None yet.")
