"""What a venue tells of itself over WebSocket: quotes, candles, and the account's events.

A stream only hastens. It may lose, double, delay and disorder what it tells, so whoever listens
must be right without it; it is told when a channel is cut and when it is listened to again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

import pandas as pd

from tradelib.clock import from_ms
from tradelib.errors import DeskError, InvalidInput
from tradelib.scrubber import Scrubber
from tradelib.settings import DeskSettings
from tradelib.venue.client import (
    open_stream,
    open_venue,
    parse_candles,
    parse_order,
    parse_quote,
    parse_trades,
    resolve_venue,
)
from tradelib.venue.dialects import dialect_of
from tradelib.venue.facts import Quote, VenueOrder, VenueTrade
from tradelib.venue.translate import translated

log = logging.getLogger(__name__)

# Seconds between two tries to come back, the first and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 20.0


class Channel(StrEnum):
    """What is listened to. Each has connections of its own: one that is cut leaves the others."""

    QUOTES = "quotes"
    CANDLES = "candles"
    ACCOUNT = "account"


_METHODS = {
    Channel.QUOTES: "watchBidsAsks",
    Channel.CANDLES: "watchOHLCVForSymbols",
    Channel.ACCOUNT: "watchMyTrades",
}


@dataclass(frozen=True, order=True)
class Series:
    """Candles of one symbol in one timeframe."""

    symbol: str
    timeframe: str


class Listener(Protocol):
    """Who is told what a venue streams; in the loop's own thread, so that it must not wait."""

    def on_quotes(self, quotes: Sequence[Quote]) -> None: ...

    def on_closed(self, series: Series, candle: pd.DataFrame) -> None:
        """A candle that the venue itself calls closed, as a candle frame of one row."""

    def on_forming(self, series: Series, opened: datetime) -> None:
        """A candle forms that opened then: the one before it has closed, whatever it was."""

    def on_time(self, time: datetime) -> None:
        """The venue's own time, as a message told it; late by as much as the message."""

    def on_account(self, orders: Sequence[VenueOrder], trades: Sequence[VenueTrade]) -> None: ...

    def on_joined(self, channel: Channel) -> None:
        """The channel is listened to from here on; what came before must be asked for."""

    def on_cut(self, channel: Channel, why: str) -> None: ...


