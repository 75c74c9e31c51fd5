"""A feed on an unmodified ccxt.pro: whatever its streams do, store, quotes and books are right."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from tests.desks import PaperDesk, paper_desk
from tests.waiting import until
from tradelib.candles.store import CandleStore
from tradelib.cli.stepped import point_venue
from tradelib.clock import parse_time, timeframe_ms, utc_now
from tradelib.feed.feed import IN_FLIGHT, SHARE_PAUSE, Feed
from tradelib.feed.status import StreamStatus, load_streams
from tradelib.services.service import url_of
from tradelib.settings import load_settings
from tradelib.trading.accounts import load_balances
from tradelib.trading.bots import Bot, BotStatus, add_bot, new_bot
from tradelib.trading.orders import load_fills
from tradelib.traffic.cache import SharedCache
from tradelib.traffic.records import load_budgets
from tradelib.venue import Quote, Venue, open_venue
from tradelib.venue.client import READ_ATTEMPTS
from tradelib.venue.streams import Channel, Series, VenueStreams
from tradelib.views.operations import draw_operations


class Said:
    """A feed that was told this time, and no quotes."""

    def __init__(self, time: datetime | None) -> None:
        self.told_time = lambda: time
        self.told_quotes = lambda symbols: {}


class Heard:
    """What a feed has told."""

    def __init__(self) -> None:
        self.closes: dict[Series, list[datetime]] = {}
        self.quotes: dict[str, Quote] = {}

    def know(self, bots: Sequence[Bot]) -> None:
        pass

    def on_close(self, series: Series, closed: datetime) -> None:
        self.closes.setdefault(series, []).append(closed)

    def on_quotes(self, quotes: Sequence[Quote]) -> None:
        self.quotes |= {quote.symbol: quote for quote in quotes}


@contextmanager
def running(feed: Feed) -> Iterator[asyncio.AbstractEventLoop]:
    """The feed at work in a thread of its own, in this loop."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(feed.run())

    def work() -> None:
        try:
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        finally:
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield loop
        assert not task.done(), task
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


@pytest.fixture
def desk(home: Path) -> Iterator[PaperDesk]:
    with paper_desk(home) as desk:
        desk.reconcile()
        yield desk


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def feed(desk: PaperDesk, heard: Heard) -> Iterator[Feed]:
    feed = Feed(desk.settings, desk.ledger, desk.market.venue, [heard], look_seconds=0.5)
    with running(feed):
        until(lambda: all(health.is_joined for health in feed.health.values()))
        until(lambda: set(feed.subjects.series) == heard.closes.keys())
        until(lambda: feed._joined_by)  # what closes from here on, the stream ought to tell
        yield feed


@pytest.fixture
def venue(desk: PaperDesk) -> Venue:
    return desk.venue()


def pairs(quotes: dict[str, Quote]) -> dict[str, tuple[Decimal, Decimal]]:
    """Bid and ask by symbol."""
    return {symbol: (quote.bid, quote.ask) for symbol, quote in quotes.items()}


def market_time(desk: PaperDesk) -> datetime:
    return parse_time(desk.paper.control("status")["time"])


def has_all(desk: PaperDesk, heard: Heard) -> bool:
    time = market_time(desk)
    return all(closes[-1] == time for closes in heard.closes.values())


def require_true_candles(desk: PaperDesk, heard: Heard, venue: Venue) -> None:
    """Every stored candle is the venue's own, and none is missing."""
    store = CandleStore(desk.settings.candles)
    for series, closes in heard.closes.items():
        length = timedelta(milliseconds=timeframe_ms(series.timeframe))
        stored = store.load(desk.market.venue, series.symbol, series.timeframe)
        assert all(b - a == length for a, b in pairwise(stored.index))
        assert closes == sorted(set(closes))
        last = stored.index[-1].to_pydatetime()
        theirs = venue.fetch_ohlcv(series.symbol, series.timeframe, last - 200 * length, 201)
        assert stored.iloc[-201:].equals(theirs)


