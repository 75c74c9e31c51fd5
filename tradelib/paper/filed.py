"""A market of candles that somebody saved: one or several CSV or Parquet files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tradelib.candles.files import CandleFile, read_candle_file
from tradelib.clock import format_time, from_ms, timeframe_ms
from tradelib.errors import InvalidInput
from tradelib.paper.candles import Candles
from tradelib.paper.instruments import derive_instrument
from tradelib.paper.liquidity import EXACT_SHAPE, Shape

_DECIMALS = 8


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
