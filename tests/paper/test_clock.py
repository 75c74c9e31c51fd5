"""Market time: stepped, it stands at an open; what it passes over, orders meet."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import ccxt
import pytest

from tests.paper.conftest import ANN, Start, trader
from tradelib.clock import parse_time, to_ms, utc_now
from tradelib.errors import InvalidInput
from tradelib.paper import PaperAccount, PaperHandle

ROWS = [
    ("2024-01-01 00:00:00+00:00", "100.0", "103.5", "99.5", "102.5", "50"),
    ("2024-01-01 01:00:00+00:00", "103.0", "104.0", "97.0", "98.0", "100"),
    ("2024-01-01 02:00:00+00:00", "98.5", "99.0", "98.0", "98.5", "80"),
    ("2024-01-01 04:00:00+00:00", "90.0", "91.0", "89.0", "90.5", "60"),
    ("2024-01-01 05:00:00+00:00", "91.0", "92.0", "90.0", "91.5", "60"),
]
PAIR = "AAA/USD"
RICH = PaperAccount("ann", ANN.key, ANN.secret, {"USD": Decimal(10_000), "AAA": Decimal(100)})
HOUR = 3_600_000


@pytest.fixture
def candle_file(tmp_path: Path) -> Path:
    lines = ["date,open,high,low,close,volume", *(",".join(row) for row in ROWS)]
    path = tmp_path / "made_AAA-USD_1h.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def paper(start: Start, candle_file: Path) -> PaperHandle:
    return start(files=(candle_file,), accounts=(RICH,))


def test_the_price_stands_at_the_open_of_the_next_candle(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    assert ann.fetch_ticker(PAIR)["last"] == 100
    for candle, opened in ((1, 103.0), (2, 98.5)):
        paper.control("step")
        assert ann.fetch_time() == to_ms(datetime(2024, 1, 1, candle, tzinfo=UTC))
        ticker = ann.fetch_ticker(PAIR)
        assert (ticker["last"], ticker["bid"], ticker["ask"]) == (opened, opened, opened)


def test_a_step_tells_when_those_who_listen_began_to_be_told(paper: PaperHandle) -> None:
    before = utc_now()
    told = parse_time(paper.control("step")["told_from"])
    assert before <= told <= utc_now()


def test_a_small_market_order_fills_at_the_next_open_exactly(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    paper.control("step")
    assert ann.fetch_ohlcv(PAIR, "1h")[-2][4] == 102.5
    for side in ("buy", "sell"):
        order = ann.create_order(PAIR, "market", side, 0.5)
        assert order["average"] == 103.0
        assert order["timestamp"] == to_ms(datetime(2024, 1, 1, 1, tzinfo=UTC))


def test_the_forming_candle_shows_its_open_and_nothing_else(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    paper.control("step")
    rows = ann.fetch_ohlcv(PAIR, "1h")
    assert [row[1:] for row in rows] == [[100, 103.5, 99.5, 102.5, 50], [103, 103, 103, 103, 0]]


def test_a_step_shows_orders_the_whole_candle(paper: PaperHandle, ann: ccxt.binance) -> None:
    low = ann.create_order(PAIR, "limit", "buy", 0.2, 99.6)
    lower = ann.create_order(PAIR, "limit", "buy", 1, 99.4)
    high = ann.create_order(PAIR, "limit", "sell", 0.2, 103.4)
    paper.control("step")
    found = {name: ann.fetch_order(each["id"], PAIR) for name, each in
             (("low", low), ("lower", lower), ("high", high))}  # fmt: skip
    assert {name: each["status"] for name, each in found.items()} == {
        "low": "closed",
        "lower": "open",
        "high": "closed",
    }
    # The first candle rises, so its low came before its high.
    trades = ann.fetch_my_trades(PAIR)
    assert [each["order"] for each in trades] == [low["id"], high["id"]]
    opened = to_ms(datetime(2024, 1, 1, tzinfo=UTC))
    assert opened < trades[0]["timestamp"] < trades[1]["timestamp"] < opened + HOUR
    assert [each["takerOrMaker"] for each in trades] == ["maker", "maker"]


def test_fills_are_bounded_by_the_volume_that_passes(paper: PaperHandle, ann: ccxt.binance) -> None:
    order = ann.create_order(PAIR, "limit", "buy", 90, 99.9)
    paper.control("step")
    found = ann.fetch_order(order["id"], PAIR)
    assert 0 < found["filled"] < 50
    assert found["info"]["status"] == "PARTIALLY_FILLED"
    paper.control("step")
    assert ann.fetch_order(order["id"], PAIR)["filled"] > found["filled"]


def test_a_stop_fires_within_the_step(paper: PaperHandle, ann: ccxt.binance) -> None:
    stop = ann.create_order(PAIR, "market", "sell", 1, None, {"stopLossPrice": 98})
    paper.control("step")
    assert ann.fetch_order(stop["id"], PAIR)["status"] == "open"
    paper.control("step")
    found = ann.fetch_order(stop["id"], PAIR)
    assert (found["status"], found["average"]) == ("closed", 98)


def test_a_missing_candle_leaves_the_price_and_no_row(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    paper.control("step", candles=3)
    assert ann.fetch_ticker(PAIR)["last"] == 98.5
    hours = [ann.iso8601(row[0])[11:13] for row in ann.fetch_ohlcv(PAIR, "1h")]
    assert hours == ["00", "01", "02"]
    paper.control("step")
    assert ann.fetch_ticker(PAIR)["last"] == 90
    assert [ann.iso8601(row[0])[11:13] for row in ann.fetch_ohlcv(PAIR, "1h", limit=2)] == [
        "02",
        "04",
    ]


def test_a_jump_over_an_order_fills_it(paper: PaperHandle, ann: ccxt.binance) -> None:
    paper.control("step", candles=3)
    order = ann.create_order(PAIR, "limit", "buy", 0.5, 95)
    paper.control("step")
    assert ann.fetch_order(order["id"], PAIR)["status"] == "closed"


def test_longer_steps_end_on_their_own_grid(paper: PaperHandle) -> None:
    paper.control("step")
    paper.control("step", candles=1, timeframe="2h")
    assert paper.control("status")["time"] == "2024-01-01T02:00:00.000000Z"


def test_a_step_past_the_end_is_refused_and_moves_nothing(paper: PaperHandle) -> None:
    paper.control("step", candles=6)
    assert paper.control("status")["time"] == "2024-01-01T06:00:00.000000Z"
    for asked in ({}, {"candles": 0}, {"candles": -1}, {"timeframe": "7m"}, {"timeframe": "x"}):
        with pytest.raises(InvalidInput):
            paper.control("step", **asked)
    assert paper.control("status")["time"] == "2024-01-01T06:00:00.000000Z"


def test_status_tells_where_the_market_stands(paper: PaperHandle, ann: ccxt.binance) -> None:
    ann.create_order(PAIR, "market", "buy", 1)
    status = paper.control("status")
    assert status["first_candle"] == "2024-01-01T00:00:00.000000Z"
    assert status["last_candle"] == "2024-01-01T05:00:00.000000Z"
    assert (status["base"], status["orders"], status["trades"]) == ("1h", 1, 1)
    assert status["symbols"] == {"AAAUSD": {"symbol": PAIR, "status": "TRADING"}}
    assert status["requests"] == {"GET exchangeInfo": 1, "POST order": 1}


def test_a_running_clock_moves_with_the_walls(start: Start) -> None:
    now = [1_800_000_000_000]
    paper = start(speed=60, start=datetime(2024, 1, 1, tzinfo=UTC), wall=lambda: now[0])
    began = paper.control("status")["time_ms"]
    now[0] += 2_000
    assert paper.control("status")["time_ms"] == began + 120_000


def test_a_running_market_fills_resting_orders_on_its_way(start: Start) -> None:
    now = [1_800_000_000_000]
    paper = start(speed=60, start=datetime(2024, 1, 1, tzinfo=UTC), wall=lambda: now[0])
    ann = trader(paper)
    ann.nonce = lambda: now[0]
    last = ann.fetch_ticker("BTC/USDT")["last"]
    orders = [
        ann.create_order("BTC/USDT", "limit", "buy", 0.01, last * 0.999),
        ann.create_order("BTC/USDT", "limit", "sell", 0.01, last * 1.001),
    ]
    for _ in range(60):
        now[0] += 10_000
        if len(ann.fetch_open_orders("BTC/USDT")) < 2:
            break
    [trade, *_] = ann.fetch_my_trades("BTC/USDT")
    assert trade["order"] in {each["id"] for each in orders}
    assert trade["timestamp"] <= ann.fetch_time()


def test_a_halted_symbol_fills_nothing_until_it_trades_again(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    order = ann.create_order(PAIR, "limit", "buy", 0.2, 98.6)
    paper.control("halt", symbol=PAIR)
    paper.control("step", candles=2)
    assert ann.fetch_order(order["id"], PAIR)["status"] == "open"
    paper.control("unhalt", symbol=PAIR)
    paper.control("step")
    assert ann.fetch_order(order["id"], PAIR)["status"] == "closed"


def test_orders_of_several_symbols_meet_the_market_in_order_of_time(start: Start) -> None:
    paper = start()
    ann = trader(paper)
    for pair in ("BTC/USDT", "ETH/USDT", "LTC/USDT"):
        last = ann.fetch_ticker(pair)["last"]
        for share in (0.999, 0.998, 0.997, 0.996):
            price = float(ann.price_to_precision(pair, last * share))
            amount = float(ann.amount_to_precision(pair, 200 / last))
            ann.create_order(pair, "limit", "buy", amount, price)
    paper.control("step", candles=24, timeframe="1h")
    trades = [
        each for pair in ("BTC/USDT", "ETH/USDT", "LTC/USDT") for each in ann.fetch_my_trades(pair)
    ]
    minutes = [
        each["timestamp"] // 60_000 for each in sorted(trades, key=lambda each: int(each["id"]))
    ]
    assert len({each["symbol"] for each in trades}) > 1
    assert minutes == sorted(minutes)