def test_candles_come_by_the_stream_alone(
    desk: PaperDesk, venue: Venue, heard: Heard, feed: Feed
) -> None:
    asked = feed.keeper.asked
    for _ in range(5):
        desk.step()
        until(lambda: has_all(desk, heard))
    assert (feed.keeper.streamed, feed.keeper.asked) == (5 * len(heard.closes), asked)
    require_true_candles(desk, heard, venue)


def test_a_feed_tells_how_its_streams_are(
    desk: PaperDesk, venue: Venue, heard: Heard, feed: Feed
) -> None:
    desk.step()
    until(lambda: has_all(desk, heard))

    def told() -> dict[str, StreamStatus]:
        return {one.channel: one for one in load_streams(desk.settings)}

    until(lambda: "candles" in told() and told()["candles"].told == len(heard.closes))
    assert {one.venue for one in told().values()} == {desk.market.venue}
    assert {name: (one.joined, one.cuts) for name, one in told().items()} == {
        channel.value: (True, 0) for channel in Channel
    }
    html = draw_operations(desk.settings, desk.ledger, CandleStore(desk.settings.candles), [])
    assert html["streams"].text.count(">on<") == 3


def test_quotes_are_the_newest(desk: PaperDesk, venue: Venue, heard: Heard, feed: Feed) -> None:
    for _ in range(3):
        desk.step()
        until(lambda: pairs(heard.quotes) == pairs(venue.fetch_quotes(feed.subjects.symbols)))


def test_who_reacts_to_a_stream_needs_not_ask_for_the_time(
    desk: PaperDesk, venue: Venue, heard: Heard, feed: Feed
) -> None:
    times: list[datetime | None] = []
    heard.on_close = lambda *_: times.append(feed.told_time())
    for _ in range(2):
        desk.step()
        until(lambda: times and times[-1] == venue.fetch_time())
    told = open_venue(desk.settings, desk.market.venue, told=Said(times[0]))
    assert told.fetch_time() == times[0] != venue.fetch_time()
    silent = open_venue(desk.settings, desk.market.venue, told=Said(None))
    assert silent.fetch_time() == venue.fetch_time()


def test_a_quote_that_was_told_is_stamped_with_when_it_was_told_at_the_earliest(
    desk: PaperDesk,
) -> None:
    feed = Feed(desk.settings, desk.ledger, desk.market.venue, [])
    quote = Quote("BTC/USDT", Decimal(1), Decimal(2))

    async def tell() -> dict[str, Quote]:
        feed.on_quotes([quote])
        return feed.told_quotes(["BTC/USDT", "ETH/USDT"])

    assert asyncio.run(tell()) == {}, "by which clock nobody knows"
    then = feed._ask_time()
    (told,) = asyncio.run(tell()).values()
    assert (told.bid, told.ask, told.venue_time) == (1, 2, then - IN_FLIGHT)
    assert IN_FLIGHT <= utc_now() - told.got_at < IN_FLIGHT + timedelta(seconds=10)
    until(lambda: feed.told_time() is None)
    assert feed.told_quotes(["BTC/USDT"]) == {}


def test_a_time_that_was_told_a_while_ago_is_not_the_time(desk: PaperDesk) -> None:
    feed = Feed(desk.settings, desk.ledger, desk.market.venue, [])
    assert feed.told_time() is None
    then = feed._ask_time()
    assert feed.told_time() == then
    until(lambda: feed.told_time() is None)


def test_a_time_that_was_long_on_its_way_is_not_the_time(desk: PaperDesk) -> None:
    feed = Feed(desk.settings, desk.ledger, desk.market.venue, [])
    feed.on_time(then := desk.venue().fetch_time())
    assert feed.told_time() is None  # how late it is nobody knows
    feed._ask_time()
    stalled = timedelta(minutes=30)
    asked_at, by_wall, answer = feed._asked
    for mono, wall in ((stalled.total_seconds(), timedelta()), (0.0, stalled)):
        feed._asked = (asked_at - mono, by_wall - wall, answer)
        feed.on_time(then)
        assert feed.told_time() is None
    feed.on_time(then + stalled)
    assert feed.told_time() == then + stalled


