"""Fetching: only what is missing is asked for, and holes are asked for once."""

from datetime import timedelta

import pytest

from tradelib.candles.fetch import fetch_candles
from tradelib.candles.schema import candles_from_rows, open_ms
from tradelib.candles.store import CandleStore
from tradelib.clock import from_ms, to_ms
from tradelib.errors import InvalidInput, VenueUnavailable

HOUR = 3_600_000
START = 1_767_225_600_000


def time(hour):
    return from_ms(START + hour * HOUR)


class Venue:
    """A venue with hourly candles but for `holes`; answers with a forming candle at the end."""

    def __init__(self, hours, holes=(), page=1000):
        self.hours = [hour for hour in range(hours) if hour not in holes]
        self.page = page
        self.asked = []

    def fetch_ohlcv(self, symbol, timeframe, since, limit):
        if symbol == "BAD/USDT":
            raise VenueUnavailable("no answer")
        first = (to_ms(since) - START) // HOUR
        self.asked.append((first, limit))
        hours = [hour for hour in self.hours if hour >= first][: min(limit, self.page)]
        return candles_from_rows([(START + hour * HOUR, 5, 6, 4, 5, 1) for hour in hours])


@pytest.fixture
def store(tmp_path):
    return CandleStore(tmp_path)


def fetch(source, store, as_of, history=5000, symbols=("BTC/USDT",)):
    return fetch_candles(source, store, "paper", symbols, "1h", as_of=as_of, history=history)


def stored_hours(store):
    return ((open_ms(store.load("paper", "BTC/USDT", "1h")) - START) // HOUR).tolist()


def test_a_first_fetch_brings_the_history_in_pages(store):
    venue = Venue(3000)
    (report,) = fetch(venue, store, time(2600), history=2500)
    assert venue.asked == [(100, 1000), (1100, 1000), (2100, 500)]
    assert (report.requested, report.added, report.error) == (2500, 2500, None)
    assert (report.last_close, report.age) == (time(2600), timedelta(0))


def test_a_later_fetch_asks_for_the_newest_and_the_one_new_candle(store):
    venue = Venue(3000)
    fetch(venue, store, time(100), history=50)
    venue.asked.clear()
    (report,) = fetch(venue, store, time(101) + timedelta(seconds=2), history=50)
    assert venue.asked == [(99, 2)]
    assert report.age == timedelta(seconds=2)
    fetch(venue, store, time(101) + timedelta(minutes=30), history=50)
    assert venue.asked == [(99, 2)]


def test_a_newest_candle_that_the_venue_corrected_is_revised(store):
    fetch(Venue(3000), store, time(100), history=50)

    class Corrected(Venue):
        def fetch_ohlcv(self, *asked):
            return super().fetch_ohlcv(*asked).assign(volume=7.0)

    (report,) = fetch(Corrected(3000), store, time(101), history=50)
    assert (report.added, report.revised) == (1, 1)
    (revision,) = store.revisions("paper", "BTC/USDT", "1h")
    assert (revision.open_time, revision.old[-1], revision.new[-1]) == (time(99), 1.0, 7.0)


def test_the_forming_candle_is_not_stored(store):
    fetch(Venue(3000), store, time(100) + timedelta(minutes=30), history=10)
    assert stored_hours(store) == list(range(90, 100))


def test_a_venue_with_small_pages_is_asked_on(store):
    fetch(Venue(3000, page=30), store, time(100), history=100)
    assert stored_hours(store) == list(range(100))


def test_a_hole_that_the_venue_can_fill_is_filled(store):
    fetch(Venue(3000, holes=range(40, 50)), store, time(45), history=45)
    store.append(
        "paper",
        "BTC/USDT",
        "1h",
        Venue(3000).fetch_ohlcv("BTC/USDT", "1h", time(60), 5),
        as_of=time(65),
    )
    (report,) = fetch(Venue(3000), store, time(65), history=65)
    assert stored_hours(store) == list(range(65))
    assert (report.open_gaps, report.recorded_gaps) == ((), ())


def test_a_hole_that_the_venue_has_too_is_recorded_and_not_asked_for_again(store):
    venue = Venue(3000, holes=(40, 41, 70))
    (report,) = fetch(venue, store, time(100), history=100)
    assert [gap.missing for gap in report.recorded_gaps] == [2, 1]
    assert report.open_gaps == ()
    venue.asked.clear()
    fetch(venue, store, time(101), history=100)
    assert venue.asked == [(99, 2)]


def test_a_venue_without_any_candles_is_asked_once_per_page(store):
    venue = Venue(0)
    (report,) = fetch(venue, store, time(2500), history=2500)
    assert len(venue.asked) == 3
    assert (report.added, report.last_close, report.age) == (0, None, None)


def test_one_symbols_error_does_not_stop_the_others(store):
    bad, unknown, good = fetch(
        Venue(3000), store, time(10), history=10, symbols=("BAD/USDT", "BTCUSDT", "BTC/USDT")
    )
    assert isinstance(bad.error, VenueUnavailable)
    assert isinstance(unknown.error, InvalidInput)
    assert (good.error, good.added) == (None, 10)


def test_an_answer_that_is_no_candles_is_carried_as_an_error(store):
    class Broken:
        def fetch_ohlcv(self, symbol, timeframe, since, limit):
            return candles_from_rows([(START, 5, 4, 6, 5, 1)])

    (report,) = fetch(Broken(), store, time(10), history=10)
    assert isinstance(report.error, InvalidInput)
    assert report.added == 0
