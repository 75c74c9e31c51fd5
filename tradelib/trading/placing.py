"""Placing: a recorded order goes to the venue once, whichever step its process is killed at.

    PLANNED     committed with its limits checked; certainly not sent
    SUBMITTED   committed by exactly one process, with the time, right before the request
    the answer  committed as the venue's word; without one the order is UNRESOLVED

The request carries the time that was committed, so that the venue itself refuses it when its
process slept in between, and absence after the venue's lag is proof.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from sqlalchemy import Connection

from tradelib.clock import utc_now
from tradelib.errors import (
    AuthenticationFailed,
    DeskError,
    OrderUnknown,
    RateLimited,
    ReadOnly,
    RefusedError,
    UnresolvedError,
)
from tradelib.trading.arming import read_arming
from tradelib.trading.booking import apply_venue_order, book_order_trades, book_trades
from tradelib.trading.halts import read_halt
from tradelib.trading.leases import Lease, require_lease
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import (
    Order,
    OrderStatus,
    Role,
    change_order,
    find_order,
    load_order,
)
from tradelib.trading.runs import Outcome, find_outcome
from tradelib.venue import BracketRequest, OrderRequest, OrderType, TimeInForce, Venue, VenueOrder

log = logging.getLogger(__name__)

# Longest time from recording an order to sending it: prices and limits were checked then.
SEND_WITHIN = timedelta(seconds=5)


def submit_planned(
    ledger: Ledger, venue: Venue, orders: Sequence[Order], held: Lease, *, leaving: bool = False
) -> list[Order]:
    """Send a planned order, or the two of a bracket, and record what came of it.

    leaving: a person sells out of the market, which a halt does not stop.
    Orders that another process has sent, or that must not be sent any more, are only returned.
    Raises LeaseLost when `held` is not the newest lease.
    """
    wired, is_mine = take_to_wire(ledger, venue, orders, held, leaving=leaving)
    if not is_mine:
        return wired
    return deliver(ledger, venue, wired, lambda: _send(venue, wired))


def _send(venue: Venue, orders: Sequence[Order]) -> Sequence[VenueOrder]:
    if len(orders) == 1:
        return [venue.submit_order(request_of(orders[0]))]
    return venue.submit_bracket(bracket_of(orders))


def take_to_wire(
    ledger: Ledger, venue: Venue, orders: Sequence[Order], held: Lease, *, leaving: bool = False
) -> tuple[list[Order], bool]:
    """Commit that this process, and no other, sends the orders now; or that nobody will.

    The orders as they stand, and whether the caller is to send them.
    """
    with ledger.write() as books:
        current = [find_order(books, order.client_id) or order for order in orders]
        if any(order.status != OrderStatus.PLANNED for order in current):
            return current, False
        require_running(books, held.run)
        require_lease(books, held)
        changes = _wire_changes(books, venue, current[0], held, leaving)
        changed = [change_order(books, order, **changes) for order in current]
    for order in changed:
        tell(order)
    return changed, changes["status"] == OrderStatus.SUBMITTED


def _wire_changes(
    books: Connection, venue: Venue, order: Order, held: Lease, leaving: bool
) -> dict[str, object]:
    if is_overdue(order, utc_now()):
        return unsent_for_too_long()
    why = _why_not_now(books, venue, order, leaving)
    if why:
        return {"status": OrderStatus.DENIED, "reason": f"not sent: {why}"}
    sent = {"sent_at": utc_now(), "lease_token": held.token}
    return {"status": OrderStatus.SUBMITTED, **sent}


def unsent_for_too_long() -> dict[str, object]:
    """What becomes of an order that was never put on the wire: its prices and limits are those
    of another moment, and a further attempt may be made."""
    reason = f"not sent: more than {SEND_WITHIN.seconds} s had passed since it was recorded"
    return {"status": OrderStatus.DENIED, "reason": reason, "proven_absent": True}


def is_overdue(order: Order, now: datetime) -> bool:
    """Whether a plan is too old to be sent; one from the future is of a clock set back since."""
    return abs(now - order.created_at) > SEND_WITHIN


def _why_not_now(books: Connection, venue: Venue, order: Order, leaving: bool) -> str | None:
    """What came between recording an order and sending it, if anything did."""
    halt = read_halt(books)
    is_exempt = leaving and order.reduces
    if halt and not is_exempt and (halt.stops_all or not order.reduces):
        return f"trading is {halt.state.lower()}: {halt.reason}"
    if not (venue.is_local or read_arming(books, venue.name)):
        return f"venue {venue.name} is not armed"
    return None


def require_running(books: Connection, run: str | None) -> None:
    """A kernel that outlived its run, timed out or given up, places no order any more. Without
    a run, an order is a person's."""
    if run is None:
        return
    outcome = find_outcome(books, run)
    if outcome != Outcome.RUNNING:
        raise ReadOnly(f"Run {run} is not running ({outcome}); it can place no order.")


