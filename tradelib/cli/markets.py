"""The local market that `desk up` trades on: which venue it is, what it lists, where it starts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pandas as pd

from tradelib.candles.files import CandleFile, read_candle_file
from tradelib.clock import floor_time, from_ms, timeframe_ms
from tradelib.errors import InvalidInput
from tradelib.paper.filed import FileMarket
from tradelib.paper.seeded import SeededMarket
from tradelib.research.backtest import fold_inputs, fold_plainly
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.registry import strategy
from tradelib.venue.source import PublicCandles

DEFAULT_STRATEGY = "weighted"
SEEDED_SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
SEEDED_TIMEFRAME = "1m"
DEFAULT_SEED = 1
# Replaying a file, one candle takes this long unless --speed says otherwise.
SECONDS_PER_CANDLE = 60.0
_STARTING_CASH = {"BTC": Decimal(1), "ETH": Decimal(20)}
_DEFAULT_CASH = Decimal(10_000)
# Candles looked through for a stretch in which something happens.
_SEARCHED = 5_000
_CHART = 500


@dataclass(frozen=True)
class LocalMarket:
    """A paper exchange's market as the desk sees it.

    venue: its name in desk.toml; each market has its own, and so its own books. files: the
    candles it replays; follow: the real exchange whose prices it follows, by ccxt's name; neither
    for the seeded one.
    """

    venue: str
    symbols: tuple[str, ...]
    timeframe: str
    seed: int
    files: tuple[CandleFile, ...] = ()
    follow: str | None = None

    @property
    def quote(self) -> str:
        return self.symbols[0].split("/")[1]

    @property
    def starting_cash(self) -> dict[str, Decimal]:
        return {self.quote: _STARTING_CASH.get(self.quote, _DEFAULT_CASH)}

    @property
    def bot_names(self) -> dict[str, str]:
        """The default bot's name for each symbol."""
        if not self.files:
            seed = self.venue.removeprefix("paper")  # or the exchange that is followed
            return {s: f"{s.split('/')[0].lower()}-{DEFAULT_STRATEGY}{seed}" for s in self.symbols}
        # Each replay has its own bots, told apart by the end of its venue's name.
        tail = self.venue[-4:]
        return {
            s: f"{s.replace('/', '-').lower()}-{self.timeframe}-{DEFAULT_STRATEGY}-{tail}"[-40:]
            for s in self.symbols
        }

    def default_speed(self) -> float:
        """Market seconds per second: real time for the seeded market, a candle a minute for
        files."""
        if not self.files:
            return 1.0
        return timeframe_ms(self.timeframe) / 1000 / SECONDS_PER_CANDLE


def seeded_market(seed: int) -> LocalMarket:
    name = "paper" if seed == DEFAULT_SEED else f"paper-seed{seed}"
    return LocalMarket(name, SEEDED_SYMBOLS, SEEDED_TIMEFRAME, seed)


def followed_market(exchange: str, symbols: tuple[str, ...]) -> LocalMarket:
    """Paper trading on the prices of a real exchange."""
    pairs = [symbol.partition("/") for symbol in symbols]
    if len({quote for _, _, quote in pairs}) != 1 or not all(b and q for b, _, q in pairs):
        raise InvalidInput(
            f"Symbols to follow must share a quote currency, as BTC/USDT and ETH/USDT do; "
            f"these are {', '.join(symbols)}."
        )
    return LocalMarket(
        f"paper-{exchange}", symbols, SEEDED_TIMEFRAME, DEFAULT_SEED, follow=exchange
    )


def file_market(paths: tuple[Path, ...]) -> LocalMarket:
    """The market of candle files; they share a timeframe and a quote currency."""
    files = tuple(read_candle_file(path) for path in paths)
    for what in ("timeframe", "quote"):
        found = sorted({file.timeframe if what == "timeframe" else _quote(file) for file in files})
        if len(found) > 1:
            raise InvalidInput(
                f"The candle files differ in their {what} ({', '.join(found)}); "
                "replay those of one kind together."
            )
    symbols = tuple(sorted(file.symbol for file in files))
    content = "|".join(sorted(f"{path.name} {path.stat().st_size}" for path in paths))
    name = f"replay-{files[0].timeframe}-{hashlib.sha256(content.encode()).hexdigest()[:4]}"
    return LocalMarket(name, symbols, files[0].timeframe, DEFAULT_SEED, files)


def check_playable(market: LocalMarket, start: datetime | None) -> None:
    """Refuse what the market's own process would refuse, before anything is written."""
    if market.follow:
        PublicCandles(market.follow)
    elif market.files:
        _check_start(start, FileMarket([file.path for file in market.files]).span)
    elif start:
        _check_start(start, SeededMarket(market.seed).span)


def _check_start(start: datetime | None, span: tuple[int, int]) -> None:
    first, end = (from_ms(edge) for edge in span)
    if start and not first <= start <= end:
        raise InvalidInput(
            f"--start {start:%F %T}Z lies outside of the market's candles, "
            f"{first:%F %T}Z to {end:%F %T}Z."
        )


def _quote(file: CandleFile) -> str:
    return file.symbol.split("/")[1]


def find_start(candles: Mapping[str, pd.DataFrame], timeframe: str, cycles: int) -> datetime | None:
    """Where a replay of a few cycles begins so that a default bot buys in it: at the close before
    the first candle on which one would. None when none would."""
    entries = [
        entry
        for frame in candles.values()
        if (entry := _first_entry(frame.iloc[: _SEARCHED + _CHART], timeframe)) is not None
    ]
    if not entries:
        return None
    length = timedelta(milliseconds=timeframe_ms(timeframe))
    return min(entries) + (length if cycles == 1 else timedelta())


def _first_entry(candles: pd.DataFrame, timeframe: str) -> datetime | None:
    """Open time of the first candle at whose close the default strategy buys, warmed up."""
    rules = strategy(DEFAULT_STRATEGY)
    warm = max(rules.history(rules.params()), _CHART)
    if len(candles) <= warm:
        return None
    scores = rules.score(candles)
    inputs = fold_inputs(candles.iloc[warm:], timeframe, scores.iloc[warm:])
    _, decisions, _ = fold_plainly(*inputs, DecisionParams().step(), 0.001, 10_000.0)
    buys = candles.index[warm:][decisions[:, 0] > 0]
    return buys[0].to_pydatetime() if len(buys) else None


def seeded_candles(seed: int, end: datetime, hours: int) -> dict[str, pd.DataFrame]:
    """The seeded market's last hours before a time, by symbol, for find_start."""
    market, until = SeededMarket(seed), floor_time(end, SEEDED_TIMEFRAME)
    since = until - timedelta(hours=hours)
    found = {}
    for symbol in SEEDED_SYMBOLS:
        columns = market.candles(
            symbol.replace("/", ""), int(since.timestamp() * 1000), int(until.timestamp() * 1000)
        )
        index = pd.to_datetime(columns.time, unit="ms", utc=True).as_unit("ms")
        found[symbol] = pd.DataFrame(
            {name: getattr(columns, name) for name in ("open", "high", "low", "close", "volume")},
            index=index.rename("open_time"),
        )
    return found
