"""A market that follows a real exchange; the exchange here is a list of candles."""

from __future__ import annotations

import asyncio
import json
import threading
from decimal import Decimal
from pathlib import Path

import ccxt
import pytest

from tests.paper.conftest import ANN
from tradelib.errors import VenueUnavailable
from tradelib.paper import PaperConfig, paper_exchange
from tradelib.paper.clock import MarketClock
from tradelib.paper.engine import Fees
from tradelib.paper.exchange import Exchange
from tradelib.paper.faults import Seen
from tradelib.paper.hub import Hub
from tradelib.paper.live import LiveMarket, LiveTape
from tradelib.paper.orders import BUY, SELL, Ticket
from tradelib.paper.store import Store
from tradelib.venue.source import PublicCandles

BASE = 1_800_000_000_000 // 60_000 * 60_000
MINUTE = 60_000


class Source:
    """Fetches candles as ccxt does."""

    def __init__(self) -> None:
        self.rows = [
            [BASE + number * MINUTE, 100.0, 100.5, 99.5, 100.25, 1000.0] for number in range(10)
        ]
        self.is_down = False
        self.asked = threading.Event()

    def fetch_ohlcv(
        self, symbol: str, timeframe: str, since: int | None, limit: int | None
    ) -> list[list[float]]:
        self.asked.set()
        if self.is_down:
            raise ConnectionError("no route, and a url?signature=secret")
        if timeframe != "1m":
            return [[BASE // 3_600_000 * 3_600_000, 99.0, 101.0, 98.0, 100.25, 5000.0]]
        return [row for row in self.rows if since is None or row[0] >= since][-(limit or 500) :]


class Following:
    """A live market with one account, moved by hand."""

    def __init__(self, folder: Path) -> None:
        self.source = Source()
        self.now = BASE + 9 * MINUTE + 1000
        self.market = LiveMarket(self.source, ["AAA/USD"], wall=lambda: self.now)
        clock = MarketClock(self.now, 1, self.market.span[1], lambda: self.now)
        self.exchange = Exchange(LiveTape(self.market), clock, Store(folder), Fees())
        self.exchange.open_accounts({"ann": {"USD": Decimal(10_000), "AAA": Decimal(10)}})

    def pass_time(self, *rows: list[float], seconds: int = 2) -> None:
        """The source shows these as its last candles, some seconds later."""
        self.source.rows = [each for each in self.source.rows if each[0] < rows[0][0]] + [*rows]
        self.now += seconds * 1000
        self.market.refresh()
        self.exchange.advance("AAAUSD")

    def place(self, side: str, price: str):
        self.exchange.advance("AAAUSD")
        ticket = Ticket("AAAUSD", side, "LIMIT", f"{side}{price}", Decimal(1), price=Decimal(price))
        with self.exchange.settle() as engine:
            return engine.place(ANN.name, ticket, self.exchange.now)[0]


@pytest.fixture
def following(tmp_path: Path):
    made = Following(tmp_path)
    yield made
    made.exchange.close()


def test_the_last_close_is_the_price(following: Following) -> None:
    assert following.exchange.tape.price("AAAUSD", following.now) == Decimal("100.25")
    candles = following.exchange.tape.klines("AAAUSD", "1m", None, None, 3, following.now)
    assert list(candles.time) == [BASE + number * MINUTE for number in (7, 8, 9)]


def test_a_new_extreme_between_two_answers_fills_what_it_passed(following: Following) -> None:
    buy, sell = following.place(BUY, "99.00"), following.place(SELL, "101.00")
    following.pass_time([BASE + 9 * MINUTE, 100.0, 100.5, 98.5, 100.0, 1500.0])
    assert (buy.status, sell.status) == ("FILLED", "NEW")
    following.pass_time(
        [BASE + 9 * MINUTE, 100.0, 100.5, 98.5, 100.0, 1500.0],
        [BASE + 10 * MINUTE, 100.0, 102.0, 100.0, 101.5, 800.0],
        seconds=60,
    )
    assert sell.status == "FILLED"
    assert following.exchange.tape.price("AAAUSD", following.now) == Decimal("101.5")


def test_the_same_answer_twice_moves_nothing(following: Following) -> None:
    order = following.place(BUY, "99.60")
    for _ in range(3):
        following.pass_time(following.source.rows[-1])
    assert order.status == "NEW"


def test_longer_candles_come_from_the_source_itself(following: Following) -> None:
    hours = following.exchange.tape.klines("AAAUSD", "1h", None, None, 5, following.now)
    assert (hours.open[-1], hours.volume[-1]) == (99.0, 5000.0)


def test_a_lost_source_is_told_without_its_secrets(following: Following) -> None:
    following.source.is_down = True
    with pytest.raises(VenueUnavailable) as caught:
        following.market.refresh()
    assert "secret" not in str(caught.value)
    assert following.exchange.tape.price("AAAUSD", following.now) == Decimal("100.25")


def test_the_source_is_asked_in_the_background(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tradelib.paper.live.PAUSE", 0.001)
    following.source.asked.clear()
    following.market.start()
    assert following.source.asked.wait(5)
    following.market.stop()


def test_it_follows_another_exchange_through_ccxt(tmp_path: Path) -> None:
    with paper_exchange(PaperConfig(tmp_path / "real", seed=3, speed=1)) as real:
        source = PublicCandles("binance", real.url)
        config = PaperConfig(tmp_path / "paper", source=source, source_symbols=("BTC/USDT",))
        with paper_exchange(config) as paper:
            theirs = ccxt.binance(real.ccxt_settings(ccxt.binance)).fetch_ohlcv("BTC/USDT")
            ours = ccxt.binance(paper.ccxt_settings(ccxt.binance))
            followed = ours.fetch_ohlcv("BTC/USDT", limit=500)
            shared = {row[0]: row for row in theirs[:-2]}
            same = [row for row in followed if row[0] in shared]
            assert len(same) > 400
            assert all(row == shared[row[0]] for row in same)
            order = ours.create_order("BTC/USDT", "market", "buy", 0.01)
            assert order["status"] == "closed"


class Ear:
    """Listens to a hub."""

    is_gone = is_crowded = False

    def __init__(self) -> None:
        self.heard: list[dict] = []

    def deliver(self, stream: str, seen: Seen, text: str) -> None:
        self.heard.append(json.loads(text))


def test_a_followed_candle_is_told_as_closed_once_the_next_has_come(following: Following) -> None:
    """Until then the exchange that is followed may still have something to add to it."""
    hub, ear = Hub(following.exchange, lambda: following.now), Ear()

    def hear() -> list[tuple[int, float, bool]]:
        ear.heard.clear()
        asyncio.run(hub.catch_up())
        candles = [each["k"] for each in ear.heard]
        return [(each["t"], float(each["c"]), each["x"]) for each in candles]

    greet = hub.listen(ear, "aaausd@kline_1m")
    assert greet is not None
    last, following_one = BASE + 9 * MINUTE, BASE + 10 * MINUTE
    following.pass_time([last, 100.0, 101.0, 99.5, 101.0, 900.0], seconds=5)
    assert hear() == [(last, 101.0, False)]
    following.pass_time([last, 100.0, 102.0, 99.5, 102.0, 950.0], seconds=60)
    assert hear() == [(last, 102.0, False)]
    late = [last, 100.0, 103.0, 99.5, 103.0, 999.0]
    following.pass_time(late, [following_one, 103.0, 103.0, 103.0, 103.0, 1.0])
    assert hear() == [(last, 103.0, True), (following_one, 103.0, False)]
