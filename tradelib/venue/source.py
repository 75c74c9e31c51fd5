"""Public candles of an exchange in ccxt's own shape, for a paper market that follows it."""

from __future__ import annotations

from pathlib import Path

import ccxt

from tradelib.settings import VenueSettings
from tradelib.venue.client import make_exchange
from tradelib.venue.translate import translated


class PublicCandles:
    """Candles of one exchange, asked for without keys.

    exchange: ccxt's id. rest_url: another server of the same dialect, None for the exchange.
    home: of the desk under whose rate budget it asks; None counts nothing.
    """

    def __init__(
        self, exchange: str, rest_url: str | None = None, home: Path | None = None
    ) -> None:
        self.name = exchange
        self._exchange: ccxt.Exchange = make_exchange(
            exchange, VenueSettings(exchange=exchange, rest_url=rest_url), None, home=home
        )

    def fetch_ohlcv(
        self, symbol: str, timeframe: str, since: int | None, limit: int | None
    ) -> list[list[float]]:
        """Rows of open time (ms), open, high, low, close (quote) and volume (base)."""
        with translated(self.name, f"give {timeframe} candles of {symbol}"):
            rows = self._exchange.fetch_ohlcv(symbol, timeframe, since, limit)
        return [[int(row[0]), *(float(value) for value in row[1:6])] for row in rows]