def deliver(
    ledger: Ledger,
    venue: Venue,
    orders: Sequence[Order],
    send: Callable[[], Sequence[VenueOrder]],
) -> list[Order]:
    """Make the request of SUBMITTED orders and record the answers, or that there was none."""
    ledger.require_committed()
    try:
        answers = send()
    except UnresolvedError as error:
        lost = [record_status(ledger, o, OrderStatus.UNRESOLVED, str(error)) for o in orders]
        return [look_up(ledger, venue, order) for order in lost]
    except RateLimited as error:
        # Not taken, and nothing is wrong with the order itself: it may be sent again.
        return [record_status(ledger, o, OrderStatus.REJECTED, str(error), True) for o in orders]
    except (RefusedError, AuthenticationFailed) as error:
        return [record_status(ledger, o, OrderStatus.REJECTED, str(error)) for o in orders]
    return [
        _take_answer(ledger, venue, order, answer)
        for order, answer in zip(orders, answers, strict=True)
    ]


def _take_answer(ledger: Ledger, venue: Venue, order: Order, answer: VenueOrder) -> Order:
    order = record_answer(ledger, order, answer)
    if order.status == OrderStatus.UNRESOLVED:  # acknowledged, and nothing said of its state
        order = look_up(ledger, venue, order)
    order = book_own_fills(ledger, venue, order)
    tell(order)
    return order


def look_up(ledger: Ledger, venue: Venue, order: Order) -> Order:
    """Ask once for an order whose answer was lost. What cannot be told now, reconciliation will
    find out; absence proves nothing so soon."""
    try:
        answer = venue.fetch_order(
            order.symbol, order.client_id, order.venue_order_id, since=order.as_of
        )
    except DeskError:
        return order
    return book_own_fills(ledger, venue, record_answer(ledger, order, answer))


def cancel_live_order(ledger: Ledger, venue: Venue, order: Order) -> Order:
    """Cancel one order and record what became of it, which may be that it filled first.

    The wish is recorded before anything is sent, so that an order that turns up later is cancelled
    then. A cancel's own answer ends nothing: the order is asked for afterwards, since only its
    state tells whether the cancel or a fill came first.
    """
    wished = _wish_cancel(ledger, order)
    if OrderStatus(wished.status).final:
        return wished
    with suppress(OrderUnknown, UnresolvedError):
        venue.cancel_order(order.symbol, wished.venue_order_id or "", order.client_id)
    return look_up(ledger, venue, wished)


def _wish_cancel(ledger: Ledger, order: Order) -> Order:
    """Record that an order is to end; one that was never sent ends with it."""
    with ledger.write() as books:
        current = find_order(books, order.client_id) or order
        if OrderStatus(current.status).final:
            return current
        if current.status == OrderStatus.PLANNED:
            reason = "cancelled before it was sent"
            return change_order(books, current, status=OrderStatus.DENIED, reason=reason)
        return change_order(books, current, cancel_wanted=True)


def request_of(order: Order) -> OrderRequest:
    """What is asked of the venue; signed with the time that the ledger has."""
    return OrderRequest(
        symbol=order.symbol,
        side=order.side,
        type=OrderType(order.type),
        amount=order.amount,
        client_id=order.client_id,
        limit_price=order.limit_price,
        stop_price=order.stop_price,
        trailing_bips=order.trailing_bips,
        time_in_force=TimeInForce(order.time_in_force) if order.time_in_force else None,
        signed_at=order.sent_at,
    )


def bracket_of(orders: Sequence[Order]) -> BracketRequest:
    """The two orders as one request."""
    target = next(order for order in orders if order.role == Role.TARGET)
    stop = next(order for order in orders if order.role == Role.STOP)
    return BracketRequest(
        symbol=target.symbol,
        side=target.side,
        amount=target.amount,
        list_client_id=target.bracket or "",
        target=request_of(target),
        stop=request_of(stop),
        signed_at=target.sent_at,
    )


def record_status(
    ledger: Ledger, order: Order, status: OrderStatus, reason: str, proven_absent: bool = False
) -> Order:
    with ledger.write() as books:
        current = find_order(books, order.client_id) or order
        if current.status != OrderStatus.SUBMITTED:
            return current  # reconciliation was quicker and knows more
        changed = change_order(
            books, current, status=status, reason=reason, proven_absent=proven_absent
        )
    tell(changed)
    return changed


def record_answer(ledger: Ledger, order: Order, answer: VenueOrder) -> Order:
    """As the venue tells it, with those of its fills that the answer names."""
    with ledger.write() as books:
        known = find_order(books, order.client_id) or order
        told = apply_venue_order(books, known, answer)
        if book_trades(books, order.venue, answer.trades):
            told = find_order(books, order.client_id) or told
        return told


def book_own_fills(ledger: Ledger, venue: Venue, order: Order) -> Order:
    """Book the fills of an order just sent, if the answer to it did not name them. When they cannot
    be read now, reconciliation will."""
    if order.filled and order.venue_order_id and not order.fills_complete:
        try:
            book_order_trades(ledger, venue, order)
        except (OrderUnknown, DeskError):
            return order
    return load_order(ledger, order.client_id)


def tell(order: Order) -> None:
    """A line in the desk's log."""
    log.info(
        "order %s: %s %s %s is %s%s",
        order.client_id,
        order.side,
        format(order.amount, "f"),
        order.symbol,
        order.status,
        f", {order.reason}" if order.reason else "",
        extra={"fields": {"order": order.client_id, "run": order.run}},
    )
