"""What is asked of the exchange (Ticket), what it keeps (Order) and what happened (Trade)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from decimal import Decimal
from operator import attrgetter

from tradelib.paper.instruments import ZERO

BUY, SELL = "BUY", "SELL"
NEW, PARTIAL, FILLED = "NEW", "PARTIALLY_FILLED", "FILLED"
CANCELED, EXPIRED, EXPIRED_IN_MATCH = "CANCELED", "EXPIRED", "EXPIRED_IN_MATCH"
REJECTED = "REJECTED"  # told on the user stream alone: no such order is kept

LIMIT_TYPES = frozenset({"LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"})
STOP_TYPES = frozenset({"STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"})
STOP_LOSSES = frozenset({"STOP_LOSS", "STOP_LOSS_LIMIT"})


@dataclass(frozen=True)
class Ticket:
    """One order as a client asks for it.

    amount: base units; quote_amount: quote units to spend or to receive, of a market order.
    trailing: basis points between the best price seen and the trigger.
    prevention: what happens when the account would trade with itself.
    """

    symbol: str
    side: str
    type: str
    client_id: str
    amount: Decimal | None = None
    quote_amount: Decimal | None = None
    price: Decimal | None = None
    stop: Decimal | None = None
    trailing: int | None = None
    time_in_force: str = "GTC"
    prevention: str = "EXPIRE_MAKER"

    @property
    def is_stop(self) -> bool:
        return self.type in STOP_TYPES

    @property
    def triggers_rising(self) -> bool:
        """A stop that fires when the price comes from below; the others fire from above."""
        return (self.type in STOP_LOSSES) == (self.side == BUY)


@dataclass(slots=True)
class Order:
    """An order in the exchange's book. Times in milliseconds of the market's clock.

    working: it is, or was, on the book (a stop works once it fired).
    locked: what the account cannot use meanwhile; quote for a buy, base for a sell.
    extreme: the best price since a trailing stop became active; None before.
    """

    id: int
    account: str
    ticket: Ticket
    amount: Decimal
    time: int
    update_time: int
    status: str = NEW
    filled: Decimal = ZERO
    filled_quote: Decimal = ZERO
    locked: Decimal = ZERO
    working: bool = True
    working_time: int = -1
    list_id: int = -1
    extreme: Decimal | None = None
    trailing_time: int | None = None

    @property
    def remaining(self) -> Decimal:
        return self.amount - self.filled

    @property
    def is_open(self) -> bool:
        return self.status == NEW or self.status == PARTIAL

    def snapshot(self) -> Order:
        """The order as it stands now, for those who look later."""
        return Order(*_values(self))


_values = attrgetter(*(each.name for each in fields(Order)))


@dataclass(frozen=True, slots=True)
class Trade:
    """One side of one fill. fee_asset: the asset received, or the account's own choice."""

    id: int
    symbol: str
    order_id: int
    list_id: int
    account: str
    price: Decimal
    amount: Decimal
    quote: Decimal
    fee: Decimal
    fee_asset: str
    time: int
    is_buyer: bool
    is_maker: bool


@dataclass(frozen=True, slots=True)
class OrderList:
    """One-cancels-the-other: two orders of which one can be filled."""

    id: int
    account: str
    symbol: str
    client_id: str
    order_ids: tuple[int, int]
    time: int


@dataclass(slots=True)
class Balance:
    """What an account has of one asset; both parts are never negative."""

    free: Decimal = ZERO
    locked: Decimal = ZERO


@dataclass(slots=True)
class House:
    """The other side of every account: fees taken and what the market gave (negative) or got."""

    fees: dict[str, Decimal] = field(default_factory=dict)
    market: dict[str, Decimal] = field(default_factory=dict)
