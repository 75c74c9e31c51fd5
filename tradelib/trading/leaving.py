"""Leaving a venue: under a halt, what rests there is cancelled and, if asked, what bots hold is
sold.

Stops are the last to go. Under a halt nothing could replace them, so a position is never without
its stop unless it is sold the next moment.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from tradelib.errors import DeskError, VenueUnavailable
from tradelib.settings import LimitSettings
from tradelib.trading.bots import load_bot
from tradelib.trading.leases import Lease, bot_lease, lease
from tradelib.trading.ledger import Ledger
from tradelib.trading.manual import PATIENCE, ManualOrder, place_under
from tradelib.trading.orders import Order, OrderStatus, Role, Side, load_order, load_orders
from tradelib.trading.placing import cancel_live_order
from tradelib.trading.positions import UNASSIGNED, Position, load_positions
from tradelib.trading.stops import maintain_stops_under
from tradelib.traffic import Urgency, urgent
from tradelib.venue import Venue

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flattened:
    """What became of one bot's position. why: what kept it from being sold, None when it was."""

    bot: str
    orders: list[Order]
    why: str | None = None


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


@urgent(Urgency.RECONCILE)
def cancel_orders(ledger: Ledger, venue: Venue, *, entries_only: bool = False) -> list[Order]:
    """Cancel the desk's own orders at a venue; those of others are never touched.

    Answers every order as it stands afterwards: one that is not final could not be cancelled now,
    and is as soon as the venue tells of it. entries_only: stops and other sales stay.
    """
    live = load_orders(ledger, venue=venue.name, unsettled=True)
    wanted = [order for order in live if not (entries_only and order.reduces)]
    return _cancel(ledger, venue, wanted)


@urgent(Urgency.RECONCILE)
def flatten_positions(
    ledger: Ledger, venue: Venue, limits: LimitSettings, holder: str
) -> list[Flattened]:
    """Sell what bots hold at a venue, at the market, a halt notwithstanding; coins of no bot stay.

    A position that cannot be sold keeps its stops, and keeps no other from being sold.
    """
    held = [p for p in load_positions(ledger, venue=venue.name) if p.bot != UNASSIGNED and p.amount]
    sold = [_flatten(ledger, venue, limits, position, holder) for position in held]
    return [one for one in sold if one]


def _flatten(
    ledger: Ledger, venue: Venue, limits: LimitSettings, position: Position, holder: str
) -> Flattened | None:
    try:
        if not _is_sellable(venue, position):
            return None
        with lease(ledger, bot_lease(position.bot), holder, PATIENCE) as held:
            return _sell_out(ledger, venue, limits, position, held)
    except DeskError as error:
        return Flattened(position.bot, [], str(error))


def _sell_out(
    ledger: Ledger, venue: Venue, limits: LimitSettings, position: Position, held: Lease
) -> Flattened:
    wanted = ManualOrder(position.symbol, Side.SELL, position.amount, bot=position.bot)
    orders = place_under(ledger, venue, limits, wanted, held, leaving=True)
    if all(order.status == OrderStatus.FILLED for order in orders):
        return Flattened(position.bot, orders)
    maintain_stops_under(ledger, venue, load_bot(ledger, position.bot), held, leaving=True)
    told = ", ".join(f"{order.status}: {order.reason or 'no reason'}" for order in orders)
    return Flattened(position.bot, orders, told)


def _is_sellable(venue: Venue, position: Position) -> bool:
    """Whether the venue would take the position; lot-size rests stay."""
    instrument = venue.fetch_instrument(position.symbol)
    amount = instrument.round_amount(position.amount)
    quote = venue.fetch_quotes([position.symbol]).get(position.symbol)
    if quote is None:
        raise VenueUnavailable(f"Venue {venue.name} has no bid and ask for {position.symbol}.")
    return instrument.takes(amount, quote.bid)