def test_what_is_told_of_one_symbol_makes_no_other_symbols_quote_younger(
    desk: PaperDesk, venue: Venue, heard: Heard
) -> None:
    cache = SharedCache(desk.settings.home)
    feed = Feed(desk.settings, desk.ledger, desk.market.venue, [heard], look_seconds=0.5)

    def shared(symbol: str) -> tuple[list[str], float]:
        entry = cache.load(("quotes", venue.identity), [symbol]).get(symbol)
        return (entry.value, entry.got_at) if entry else ([], 0.0)

    async def tell(symbol: str, bid: int) -> None:
        """Until it is told to all, and once more when whatever was sent with it must have come."""
        feed.on_quotes([Quote(symbol, Decimal(bid), Decimal(bid + 1))])
        await asyncio.sleep(2 * IN_FLIGHT.total_seconds() + 2 * SHARE_PAUSE)
        await feed._quote_work.wait(lambda: None)

    with running(feed) as loop:
        # That the one has moved on since is what a lost message told.
        asyncio.run_coroutine_threadsafe(tell("ETH/USDT", 1), loop).result()
        before = shared("ETH/USDT")
        asyncio.run_coroutine_threadsafe(tell("SOL/USDT", 10), loop).result()
        assert shared("SOL/USDT")[1] > before[1]
        assert shared("ETH/USDT") == before == (["1", "2"], before[1])


def test_a_symbol_that_the_venue_does_not_list_keeps_no_other_from_being_followed(
    desk: PaperDesk, venue: Venue, heard: Heard
) -> None:
    timeframe = desk.market.timeframe
    gone = new_bot(
        "gone", desk.market.venue, "AAA/USDT", timeframe, "weighted", status=BotStatus.RUNNING
    )
    add_bot(desk.ledger, gone)
    feed = Feed(desk.settings, desk.ledger, desk.market.venue, [heard], look_seconds=0.5)
    with running(feed):
        until(lambda: all(health.is_joined for health in feed.health.values()))
        until(lambda: heard.closes.keys() == set(feed.subjects.series))
        desk.step()
        until(lambda: has_all(desk, heard))
    assert {series.symbol for series in heard.closes} == set(desk.market.symbols)


def trade_elsewhere(desk: PaperDesk) -> None:
    """Somebody's order on the account."""
    desk.ccxt().create_order(desk.bot.symbol, "market", "buy", 0.005)


def test_an_order_of_somebody_else_is_known_at_once(desk: PaperDesk, feed: Feed) -> None:
    trade_elsewhere(desk)
    until(lambda: len(load_fills(desk.ledger)) == 1)


def looks(feed: Feed, times: int) -> None:
    """Wait until the feed has looked so often, from beginning to end."""
    for _ in range(times + 1):
        before = looked_at(feed)
        until(lambda before=before: looked_at(feed) != before)


def looked_at(feed: Feed) -> datetime | None:
    return max((one.looked_at for one in load_streams(feed.settings)), default=None)


def test_executions_that_are_never_looked_at_again_are_forgotten_and_no_other(
    desk: PaperDesk, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tradelib.feed.feed._LOOKED_AT", 5)
    for round in range(1, 5):
        desk.step()
        for _ in range(3):  # at the same moment of the market
            trade_elsewhere(desk)
        until(lambda round=round: len(load_fills(desk.ledger)) == 3 * round)
        looks(feed, 2)
    assert feed.health[Channel.ACCOUNT].cuts == 0
    newest = {(fill.symbol, fill.trade_id) for fill in load_fills(desk.ledger, limit=5)}
    assert newest <= set(feed._heard)
    assert len(feed._heard) == 6


class Idle(Feed):
    """A feed that never looks."""

    async def _look(self, streams: VenueStreams) -> None:
        pass


@pytest.mark.parametrize("steps", range(5))
def test_an_end_is_heard_though_a_channel_is_joined_right_before(
    desk: PaperDesk, steps: int
) -> None:
    async def end_it() -> bool:
        feed = Idle(desk.settings, desk.ledger, desk.market.venue, [], look_seconds=600)
        task = asyncio.create_task(feed.run())
        for _ in range(20):
            await asyncio.sleep(0)
        feed.on_joined(Channel.QUOTES)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=30)
        return task.cancelled()

    assert asyncio.run(end_it())


