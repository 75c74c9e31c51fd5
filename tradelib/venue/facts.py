"""What a venue tells us, as frozen values: instruments, quotes, balances, orders, trades."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from enum import StrEnum


@dataclass(frozen=True)
class Instrument:
    """A symbol's rules.

    tick: price step in quote; lot: amount step in base; min_amount, max_amount: base;
    min_notional: quote. Absent bounds are None.
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

    def round_amount(self, amount: Decimal) -> Decimal:
        """The largest tradable amount that is not above `amount`."""
        return (amount / self.lot).to_integral_value(ROUND_DOWN) * self.lot

    def round_price(self, price: Decimal) -> Decimal:
        """The nearest allowed price."""
        return (price / self.tick).to_integral_value(ROUND_HALF_EVEN) * self.tick


@dataclass(frozen=True)
class Quote:
    """Best bid and ask, in quote currency."""

    symbol: str
    bid: Decimal
    ask: Decimal


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
    """An order as the venue has it. amount, filled: base; cost: quote."""

    venue_order_id: str
    client_id: str | None
    symbol: str
    side: str
    type: str
    status: VenueStatus
    amount: Decimal | None
    filled: Decimal | None
    cost: Decimal | None


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
