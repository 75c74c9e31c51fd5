"""Candle files for tests: real ones where they are at hand, else a stretch of the seeded market."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tests.desks import SHARED_DATA
from tradelib.cli.markets import seeded_candles

REAL = SHARED_DATA / "coinbase_BTC-USD_1h.csv"
BINANCE = sorted(SHARED_DATA.glob("binance_*_5m.csv"))


def entry_file(folder: Path) -> Path:
    """A candle file in which a default bot finds an entry."""
    return REAL if REAL.exists() else seeded_file(folder)


def seeded_file(folder: Path, symbol: str = "BTC/USDT", hours: int = 72) -> Path:
    """Minutes of the seeded market as a CSV."""
    end = datetime(2026, 3, 1, tzinfo=UTC)
    path = folder / f"seeded_{symbol.replace('/', '-')}_1m.csv"
    seeded_candles(1, end, hours)[symbol].to_csv(path, index_label="date")
    return path