def test_a_venue_that_never_answers_takes_no_thread_that_others_wait_for(desk: PaperDesk) -> None:
    async def listen(silent: socket.socket) -> str:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        point_venue(desk.settings.home, desk.market.venue, url_of(silent.getsockname()[1]))
        feed = Feed(load_settings(desk.settings.home), desk.ledger, desk.market.venue, [])
        streams = VenueStreams(feed.settings, feed.name, feed)
        streams.listen_to_quotes(["BTC/USDT"])
        streams.listen_to_candles([Series("BTC/USDT", "1m")])
        asked, _ = await loop.sock_accept(silent)
        with asked:
            told = await asyncio.wait_for(asyncio.to_thread(str, "served"), 10)
            await streams.close()
        return told

    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        assert asyncio.run(listen(silent)) == "served"


class Patient(Feed):
    """A feed that looks when it has joined a channel, and when it is told to."""

    def __init__(self, desk: PaperDesk, heard: Heard) -> None:
        super().__init__(
            desk.settings, desk.ledger, desk.market.venue, [heard], look_seconds=600
        )  # fmt: skip
        self._looking = asyncio.Lock()

    async def _look(self, streams: VenueStreams) -> None:
        self._streams = streams
        async with self._looking:
            await super()._look(streams)

    async def look(self) -> None:
        await self._look(self._streams)


@contextmanager
def patient(desk: PaperDesk, heard: Heard) -> Iterator[tuple[Patient, Callable[[], None]]]:
    """Such a feed that has joined all channels, and what lets it look once."""
    feed = Patient(desk, heard)
    with running(feed) as loop:
        until(lambda: all(health.is_joined for health in feed.health.values()))

        def look() -> None:
            asyncio.run_coroutine_threadsafe(feed.look(), loop).result()

        for _ in range(2):  # the first may come before the one that joining asked for
            look()
        assert set(feed.subjects.series) == heard.closes.keys()
        yield feed, look


def times_asked(desk: PaperDesk) -> int:
    """How often the venue was asked for its time."""
    spent = load_budgets(desk.settings.home).spent
    return sum(one.requests for one in spent if one.endpoint == "GET time")


def test_the_time_is_not_asked_for_while_the_stream_tells_it(desk: PaperDesk, heard: Heard) -> None:
    with patient(desk, heard) as (_, look):
        asked = times_asked(desk)
        for _ in range(4):
            desk.step()
            until(lambda: has_all(desk, heard))
            look()
        assert times_asked(desk) == asked


def test_a_series_that_is_silent_is_noticed_by_what_others_tell(
    desk: PaperDesk, heard: Heard
) -> None:
    with patient(desk, heard) as (feed, look):
        play(desk, {"kind": "stream_drop", "on": "STREAM kline", "symbol": "ETH/USDT", "count": 60})
        desk.step()
        until(lambda: sum(closes[-1] == market_time(desk) for closes in heard.closes.values()) == 2)
        look()
        assert not has_all(desk, heard)
        look()  # a stream has from one look to the next
        assert has_all(desk, heard)
        assert feed.health[Channel.CANDLES].cuts == 1


CHANNEL_OF = {
    "STREAM kline": Channel.CANDLES,
    "STREAM bookTicker": Channel.QUOTES,
    "STREAM executionReport": Channel.ACCOUNT,
}


