"""What a venue tells us, as frozen values: instruments, quotes, balances, orders, trades."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from enum import StrEnum

from tradelib.errors import InvalidInput


class OrderType(StrEnum):
    """What an order waits for, and what it does then.

    A stop loss sells below the market or buys above it, a take profit the other way round; with
    _LIMIT it becomes a limit order when its stop price is met, else a market order. A trailing
    stop follows the best price at a distance. POST_ONLY is refused rather than taking.
    """

    MARKET = "market"
    LIMIT = "limit"
    POST_ONLY = "post_only"
    STOP_LOSS = "stop_loss"
    STOP_LOSS_LIMIT = "stop_loss_limit"
    TAKE_PROFIT = "take_profit"
    TAKE_PROFIT_LIMIT = "take_profit_limit"
    TRAILING_STOP = "trailing_stop"

    @property
    def has_limit(self) -> bool:
        return self in _PRICED

    @property
    def has_stop(self) -> bool:
        """Whether it must name the price that wakes it; a trailing stop may."""
        return self in _STOPS


_PRICED = frozenset({
    OrderType.LIMIT, OrderType.POST_ONLY, OrderType.STOP_LOSS_LIMIT, OrderType.TAKE_PROFIT_LIMIT,
})  # fmt: skip
_STOPS = frozenset({
    OrderType.STOP_LOSS, OrderType.STOP_LOSS_LIMIT, OrderType.TAKE_PROFIT,
    OrderType.TAKE_PROFIT_LIMIT,
})  # fmt: skip
_TIMED = frozenset({OrderType.LIMIT, OrderType.STOP_LOSS_LIMIT, OrderType.TAKE_PROFIT_LIMIT})


class TimeInForce(StrEnum):
    """How long a limit order lives: until cancelled, or for what it meets at once, or for all of
    it at once."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


@dataclass(frozen=True)
class OrderRequest:
    """One order as it will be sent.

    side: 'buy' or 'sell'. amount: base units. limit_price, stop_price: quote per base; a trailing
    stop's stop_price is where it begins to trail. trailing_bips: its distance from the best
    price, in hundredths of a percent. signed_at: when the desk committed that it will send; a
    venue that can refuses the request once it is older than the venue's request lifetime.

    Raises InvalidInput when its type and its prices do not go together.
    """

    symbol: str
    side: str
    type: OrderType
    amount: Decimal
    client_id: str
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trailing_bips: int | None = None
    time_in_force: TimeInForce | None = None
    signed_at: datetime | None = None

    def __post_init__(self) -> None:
        trails = self.type is OrderType.TRAILING_STOP
        self._demand("side", self.side in ("buy", "sell"))
        self._demand("amount", self.amount > 0)
        self._demand("limit_price", (self.limit_price is not None) == self.type.has_limit)
        self._demand("stop_price", trails or (self.stop_price is not None) == self.type.has_stop)
        self._demand("trailing_bips", (self.trailing_bips is not None) == trails)
        self._demand("time_in_force", self.time_in_force is None or self.type in _TIMED)

    def _demand(self, field: str, holds: bool) -> None:
        if not holds:
            given = getattr(self, field)
            raise InvalidInput(
                f"A {self.type} order of {self.symbol} cannot have {field} {given}; "
                "give each type its own prices and no other."
            )

    def __str__(self) -> str:
        price = self.limit_price or self.stop_price
        at = f" at {price:f}" if price else ""
        return f"{self.side} {self.amount:f} {self.symbol} ({self.type}{at})"


@dataclass(frozen=True)
class BracketRequest:
    """Two orders of which the first that trades cancels the other: a target and a stop.

    side, amount and symbol are those of both legs. amount: base units.
    """

    symbol: str
    side: str
    amount: Decimal
    list_client_id: str
    target: OrderRequest
    stop: OrderRequest
    signed_at: datetime | None = None

    def __post_init__(self) -> None:
        for leg in (self.target, self.stop):
            if (leg.symbol, leg.side, leg.amount) != (self.symbol, self.side, self.amount):
                raise InvalidInput(
                    f"Leg {leg} of bracket {self.list_client_id} is not for "
                    f"{self.side} {self.amount:f} {self.symbol}."
                )


@dataclass(frozen=True)
class Instrument:
    """A symbol's rules.

    tick: price step in quote; lot: amount step in base; min_amount, max_amount: base;
    min_notional: quote; maker_fee, taker_fee: shares of a trade. What is not told is None.
    """

    symbol: str
    base: str
    quote: str
    tick: Decimal
    lot: Decimal
    min_amount: Decimal | None = None
    max_amount: Decimal | None = None
    min_notional: Decimal | None = None
    active: bool = True
    maker_fee: Decimal | None = None
    taker_fee: Decimal | None = None

    def takes(self, amount: Decimal, price: Decimal) -> bool:
        """Whether the venue would take an order of that amount (base) at about that price."""
        if amount <= 0 or amount < (self.min_amount or 0):
            return False
        return amount * price >= (self.min_notional or 0)

    def round_amount(self, amount: Decimal) -> Decimal:
        """The largest tradable amount that is not above `amount`."""
        return (amount / self.lot).to_integral_value(ROUND_DOWN) * self.lot

    def round_price(self, price: Decimal) -> Decimal:
        """The nearest allowed price."""
        return (price / self.tick).to_integral_value(ROUND_HALF_EVEN) * self.tick


@dataclass(frozen=True)
class Quote:
    """Best bid and ask, in quote currency.

    venue_time: a moment of the venue's before which they were not told, None where it was not
    asked for; got_at: the same by this machine's clock.
    """

    symbol: str
    bid: Decimal
    ask: Decimal
    venue_time: datetime | None = None
    got_at: datetime | None = None


@dataclass(frozen=True)
class VenueBalance:
    """Units of one asset, free and locked in orders."""

    asset: str
    free: Decimal
    used: Decimal


class VenueStatus(StrEnum):
    """An order's state by the venue; UNKNOWN when it names one we cannot place."""

    OPEN = "OPEN"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class VenueOrder:
    """An order as the venue has it.

    type: an OrderType's value, or the venue's own word for a type that the desk lacks.
    amount, filled: base; cost: quote; limit_price, stop_price: quote per base. Some venues answer
    a new order with its id alone: the rest is None and the status UNKNOWN then.
    list_id: the venue's id of the bracket it belongs to. at: its creation, in the venue's time.
    trades: all of its executions so far, where the answer named them.
    """

    venue_order_id: str
    client_id: str | None
    symbol: str
    side: str
    type: str
    status: VenueStatus
    amount: Decimal | None
    filled: Decimal | None
    cost: Decimal | None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    list_id: str | None = None
    at: datetime | None = None
    trades: tuple[VenueTrade, ...] = ()


@dataclass(frozen=True)
class VenueTrade:
    """One execution. amount: base; price, cost: quote; fee: in fee_currency, positive if paid."""

    trade_id: str
    venue_order_id: str
    symbol: str
    side: str
    amount: Decimal
    price: Decimal
    cost: Decimal
    fee: Decimal
    fee_currency: str
    at: datetime