class VenueStreams:
    """The streams of one venue account; a channel is kept up, whatever cuts it, until `close`."""

    def __init__(self, settings: DeskSettings, name: str, listener: Listener) -> None:
        self.name, self._listener = name, listener
        _, self._keys = resolve_venue(settings, name)
        self._scrubber = Scrubber(self._keys.named(name) if self._keys else {})
        self._listens: dict[Channel, Callable[[Any], Awaitable[None]]] = {}
        self._tasks: dict[Channel, asyncio.Task[None]] = {}
        self._open = partial(open_stream, settings, name)
        # ccxt's object is for one thread at a time; and a venue that does not answer keeps none of
        # the threads for itself that all of a process's venues wait for.
        self._lending = ThreadPoolExecutor(1, f"{name} instruments")
        self._lender = open_venue(settings, name)
        self._has = self._open().has

    def supports(self, channel: Channel) -> bool:
        """Whether the venue has such a stream, and the desk the keys for it."""
        known = self._has.get(_METHODS[channel])
        return bool(known) and (channel is not Channel.ACCOUNT or self._keys is not None)

    def listen_to_quotes(self, symbols: Sequence[str]) -> None:
        """Best bid and ask of these symbols, from now on and of no others."""
        self._begin(Channel.QUOTES, partial(self._quotes, symbols=list(symbols)))

    def listen_to_candles(self, series: Sequence[Series]) -> None:
        """Candles of these series, from now on and of no others."""
        self._begin(Channel.CANDLES, partial(self._candles, series=list(series)))

    def listen_to_account(self) -> None:
        """Changes of the account's orders, and its executions."""
        self._begin(Channel.ACCOUNT, self._account)

    def listens_to(self, channel: Channel) -> bool:
        """Whether it was told to, be the channel cut or not."""
        return channel in self._listens

    def restart(self, channel: Channel, why: str) -> None:
        """Leave a channel's connections for new ones, as when it has fallen silent."""
        listen = self._listens.get(channel)
        if listen is not None:
            self._listener.on_cut(channel, why)
            self._begin(channel, listen)

    async def close(self) -> None:
        """Leave every channel."""
        self._lending.shutdown(wait=False, cancel_futures=True)
        tasks, self._tasks, self._listens = [*self._tasks.values()], {}, {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, channel: Channel, listen: Callable[[Any], Awaitable[None]]) -> None:
        if not self.supports(channel):
            raise InvalidInput(
                f"Venue {self.name} streams no {channel} to this desk; it is asked by REST alone."
            )
        before = self._tasks.get(channel)
        if before is not None:
            before.cancel()
        self._listens[channel] = listen
        name = f"{self.name} {channel}"
        self._tasks[channel] = asyncio.create_task(self._keep_up(channel, listen), name=name)

    async def _keep_up(self, channel: Channel, listen: Callable[[Any], Awaitable[None]]) -> None:
        pause, loop = FIRST_PAUSE, asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                async with self._exchange() as exchange:
                    with self._translated(f"stream its {channel}"):
                        await listen(exchange)
            except DeskError as error:
                self._listener.on_cut(channel, str(error))
            if loop.time() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[Any]:
        """A ccxt object with connections of its own, closed at the end."""
        exchange = self._open()
        try:
            lent = self._lending.submit(self._lender.lend_instruments, exchange)
            await asyncio.wrap_future(lent)
            yield exchange
        finally:
            with suppress(Exception):
                await exchange.close()

    def _translated(self, action: str) -> AbstractContextManager[None]:
        return translated(self.name, action, scrubber=self._scrubber)

    async def _quotes(self, exchange: Any, symbols: list[str]) -> None:
        dialect, newest, joined = dialect_of(exchange), {}, False
        while True:
            tickers = await exchange.watch_bids_asks(symbols)
            if not joined:
                self._listener.on_joined(Channel.QUOTES)
                joined = True
            fresh = []
            for symbol, ticker in tickers.items():
                number, quote = dialect.quote_number(ticker), parse_quote(symbol, ticker)
                if quote and (number is None or number >= newest.get(symbol, number)):
                    newest[symbol] = number
                    fresh.append(quote)
            self._listener.on_quotes(fresh)

    async def _candles(self, exchange: Any, series: list[Series]) -> None:
        def tell_closed(symbol: str, timeframe: str, row: list[Any]) -> None:
            self._listener.on_closed(Series(symbol, timeframe), parse_candles([row]))

        # The newest values of a candle that came need not be its last: only the venue knows.
        dialect_of(exchange).tell_closed_candles(
            tell_closed, lambda ms: self._listener.on_time(from_ms(ms))
        )
        wanted, joined = [[one.symbol, one.timeframe] for one in series], False
        while True:
            told = await exchange.watch_ohlcv_for_symbols(wanted)
            if not joined:
                self._listener.on_joined(Channel.CANDLES)
                joined = True
            for symbol, frames in told.items():
                for timeframe, rows in frames.items():
                    newest = max(int(row[0]) for row in rows)
                    self._listener.on_forming(Series(symbol, timeframe), from_ms(newest))

    async def _account(self, exchange: Any) -> None:
        dialect = dialect_of(exchange)
        await dialect.subscribe_account()
        self._listener.on_joined(Channel.ACCOUNT)

        async def orders() -> None:
            while True:
                rows = [dialect.tidy_event(row) for row in await exchange.watch_orders()]
                self._listener.on_account([parse_order(row, dialect) for row in rows], ())

        async def trades() -> None:
            while True:
                self._listener.on_account((), parse_trades(await exchange.watch_my_trades()))

        await _until_one_fails(orders(), trades())


async def _until_one_fails(*endless: Any) -> None:
    """Run coroutines side by side; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(each) for each in endless]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