@pytest.mark.parametrize("route", CHANNEL_OF)
@pytest.mark.parametrize("kind", ["stream_disconnect", "stream_silence", "stream_drop"])
def test_a_channel_that_is_cut_or_silent_is_noticed_made_up_for_and_begun_anew(
    desk: PaperDesk, venue: Venue, heard: Heard, feed: Feed, route: str, kind: str
) -> None:
    health = feed.health[CHANNEL_OF[route]]
    times = 60 if kind == "stream_drop" else 1
    play(desk, {"kind": kind, "on": route, "count": times}, silence_ms=600_000)
    desk.step()
    trade_elsewhere(desk)
    until(lambda: len(load_fills(desk.ledger)) == 1 or bool(desk.reconcile()))
    until(lambda: health.cuts > 0)
    desk.paper.control("faults", script=[])
    until(lambda: has_all(desk, heard))
    until(lambda: health.is_joined)
    desk.step()
    until(lambda: has_all(desk, heard))
    until(lambda: pairs(heard.quotes) == pairs(venue.fetch_quotes(feed.subjects.symbols)))
    require_true_candles(desk, heard, venue)
    require_true_books(desk, venue)


def play(desk: PaperDesk, *script: dict, **options: object) -> None:
    desk.paper.control("faults", script=list(script), options=options)


def require_true_books(desk: PaperDesk, venue: Venue) -> None:
    def same() -> bool:
        theirs = venue.fetch_balances()
        booked = {b.asset: b.booked for b in load_balances(desk.ledger, desk.market.venue)}
        held = {asset: balance.free + balance.used for asset, balance in theirs.items()}
        return {a: b for a, b in booked.items() if b} == held

    until(lambda: same() or not desk.reconcile())
    record = desk.paper.control("record", account="paper")
    mine = sorted((fill.symbol.replace("/", ""), fill.trade_id) for fill in load_fills(desk.ledger))
    assert mine == sorted((row["symbol"], str(row["id"])) for row in record["trades"])


def test_a_terminated_account_stream_is_begun_anew(
    desk: PaperDesk, venue: Venue, feed: Feed
) -> None:
    play(desk, {"kind": "stream_terminate", "on": "STREAM executionReport", "count": 1})
    trade_elsewhere(desk)
    until(lambda: feed.health[Channel.ACCOUNT].cuts > 0)
    until(lambda: feed.health[Channel.ACCOUNT].is_joined)
    until(lambda: len(load_fills(desk.ledger)) == 1)
    trade_elsewhere(desk)
    until(lambda: len(load_fills(desk.ledger)) == 2)
    require_true_books(desk, venue)


def test_an_account_that_could_not_be_looked_at_is_looked_at_again(
    desk: PaperDesk, feed: Feed
) -> None:
    health = feed.health[Channel.ACCOUNT]
    play(
        desk,
        {"kind": "stream_terminate", "on": "STREAM executionReport", "count": 1},
        {"kind": "refuse_5xx", "on": "GET account", "count": 2 * READ_ATTEMPTS},
    )
    trade_elsewhere(desk)
    until(lambda: health.cuts > 0)
    until(lambda: len(load_fills(desk.ledger)) == 1)
    until(lambda: health.is_joined and health.cut_at is None)


@pytest.mark.parametrize("seed", range(2))
def test_under_random_faults_store_and_books_are_the_exchanges(
    desk: PaperDesk, venue: Venue, heard: Heard, feed: Feed, seed: int
) -> None:
    rates = {
        "stream_drop": 0.05, "stream_double": 0.1, "stream_stale": 0.1, "stream_disorder": 0.1,
        "stream_disconnect": 0.02, "stream_terminate": 0.05, "stream_silence": 0.02,
    }  # fmt: skip
    desk.paper.control("faults", seed=seed, rates=rates, options={"silence_ms": 2_000})
    for _ in range(12):
        desk.step()
        trade_elsewhere(desk)
        until(lambda: has_all(desk, heard))
        require_true_candles(desk, heard, venue)
    assert desk.paper.control("faults")["played"]
    desk.paper.control("faults", rates={})
    desk.step()
    until(lambda: has_all(desk, heard))
    until(lambda: pairs(heard.quotes) == pairs(venue.fetch_quotes(feed.subjects.symbols)))
    require_true_candles(desk, heard, venue)
    require_true_books(desk, venue)
    assert sum(fill.amount for fill in load_fills(desk.ledger)) == Decimal("0.06")
