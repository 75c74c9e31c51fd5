"""Streamed candles become the store's, and no message can make them wrong."""

from datetime import datetime, timedelta
from itertools import pairwise

import pandas as pd
import pytest

from tests.desks import PaperDesk, paper_desk
from tradelib.candles.store import CandleStore
from tradelib.clock import timeframe_ms
from tradelib.errors import DeskError
from tradelib.feed.candles import CandleKeeper
from tradelib.venue import Venue
from tradelib.venue.streams import Series


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        yield desk


class Heard:
    """A keeper of the desk's first symbol, with what it told and what it asked for."""

    def __init__(self, desk: PaperDesk) -> None:
        self.series = Series(desk.bot.symbol, desk.bot.timeframe)
        self.desk, self.store = desk, CandleStore(desk.settings.candles)
        self.closes: list[datetime] = []
        venue = desk.venue()
        self.keeper = CandleKeeper(
            desk.market.venue, venue, self.store, lambda _series: 50,
            lambda _series, closed: self.closes.append(closed),
        )  # fmt: skip
        self.length = timedelta(milliseconds=timeframe_ms(self.series.timeframe))
        self.venue = venue

    def newest(self, count: int = 1):
        """The newest closed candles, as the venue's own history has them."""
        now = self.venue.fetch_time()
        frame = self.venue.fetch_ohlcv(
            self.series.symbol, self.series.timeframe, now - count * self.length, count
        )
        return frame[frame.index + self.length <= now]

    def stored(self):
        return self.store.load(self.desk.market.venue, self.series.symbol, self.series.timeframe)

    def is_true(self) -> bool:
        """Whether the store has what the venue's history has, without a hole."""
        mine = self.stored()
        assert all(b - a == self.length for a, b in pairwise(mine.index))
        last = mine.index[-1].to_pydatetime()
        theirs = self.venue.fetch_ohlcv(
            self.series.symbol, self.series.timeframe, last - 30 * self.length, 31
        )
        return mine.iloc[-31:].equals(theirs)


@pytest.fixture
def heard(desk):
    heard = Heard(desk)
    heard.keeper.take_forming(heard.series, heard.venue.fetch_time())
    assert len(heard.stored()) == 50
    return heard


def test_a_candle_that_follows_is_kept_without_asking(heard):
    asked = heard.keeper.asked
    for _ in range(3):
        heard.desk.step()
        heard.keeper.take_closed(heard.series, heard.newest())
    assert (heard.keeper.streamed, heard.keeper.asked) == (3, asked)
    assert heard.is_true()
    assert all(b - a == heard.length for a, b in pairwise(heard.closes))


def test_a_candle_told_twice_or_late_changes_nothing(heard):
    heard.desk.step()
    first = heard.newest()
    heard.keeper.take_closed(heard.series, first)
    heard.desk.step()
    heard.keeper.take_closed(heard.series, heard.newest())
    told = list(heard.closes)
    stale = first * 2
    for old in (first, stale, heard.newest()):
        heard.keeper.take_closed(heard.series, old)
    assert heard.closes == told
    assert heard.is_true()


class TooSoon:
    """A venue whose history lacks the last trades of a candle that has just closed."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    def fetch_ohlcv(self, symbol: str, timeframe: str, since: datetime, limit: int) -> pd.DataFrame:
        frame = self._venue.fetch_ohlcv(symbol, timeframe, since, limit).copy()
        frame.iloc[-1, frame.columns.get_loc("volume")] /= 2
        return frame


def test_the_stream_mends_what_was_asked_for_too_soon(heard):
    heard.desk.step()
    heard.keeper.source = TooSoon(heard.venue)
    heard.keeper.take_forming(heard.series, heard.venue.fetch_time())
    assert not heard.is_true()
    told = list(heard.closes)
    heard.keeper.take_closed(heard.series, heard.newest())
    assert heard.is_true()
    assert heard.closes == told


def test_candles_whose_messages_were_lost_are_asked_for(heard):
    heard.desk.step(5)
    heard.keeper.take_closed(heard.series, heard.newest())
    assert heard.is_true()
    heard.desk.step(2)
    heard.keeper.take_forming(heard.series, heard.venue.fetch_time())
    assert heard.is_true()
    assert heard.closes[-1] == heard.venue.fetch_time()


def test_what_only_forms_is_never_kept(heard):
    heard.desk.step()
    heard.desk.paper.control("step", candles=1, timeframe="1m")
    now = heard.venue.fetch_time()
    forming = heard.venue.fetch_ohlcv(
        heard.series.symbol, heard.series.timeframe, now - timedelta(seconds=60), 1
    )
    heard.keeper.take_forming(heard.series, now - timedelta(seconds=60))
    assert len(forming) == 1
    assert forming.index[-1] not in heard.stored().index
    assert heard.is_true()


def test_a_series_is_overdue_by_the_venues_clock(heard):
    now, only = heard.venue.fetch_time(), [heard.series]
    assert heard.keeper.overdue(only, now + heard.length - timedelta(seconds=1)) == []
    assert heard.keeper.overdue(only, now + heard.length) == only
    heard.desk.step()
    assert heard.keeper.overdue(only, heard.venue.fetch_time()) == only
    assert heard.keeper.ask(heard.series, heard.venue.fetch_time())
    assert heard.keeper.overdue(only, heard.venue.fetch_time()) == []


def test_a_venue_that_cannot_be_asked_is_told_and_asked_again(heard):
    heard.desk.step(3)
    newest = heard.newest()
    now = heard.venue.fetch_time()
    refusal = {"kind": "refuse_5xx", "on": "GET klines", "count": 3}
    heard.desk.paper.control("faults", script=[refusal])
    with pytest.raises(DeskError, match="could not"):
        heard.keeper.take_closed(heard.series, newest)
    assert heard.keeper.last_close(heard.series) == now - 3 * heard.length
    heard.keeper.take_closed(heard.series, newest)
    assert heard.is_true()
