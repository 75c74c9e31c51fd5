"""Limits: what an order may not do. Each is a tiny class that answers with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import Connection

from tradelib.settings import LimitSettings
from tradelib.trading import tables
from tradelib.trading.halts import Halt
from tradelib.trading.ledger import find
from tradelib.trading.orders import Order, Role, Side

if TYPE_CHECKING:
    # Its room reaches the venue's client, which costs half a second that no page needs to pay.
    from tradelib.venue.facts import Instrument


@dataclass(frozen=True)
class Portfolio:
    """What the limits are held against, all in the order's quote currency.

    equity: the account's worth; cash: free quote currency; held_amount: base currency the bot
    holds; symbol_value: worth of all that the account holds in the order's symbol;
    loss_today: positive when the day lost; candle_age: since the last closed candle; armed:
    whether orders may go to the venue at all. Of the bot's own orders: orders_on_their_way, whose
    state or fills are not known; orders_resting, others that are open; stops_resting, those that
    protect its position. orders_missing: whether the venue has orders of the desk's that the
    ledger lacks.
    """

    as_of: datetime
    equity: Decimal
    cash: Decimal
    held_amount: Decimal
    symbol_value: Decimal
    open_symbols: frozenset[str]
    trades_today: int
    loss_today: Decimal
    candle_age: timedelta
    timeframe: timedelta
    halt: Halt | None = None
    armed: bool = False
    orders_on_their_way: int = 0
    orders_resting: int = 0
    stops_resting: int = 0
    orders_missing: bool = False


@dataclass(frozen=True)
class Refusal:
    """A limit's no: its name, the value that broke it, the bound, and a sentence."""

    limit_name: str
    value: str
    bound: str
    reason: str


class Limit(Protocol):
    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None: ...


@dataclass(frozen=True)
class OrderNotional:
    """A purchase's value lies between two bounds. An exit is bound by what is held alone: a
    position that shrank or grew must be able to leave (the venue's own minimum still holds)."""

    smallest: Decimal
    largest: Decimal

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        value = order.notional
        if order.side is Side.SELL or self.smallest <= value <= self.largest:
            return None
        return _refusal(
            self,
            f"{value:.8f}",
            f"{self.smallest} to {self.largest}",
            f"the order is worth {value:.2f} {order.quote}, "
            f"allowed are {self.smallest} to {self.largest}",
        )


@dataclass(frozen=True)
class PositionShare:
    """One symbol is at most this fraction of equity after the order."""

    share: Decimal

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        after = portfolio.symbol_value + order.notional
        if order.side is Side.SELL or after <= self.share * portfolio.equity:
            return None
        part = after / portfolio.equity if portfolio.equity else Decimal(1)
        return _refusal(
            self,
            f"{part:.4f}",
            f"{self.share}",
            f"{order.symbol} would be {part:.1%} of equity, allowed is {self.share:.0%}",
        )


@dataclass(frozen=True)
class OpenPositions:
    """At most this many symbols are held at once."""

    count: int

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        after = portfolio.open_symbols | {order.symbol}
        if order.side is Side.SELL or len(after) <= self.count:
            return None
        return _refusal(
            self,
            str(len(after)),
            str(self.count),
            f"{order.symbol} would be open position number {len(after)}, allowed are {self.count}",
        )


@dataclass(frozen=True)
class TradesPerDay:
    """At most this many orders a UTC day; exits always pass."""

    count: int

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        if order.side is Side.SELL or portfolio.trades_today < self.count:
            return None
        return _refusal(
            self,
            str(portfolio.trades_today),
            str(self.count),
            f"{portfolio.trades_today} orders were sent today, allowed are {self.count}",
        )


@dataclass(frozen=True)
class DailyLoss:
    """No new position once the day has lost this fraction of equity."""

    share: Decimal

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        bound = self.share * (portfolio.equity + portfolio.loss_today)
        if order.side is Side.SELL or portfolio.loss_today < bound or not portfolio.loss_today:
            return None
        return _refusal(
            self,
            f"{portfolio.loss_today:.8f}",
            f"{bound:.8f}",
            f"the day has lost {portfolio.loss_today:.2f} {order.quote}, allowed are {bound:.2f}",
        )


@dataclass(frozen=True)
class CashReserve:
    """A buy leaves at least this fraction of equity in cash."""

    share: Decimal

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        left = portfolio.cash - order.notional
        bound = self.share * portfolio.equity
        if order.side is Side.SELL or left >= bound:
            return None
        return _refusal(
            self,
            f"{left:.8f}",
            f"{bound:.8f}",
            f"the order would leave {left:.2f} {order.quote} in cash, {bound:.2f} must stay",
        )


@dataclass(frozen=True)
class OneAtATime:
    """A bot sends nothing while the state or the fills of an order of its own are not known: what
    it holds is not known then. An order that only rests keeps it from entering, not from leaving.
    """

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        count = portfolio.orders_on_their_way
        if not order.reduces:
            count += portfolio.orders_resting
        if not count:
            return None
        return _refusal(
            self,
            str(count),
            "0",
            f"{count} order{'s' if count > 1 else ''} of this bot must be settled first",
        )


