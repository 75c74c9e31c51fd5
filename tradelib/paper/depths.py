"""The books as clients see them, each state with a number, so that a snapshot and the updates
that follow it fit together."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tradelib.paper.book import Book
from tradelib.paper.instruments import ZERO
from tradelib.paper.orders import BUY, SELL

Levels = list[tuple[Decimal, Decimal]]
DEEPEST = 5000


@dataclass(frozen=True)
class Depth:
    """One state of a book. number: larger than that of every state before; bids, asks: price and
    amount of each level, best first."""

    number: int
    bids: Levels
    asks: Levels

    def changes_since(self, earlier: Depth) -> tuple[Levels, Levels]:
        """The bids and asks that have changed; the amount is 0 where a level is gone."""
        return _changes(earlier.bids, self.bids), _changes(earlier.asks, self.asks)


def _changes(before: Levels, after: Levels) -> Levels:
    known, here = dict(before), dict(after)
    gone = [(price, ZERO) for price in known if price not in here]
    return gone + [(price, amount) for price, amount in after if known.get(price) != amount]


class Depths:
    """Numbers what is seen of the books. The number begins with the market's time in ms, so that
    it does not fall when an exchange starts again."""

    def __init__(self) -> None:
        self._last: dict[str, Depth] = {}

    def look(self, symbol: str, book: Book, now: int) -> Depth:
        """A book as it stands; its number is the last one's unless it has changed."""
        bids, asks = book.depth(BUY, DEEPEST), book.depth(SELL, DEEPEST)
        last = self._last.get(symbol)
        if last is not None and (last.bids, last.asks) == (bids, asks):
            return last
        number = now if last is None else max(now, last.number + 1)
        self._last[symbol] = Depth(number, bids, asks)
        return self._last[symbol]
