"""The paper exchange: an engine, a market's tape, a clock and a file, kept in step.

Whatever changes anything passes through `Exchange.settle`: it stores the changes, and then, and
only then, hands them to those who listen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from tradelib.clock import format_time, from_ms, timeframe_ms
from tradelib.errors import InvalidInput, unknown_name
from tradelib.paper.book import Book
from tradelib.paper.clock import MarketClock
from tradelib.paper.depths import Depth, Depths, Follower
from tradelib.paper.engine import Changes, Engine, Execution, Leg
from tradelib.paper.fees import FeeAsset, Fees
from tradelib.paper.instruments import ZERO
from tradelib.paper.market import Tape
from tradelib.paper.orders import BUY, REJECTED, SELL, Order, Ticket
from tradelib.paper.refusals import REJECT_REASONS, Refusal
from tradelib.paper.store import Store

Listener = Callable[[Changes], None]


class Exchange:
    """Everything but the sockets. Use it from one thread."""

    def __init__(self, tape: Tape, clock: MarketClock, store: Store, fees: Fees) -> None:
        self.tape, self.clock, self.store, self.fees = tape, clock, store, fees
        self.listeners: list[Listener] = []
        self._walked: dict[str, int] = {}
        self._shown: dict[str, int] = {}
        self._fee_assets: dict[str, FeeAsset] = {}
        self._fee_symbols: set[str] = set()
        self._depths = Depths()
        self.engine = self._load()

    def _load(self) -> Engine:
        engine = Engine(self.tape.instruments.values(), self.fees)
        self.store.load(engine)
        engine.fee_assets = self._fee_assets
        self._walked = {
            symbol: time
            for symbol, time in (self.store.fact("walked") or {}).items()
            if symbol in engine.books
        }
        self._shown = {}
        for symbol, book in engine.books.items():
            if not book.is_quiet:
                since = self._walked.get(symbol, self.clock.now())
                book.show(self.tape.liquidity(symbol, since))
        return engine

    def open_accounts(self, accounts: dict[str, dict[str, Decimal]]) -> None:
        """Opens those that are new; the others keep what they have."""
        with self.settle():
            for name, balances in accounts.items():
                if name not in self.engine.balances:
                    self.engine.open_account(name, balances)

    def close(self) -> None:
        self.store.close()

    @property
    def now(self) -> int:
        """Market time in ms."""
        return self.clock.now()

    # Keeping in step.

    @contextmanager
    def settle(self) -> Iterator[Engine]:
        """The one way to change anything: what happened inside is stored, then told."""
        try:
            yield self.engine
            changes = self.engine.drain()
            if changes:
                self.store.commit(self.engine, changes, self._facts())
        except Refusal:
            raise  # by then nothing had changed
        except BaseException:
            # What was not stored did not happen.
            self.engine = self._load()
            raise
        if changes:
            self._tell(changes)

    def _tell(self, changes: Changes) -> None:
        for listener in self.listeners:
            listener(changes)

    @contextmanager
    def telling(self, account: str, *tickets: Ticket) -> Iterator[None]:
        """Tells those who listen that orders were rejected, where the matching itself did it."""
        try:
            yield
        except Refusal as refusal:
            reason = REJECT_REASONS.get((refusal.code, refusal.message))
            if reason is not None:
                now = self.now
                told = tuple(
                    Execution(REJECTED, _rejected(account, each, now), now, reason=reason)
                    for each in tickets
                )
                self._tell(Changes(told, (), frozenset(), ()))
            raise

    def _facts(self) -> dict[str, Any]:
        walked = {
            symbol: time
            for symbol, time in self._walked.items()
            if not self.engine.books[symbol].is_quiet
        }
        return {"time": self.now, "walked": walked}

    def advance(self, symbol: str | None = None) -> None:
        """Lets the market catch up with the clock where an account's order waits, and shows its
        present levels of `symbol`."""
        now = self.now
        for name in self._fee_symbols:
            if self.engine.books[name].is_quiet:
                self._show(name, now)
        busy = [name for name, book in self.engine.books.items() if not book.is_quiet]
        if any(self._walked.get(name, now) < now for name in busy):
            with self.settle():
                self._walk_all(busy, now)
        if symbol is not None and symbol in self.engine.books:
            self._show(symbol, now)

    def _walk_all(self, symbols: list[str], now: int) -> None:
        """Candle by candle, so that an account's orders in several symbols meet in time."""
        time = min(self._walked.get(name, now) for name in symbols)
        step = self.tape.step if len(symbols) > 1 else now - time
        while time < now:
            time = min((time // step + 1) * step if len(symbols) > 1 else now, now)
            for name in symbols:
                if self._walked.get(name, now) < time:
                    self._walk(name, time)
        for name in symbols:
            self._show(name, now)

    def _walk(self, symbol: str, now: int) -> None:
        book, time = self.engine.books[symbol], self._walked[symbol]
        while not self.engine.is_halted(symbol) and not book.is_quiet:
            touched = self.tape.first_touch(symbol, time, now, *_watched(book))
            if touched is None:
                break
            until = min(touched + self.tape.step, now)
            for leg in self.tape.legs(symbol, max(time, touched), until):
                self._pass(symbol, book, leg)
            if until == now:
                break
            time = until
        self._walked[symbol] = now

    def _pass(self, symbol: str, book: Book, leg: Leg) -> None:
        """Walks a leg, and before it the jump to its start, in which a top level's worth trades."""
        here = book.liquidity
        if here.price != leg.start:
            jump = Leg(
                here.price, leg.start, here.volume * here.shape.top, leg.start_time, leg.start_time
            )
            self.engine.walk(symbol, jump)
        self.engine.walk(symbol, leg)

    def _show(self, symbol: str, now: int) -> None:
        if self._shown.get(symbol) == now:
            return
        liquidity = self.tape.liquidity(symbol, now)
        if liquidity is not None and liquidity != self.engine.books[symbol].liquidity:
            self.engine.show(symbol, liquidity)
        self._shown[symbol] = self._walked[symbol] = now

    def depth(self, symbol: str) -> Depth:
        """The book as it stands, with the number of its state; `advance` first."""
        return self._depths.look(symbol, self.engine.books[symbol], self.now)

    def follow_depth(self, symbol: str) -> Follower:
        """What changes in a book from the last look at its depth on."""
        return self._depths.follow(symbol)

    # Commands.

    def step(self, count: int, timeframe: str) -> None:
        """Moves a stepped clock over `count` candles of `timeframe`, to the open of the next."""
        if not self.clock.is_stepped:
            raise InvalidInput("This market runs by itself; start it with --stepped to step it.")
        length = timeframe_ms(timeframe)
        if count < 1 or length % self.tape.step:
            raise InvalidInput(
                f"Cannot step {count} candles of {timeframe}; "
                f"step 1 or more, of a multiple of {self.tape.market.base}."
            )
        target = self.now // length * length + count * length
        if target > self.clock.end:
            raise InvalidInput(
                f"{count} candles of {timeframe} lead to {format_time(from_ms(target))}, and the "
                f"market's candles end at {format_time(from_ms(self.clock.end))}; step fewer."
            )
        self.clock.set(target)
        self.advance()
        self._keep_facts()

    def transfer(self, account: str, asset: str, amount: Decimal) -> None:
        """Moves units of an asset into an account, or, with a negative amount, out of it."""
        if account not in self.engine.balances:
            raise unknown_name("account", account, self.engine.balances)
        self.advance()
        with self.settle() as engine:
            engine.transfer(account, asset, amount, self.now)

    def choose_fee_asset(self, account: str, chosen: FeeAsset | None) -> None:
        """What an account pays its fees in from now on; None: the received asset."""
        if account not in self.engine.balances:
            raise unknown_name("account", account, self.engine.balances)
        self._fee_assets.pop(account, None)
        if chosen is not None:
            self._fee_assets[account] = chosen
        assets = {each.asset for each in self._fee_assets.values()}
        known = self.engine.instruments.values()
        self._fee_symbols = {each.symbol for each in known if each.base in assets}

    def halt(self, symbol: str, is_halted: bool) -> None:
        if symbol not in self.engine.books:
            raise unknown_name("symbol", symbol, self.engine.books)
        self.advance()
        change = self.engine.halted.add if is_halted else self.engine.halted.discard
        change(symbol)
        self._keep_facts()

    def pause(self, symbol: str, is_paused: bool) -> None:
        """A halt for a while, which no restart remembers."""
        self.advance()
        change = self.engine.paused.add if is_paused else self.engine.paused.discard
        change(symbol)

    def _keep_facts(self) -> None:
        """Market time and halts are kept even where no order changed."""
        self.store.commit(self.engine, self.engine.drain(), self._facts())


def _rejected(account: str, ticket: Ticket, now: int) -> Order:
    """An order that never was: it has no id."""
    amount = ticket.amount or ZERO
    return Order(-1, account, ticket, amount, now, now, REJECTED, working=False)


def _watched(book: Book) -> tuple[float, float]:
    """The prices, from below and from above, between which nothing in the book stirs."""
    lows, highs = [0.0], [float("inf")]
    for bounds, best in ((lows, book.sides[BUY].best), (highs, book.sides[SELL].best)):
        if best is not None:
            bounds.append(float(best))
    for order in book.stops.values():
        if order.ticket.trailing is not None:
            return float("inf"), 0.0  # every move of the price may move its trigger
        bounds = highs if order.ticket.triggers_rising else lows
        bounds.append(float(order.ticket.stop))
    return max(lows), min(highs)
