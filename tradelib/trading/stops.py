"""Stops: orders that rest at the venue while a bot holds a position, and close it by themselves.

What ought to rest is computed from the position; what does rest is in the ledger. Keeping the two
the same, after each fill and at each reconciliation, is all there is to do: cancel what has no
position any more, place what is missing, replace what has another amount or price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Select, func, select

from tradelib.clock import utc_now
from tradelib.trading import tables
from tradelib.trading.accounts import require_own_books
from tradelib.trading.arming import read_arming
from tradelib.trading.bots import Bot, StopParams
from tradelib.trading.discrepancies import (
    POSITION_WITHOUT_STOP,
    STOP_WITHOUT_POSITION,
    Finding,
)
from tradelib.trading.halts import read_halt
from tradelib.trading.leases import Lease, bot_lease, lease, require_lease
from tradelib.trading.ledger import Ledger, first, rows
from tradelib.trading.orders import (
    ROLES_THAT_PROTECT,
    ZERO,
    Order,
    OrderStatus,
    Role,
    Side,
    client_order_id,
    insert_order,
)
from tradelib.trading.placing import (
    cancel_live_order,
    require_running,
    submit_planned,
    tell,
)
from tradelib.trading.portfolio import promised_orders
from tradelib.trading.positions import Position, bot_position
from tradelib.traffic import Urgency, urgent
from tradelib.venue import Instrument, OrderType, Quote, Venue

# A stop that the venue has just refused is not offered again at once.
_AFTER_REFUSAL = timedelta(minutes=5)
_ONE = Decimal(1)


@dataclass(frozen=True)
class Stop:
    """One order that ought to rest. amount: base currency; prices: quote per base."""

    role: Role
    type: OrderType
    amount: Decimal
    stop_price: Decimal | None = None
    limit_price: Decimal | None = None
    trailing_bips: int | None = None

    def is_met_by(self, order: Order) -> bool:
        """Whether a live order is this very one."""
        names = ("role", "type", "stop_price", "limit_price", "trailing_bips")
        same = all(getattr(order, name) == getattr(self, name) for name in names)
        return same and order.left == self.amount


@dataclass(frozen=True)
class StopPlan:
    """What to do at the venue. waits: why nothing can be done yet, empty when something can."""

    cancel: tuple[Order, ...] = ()
    place: tuple[Stop, ...] = ()
    waits: str = ""

    @property
    def is_done(self) -> bool:
        return not (self.cancel or self.place or self.waits)


def wanted_stops(
    params: StopParams,
    position: Position,
    instrument: Instrument,
    quote: Quote,
    locked: Decimal = ZERO,
) -> tuple[Stop, ...]:
    """What ought to rest for a position; nothing when it is too small for the venue.

    locked: of the position, in base currency, what other resting sales will take.

    An entry at 100 with loss 0.05 and profit 0.1 wants a stop at 95 and a target at 110. A price
    that the market has passed already wants to be sold at the market.
    """
    amount = instrument.round_amount(position.amount - locked)
    entry = position.average_entry
    if entry is None or not instrument.takes(amount, quote.bid):
        return ()
    if params.trailing is not None:
        bips = round(params.trailing * 10_000)
        return (Stop(Role.STOP, OrderType.TRAILING_STOP, amount, trailing_bips=bips),)
    loss = instrument.round_price(entry * (_ONE - _exact(params.loss))) if params.loss else None
    goal = instrument.round_price(entry * (_ONE + _exact(params.profit))) if params.profit else None
    if loss is not None and quote.bid <= loss:
        return (Stop(Role.STOP, OrderType.MARKET, amount),)
    if goal is not None and quote.bid >= goal:
        return (Stop(Role.TARGET, OrderType.MARKET, amount),)
    return tuple(_resting(amount, loss, goal))


def _resting(amount: Decimal, loss: Decimal | None, goal: Decimal | None) -> list[Stop]:
    found = []
    if goal is not None:
        # Within a bracket the venue wants the target as a maker order.
        kind = OrderType.POST_ONLY if loss is not None else OrderType.LIMIT
        found.append(Stop(Role.TARGET, kind, amount, limit_price=goal))
    if loss is not None:
        found.append(Stop(Role.STOP, OrderType.STOP_LOSS, amount, stop_price=loss))
    return found


def _exact(fraction: float) -> Decimal:
    return Decimal(str(fraction))


def compare_stops(wanted: Sequence[Stop], live: Sequence[Order]) -> StopPlan:
    """What to cancel and to place so that what rests is what ought to rest.

    A leg of a bracket that has begun to fill ended the other, so the rest is placed anew.
    """
    if not all(order.is_known for order in live):
        return StopPlan(waits="an order that protects it is on its way")
    met = [any(stop.is_met_by(order) for order in live) for stop in wanted]
    if all(met) and len(live) == len(wanted):
        return StopPlan()
    # Two orders for the same coins cannot both rest: all go before the new ones come.
    return StopPlan(cancel=tuple(live), place=tuple(wanted))


@urgent(Urgency.RECONCILE)
def maintain_stops(
    ledger: Ledger, venue: Venue, bot: Bot, holder: str, *, leaving: bool = False
) -> StopPlan:
    """Make what rests at the venue for a bot what ought to rest, and say what was not so.

    holder: the run or command that does it. Nothing is placed while trading is halted (unless a
    person who is leaving the market could not sell) or the venue is not armed. Raises LeaseHeld
    while another process trades the bot, which is asked only where there is something to do.
    """
    plan = plan_stops(ledger, venue, bot)
    if plan.is_done or plan.waits:
        return plan
    with lease(ledger, bot_lease(bot.name), holder) as held:
        return maintain_stops_under(ledger, venue, bot, held, leaving=leaving)


@urgent(Urgency.RECONCILE)
def maintain_stops_under(
    ledger: Ledger, venue: Venue, bot: Bot, held: Lease, *, leaving: bool = False
) -> StopPlan:
    """`maintain_stops` for whoever holds the bot's lease already."""
    plan = plan_stops(ledger, venue, bot)
    for order in plan.cancel:
        cancel_live_order(ledger, venue, order)
    if plan.place and not plan.waits:
        _place(ledger, venue, bot, held, leaving)
    return plan