@dataclass(frozen=True)
class StopsWithdrawn:
    """A position is not sold while a stop of its own still rests: both could sell, and the second
    would sell somebody else's coins."""

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        count = portfolio.stops_resting
        if not count or order.role != Role.EXIT or order.bot is None:
            return None
        return _refusal(
            self, str(count), "0", f"{count} stop{'s' if count > 1 else ''} of it could not be"
            " withdrawn yet",
        )  # fmt: skip


@dataclass(frozen=True)
class BooksComplete:
    """No entry while the venue has orders of the desk's that the ledger does not know, as after a
    restored backup: a decision made before could be ordered again."""

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        if order.reduces or not portfolio.orders_missing:
            return None
        told = "the venue has orders of this desk that the ledger lacks; `desk resync` brings them"
        return _refusal(self, "missing", "none", told)


@dataclass(frozen=True)
class SufficientBalance:
    """A buy has the cash, a sale has the coins."""

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        if order.side is Side.BUY:
            need, have, unit = order.notional, portfolio.cash, order.quote
        else:
            need, have, unit = order.amount, portfolio.held_amount, order.symbol.split("/")[0]
        if need <= have:
            return None
        return _refusal(
            self,
            f"{need:f}",
            f"{have:f}",
            f"the order needs {_plain(need)} {unit}, there are {_plain(have)}",
        )


@dataclass(frozen=True)
class FreshCandles:
    """The last closed candle is at most this many timeframes old."""

    timeframes: float

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        bound = portfolio.timeframe * self.timeframes
        if portfolio.candle_age <= bound:
            return None
        return _refusal(
            self,
            str(portfolio.candle_age),
            str(bound),
            f"the last candle closed {portfolio.candle_age} ago, allowed are {bound}",
        )


@dataclass(frozen=True)
class VenueMinimum:
    """The venue's own bounds: an open symbol, smallest amount and smallest value."""

    instrument: Instrument

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        rules = self.instrument
        if not rules.active:
            return _refusal(self, "closed", "open", f"the venue has closed {order.symbol}")
        if order.amount <= 0 or order.amount < (rules.min_amount or 0):
            return _refusal(
                self,
                f"{order.amount:f}",
                f"{rules.min_amount or rules.lot}",
                f"{_plain(order.amount)} {rules.base} is less than the venue trades",
            )
        if order.notional < (rules.min_notional or 0):
            worth = f"{_plain(order.notional)} {rules.quote}"
            return _refusal(
                self,
                f"{order.notional:f}",
                f"{rules.min_notional}",
                f"an order worth {worth} is less than the venue takes",
            )
        return None


@dataclass(frozen=True)
class NotHalted:
    """Nothing is sent while trading is halted."""

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        if portfolio.halt is None or not portfolio.halt.stops_all:
            return None
        return _refusal(self, "halted", "active", f"trading is halted: {portfolio.halt.reason}")


@dataclass(frozen=True)
class OnlyReducing:
    """Positions only shrink while trading is reducing."""

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        if portfolio.halt is None or portfolio.halt.stops_all or order.reduces:
            return None
        told = f"trading is reducing, positions may only shrink: {portfolio.halt.reason}"
        return _refusal(self, "reducing", "active", told)


@dataclass(frozen=True)
class Armed:
    """Nothing is sent to a venue beyond this machine unless a person has armed it."""

    def check(self, order: Order, portfolio: Portfolio) -> Refusal | None:
        if portfolio.armed:
            return None
        return _refusal(
            self,
            "not armed",
            "armed",
            f"venue {order.venue} is not armed; `desk arm {order.venue}` does it",
        )


# Refusals that pass by themselves: the decision may be tried again while it is fresh.
PASSING = frozenset({OneAtATime.__name__, StopsWithdrawn.__name__})
# Refusals that say nothing of the order itself: while they last, none of its bot's goes, or they
# are over by the next candle.
OF_THE_MOMENT = PASSING | {
    limit.__name__ for limit in (NotHalted, OnlyReducing, Armed, BooksComplete, FreshCandles)
}  # fmt: skip
# Refusals that end with the day, in UTC.
OF_THE_DAY = frozenset({TradesPerDay.__name__, DailyLoss.__name__})


def load_refusals(books: Connection, client_id: str) -> tuple[Refusal, ...]:
    return tuple(find(books, tables.refusals, Refusal, client_id=client_id))


def limits_for(settings: LimitSettings, instrument: Instrument) -> tuple[Limit, ...]:
    """Every limit that an order in this instrument is held against."""
    notional = settings.notional_for(instrument.quote)
    return (
        NotHalted(),
        OnlyReducing(),
        Armed(),
        OneAtATime(),
        StopsWithdrawn(),
        BooksComplete(),
        VenueMinimum(instrument),
        FreshCandles(settings.max_candle_age),
        OrderNotional(notional.min, notional.max),
        SufficientBalance(),
        CashReserve(settings.min_cash_share),
        PositionShare(settings.max_position_share),
        OpenPositions(settings.max_open_positions),
        TradesPerDay(settings.max_trades_per_day),
        DailyLoss(settings.max_daily_loss_share),
    )


def check_limits(
    order: Order, portfolio: Portfolio, limits: Sequence[Limit]
) -> tuple[Refusal, ...]:
    """Every limit's refusal; empty when the order may go."""
    answers = (limit.check(order, portfolio) for limit in limits)
    return tuple(answer for answer in answers if answer)


def _refusal(limit: Limit, value: str, bound: str, reason: str) -> Refusal:
    return Refusal(type(limit).__name__, value, bound, reason)


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
