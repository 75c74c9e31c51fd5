"""The accounts' resting orders in one symbol, by price and then by time, beside the market's."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from decimal import Decimal

from tradelib.paper.instruments import ZERO, Instrument
from tradelib.paper.liquidity import Liquidity
from tradelib.paper.orders import BUY, SELL, Order

Offer = tuple[Decimal, Decimal, Order | None]


class Ladder:
    """One side: price levels, each a queue in order of arrival."""

    def __init__(self, side: str) -> None:
        self._descending = side == BUY
        self._prices: list[Decimal] = []
        self._queues: dict[Decimal, dict[int, Order]] = {}

    def add(self, order: Order) -> None:
        price = order.ticket.price
        queue = self._queues.get(price)
        if queue is None:
            insort(self._prices, price)
            queue = self._queues[price] = {}
        queue[order.id] = order

    def remove(self, order: Order) -> None:
        price = order.ticket.price
        queue = self._queues[price]
        del queue[order.id]
        if not queue:
            del self._queues[price]
            del self._prices[bisect_left(self._prices, price)]

    @property
    def best(self) -> Decimal | None:
        if not self._prices:
            return None
        return self._prices[-1 if self._descending else 0]

    def orders(self) -> Iterator[Order]:
        """Best price first, then oldest first."""
        for price in reversed(self._prices) if self._descending else self._prices:
            yield from self._queues[price].values()

    def __bool__(self) -> bool:
        return bool(self._prices)


class Standing:
    """The market's levels of one side, made as far as they are looked at, less what was taken."""

    def __init__(self, liquidity: Liquidity | None, side: str) -> None:
        self._liquidity, self._side = liquidity, side
        self._taken: dict[Decimal, Decimal] = {}
        self._begin(None)

    def _begin(self, beyond: Decimal | None) -> None:
        self._beyond = beyond
        self._here: dict[Decimal, Decimal] = {}
        self._coming = self._liquidity.levels(self._side, beyond) if self._liquidity else iter(())

    def levels(self, beyond: Decimal | None) -> Iterator[tuple[Decimal, Decimal]]:
        """As those of Liquidity. What was taken stays so, from wherever they begin."""
        if beyond != self._beyond:
            self._begin(beyond)
        yield from list(self._here.items())
        for price, amount in self._coming:
            left = amount - self._taken.get(price, ZERO)
            if left > 0:
                self._here[price] = left
                yield price, left

    def take(self, price: Decimal, amount: Decimal) -> None:
        self._taken[price] = self._taken.get(price, ZERO) + amount
        left = self._here[price] - amount
        if left > 0:
            self._here[price] = left
        else:
            del self._here[price]


class Book:
    """All that can be traded against in one symbol.

    What accounts take from the market's levels is gone until it shows new ones.
    """

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.sides = {BUY: Ladder(BUY), SELL: Ladder(SELL)}
        self.stops: dict[int, Order] = {}
        self.liquidity: Liquidity | None = None
        self._market = {side: Standing(None, side) for side in (BUY, SELL)}

    @property
    def is_quiet(self) -> bool:
        """No account's order waits here, so the market may move unobserved."""
        return not (self.stops or self.sides[BUY] or self.sides[SELL])

    def show(self, liquidity: Liquidity) -> None:
        """The market's levels from now on."""
        self.liquidity = liquidity
        self._market = {side: Standing(liquidity, side) for side in (BUY, SELL)}

    def add(self, order: Order) -> None:
        if order.working:
            self.sides[order.ticket.side].add(order)
        else:
            self.stops[order.id] = order

    def remove(self, order: Order) -> None:
        if order.id in self.stops:
            del self.stops[order.id]
        else:
            self.sides[order.ticket.side].remove(order)

    def offers(self, side: str) -> Iterator[Offer]:
        """(price, amount, order or None for the market) standing on `side`, best first.

        At one price the accounts' orders come before the market's.
        """
        better = (lambda a, b: a >= b) if side == BUY else (lambda a, b: a <= b)
        resting = self.sides[side].orders()
        order = next(resting, None)
        for price, amount in self.market_levels(side):
            while order is not None and better(order.ticket.price, price):
                yield order.ticket.price, order.amount - order.filled, order
                order = next(resting, None)
            yield price, amount, None
        while order is not None:
            yield order.ticket.price, order.amount - order.filled, order
            order = next(resting, None)

    def market_levels(self, side: str) -> Iterator[tuple[Decimal, Decimal]]:
        """The market's own levels, less what was taken from them.

        They begin beyond an account's resting order that outbids the market: it would have
        absorbed the better ones.
        """
        opposite = self.sides[SELL if side == BUY else BUY].best
        if opposite is not None and self.liquidity is not None:
            last = self.liquidity.price
            if opposite >= last if side == BUY else opposite <= last:
                opposite = None
        return self._market[side].levels(opposite)

    def consume(self, side: str, price: Decimal, amount: Decimal) -> None:
        """Takes from one of the market's levels."""
        self._market[side].take(price, amount)

    def depth(self, side: str, limit: int) -> list[tuple[Decimal, Decimal]]:
        """The first `limit` price levels of `side`, each with all that stands there."""
        levels: list[tuple[Decimal, Decimal]] = []
        for price, amount, _ in self.offers(side):
            if levels and levels[-1][0] == price:
                levels[-1] = (price, levels[-1][1] + amount)
            elif len(levels) == limit:
                break
            else:
                levels.append((price, amount))
        return levels