def withdraw_stops(ledger: Ledger, venue: Venue, bot: Bot) -> None:
    """Cancel what rests for a bot, so that its coins can be sold; one that fills first has sold
    them, and one that cannot be cancelled stays in the ledger as live."""
    for order in live_stops(ledger, bot):
        cancel_live_order(ledger, venue, order)


def plan_stops(ledger: Ledger, venue: Venue, bot: Bot) -> StopPlan:
    """What is to be done for a bot's stops as things stand."""
    with ledger.read() as books:
        live = _live_stops(books, bot)
        if not (bot.stops or live):
            return StopPlan()
        position = bot_position(books, bot.name, bot.symbol, bot.venue)
        if not (position.amount or live):
            return StopPlan()  # without a question to the venue, as most bots are most of the time
        others = _other_orders(books, bot)
    if bot.symbol not in venue.fetch_instruments():
        return StopPlan(waits=f"the venue lists {bot.symbol} no more")
    instrument = venue.fetch_instrument(bot.symbol)
    quote = venue.fetch_quotes([bot.symbol], as_of=venue.fetch_time()).get(bot.symbol)
    if not all(order.is_known for order in others):
        return StopPlan(waits="an order of the bot is on its way")
    if quote is None:
        return StopPlan(waits="the venue has no bid and ask")
    locked = sum((order.left for order in others if order.reduces), ZERO)
    return compare_stops(wanted_stops(bot.stop_params, position, instrument, quote, locked), live)


def _place(ledger: Ledger, venue: Venue, bot: Bot, held: Lease, leaving: bool) -> None:
    """Record and send what is missing, looked at again after the cancels: one of the old stops
    may have sold the position first."""
    plan = plan_stops(ledger, venue, bot)
    if plan.waits or plan.cancel or not plan.place:
        return
    as_of = venue.fetch_time()
    quote = venue.fetch_quotes([bot.symbol], as_of=as_of)[bot.symbol]
    with ledger.write() as books:
        require_running(books, held.run)
        require_lease(books, held)
        require_own_books(books, venue)
        if not _may_place(books, venue, leaving) or _live_stops(books, bot):
            return
        if _was_refused(books, bot, plan.place):
            return
        orders = _record(books, bot, plan.place, held, quote, as_of)
    submit_planned(ledger, venue, orders, held, leaving=leaving)


def _may_place(books: Connection, venue: Venue, leaving: bool) -> bool:
    halt = read_halt(books)
    armed = venue.is_local or read_arming(books, venue.name) is not None
    return armed and (leaving or not (halt and halt.stops_all))


def _record(
    books: Connection,
    bot: Bot,
    stops: Sequence[Stop],
    held: Lease,
    quote: Quote,
    as_of: datetime,
) -> list[Order]:
    """Record the stops as planned orders that lead back to the decision of the last entry."""
    entry = _last_entry(books, bot)
    source = (entry.decision or entry.client_id) if entry else bot.name
    leg = 1 + _count_stops(books, bot)
    bracket = client_order_id(source, leg, -1) if len(stops) > 1 else None
    now = utc_now()
    orders = [
        Order(
            client_id=client_order_id(source, leg + number),
            decision=entry.decision if entry else None,
            run=held.run,
            bot=bot.name,
            venue=bot.venue,
            symbol=bot.symbol,
            side=Side.SELL,
            type=stop.type,
            amount=stop.amount,
            limit_price=stop.limit_price,
            stop_price=stop.stop_price,
            trailing_bips=stop.trailing_bips,
            expected_price=stop.limit_price or stop.stop_price or quote.bid,
            status=OrderStatus.PLANNED,
            role=stop.role,
            leg=leg + number,
            bracket=bracket,
            lease_token=held.token,
            as_of=as_of,
            created_at=now,
            updated_at=now,
        )
        for number, stop in enumerate(stops)
    ]
    for order in orders:
        insert_order(books, order)
        tell(order)
    return orders


