"""What a client sees of its account: as it stands, or as it stood a moment ago."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tradelib.paper.exchange import Exchange
from tradelib.paper.orders import Balance, Order, Trade
from tradelib.paper.store import Page


@dataclass(frozen=True)
class Sight:
    """One account as it stands. trades_end: the first trade, by id, that does not show yet."""

    exchange: Exchange
    account: str
    trades_end: int | None = None

    def order(self, symbol: str, number: int | None, name: str | None) -> Order | None:
        found = self.exchange.engine.find_open(self.account, symbol, number, name)
        return found or self.exchange.store.order(self.account, symbol, number, name)

    def open_orders(self, symbol: str) -> list[Order]:
        return self.exchange.engine.open_orders(self.account, symbol)

    def orders(self, symbol: str, page: Page) -> list[Order]:
        return self.exchange.store.orders(self.account, symbol, page)

    def balances(self) -> dict[str, Balance]:
        return self.exchange.engine.balances[self.account]

    def trades(self, symbol: str, page: Page) -> list[Trade]:
        page = page if self.trades_end is None else replace(page, before=self.trades_end)
        return self.exchange.store.trades(self.account, symbol, page)


@dataclass(frozen=True)
class Past:
    """One account as it stood. open: orders that waited; orders_end: the first id not yet given.

    Whatever had ended by then has not changed since, so that the store still tells it.
    """

    open: dict[int, Order]
    balances: dict[str, Balance]
    orders_end: int


@dataclass(frozen=True)
class OldSight(Sight):
    """One account as it stood."""

    past: Past = Past({}, {}, 0)

    def order(self, symbol: str, number: int | None, name: str | None) -> Order | None:
        end = self.past.orders_end
        found = self.exchange.store.order(self.account, symbol, number, name, end)
        return found and self.past.open.get(found.id, found)

    def open_orders(self, symbol: str) -> list[Order]:
        return [each for each in self.past.open.values() if each.ticket.symbol == symbol]

    def orders(self, symbol: str, page: Page) -> list[Order]:
        found = super().orders(symbol, replace(page, before=self.past.orders_end))
        return [self.past.open.get(each.id, each) for each in found]

    def balances(self) -> dict[str, Balance]:
        return self.past.balances


def remember(exchange: Exchange, account: str) -> Past:
    """The account as it stands now, for those who will look back."""
    engine = exchange.engine
    waiting = [each for symbol in engine.books for each in engine.open_orders(account, symbol)]
    return Past(
        {each.id: each.snapshot() for each in waiting},
        {
            asset: Balance(each.free, each.locked)
            for asset, each in engine.balances[account].items()
        },
        engine.next_order,
    )
