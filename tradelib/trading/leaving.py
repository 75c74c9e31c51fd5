"""Leaving a venue: under a halt, what rests there is cancelled and, if asked, what bots hold is
sold.

Stops are the last to go. Under a halt nothing could replace them, so a position is never without
its stop unless it is sold the next moment.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from tradelib.errors import DeskError
from tradelib.settings import LimitSettings
from tradelib.trading.ledger import Ledger
from tradelib.trading.manual import Flattened, cancel_orders, flatten_positions
from tradelib.trading.orders import Order, OrderStatus, Role, load_order, load_orders
from tradelib.trading.placing import cancel_live_order
from tradelib.venue import Venue

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Leaving:
    """What became of a venue. cancelled: its orders as they stand now; sold: its positions."""

    cancelled: tuple[Order, ...]
    sold: tuple[Flattened, ...] = ()

    @property
    def orders(self) -> tuple[Order, ...]:
        return (*self.cancelled, *(order for one in self.sold for order in one.orders))

    @property
    def undone(self) -> list[str]:
        """A sentence for each order that is still live and each bot that was not sold."""
        unsold = [f"bot {one.bot} was not sold: {one.why}" for one in self.sold if one.why]
        return [*still_live(self.cancelled), *unsold]


def still_live(orders: Iterable[Order]) -> list[str]:
    """A sentence for each order that was not cancelled and has not ended either."""
    return [
        f"order {order.client_id} at {order.venue} is still {order.status}"
        for order in orders
        if not OrderStatus(order.status).final
    ]


def leave_venue(
    ledger: Ledger, venue: Venue, limits: LimitSettings, holder: str, *, flatten: bool
) -> Leaving:
    """Cancel entries; or, to `flatten`, cancel everything and sell what bots hold, but for the
    stops of positions that could not be sold. Trading is halted already. holder: the command."""
    if not flatten:
        return Leaving(tuple(cancel_orders(ledger, venue, entries_only=True)))
    freed = _cancel(ledger, venue, (o for o in _live(ledger, venue) if not _protects_bot(o)))
    sold = flatten_positions(ledger, venue, limits, holder)
    kept = {one.bot for one in sold if one.why}
    idle = _cancel(ledger, venue, (o for o in _live(ledger, venue) if o.bot not in kept))
    last_word = {order.client_id: order for order in (*freed, *idle)}
    return Leaving(tuple(last_word.values()), tuple(sold))


def _live(ledger: Ledger, venue: Venue) -> list[Order]:
    return load_orders(ledger, venue=venue.name, unsettled=True)


def _protects_bot(order: Order) -> bool:
    return order.bot is not None and Role(order.role).protects


def _cancel(ledger: Ledger, venue: Venue, orders: Iterable[Order]) -> list[Order]:
    return [_cancel_if_possible(ledger, venue, order) for order in orders]


def _cancel_if_possible(ledger: Ledger, venue: Venue, order: Order) -> Order:
    """One that fails must not keep the others."""
    try:
        return cancel_live_order(ledger, venue, order)
    except DeskError as error:
        log.warning("order %s could not be cancelled: %s", order.client_id, error)
        return load_order(ledger, order.client_id)