# What the ledger knows of a bot's stops


def live_stops(ledger: Ledger, bot: Bot) -> list[Order]:
    """What rests, or may rest, at the venue for a bot."""
    with ledger.read() as books:
        return _live_stops(books, bot)


def _live_stops(books: Connection, bot: Bot) -> list[Order]:
    """The bot's protecting orders that have not ended, or whose fills are not all booked."""
    live = (order for order in _unended_orders(books, bot) if Role(order.role).protects)
    return sorted(live, key=lambda order: order.leg)


def _other_orders(books: Connection, bot: Bot) -> list[Order]:
    """The bot's orders, other than stops, that have not ended or whose fills are not all booked."""
    return [order for order in _unended_orders(books, bot) if not Role(order.role).protects]


def _unended_orders(books: Connection, bot: Bot) -> list[Order]:
    # By what is open at the venue, of which there is little: a bot's history grows for ever.
    return [order for order in promised_orders(books, bot.venue) if order.bot == bot.name]


def _select_stops(bot: Bot) -> Select[Any]:
    return select(tables.orders).where(
        tables.orders.c.bot == bot.name,
        tables.orders.c.venue == bot.venue,
        tables.orders.c.role.in_(ROLES_THAT_PROTECT),
    )


def _count_stops(books: Connection, bot: Bot) -> int:
    return books.execute(
        select(func.count()).select_from(_select_stops(bot).subquery())
    ).scalar_one()


def _last_entry(books: Connection, bot: Bot) -> Order | None:
    query = select(tables.orders).where(
        tables.orders.c.bot == bot.name,
        tables.orders.c.venue == bot.venue,
        tables.orders.c.role == Role.ENTRY,
        tables.orders.c.venue_order_id.is_not(None),
    )
    return first(rows(books, query.order_by(tables.orders.c.created_at.desc()).limit(1), Order))


def _was_refused(books: Connection, bot: Bot, stops: Sequence[Stop]) -> bool:
    """Whether the venue has just refused the very same."""
    newest = first(
        rows(books, _select_stops(bot).order_by(tables.orders.c.leg.desc()).limit(1), Order)
    )
    if newest is None or newest.status != OrderStatus.REJECTED or newest.proven_absent:
        return False
    recent = utc_now() - newest.updated_at < _AFTER_REFUSAL
    return recent and any(stop.is_met_by(newest) for stop in stops)


# Naming what is amiss


def find_stop_discrepancies(ledger: Ledger, venue: Venue, bots: Sequence[Bot]) -> list[Finding]:
    """Bots of the venue at which not what ought to rest does: the ledger's side tells the former,
    the venue's side the latter.

    A stop that rests without its position sells what nobody meant once coins are there again; a
    position without its stop is open to any fall.
    """
    mine = (bot for bot in bots if bot.venue == venue.name)
    return [found for bot in mine for found in _discrepancies_of(ledger, venue, bot)]


def _discrepancies_of(ledger: Ledger, venue: Venue, bot: Bot) -> list[Finding]:
    plan, live = plan_stops(ledger, venue, bot), live_stops(ledger, bot)
    if plan.is_done or (plan.waits and not _waits_too_long(ledger, venue, bot)):
        return []
    if plan.waits:
        return [Finding(POSITION_WITHOUT_STOP, bot.name, plan.waits, _told(live))]
    kind = POSITION_WITHOUT_STOP if plan.place else STOP_WITHOUT_POSITION
    return [Finding(kind, bot.name, _told(plan.place), _told(live))]


def _waits_too_long(ledger: Ledger, venue: Venue, bot: Bot) -> bool:
    """Whether nothing that is on its way explains any more that a position is unprotected."""
    with ledger.read() as books:
        moving = [*_live_stops(books, bot), *_other_orders(books, bot)]
        if any(o.is_known and Role(o.role).protects for o in moving):
            return False
        held = bot_position(books, bot.name, bot.symbol, bot.venue).amount
    young = any(
        utc_now() - order.updated_at < venue.visibility_lag
        for order in moving
        if not order.is_known
    )
    return bool(held) and not young


def _told(stops: Sequence[Stop | Order]) -> str:
    return "; ".join(
        f"{stop.role.lower()} {stop.amount:f} at "
        f"{stop.stop_price or stop.limit_price or stop.trailing_bips or 'market'}"
        for stop in stops
    ) or "none"  # fmt: skip
