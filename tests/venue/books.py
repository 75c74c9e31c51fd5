"""Just enough of an exchange behind a dialect: orders, executions and balances of one account."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from decimal import Decimal

PRICE = Decimal(50_000)
TICK, LOT = Decimal("0.01"), Decimal("0.00001")
FEE = Decimal("0.001")
ZERO = Decimal(0)


class Refused(Exception):
    """The exchange's no, by the name that dialects give it words for."""


@dataclass
class Order:
    """status: open, filled, canceled or expired, or a dialect's own word put there by a test.

    asked: what the request said, for a dialect to repeat. at: seconds since 1970.
    """

    id: str
    client_id: str | None
    side: str
    kind: str
    amount: Decimal
    limit: Decimal | None
    stop: Decimal | None
    asked: dict
    at: float
    status: str = "open"
    filled: Decimal = ZERO
    cost: Decimal = ZERO
    fee: Decimal = ZERO

    @property
    def locked(self) -> Decimal:
        """What it holds back: quote when buying, else base."""
        if self.status != "open":
            return ZERO
        rest = self.amount - self.filled
        return rest * (self.limit or PRICE) if self.side == "buy" else rest


@dataclass(frozen=True)
class Execution:
    """One execution. fee: quote. at: seconds since 1970."""

    id: str
    order: Order
    amount: Decimal
    price: Decimal
    fee: Decimal
    at: float


@dataclass
class Books:
    """One account, which trades BTC for USDT at a price that stands still."""

    totals: dict[str, Decimal] = field(
        default_factory=lambda: {"BTC": Decimal(1), "USDT": Decimal(10_000)}
    )
    orders: dict[str, Order] = field(default_factory=dict)
    executions: list[Execution] = field(default_factory=list)
    numbers: itertools.count = field(default_factory=lambda: itertools.count(1))

    def place(self, order: Order) -> Order:
        self._check(order)
        self.orders[order.id] = order
        if order.kind == "market":
            self.fill(order, order.amount)
        elif order.asked.get("at_once"):
            order.status = "canceled"
        return order

    def _check(self, order: Order) -> None:
        asset = "USDT" if order.side == "buy" else "BTC"
        if order.locked > self.free(asset):
            raise Refused("funds")
        if order.amount < Decimal("0.0001"):
            raise Refused("size")

    def fill(self, order: Order, amount: Decimal, at: float | None = None) -> Execution:
        price = order.limit or PRICE
        cost = amount * price
        number = next(self.numbers)
        done = Execution(f"t{number}", order, amount, price, cost * FEE, at or time.time())
        self.executions.append(done)
        order.filled, order.cost, order.fee = (
            order.filled + amount, order.cost + cost, order.fee + done.fee,
        )  # fmt: skip
        sign = 1 if order.side == "buy" else -1
        self.totals["BTC"] += sign * amount
        self.totals["USDT"] -= sign * cost + done.fee
        if order.filled == order.amount:
            order.status = "filled"
        return done

    def cancel(self, order: Order | None) -> None:
        if order is None or order.status != "open":
            raise Refused("not open")
        order.status = "canceled"

    def by_client_id(self, client_id: str | None) -> Order | None:
        found = (order for order in self.orders.values() if order.client_id == client_id)
        return next(found, None)

    def used(self, asset: str) -> Decimal:
        side = "buy" if asset == "USDT" else "sell"
        return sum((o.locked for o in self.orders.values() if o.side == side), ZERO)

    def free(self, asset: str) -> Decimal:
        return self.totals[asset] - self.used(asset)
