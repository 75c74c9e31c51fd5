"""One venue's feed: its streams watched, checked by REST, and written where the desk looks.

A stream is never believed to be well because nothing is heard of it. Every few seconds the feed
looks: a candle that is overdue by the venue's own clock, a quote that REST tells otherwise, an
execution in the ledger that no event told, each means that a channel is cut; then REST fills what
is missing and the channel is begun anew.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Protocol, TypeVar

import pandas as pd

from tradelib.candles.store import CandleStore
from tradelib.clock import utc_now
from tradelib.errors import DeskError, InvalidInput, RefusedError, StorageFailed
from tradelib.feed.candles import CandleKeeper
from tradelib.feed.status import StreamStatus, save_streams
from tradelib.settings import DeskSettings
from tradelib.trading.bots import Bot, candle_history, load_bots, symbols_of
from tradelib.trading.events import book_events
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import load_fills
from tradelib.trading.positions import load_positions
from tradelib.trading.reconciliation import reconcile
from tradelib.venue import Quote, VenueOrder, VenueTrade, open_venue
from tradelib.venue.streams import Channel, Series, VenueStreams

log = logging.getLogger(__name__)

# Wall seconds between two looks, and of silence before a channel is held against REST.
LOOK_SECONDS = 5.0
# Newest executions in the ledger that are held against those that were told.
_LOOKED_AT = 50
# Looks from one reconciliation by the feed to the next.
_LOOKS_BETWEEN = 2
# Seconds that what is being done has to end in, once the feed does.
_END_SECONDS = 2.0

# How long a message may be on its way before what it tells is taken for late.
IN_FLIGHT = timedelta(seconds=0.25)
# Seconds in which quotes are gathered before they are shared, well within that.
SHARE_PAUSE = 0.05

T = TypeVar("T")


@dataclass
class ChannelHealth:
    """How a channel is. cut_at, joined_at, heard_at: by the wall clock; gaps: the last cuts, as
    seconds from each to when all was there again."""

    joined_at: datetime | None = None
    heard_at: datetime | None = None
    cut_at: datetime | None = None
    why: str = ""
    cuts: int = 0
    messages: int = 0
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=100))

    @property
    def is_joined(self) -> bool:
        return self.joined_at is not None

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing was heard for so long."""
        heard = self.heard_at
        return heard is None or (utc_now() - heard).total_seconds() >= seconds

    def hear(self) -> None:
        self.messages += 1
        self.heard_at = utc_now()

    def restore(self) -> None:
        """What it missed has been made up for."""
        if self.cut_at is not None and self.is_joined:
            self.gaps.append((utc_now() - self.cut_at).total_seconds())
            self.cut_at = None

    def cut(self, why: str) -> None:
        self.cuts += 1
        self.why = why
        self.cut_at = self.cut_at or utc_now()
        self.joined_at = None


@dataclass(frozen=True)
class Subjects:
    """What a venue's desk wants to hear of."""

    symbols: tuple[str, ...]
    series: tuple[Series, ...]


class Watcher(Protocol):
    """Who acts on what a feed has taken; called in the feed's threads, so that it must not wait."""

    def know(self, bots: Sequence[Bot]) -> None:
        """The venue's bots that run now."""

    def on_close(self, series: Series, closed: datetime) -> None:
        """The newest stored candle of a series closed then."""

    def on_quotes(self, quotes: Sequence[Quote]) -> None:
        """Newer quotes than those before."""


