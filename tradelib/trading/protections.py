"""Protections: troubles after which entries pause for a while. Exits always pass.

Each is a tiny class that finds the troubles of a venue in the ledger as of a market time. Nothing
is remembered beside the ledger, so that a restart, a replay and a second process say the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import Connection, func, or_, select

from tradelib.settings import ProtectionSettings
from tradelib.strategy.decision import STOP_LOSS, reason_text
from tradelib.trading import tables
from tradelib.trading.accounts import newest_equity
from tradelib.trading.ledger import Ledger, rows
from tradelib.trading.orders import ZERO, Order, Role, Side
from tradelib.trading.positions import UNASSIGNED, Tranche

if TYPE_CHECKING:
    # It reaches the venue's client, which costs half a second that no page needs to pay.
    from tradelib.trading.risk import Refusal


@dataclass(frozen=True)
class ActiveProtection:
    """A pause in force: entries of `bot` in `symbol` at `venue`, None standing for all, wait
    until `until`; struck_at: the newest moment of the trouble, market time."""

    name: str
    venue: str
    bot: str | None
    symbol: str | None
    struck_at: datetime
    until: datetime
    value: str
    bound: str
    reason: str

    def holds(self, order: Order) -> bool:
        """Whether the order is among those that wait."""
        return self.bot in (None, order.bot) and self.symbol in (None, order.symbol)


class Protection(Protocol):
    def find(self, books: Connection, venue: str, as_of: datetime) -> list[ActiveProtection]: ...


@dataclass(frozen=True)
class MaxDrawdown:
    """The account's equity stood `share` (a fraction) or more below its peak of the `window`
    before: in force while it does, and for `cooling` after.

    With a share of 0.1, a peak of 10 000 and a worth of 9 000 strike, 9 001 does not. Money that
    is taken out of the account looks the same.
    """

    share: Decimal
    window: timedelta
    cooling: timedelta

    def find(self, books: Connection, venue: str, as_of: datetime) -> list[ActiveProtection]:
        points = _equity_since(books, venue, as_of - self.cooling - self.window, as_of)
        struck = last_drawdown(points, self.share, self.window)
        if struck is None:
            return []
        moment, fall = struck
        told = f"equity fell {fall:.1%} from its peak of {_span(self.window)}"
        return _in_force(self, as_of, moment, venue, None, None, f"{fall:.4f}", self.share, told)


@dataclass(frozen=True)
class StopLossStreak:
    """`count` exits by a stop within `window`, of one bot, one symbol or the account (`per`): in
    force for `cooling` after the last of them."""

    count: int
    per: str
    window: timedelta
    cooling: timedelta

    def find(self, books: Connection, venue: str, as_of: datetime) -> list[ActiveProtection]:
        since = as_of - self.cooling - self.window
        stops = sorted(_stop_exits(books, venue, since, as_of), key=self._scope_key)
        found = []
        for _, group in groupby(stops, self._scope_key):
            of_scope = list(group)
            moment = last_streak([stop.at for stop in of_scope], self.count, self.window)
            if moment:
                found += self._told(as_of, venue, moment, of_scope[0])
        return found

    def _scope(self, stop: StopExit) -> tuple[str | None, str | None]:
        """The bot and the symbol whose entries pause, None for all."""
        bot = stop.bot if self.per == "bot" else None
        return bot, stop.symbol if self.per != "account" else None

    def _scope_key(self, stop: StopExit) -> tuple[str, str]:
        bot, symbol = self._scope(stop)
        return bot or "", symbol or ""

    def _told(
        self, as_of: datetime, venue: str, moment: datetime, stop: StopExit
    ) -> list[ActiveProtection]:
        bot, symbol = self._scope(stop)
        told = f"{self.count} exits by a stop within {_span(self.window)}"
        return _in_force(self, as_of, moment, venue, bot, symbol, self.count, self.count, told)


@dataclass(frozen=True)
class LowProfitSymbol:
    """A symbol's purchases sold within `window`, `after` of them or more, earned less than
    `bound` of their cost (a fraction, negative for a loss): in force for `cooling` after the
    last of their sales.

    With a bound of -0.03, purchases for 1 000 and 2 000 that lost 40 and 60 earned -100 / 3 000 =
    -0.0333 and strike.
    """

    after: int
    bound: Decimal
    window: timedelta
    cooling: timedelta

    def find(self, books: Connection, venue: str, as_of: datetime) -> list[ActiveProtection]:
        since = as_of - self.cooling - self.window
        closed = sorted(_closed_tranches(books, venue, since, as_of), key=lambda t: t.symbol)
        found = []
        for symbol, group in groupby(closed, lambda tranche: tranche.symbol):
            struck = last_low_profit(list(group), self.after, self.bound, self.window)
            if struck:
                found += self._told(as_of, venue, symbol, *struck)
        return found

    def _told(
        self, as_of: datetime, venue: str, symbol: str, moment: datetime, profit: Decimal
    ) -> list[ActiveProtection]:
        told = f"purchases sold within {_span(self.window)} earned {profit:.2%} of their cost"
        return _in_force(
            self, as_of, moment, venue, None, symbol, f"{profit:.4f}", self.bound, told
        )


@dataclass(frozen=True)
class StopExit:
    """An order that left a position at a loss set beforehand; at: its newest fill."""

    bot: str | None
    symbol: str
    at: datetime


@dataclass(frozen=True)
class Worth:
    """The account's worth at one moment, in its quote currency."""

    as_of: datetime
    equity: Decimal


