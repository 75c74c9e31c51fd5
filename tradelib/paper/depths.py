"""The books as clients see them, each state with a number, so that a snapshot and the updates
that follow it fit together."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from weakref import WeakSet

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


class Follower:
    """What has changed in a book since it was asked last."""

    def __init__(self) -> None:
        self._bids: dict[Decimal, None] = {}
        self._asks: dict[Decimal, None] = {}

    def note(self, before: Depth, after: Depth) -> None:
        self._bids |= _changed(before.bids, after.bids)
        self._asks |= _changed(before.asks, after.asks)

    def take(self, now: Depth) -> tuple[Levels, Levels]:
        """The bids and asks that changed, as they are now; the amount is 0 where a level is gone.

        Levels that came and went again are among them: a snapshot in between may have shown them.
        """
        found = _here(self._bids, now.bids), _here(self._asks, now.asks)
        self._bids, self._asks = {}, {}
        return found


def _changed(before: Levels, after: Levels) -> dict[Decimal, None]:
    return dict.fromkeys(price for price, _ in set(before) ^ set(after))


def _here(prices: dict[Decimal, None], levels: Levels) -> Levels:
    known = dict(levels)
    return [(price, known.get(price, ZERO)) for price in sorted(prices)]


class Depths:
    """Numbers what is seen of the books, beginning with the market's time in ms."""

    def __init__(self) -> None:
        self._last: dict[str, Depth] = {}
        self._followers: dict[str, WeakSet[Follower]] = defaultdict(WeakSet)

    def look(self, symbol: str, book: Book, now: int) -> Depth:
        """A book as it stands; its number is the last one's unless it has changed."""
        bids, asks = book.depth(BUY, DEEPEST), book.depth(SELL, DEEPEST)
        last = self._last.get(symbol)
        if last is not None and (last.bids, last.asks) == (bids, asks):
            return last
        number = now if last is None else max(now, last.number + 1)
        found = self._last[symbol] = Depth(number, bids, asks)
        if last is not None:
            for each in self._followers[symbol]:
                each.note(last, found)
        return found

    def follow(self, symbol: str) -> Follower:
        """Notes what changes from the last look on, for as long as somebody keeps the follower."""
        follower = Follower()
        self._followers[symbol].add(follower)
        return follower