class Feed:
    """The feed of one venue; `run` goes on until it is cancelled. watchers: are told in turn."""

    def __init__(
        self,
        settings: DeskSettings,
        ledger: Ledger,
        venue: str,
        watchers: Sequence[Watcher],
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self.name, self.settings, self.ledger = venue, settings, ledger
        self.health = {channel: ChannelHealth() for channel in Channel}
        self.subjects = Subjects((), ())
        self._watchers, self._look_seconds = tuple(watchers), look_seconds
        # ccxt's objects are for one thread each.
        self._candle_work = _Worker(f"{venue} candles")
        self._book_work = _Worker(f"{venue} books")
        self._quote_work = _Worker(f"{venue} quotes")
        self._market, self._account, self._quoting = (open_venue(settings, venue) for _ in range(3))
        self.keeper = CandleKeeper(
            venue, self._market, CandleStore(settings.candles), self._history, self._tell_close
        )
        # Of the loop's thread and of the one for quotes, under the lock.
        self._quotes_lock = threading.Lock()
        self._latest: dict[str, Quote] = {}
        self._moved: set[str] = set()
        self._unshared: set[str] = set()
        # When by the wall's clock the venue told which time of its own.
        self._times: deque[tuple[datetime, datetime]] = deque(maxlen=1000)
        # By the monotonic clock: when it last told one. When, by that clock and by the wall's, it
        # was asked and said which.
        self._told_at = -math.inf
        self._asked: tuple[float, datetime, datetime] | None = None
        self._telling = self._sharing = False
        self._pending: list[VenueTrade] = []
        # Executions that were told, by symbol and id, with when they happened.
        self._heard: dict[tuple[str, str], datetime] = {}
        self._unheard: set[tuple[str, str]] = set()
        self._begun = False
        self._must_reconcile, self._reconciled_at = False, -math.inf
        self._joined_by: datetime | None = None
        self._late: set[Series] = set()
        # How many messages had come when REST knew more.
        self._doubted = -1
        self._bots: list[Bot] = []
        self._unlisted: set[str] = set()
        self._soon = asyncio.Event()

    async def run(self) -> None:
        """Listen, look, and mend what is missing."""
        streams = VenueStreams(self.settings, self.name, self)
        try:
            while True:
                await self._look(streams)
                self._soon.clear()
                # Python 3.11's wait_for forgets that it was cancelled when what it waits for came.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._look_seconds):
                        await self._soon.wait()
        finally:
            await self._end(streams)

    async def _end(self, streams: VenueStreams) -> None:
        """Come back when what is being done has ended, or soon: a venue that does not answer
        keeps nobody waiting, and whatever is left undone here is made up for at the next start."""
        workers = (self._candle_work, self._book_work, self._quote_work)
        doing = [future for worker in workers for future in worker.end()]
        await asyncio.gather(
            asyncio.wait_for(streams.close(), _END_SECONDS),
            asyncio.to_thread(wait, doing, _END_SECONDS),
            return_exceptions=True,
        )

    def told_time(self) -> datetime | None:
        """The venue's time, where a message told it a moment ago and was not long on its way."""
        return self._newest_time(IN_FLIGHT.total_seconds())

    def told_quotes(self, symbols: Collection[str]) -> dict[str, Quote]:
        """The newest of those symbols' quotes: none unless messages come in time. Each that a
        message told is stamped with when that was at the earliest; one that was asked for has no
        venue_time."""
        if self.told_time() is None:
            return {}
        with self._quotes_lock:
            return {s: self._latest[s] for s in symbols if s in self._latest}

    def _newest_time(self, within: float) -> datetime | None:
        """The newest time that a message told within so many seconds. None where none did, or where
        it is behind the time that has gone by since the venue was asked: then whatever comes may be
        late, as after a stall, and only the venue knows."""
        if self._asked is None or monotonic() - self._told_at >= within:
            return None
        asked_at, by_wall, answer = self._asked
        # The one clock stands still while a machine sleeps, the other may be set back.
        gone = max(timedelta(seconds=monotonic() - asked_at), utc_now() - by_wall)
        newest = self._times[-1][1]
        return newest if newest > answer + gone - timedelta(seconds=self._look_seconds) else None

    # What the streams tell, in the loop's thread

    def on_time(self, time: datetime) -> None:
        newest = self._times[-1][1] if self._times else time
        self._times.append((utc_now(), max(time, newest)))
        self._told_at = monotonic()

    def on_quotes(self, quotes: Sequence[Quote]) -> None:
        self.health[Channel.QUOTES].hear()
        newest = self._times[-1][1] - IN_FLIGHT if self._times else None
        got_at = utc_now() - IN_FLIGHT
        told = {quote.symbol: replace(quote, venue_time=newest, got_at=got_at) for quote in quotes}
        with self._quotes_lock:
            self._latest |= told
            self._moved.update(told)
            self._unshared.update(told)
        if not self._telling:
            self._telling = True
            self._quote_work.do(self._tell_moved)
        self._share_soon()
        # Once more, when whatever was sent together with these must have come.
        pause = 2 * IN_FLIGHT.total_seconds()
        asyncio.get_running_loop().call_later(pause, self._settle, frozenset(told))

    def _settle(self, symbols: frozenset[str]) -> None:
        with self._quotes_lock:
            self._unshared |= symbols
        self._share_soon()

    def _share_soon(self) -> None:
        """Together with what comes in the next moment: who trades on these is not to wait."""
        if not self._sharing:
            self._sharing = True
            loop = asyncio.get_running_loop()
            loop.call_later(SHARE_PAUSE, self._quote_work.do, self._share_quotes)

    def on_closed(self, series: Series, candle: pd.DataFrame) -> None:
        self.health[Channel.CANDLES].hear()
        self._candle_work.do(self.keeper.take_closed, series, candle)

    def on_forming(self, series: Series, opened: datetime) -> None:
        self.health[Channel.CANDLES].hear()
        self._candle_work.do(self.keeper.take_forming, series, opened)

    def on_account(self, orders: Sequence[VenueOrder], trades: Sequence[VenueTrade]) -> None:
        self.health[Channel.ACCOUNT].hear()
        self._book_work.do(self._book, orders, trades)

    def on_joined(self, channel: Channel) -> None:
        self.health[channel].joined_at = utc_now()
        if channel is Channel.ACCOUNT:
            self._must_reconcile = True
        self._soon.set()

    def on_cut(self, channel: Channel, why: str) -> None:
        self.health[channel].cut(why)
        log.warning("%s of %s are cut: %s", channel, self.name, why)

    # What is done with it, in the feed's own threads

    def _tell_close(self, series: Series, closed: datetime) -> None:
        for watcher in self._watchers:
            watcher.on_close(series, closed)

    def _tell_quotes(self, quotes: Sequence[Quote]) -> None:
        for watcher in self._watchers:
            watcher.on_quotes(quotes)

    def _tell_moved(self) -> None:
        """Tell the quotes that came while the last ones were told."""
        self._telling = False
        with self._quotes_lock:
            moved, self._moved = self._moved, set()
            latest = [self._latest[symbol] for symbol in sorted(moved)]
        self._tell_quotes(latest)

    def _share_quotes(self) -> None:
        """Let all processes have the quotes that came since the last ones.

        What came was true a moment ago: by as much as a message may be on its way. It tells
        nothing of a symbol that it does not name, whose own message may be lost.
        """
        self._sharing = False
        with self._quotes_lock:
            symbols, self._unshared = self._unshared, set()
            latest = [self._latest[symbol] for symbol in sorted(symbols)]
        then = utc_now() - IN_FLIGHT
        at = next((time for heard, time in reversed(self._times.copy()) if heard <= then), None)
        self._quoting.share_quotes(replace(quote, venue_time=at, got_at=then) for quote in latest)
        self.health[Channel.QUOTES].restore()

    def _book(self, orders: Sequence[VenueOrder], trades: Sequence[VenueTrade]) -> None:
        """Book events. An execution may come before the event that names its order: what nobody
        knows yet is tried again at the next look, and then judged by reconciliation."""
        tried, self._pending = self._pending, []
        self._heard |= {(trade.symbol, trade.trade_id): trade.at for trade in trades}
        with self._or_reconcile():
            done = book_events(self.ledger, self.name, orders, [*tried, *trades])
        self._pending = [trade for trade in done.strange if trade in trades]
        if len(self._pending) < len(done.strange) or done.strange_orders:
            self._must_reconcile = True

    def _reconcile_if_needed(self) -> None:
        """Look at the whole account where an event or a new connection asks for it; not at every
        event, for a look costs as much as many orders."""
        if self._pending:
            self._book((), ())
        rested = monotonic() - self._reconciled_at >= _LOOKS_BETWEEN * self._look_seconds
        if self._must_reconcile and rested:
            # Before it looks: what is asked for meanwhile is for the next one.
            self._must_reconcile, self._reconciled_at = False, monotonic()
            with self._or_reconcile():
                reconcile(self.ledger, self._account, self.subjects.symbols)
            self.health[Channel.ACCOUNT].restore()

    @contextmanager
    def _or_reconcile(self) -> Iterator[None]:
        """What fails here leaves the whole account to be looked at."""
        try:
            yield
        except BaseException:
            self._must_reconcile = True
            raise

    # Looking

    async def _look(self, streams: VenueStreams) -> None:
        """Listen to what is wanted now, and hold each channel against what REST and the ledger
        tell; a venue that cannot be asked is looked at again."""
        try:
            await self._follow(streams, await self._book_work.wait(self._find_subjects))
            if await self._candle_work.wait(self._mend_candles):
                streams.restart(Channel.CANDLES, "a candle that is overdue came by REST alone")
            if await self._quote_work.wait(self._mend_quotes):
                streams.restart(Channel.QUOTES, "quotes have changed that were not told")
            await self._book_work.wait(self._reconcile_if_needed)
            if await self._book_work.wait(self._find_unheard):
                streams.restart(Channel.ACCOUNT, "an execution was not told")
        except DeskError as error:
            log.warning("looking at %s: %s", self.name, error)
        await self._quote_work.wait(self._save_status)

    def _save_status(self) -> None:
        save_streams(self.settings, self.name, [self._status(channel) for channel in Channel])

    def _status(self, channel: Channel) -> StreamStatus:
        health, keeper = self.health[channel], self.keeper
        counts = (keeper.streamed, keeper.asked) if channel is Channel.CANDLES else (None, None)
        return StreamStatus(
            self.name, channel.value, health.is_joined, utc_now(), health.heard_at,
            health.messages, health.cuts, health.why, tuple(health.gaps), *counts,
        )  # fmt: skip

    async def _follow(self, streams: VenueStreams, wanted: Subjects) -> None:
        before, self.subjects = self.subjects, wanted
        if wanted.symbols != before.symbols and streams.supports(Channel.QUOTES):
            streams.listen_to_quotes(wanted.symbols)
        if wanted.series != before.series and streams.supports(Channel.CANDLES):
            streams.listen_to_candles(wanted.series)
        if streams.supports(Channel.ACCOUNT) and not streams.listens_to(Channel.ACCOUNT):
            streams.listen_to_account()

    def _find_subjects(self) -> Subjects:
        """What the venue's running bots look at, and what the desk holds."""
        bots = [bot for bot in load_bots(self.ledger, running_only=True) if bot.venue == self.name]
        held = {p.symbol for p in load_positions(self.ledger) if p.venue == self.name and p.amount}
        self._bots = bots
        for watcher in self._watchers:
            watcher.know(bots)
        symbols = self._listed(held | set(symbols_of(bots, self.name)))
        series = {Series(one, bot.timeframe) for bot in bots for one in bot.traded}
        return Subjects(
            tuple(sorted(symbols)), tuple(sorted(one for one in series if one.symbol in symbols))
        )

    def _listed(self, symbols: set[str]) -> set[str]:
        """Those that the venue lists. It refuses a whole channel for one that it does not, as for
        a coin that is held and was delisted."""
        known = self._account.fetch_instruments().keys()
        for symbol in symbols - known - self._unlisted:
            try:
                self._account.fetch_instrument(symbol)  # listed since, maybe
            except InvalidInput as error:
                log.warning("%s is not followed: %s", symbol, error)
        known = self._account.fetch_instruments().keys()
        self._unlisted = symbols - known
        return symbols & known

    def _history(self, series: Series) -> int:
        return candle_history(self._bots, series.timeframe)

    def _mend_candles(self) -> bool:
        """Ask for candles that are overdue; whether one came that closed after the channel was
        joined, so that a stream should have told it. A stream has from one look to the next."""
        health, now = self.health[Channel.CANDLES], self._told_time()
        if now is None or self.keeper.overdue(self.subjects.series, now):
            now = self._ask_time()
        late = self.keeper.overdue(self.subjects.series, now)
        overdue = [one for one in late if one in self._late or not health.is_joined]
        self._late = set(late)
        brought = [self.keeper.last_close(one) for one in overdue if self._ask_candles(one, now)]
        if not health.is_joined:
            self._joined_by = None
            return False
        self._joined_by = since = self._joined_by or now
        if not self.keeper.overdue(late, now):
            health.restore()
        return any(closed is not None and closed > since for closed in brought)

    def _told_time(self) -> datetime | None:
        """The venue's time as its candles' stream told it since the last look."""
        joined = self.health[Channel.CANDLES].is_joined and self._joined_by is not None
        return self._newest_time(self._look_seconds) if joined else None

    def _ask_time(self) -> datetime:
        time = self._market.fetch_time()
        self._asked = monotonic(), utc_now(), time
        self.on_time(time)
        return time

    def _ask_candles(self, series: Series, now: datetime) -> bool:
        """Whether asking brought any. What is refused, or cannot be stored, for one series keeps
        no other from being asked for; a venue that does not answer is asked at the next look."""
        try:
            return self.keeper.ask(series, now)
        except (RefusedError, StorageFailed) as error:
            log.warning("%s candles of %s: %s", series.timeframe, series.symbol, error)
            return False

    def _mend_quotes(self) -> bool:
        """Ask for quotes where none was told for a while; whether they were others than the last
        that were told already at the look before, and still nothing is told."""
        health, symbols = self.health[Channel.QUOTES], self.subjects.symbols
        if not symbols or not health.is_silent(self._look_seconds):
            return False
        doubted, self._doubted = self._doubted, -1
        if health.is_joined and doubted == health.messages:
            return True
        with self._quotes_lock:
            heard, before = health.messages, {**self._latest}
        asked = self._quoting.fetch_quotes(symbols)
        with self._quotes_lock:
            told = {s: q for s, q in self._latest.items() if before.get(s) is not q}
            self._latest = before | asked | told
        self._tell_quotes([*asked.values()])
        if any(
            symbol in before and (before[symbol].bid, before[symbol].ask) != (quote.bid, quote.ask)
            for symbol, quote in asked.items()
        ):
            self._doubted = heard
        return False

    def _find_unheard(self) -> bool:
        """Whether the ledger has an execution that no event told, since the last look already."""
        fills = load_fills(self.ledger, venue=self.name, limit=_LOOKED_AT)
        newest = {(fill.symbol, fill.trade_id): fill.at for fill in fills}
        unheard = newest.keys() - self._heard.keys()
        missed = unheard & self._unheard
        self._heard |= {one: newest[one] for one in missed}
        self._unheard = unheard - missed
        if len(newest) == _LOOKED_AT:
            self._forget_before(newest)
        known = self._begun and bool(missed) and self.health[Channel.ACCOUNT].is_joined
        self._begun = True
        return known

    def _forget_before(self, newest: Mapping[tuple[str, str], datetime]) -> None:
        """Forget executions that so many newer ones are booked after that no look comes to them
        again; a newer one that is not booked yet is one of the newest once it is."""
        oldest = min(newest.values())
        self._heard = {one: at for one, at in self._heard.items() if at >= oldest or one in newest}


class _Worker:
    """One thread that does one thing after the other; what fails is told to the log."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name)
        self._asked: set[Future[Any]] = set()

    def do(self, work: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # it has ended, as has whoever would hear of it
            self._submit(self._do, work, *arguments)

    async def wait(self, work: Callable[[], T]) -> T:
        """What the work gives, once all before it is done; raises what it raises."""
        return await asyncio.wrap_future(self._submit(work))

    def end(self) -> set[Future[Any]]:
        """Begin nothing any more; what is still being done."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        return self._asked.copy()

    def _submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        future = self._pool.submit(work, *arguments)
        self._asked.add(future)
        future.add_done_callback(self._asked.discard)
        return future

    @staticmethod
    def _do(work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except DeskError as error:
            log.warning("%s", error)
        except Exception:
            log.exception("a feed's work failed")
