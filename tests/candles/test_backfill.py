"""Backfills: what is missing is asked for once, whatever happens in between."""

import threading
from datetime import timedelta

import pytest

from tradelib.candles.backfill import backfill_candles
from tradelib.candles.fetch import fetch_candles
from tradelib.candles.schema import Gap, candles_from_rows, open_ms
from tradelib.candles.store import CandleStore, LateCandles
from tradelib.clock import from_ms, to_ms
from tradelib.errors import InvalidInput, VenueUnavailable

MINUTE = 60_000
START = 1_767_225_600_000
SERIES = ("paper", "BTC/USDT", "1m")
END = 30_000
LISTED = 4_000


def time(minute):
    return from_ms(START + minute * MINUTE)


class Market:
    """A venue's candles from LISTED to END, but for `holes`; it counts what it is asked for.

    skips: whether an answer begins with the first candle there is, as Binance's does, or is empty
    where there is none. dies_after: requests until it gives no answer any more.
    """

    def __init__(self, holes=(), *, skips=True, page=1000, dies_after=None, price=5.0):
        self.there = [m for m in range(LISTED, END + 1) if m not in holes]
        self.skips, self.page, self.dies_after, self.price = skips, page, dies_after, price
        self.asked, self.threads = [], set()
        self.lock = threading.Lock()

    def open(self):
        return Client(self)


class Client:
    def __init__(self, market):
        self.market, self.candle_page = market, market.page

    def fetch_ohlcv(self, symbol, timeframe, since, limit):
        market, first = self.market, (to_ms(since) - START) // MINUTE
        with market.lock:
            market.asked.append((symbol, first, limit))
            market.threads.add(threading.get_ident())
            if market.dies_after is not None and len(market.asked) > market.dies_after:
                raise VenueUnavailable("no answer")
        limit = min(limit, market.page)
        minutes = [m for m in market.there if m >= first and (market.skips or m < first + limit)]
        low = market.price - 1
        return candles_from_rows([
            (START + m * MINUTE, market.price, market.price + 1, low, market.price, 1)
            for m in minutes[:limit]
        ])  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return CandleStore(tmp_path / "candles")


def backfill(market, store, *, symbols=("BTC/USDT",), as_of=END, **more):
    return backfill_candles(
        market.open, store, "paper", symbols, "1m", since=time(0), as_of=time(as_of), **more
    )