def protections_for(settings: ProtectionSettings) -> tuple[Protection, ...]:
    """Every protection that is on."""

    def hours(value: float) -> timedelta:
        return timedelta(hours=value)

    drawdown = MaxDrawdown(
        settings.max_drawdown,
        hours(settings.drawdown_hours),
        hours(settings.drawdown_cooling_hours),
    )
    streak = StopLossStreak(
        settings.stop_streak,
        settings.stop_streak_per,
        hours(settings.stop_streak_hours),
        hours(settings.stop_streak_cooling_hours),
    )
    low_profit = LowProfitSymbol(
        settings.low_profit_after,
        settings.low_profit,
        hours(settings.low_profit_hours),
        hours(settings.low_profit_cooling_hours),
    )
    is_on = ((drawdown, drawdown.share < 1), (streak, streak.count), (low_profit, low_profit.after))
    return tuple(protection for protection, on in is_on if on)


def check_protections(
    books: Connection, order: Order, as_of: datetime, settings: ProtectionSettings
) -> tuple[Refusal, ...]:
    """The refusals of an entry by the protections in force; an exit gets none."""
    from tradelib.trading.risk import Refusal

    if order.reduces:
        return ()
    found = find_protections(books, order.venue, as_of, settings)
    return tuple(
        Refusal(one.name, one.value, one.bound, one.reason) for one in found if one.holds(order)
    )


def active_protections(
    ledger: Ledger,
    venue: str,
    as_of: datetime,
    settings: ProtectionSettings | None = None,
) -> list[ActiveProtection]:
    """The protections in force at a venue, at market time `as_of`."""
    with ledger.read() as books:
        return find_protections(books, venue, as_of, settings or ProtectionSettings())


def find_protections(
    books: Connection, venue: str, as_of: datetime, settings: ProtectionSettings
) -> list[ActiveProtection]:
    return [
        found
        for protection in protections_for(settings)
        for found in protection.find(books, venue, as_of)
    ]


def last_drawdown(
    points: Sequence[Worth], share: Decimal, window: timedelta
) -> tuple[datetime, Decimal] | None:
    """The newest moment at which the worth stood `share` below its peak of the window before,
    and the fall as a fraction; points in time order."""
    peaks: deque[Worth] = deque()  # falling: the first is the highest of the window
    struck = None
    for point in points:
        while peaks and peaks[-1].equity <= point.equity:
            peaks.pop()
        peaks.append(point)
        while peaks[0].as_of < point.as_of - window:
            peaks.popleft()
        peak = peaks[0].equity
        if peak > 0 and peak - point.equity >= share * peak:
            struck = point.as_of, 1 - point.equity / peak
    return struck


