"""Markets of saved candles: the project's data files and small ones made here."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import ccxt
import numpy as np
import pytest

from tests.conftest import require
from tests.paper.conftest import ANN, DATA, Start, trader
from tradelib.errors import InvalidInput
from tradelib.paper import PaperAccount
from tradelib.paper.filed import FileMarket

BTC_FILES = [DATA / f"binance_{base}-BTC_5m.csv" for base in ("ADA", "ETH", "LTC", "XMR")]
RICH = PaperAccount("ann", ANN.key, ANN.secret, {"BTC": Decimal(10), "USD": Decimal(100_000)})
HEADER = "open_time,open,high,low,close,volume\n"


def write(path: Path, *rows: str) -> Path:
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def rows(first: int, count: int, step: int = 3_600_000) -> list[str]:
    return [f"{first + number * step},10,11,9,10.5,100" for number in range(count)]


def need_data() -> None:
    require(DATA.is_dir(), f"no candle files in {DATA}")


def test_several_files_play_where_they_overlap(start: Start) -> None:
    need_data()
    paper = start(files=tuple(BTC_FILES), accounts=(RICH,))
    status = paper.control("status")
    assert status["base"] == "5m"
    assert set(status["symbols"]) == {"ADABTC", "ETHBTC", "LTCBTC", "XMRBTC"}
    paper.control("step", candles=10)
    ann = trader(paper)
    for pair in ("ADA/BTC", "ETH/BTC", "LTC/BTC", "XMR/BTC"):
        opened = ann.fetch_ohlcv(pair, "5m", limit=1)[-1][1]
        amount = float(ann.amount_to_precision(pair, 0.01 / opened))
        assert ann.create_order(pair, "market", "buy", amount)["trades"][0]["price"] == opened


def test_ticks_follow_from_the_datas_own_decimals() -> None:
    need_data()
    [cardano] = FileMarket(BTC_FILES[:1]).instruments
    assert (cardano.symbol, cardano.tick) == ("ADABTC", Decimal("1E-8"))
    [bitcoin] = FileMarket([DATA / "coinbase_BTC-USD_1h.csv"]).instruments
    assert (bitcoin.symbol, bitcoin.tick) == ("BTCUSD", Decimal("0.01"))
    assert bitcoin.step * 20_000 < 5


def test_prices_come_back_as_they_were_written(start: Start) -> None:
    need_data()
    paper = start(files=(DATA / "coinbase_BTC-USD_1h.csv",), accounts=(RICH,))
    paper.control("step", candles=4)
    ann = trader(paper)
    assert ann.fetch_ohlcv("BTC/USD", "1h")[:2] == [
        [1498906800000, 2505.56, 2513.38, 2495.12, 2509.17, 114.6],
        [1498910400000, 2509.17, 2512.87, 2484.99, 2488.43, 157.36],
    ]


def test_files_of_two_timeframes_are_refused(tmp_path: Path) -> None:
    hours = write(
        tmp_path / "x_AAA-USD_1h.csv", *rows(1_600_000_000_000 // 3_600_000 * 3_600_000, 5)
    )
    minutes = write(
        tmp_path / "x_BBB-USD_5m.csv",
        *rows(1_600_000_000_000 // 300_000 * 300_000, 5, 300_000),
    )
    with pytest.raises(InvalidInput, match="share a timeframe"):
        FileMarket([hours, minutes])


def test_files_that_never_overlap_are_refused(tmp_path: Path) -> None:
    base = 1_600_000_000_000 // 3_600_000 * 3_600_000
    early = write(tmp_path / "x_AAA-USD_1h.csv", *rows(base, 5))
    late = write(tmp_path / "x_BBB-USD_1h.csv", *rows(base + 10 * 3_600_000, 5))
    with pytest.raises(InvalidInput, match="do not overlap"):
        FileMarket([early, late])
    with pytest.raises(InvalidInput, match="both for AAA/USD"):
        FileMarket([early, early])


def test_the_overlap_alone_can_be_seen(tmp_path: Path) -> None:
    base = 1_600_000_000_000 // 3_600_000 * 3_600_000
    long = write(tmp_path / "x_AAA-USD_1h.csv", *rows(base, 10))
    short = write(tmp_path / "x_BBB-USD_1h.csv", *rows(base + 3 * 3_600_000, 4))
    market = FileMarket([long, short])
    assert market.span == (base + 3 * 3_600_000, base + 7 * 3_600_000)
    seen = market.candles("AAAUSD", 0, 2**60)
    np.testing.assert_array_equal(seen.time, base + np.arange(3, 7) * 3_600_000)


def test_intervals_shorter_than_the_files_are_refused(start: Start, tmp_path: Path) -> None:
    base = 1_600_000_000_000 // 3_600_000 * 3_600_000
    path = write(tmp_path / "x_AAA-USD_1h.csv", *rows(base, 10))
    ann = trader(start(files=(path,), accounts=(RICH,)))
    with pytest.raises(ccxt.BadRequest, match="-1120"):
        ann.fetch_ohlcv("AAA/USD", "5m")
