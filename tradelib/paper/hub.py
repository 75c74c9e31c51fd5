"""Who listens to which stream, and when they are told.

Where nobody listens, nothing is looked up and nothing is written. What happens to an account is
told at once. The market is told as its time goes on: with each beat of a market that runs, and
with each step, and each change of a book, of one that stands.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any, Protocol

from tradelib.errors import DeskError
from tradelib.paper import events
from tradelib.paper.clock import Wall
from tradelib.paper.engine import Changes
from tradelib.paper.events import Event
from tradelib.paper.exchange import Exchange
from tradelib.paper.faults import Seen
from tradelib.paper.feeds import Feed, Moment, open_feed
from tradelib.paper.orders import OrderList

_SLICE = 50  # base candles that are told at a time


class Listener(Protocol):
    """A connection, seen from here."""

    is_gone: bool

    @property
    def is_crowded(self) -> bool:
        """Much waits to be sent."""
        ...

    def deliver(self, stream: str, seen: Seen, text: str) -> None:
        """Sends a message, or does to it what a fault says."""
        ...

    async def make_room(self) -> None:
        """Waits until it is crowded no more, but not for ever."""
        ...


class _Stream:
    """A feed, and who listens to it. told: the wall's ms when it was told last."""

    def __init__(self, feed: Feed, wall: int) -> None:
        self.feed, self.told = feed, wall
        self.seen = Seen(feed.route, feed.symbol)
        self.listeners: dict[Listener, None] = {}  # in order, so that faults come again

    @property
    def is_heard(self) -> bool:
        return not all(each.is_gone for each in self.listeners)


class Hub:
    def __init__(self, exchange: Exchange, wall: Wall) -> None:
        self.exchange, self._wall = exchange, wall
        self._streams: dict[str, _Stream] = {}
        self._accounts: dict[str, dict[tuple[Listener, int], None]] = {}
        self._numbers = count(1)
        self._told = 0
        self._telling = asyncio.Lock()
        self._stirred = asyncio.Event()
        exchange.listeners.append(self._hear)

    # Who listens.

    def listen(self, listener: Listener, name: str) -> Callable[[], None] | None:
        """Adds somebody to a stream; what is returned greets them. None: no such stream."""
        moment = Moment(self.exchange, self.exchange.now)
        if not self._streams:
            self._told = moment.now
        stream = self._streams.get(name)
        if stream is None or not stream.is_heard:
            feed = open_feed(name, moment)
            if feed is None:
                return None
            stream = self._streams[name] = _Stream(feed, self._wall())
        if listener in stream.listeners:
            return lambda: None
        stream.listeners[listener] = None
        return lambda: self._greet(listener, name, stream, moment)

    def _greet(self, listener: Listener, name: str, stream: _Stream, moment: Moment) -> None:
        with suppress(DeskError):
            for message in stream.feed.greet(moment):
                listener.deliver(name, stream.seen, _text(message))

    def leave(self, listener: Listener, name: str) -> None:
        stream = self._streams.get(name)
        if stream is not None:
            stream.listeners.pop(listener, None)
            if not stream.listeners:
                del self._streams[name]

    def listen_to_account(self, listener: Listener, number: int, account: str) -> None:
        """number: the listener's own, of this subscription."""
        self._accounts.setdefault(account, {})[listener, number] = None

    def leave_account(self, listener: Listener, number: int, account: str) -> None:
        self._accounts.get(account, {}).pop((listener, number), None)

    @property
    def counts(self) -> dict[str, int]:
        """How many listen, by stream."""
        found = {name: len(each.listeners) for name, each in self._streams.items()}
        users = {f"account {name}": len(each) for name, each in self._accounts.items() if each}
        return {**found, **users}

    # What happens to accounts.

    def _hear(self, changes: Changes) -> None:
        for account, listening in self._accounts.items():
            if listening:
                for event in self._events(account, changes):
                    self._tell_account(account, event)
        if self._streams:
            self._stirred.set()

    def _tell_account(self, account: str, event: Event) -> None:
        client_id = event["c"] if event["e"] == "executionReport" else ""
        seen = Seen(f"STREAM {event['e']}", event.get("s", ""), account, client_id)
        text = _text(event)
        for listener, number in list(self._accounts[account]):
            listener.deliver(
                f"account {number}", seen, f'{{"subscriptionId":{number},"event":{text}}}'
            )

    def _events(self, account: str, changes: Changes) -> Iterator[Event]:
        for each in changes.executions:
            number = next(self._numbers)
            if each.order.account == account:
                yield events.execution_report(each, number)
        yield from self._list_events(account, changes)
        now, held = self.exchange.now, self.exchange.engine.balances[account]
        changed = {asset: held[asset] for name, asset in changes.balances if name == account}
        moved = [each for each in changes.transfers if each.account == account]
        yield from (events.balance_update(each, now) for each in moved)
        if changed:
            yield events.account_position(changed, now)

    def _list_events(self, account: str, changes: Changes) -> Iterator[Event]:
        """Lists of orders that began, or whose orders have all ended."""
        orders = {each.id: each for each in changes.orders}
        lists = self.exchange.engine.lists
        known: dict[int, OrderList] = {each.id: each for each in changes.lists}
        known |= {n: lists[n] for n in (each.list_id for each in orders.values()) if n in lists}
        for pair in known.values():
            legs = tuple(orders[number] for number in pair.order_ids if number in orders)
            is_told = pair in changes.lists or not any(each.is_open for each in legs)
            if pair.account == account and len(legs) == len(pair.order_ids) and is_told:
                yield events.list_status(pair, legs, self.exchange.now)

    # What happens on the market.

    async def run(self) -> None:
        """Tells of each change in a market that stands, until cancelled."""
        while True:
            await self._stirred.wait()
            await self.catch_up()

    async def catch_up(self) -> None:
        """Tells everybody what happened up to now: first what is past, then what is so."""
        async with self._telling:
            self._stirred.clear()
            now = self.exchange.now
            with suppress(DeskError):  # whoever asks next is told
                for until in self._slices(now) if self._streams else ():
                    await self._tell_past(Moment(self.exchange, until))
                    await asyncio.sleep(0)  # so that others have their turn
                self._tell_present()
            self._told = now

    def _slices(self, now: int) -> Iterator[int]:
        length = _SLICE * self.exchange.tape.step
        yield from range(self._told + length, now, length)
        yield now

    async def _tell_past(self, moment: Moment) -> None:
        is_stepped = self.exchange.clock.is_stepped
        for name, stream in list(self._streams.items()):
            for message in stream.feed.past(moment):
                self._deliver(name, stream, message)
                if is_stepped:
                    await self._wait_for(stream)
                if not stream.is_heard:
                    break

    def _tell_present(self) -> None:
        """Nothing else happens meanwhile, so that all are told of the same books."""
        moment = Moment(self.exchange, self.exchange.now)
        wall, is_stepped = self._wall(), self.exchange.clock.is_stepped
        for name, stream in list(self._streams.items()):
            if is_stepped or wall - stream.told >= stream.feed.every:
                stream.told = wall
                for message in stream.feed.present(moment):
                    self._deliver(name, stream, message)

    def _deliver(self, name: str, stream: _Stream, message: Any) -> None:
        text = _text(message)
        for listener in list(stream.listeners):
            listener.deliver(name, stream.seen, text)

    async def _wait_for(self, stream: _Stream) -> None:
        """A market that stands has time: it goes on when those who read have room again."""
        for each in [each for each in stream.listeners if each.is_crowded]:
            await each.make_room()


def _text(message: Any) -> str:
    return json.dumps(message, separators=(",", ":"))