def stored(store, symbol="BTC/USDT"):
    return ((open_ms(store.load("paper", symbol, "1m")) - START) // MINUTE).tolist()


def asked_minutes(market):
    return sum(limit for _, first, limit in market.asked if limit > 1)


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("page", [1000, 300])
def test_all_there_is_gets_stored_and_nothing_is_late(store, skips, page):
    market = Market(range(9_000, 9_003), skips=skips, page=page)
    (report,) = backfill(market, store)
    assert stored(store) == [m for m in range(LISTED, END) if not 9_000 <= m < 9_003]
    assert (report.added, report.missing, report.error) == (END - LISTED - 3, 0, None)
    assert report.recorded == LISTED + 3
    assert store.recorded_gaps(*SERIES) == [
        Gap(time(0), time(LISTED), LISTED), Gap(time(9_000), time(9_003), 3),
    ]  # fmt: skip
    assert store.revisions(*SERIES) == []


def test_the_years_before_the_listing_cost_one_question(store):
    market = Market()
    backfill(market, store)
    assert len(market.asked) == 1 + (END - LISTED) / 1000


@pytest.mark.parametrize("skips", [True, False])
def test_a_second_backfill_asks_for_nothing(store, skips):
    backfill(Market(range(9_000, 9_003), skips=skips), store)
    market = Market(range(9_000, 9_003), skips=skips)
    (report,) = backfill(market, store)
    assert market.asked == []
    assert (report.requests, report.added, report.missing) == (0, 0, 0)


def test_one_that_was_stopped_asks_for_the_rest_alone(store):
    (report,) = backfill(Market(dies_after=15), store)
    assert isinstance(report.error, VenueUnavailable)
    before = len(stored(store))
    assert 0 < before < END - LISTED
    assert report.missing == END - LISTED - before
    market = Market()
    backfill(market, store)
    assert asked_minutes(market) == END - LISTED - before
    assert stored(store) == list(range(LISTED, END))
    assert store.revisions(*SERIES) == []


def test_newer_candles_are_joined_on_at_the_end(store):
    backfill(Market(), store, as_of=20_000)
    market = Market()
    backfill(market, store)
    assert [first for _, first, _ in market.asked] == list(range(20_000, END, 1000))
    assert store.revisions(*SERIES) == []


def test_a_series_that_the_desk_trades_on_is_completed_at_its_beginning(store):
    fetch_candles(Market().open(), store, "paper", ["BTC/USDT"], "1m", as_of=time(END), history=500)
    backfill(Market(), store)
    assert stored(store) == list(range(LISTED, END))
    assert store.revisions(*SERIES) == []


def test_a_hole_that_is_filled_later_is_not_there_for_earlier_readers(store):
    hole = range(9_000, 12_000)
    backfill(Market(hole), store, as_of=20_000)
    # Had the venue's gap not been recorded, it would be asked for again.
    (store.root / "paper" / "BTC-USDT" / "1m" / "gaps.json").unlink()
    (report,) = backfill(Market(), store)
    assert stored(store) == list(range(LISTED, END))
    late = LateCandles(time(END), time(9_000), time(11_999), 3_000)
    assert store.revisions(*SERIES) == [late]
    then = store.load(*SERIES, as_of=time(20_000))
    assert len(then) == 20_000 - LISTED - 3_000
    assert report.added == END - 20_000 + 3_000


def test_the_newest_that_the_venue_does_not_have_yet_are_no_gap_of_its_own(store):
    slow = Market(range(END - 5, END + 1))
    (report,) = backfill(slow, store)
    assert report.missing == 5
    backfill(Market(), store)
    assert stored(store) == list(range(LISTED, END))


def test_asked_again_what_the_venue_has_changed_is_a_revision(store):
    backfill(Market(), store, as_of=20_000)
    (report,) = backfill(Market(price=7.0), store, again=True)
    assert report.revised == 20_000 - LISTED
    assert report.added == END - 20_000
    first = store.revisions(*SERIES)[0]
    assert (first.old[0], first.new[0], first.seen) == (5.0, 7.0, time(END))
    assert len(store.revisions(*SERIES)) == report.revised
    assert store.load(*SERIES, as_of=time(20_000))["open"].eq(5.0).all()


def test_symbols_are_asked_for_side_by_side_each_by_a_client_of_its_thread(store):
    symbols = [f"C{number}/USDT" for number in range(6)]
    market = Market()
    barrier = threading.Barrier(3, timeout=30)
    inner = market.open

    def open_with_others():
        barrier.wait()
        return inner()

    market.open = open_with_others
    reports = backfill(market, store, symbols=symbols, jobs=3)
    assert [report.symbol for report in reports] == symbols
    assert len(market.threads) == 3
    assert all(stored(store, symbol) == list(range(LISTED, END)) for symbol in symbols)


def test_one_symbols_error_does_not_stop_the_others(store):
    reports = backfill(Market(), store, symbols=("BTCUSDT", "BTC/USDT"))
    assert isinstance(reports[0].error, InvalidInput)
    assert (reports[1].error, reports[1].missing) == (None, 0)


def test_progress_ends_at_all_there_was_to_do(store):
    told = []
    backfill(
        Market(), store, symbols=("A/USDT", "B/USDT"), jobs=2,
        on_progress=lambda done, of: told.append((done, of)),
    )  # fmt: skip
    assert told[-1] == (2 * END, 2 * END)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_person_who_stops_it_loses_no_more_than_what_is_under_way(store):
    def stop(done, of):
        if done > 10_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backfill(Market(), store, on_progress=stop)
    found = stored(store)
    assert found == list(range(found[0], END))
    market = Market()
    backfill(market, store)
    assert asked_minutes(market) == END - LISTED - len(found)


def test_sources_are_closed_in_the_end_also_when_somebody_stops_it(store):
    closed = []

    class Closing(Client):
        def close(self):
            closed.append(self)

    market = Market()
    market.open = lambda: Closing(market)
    backfill(market, store, symbols=("A/USDT", "B/USDT"), jobs=2)
    assert 1 <= len(closed) <= 2

    def stop(done, of):
        if done > 10_000:
            raise KeyboardInterrupt

    closed.clear()
    with pytest.raises(KeyboardInterrupt):
        backfill(market, store, symbols=("C/USDT",), on_progress=stop)
    assert len(closed) == 1


def test_a_beginning_after_the_last_closed_candle_is_refused(store):
    with pytest.raises(InvalidInput, match="begin earlier"):
        backfill_candles(
            Market().open, store, "paper", ["BTC/USDT"], "1m",
            since=time(50), as_of=time(50) + timedelta(seconds=30),
        )  # fmt: skip