def last_streak(times: Sequence[datetime], count: int, window: timedelta) -> datetime | None:
    """The newest of the times that had `count` of them, itself included, in the window before."""
    ordered = sorted(times)
    pairs = zip(ordered, ordered[count - 1 :], strict=False)
    return max((late for early, late in pairs if late - early <= window), default=None)


def last_low_profit(
    closed: Sequence[Tranche], after: int, bound: Decimal, window: timedelta
) -> tuple[datetime, Decimal] | None:
    """The newest sale at which the purchases closed in the window before it, `after` or more,
    had earned less than `bound` of their cost, and what they had earned, a fraction."""
    judged: deque[Tranche] = deque()
    cost, earned, struck = ZERO, ZERO, None
    in_time = sorted(closed, key=lambda tranche: tranche.exited_at)
    for moment, group in groupby(in_time, lambda tranche: tranche.exited_at):
        for tranche in group:
            judged.append(tranche)
            cost, earned = cost + _cost_of_sold(tranche), earned + tranche.realised
        while judged[0].exited_at < moment - window:
            gone = judged.popleft()
            cost, earned = cost - _cost_of_sold(gone), earned - gone.realised
        if len(judged) >= after and cost > 0 and earned < bound * cost:
            struck = moment, earned / cost
    return struck


def _cost_of_sold(tranche: Tranche) -> Decimal:
    return tranche.cost - tranche.cost_left


def _in_force(
    protection: MaxDrawdown | StopLossStreak | LowProfitSymbol,
    as_of: datetime,
    moment: datetime,
    venue: str,
    bot: str | None,
    symbol: str | None,
    value: object,
    bound: object,
    told: str,
) -> list[ActiveProtection]:
    """The protection that struck at `moment`, unless its cooling is over."""
    until = moment + protection.cooling
    if until <= as_of:
        return []
    whose = " ".join(filter(None, (bot, symbol))) or f"account {venue}"
    reason = f"{whose}: {told}; no entries until {until:%Y-%m-%d %H:%M:%S} UTC"
    name = type(protection).__name__
    return [
        ActiveProtection(name, venue, bot, symbol, moment, until, str(value), str(bound), reason)
    ]


def _equity_since(books: Connection, venue: str, since: datetime, as_of: datetime) -> list[Worth]:
    points = tables.equity.c
    query = select(points.as_of, points.equity).where(
        points.venue == venue, points.as_of >= since, points.as_of <= as_of
    )
    return rows(books, query.order_by(points.as_of), Worth)


def _stop_exits(
    books: Connection, venue: str, since: datetime, as_of: datetime
) -> Iterator[StopExit]:
    """Sales by a stop that rested at the venue, or by a decision to stop."""
    fills, orders, decisions = tables.fills, tables.orders, tables.decisions
    by_stop = or_(orders.c.role == Role.STOP, decisions.c.reason == reason_text(STOP_LOSS))
    query = (
        select(orders.c.bot, orders.c.symbol, func.max(fills.c.at).label("at"))
        .select_from(fills)
        .join(orders, orders.c.client_id == fills.c.client_id)
        .outerjoin(decisions, decisions.c.id == orders.c.decision)
        .where(fills.c.venue == venue, fills.c.at >= since, fills.c.at <= as_of)
        .where(fills.c.side == Side.SELL, by_stop)
        .group_by(orders.c.client_id, orders.c.bot, orders.c.symbol)
    )
    yield from rows(books, query, StopExit)


def _closed_tranches(
    books: Connection, venue: str, since: datetime, as_of: datetime
) -> Iterable[Tranche]:
    """Bots' purchases whose newest sale was in the time, sold but for dust."""
    known = newest_equity(books, venue, as_of)
    mine = tables.tranches.c
    query = select(tables.tranches).where(
        mine.venue == venue,
        mine.exited_at >= since,
        mine.exited_at <= as_of,
        mine.bot != UNASSIGNED,
    )
    equity = known.equity if known else ZERO
    return [tranche for tranche in rows(books, query, Tranche) if tranche.closed(equity)]


def _span(length: timedelta) -> str:
    return f"{length.total_seconds() / 3600:g} h"
