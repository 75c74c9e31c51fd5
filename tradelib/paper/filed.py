"""A market of candles that somebody saved: one or several CSV or Parquet files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np

from tradelib.candles.files import CandleFile, read_candle_file
from tradelib.clock import format_time, from_ms, timeframe_ms
from tradelib.errors import InvalidInput
from tradelib.paper.candles import Candles
from tradelib.paper.instruments import Instrument
from tradelib.paper.liquidity import EXACT_SHAPE, Shape

_DECIMALS = 8
_MIN_NOTIONAL = {"BTC": Decimal("0.0001"), "ETH": Decimal("0.001"), "BNB": Decimal("0.01")}
_USUAL_MIN_NOTIONAL = Decimal(5)


class FileMarket:
    """Candles of files that share a timeframe; played where all of them have data."""

    is_live = False

    def __init__(self, paths: Sequence[Path], shape: Shape = EXACT_SHAPE) -> None:
        files = [read_candle_file(path) for path in paths]
        _check_together(files)
        self.base, self.shape = files[0].timeframe, shape
        self._candles = {_symbol(each): _columns(each) for each in files}
        self.instruments = tuple(derive_instrument(each.symbol, _columns(each)) for each in files)
        self.span = self._overlap()
        self.identity = f"candles {self.base} of {', '.join(sorted(self._candles))}"
        digest = hashlib.blake2b(digest_size=8)
        for symbol in sorted(self._candles):
            for column in self._candles[symbol].columns:
                digest.update(column.tobytes())
        self.salt = int.from_bytes(digest.digest(), "little")
        self.identity += f", {digest.hexdigest()}"

    def _overlap(self) -> tuple[int, int]:
        first = max(int(each.time[0]) for each in self._candles.values())
        last = min(int(each.time[-1]) for each in self._candles.values())
        if first > last:
            raise InvalidInput(
                "The candle files do not overlap in time: one begins at "
                f"{format_time(from_ms(first))}, another ends at {format_time(from_ms(last))}."
            )
        return first, last + timeframe_ms(self.base)

    def candles(self, symbol: str, start: int, end: int) -> Candles:
        first, last = self.span
        return self._candles[symbol].between(max(start, first), min(end, last))

    def aggregated(self, symbol: str, interval: str, start: int, end: int) -> Candles:
        return self.candles(symbol, start, end).aggregate(interval)


def _check_together(files: list[CandleFile]) -> None:
    timeframes = {each.timeframe for each in files}
    if len(timeframes) > 1:
        raise InvalidInput(
            f"Candle files played together must share a timeframe; these have "
            f"{', '.join(sorted(timeframes, key=timeframe_ms))}."
        )
    symbols = [each.symbol for each in files]
    doubled = sorted({each for each in symbols if symbols.count(each) > 1})
    if doubled:
        raise InvalidInput(f"Two candle files are both for {doubled[0]}; give one for each symbol.")


def _symbol(file: CandleFile) -> str:
    return file.symbol.replace("/", "")


def _columns(file: CandleFile) -> Candles:
    frame = file.frame
    # Exact to the exchange's 8 decimals: 5.330000000000001e-05 was written for 0.0000533.
    prices = (
        np.round(frame[name].to_numpy(float), _DECIMALS)
        for name in ("open", "high", "low", "close", "volume")
    )
    return Candles(frame.index.as_unit("ms").asi8.astype(np.int64), *prices)


def derive_instrument(pair: str, candles: Candles) -> Instrument:
    """Tick and lot as fine as the data's own decimals; a lot is never worth much.

    pair: as 'BTC/USD'.
    """
    base, quote = pair.split("/")
    prices = np.concatenate(candles.columns[1:5])
    tick = _finest(prices)
    least = _MIN_NOTIONAL.get(quote, _USUAL_MIN_NOTIONAL)
    # Volumes are often rounded to two decimals where one lot of that would cost a fortune.
    worth = 10.0 ** math.floor(math.log10(float(least) / 10 / float(np.median(prices))))
    step = min(_finest(candles.volume), _power(min(worth, 1.0)))
    return Instrument(base, quote, tick, step, min_notional=least)


def _finest(values: np.ndarray) -> Decimal:
    """The largest power of ten, 1e-8 to 1, of which all values are multiples."""
    for places in range(_DECIMALS):
        scaled = values * 10**places
        if np.all(np.abs(scaled - np.rint(scaled)) < 1e-6 * np.maximum(1, np.abs(scaled) * 1e-6)):
            return _power(10.0**-places)
    return _power(10.0**-_DECIMALS)


def _power(value: float) -> Decimal:
    return Decimal(1).scaleb(max(-_DECIMALS, min(0, round(math.log10(value)))))
