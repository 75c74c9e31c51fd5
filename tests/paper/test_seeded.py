"""The seeded market: the same for a seed whatever is asked first, and sane over years."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest

from tradelib.clock import to_ms
from tradelib.paper.candles import DAY, Candles
from tradelib.paper.market import Tape
from tradelib.paper.seeded import SeededMarket

START = to_ms(datetime(2019, 3, 1, tzinfo=UTC))
NOW = to_ms(datetime(2024, 3, 1, 12, 34, 56, tzinfo=UTC))


def assert_same(one: Candles, other: Candles) -> None:
    for left, right in zip(one.columns, other.columns, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.fixture(scope="module")
def tape() -> Tape:
    return Tape(SeededMarket(7))


def closes(tape: Tape, symbol: str, interval: str = "1h", count: int = 1000) -> np.ndarray:
    return tape.klines(symbol, interval, None, None, count, NOW).close


def test_a_seed_gives_the_same_candles_in_any_order_of_asking() -> None:
    questions = [
        (symbol, START + day * DAY, START + (day + 2) * DAY)
        for symbol in ("BTCUSDT", "DOGEUSDT", "ETHUSDT")
        for day in (0, 700, 3)
    ]
    forward, backward = SeededMarket(3), SeededMarket(3)
    answers = {each: forward.candles(*each) for each in questions}
    shuffled = questions[::-1]
    random.Random(1).shuffle(shuffled)
    backward.aggregated("SOLUSDT", "1d", START, START + 30 * DAY)
    for each in shuffled:
        assert_same(backward.candles(*each), answers[each])


def test_another_seed_gives_another_market() -> None:
    one, other = (SeededMarket(seed).candles("BTCUSDT", START, START + DAY) for seed in (3, 4))
    assert not np.allclose(one.close, other.close)


def test_forgetting_a_day_does_not_change_it() -> None:
    market = SeededMarket(5)
    before = market.candles("BTCUSDT", START, START + DAY)
    market.candles("BTCUSDT", START + 10 * DAY, START + 300 * DAY)
    assert ("BTCUSDT", START // DAY) not in market._minutes
    assert_same(market.candles("BTCUSDT", START, START + DAY), before)


def test_candles_are_whole_and_on_the_tick(tape: Tape) -> None:
    for instrument in tape.market.instruments:
        candles = tape.market.candles(instrument.symbol, START, START + 2 * DAY)
        assert len(candles) == 2880
        assert np.all(np.diff(candles.time) == 60_000)
        assert np.all(candles.low <= np.minimum(candles.open, candles.close))
        assert np.all(candles.high >= np.maximum(candles.open, candles.close))
        assert np.all(candles.volume > 0)
        for price in candles.close[:200]:
            instrument.check_price(tape.to_price(instrument.symbol, price))


def test_days_join_without_a_seam(tape: Tape) -> None:
    for symbol in ("BTCUSDT", "ADAUSDT"):
        candles = tape.market.candles(symbol, START, START + 30 * DAY)
        seams = np.abs(np.log(candles.open[1:] / candles.close[:-1]))[1439::1440]
        assert seams.max() < 0.001


def test_no_price_is_absurd_over_five_years(tape: Tape) -> None:
    for instrument in tape.market.instruments:
        days = tape.klines(instrument.symbol, "1d", START, None, 1000, NOW)
        moves = np.diff(np.log(days.close))
        assert days.high.max() / days.low.min() < 200
        assert 0.015 < moves.std() < 0.12
        assert np.abs(moves).max() < 0.8


def test_coins_move_together(tape: Tape) -> None:
    bitcoin = np.diff(np.log(closes(tape, "BTCUSDT")))
    for symbol in ("ETHUSDT", "SOLUSDT", "LTCUSDT", "XRPUSDT"):
        other = np.diff(np.log(closes(tape, symbol)))
        assert 0.2 < np.corrcoef(bitcoin, other)[0, 1] < 0.98


def test_volume_follows_volatility_and_volatility_comes_in_regimes(tape: Tape) -> None:
    days = tape.klines("BTCUSDT", "1d", START, None, 1000, NOW)
    span = np.log(days.high / days.low)
    assert np.corrcoef(span, days.volume * days.close)[0, 1] > 0.5
    moves = np.abs(np.diff(np.log(days.close)))
    months = moves[: len(moves) // 30 * 30].reshape(-1, 30).mean(axis=1)
    assert months.max() > 2 * months.min()


def test_the_afternoon_is_livelier_than_the_night(tape: Tape) -> None:
    hours = tape.klines("BTCUSDT", "1h", START, None, 1000, NOW)
    by_hour = np.array([hours.volume[hours.time // 3_600_000 % 24 == h].mean() for h in range(24)])
    assert by_hour[14:17].mean() > 1.5 * by_hour[2:5].mean()


def test_long_candles_are_made_of_short_ones(tape: Tape) -> None:
    minutes = tape.market.candles("LINKUSDT", START, START + DAY)
    [hour] = [tape.market.aggregated("LINKUSDT", "1d", START, START + DAY)]
    assert (hour.open[0], hour.close[0]) == (minutes.open[0], minutes.close[-1])
    assert (hour.high[0], hour.low[0]) == (minutes.high.max(), minutes.low.min())
    assert hour.volume[0] == pytest.approx(minutes.volume.sum())


def test_a_forming_candle_grows_into_the_closed_one(tape: Tape) -> None:
    start = START + 600 * 60_000
    [closed] = [tape.market.candles("BTCUSDT", start, start + 1)]
    opened = tape.base_candles("BTCUSDT", start, start + 1, start)
    assert opened.open == opened.high == opened.low == opened.close == closed.open
    assert opened.volume == 0
    seen = [tape.base_candles("BTCUSDT", start, start + 1, start + t) for t in range(0, 60_001, 50)]
    assert_same(seen[-1], closed)
    highs = [each.high[0] for each in seen]
    volumes = [each.volume[0] for each in seen]
    assert highs == sorted(highs)
    assert volumes == sorted(volumes)


def test_legs_lead_through_the_candle_with_its_volume(tape: Tape) -> None:
    start = START + 600 * 60_000
    legs = list(tape.legs("BTCUSDT", start, start + 59_999))
    candle = tape.market.candles("BTCUSDT", start, start + 1)
    path = [legs[0].start, *(leg.end for leg in legs[:-1])]
    assert path[0] == tape.to_price("BTCUSDT", candle.open[0])
    extremes = {tape.to_price("BTCUSDT", each[0]) for each in (candle.low, candle.high)}
    assert set(path[1:]) == extremes
    volume = sum(leg.volume for leg in legs)
    assert float(volume) == pytest.approx(candle.volume[0], rel=1e-3)
    assert all(a.end_time == b.start_time for a, b in pairwise(legs))
