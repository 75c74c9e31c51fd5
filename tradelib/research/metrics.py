"""The figures that a backtest is judged by: what each means, and running sums that give them all.

A backtest and a sweep feed the same `Tally`, close by close and fill by fill, so that no figure
needs the whole equity at once. What vectorbt 1.2 has too (`Portfolio.stats`, its returns accessor)
is equal to it, with one difference: what is undefined, as a ratio over nothing is, is nan here and
never infinite. A year is 365 days, as markets that never close count it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np

from tradelib.clock import timeframe_ms
from tradelib.errors import unknown_name

YEAR_MS = 365 * 86_400_000


def _metric(meaning: str) -> float:
    return field(metadata={"meaning": meaning})


@dataclass(frozen=True)
class Metrics:
    """What a backtest earned, and at what risk.

    A return is that of one candle, from close to close, r = equity / equity before - 1; the first
    is measured from the cash at the start. n returns, N of them a year. A trade begins with the
    purchase that opens a position and ends with a sale; each sale ends one, for the share that it
    sold. Its profit is net of its fees. Fractions are not per cent.
    """

    total_return: float = _metric("growth of the equity over the whole range, a fraction")
    annual_return: float = _metric("the same per year, compounded: growth ** (N / n) - 1")
    sharpe: float = _metric(
        "mean(r) / std(r) * sqrt(N), no riskless rate, std with n - 1 (W. F. Sharpe, 1994)"
    )
    sortino: float = _metric(
        "mean(r) * sqrt(N) / sqrt(mean(min(r, 0) ** 2)) (F. A. Sortino and L. N. Price, 1994)"
    )
    calmar: float = _metric("annual_return / |max_drawdown| (T. W. Young, 1991)")
    max_drawdown: float = _metric(
        "the deepest fall of the equity at closes below its peak so far, a fraction, 0 or negative"
    )
    max_drawdown_candles: float = _metric(
        "the longest run of closes below an earlier peak, candles"
    )
    volatility: float = _metric("std(r) * sqrt(N), a fraction per year")
    exposure: float = _metric("share of closes with a position, 0…1 (vectorbt: position_coverage)")
    trades: float = _metric("positions opened and parts sold: closed trades and the open one")
    closed_trades: float = _metric("trades that a sale has ended; the next five are theirs alone")
    win_rate: float = _metric("share of closed trades with a profit above 0")
    profit_factor: float = _metric("sum of the profits over the sum of the losses")
    expectancy: float = _metric("mean profit of a closed trade, quote")
    best_trade: float = _metric("highest profit of a closed trade over what was paid without fees")
    worst_trade: float = _metric("lowest of the same, a fraction")
    turnover: float = _metric("value of all fills over the mean equity at closes, over the range")
    fees: float = _metric("paid in all, quote")
    market_return: float = _metric("growth of the close over the range: bought, held, no fee")


METRICS: tuple[str, ...] = tuple(one.name for one in fields(Metrics))
MEANINGS: Mapping[str, str] = {one.name: one.metadata["meaning"] for one in fields(Metrics)}


class Tally(NamedTuple):
    """Running sums from which all metrics follow. Money is quote, amounts are base units.

    returns, squares, falls: sums of r, r², min(r, 0)². peak, drawdown: of the equity at closes;
    under, longest: closes since the peak, and the most there were. entry_*: what was bought for
    the position that is open, its value without and its fees. gains, losses: of closed trades,
    losses as a positive number. Counts are floats too, so that a row of an array holds a tally.
    """

    candles: float
    equity: float
    returns: float = 0.0
    squares: float = 0.0
    falls: float = 0.0
    equities: float = 0.0
    peak: float = 0.0
    drawdown: float = 0.0
    under: float = 0.0
    longest: float = 0.0
    held: float = 0.0
    entry_amount: float = 0.0
    entry_value: float = 0.0
    entry_fees: float = 0.0
    traded: float = 0.0
    fees: float = 0.0
    closed: float = 0.0
    won: float = 0.0
    gains: float = 0.0
    losses: float = 0.0
    best: float = float("-inf")
    worst: float = float("inf")


def start_tally(cash: float) -> Tally:
    """The sums before the first candle."""
    return Tally(0.0, float(cash))


def tally_close(tally: Tally, equity: float, amount: float) -> Tally:
    """The sums after a candle that closes with this equity and this position."""
    change = (equity - tally.equity) / tally.equity
    fall = min(change, 0.0)
    peak, drawdown, under = tally.peak, tally.drawdown, 0.0
    if equity >= peak:
        peak = equity
    else:
        under = tally.under + 1.0
        drawdown = min(drawdown, (equity - peak) / peak)
    return Tally(
        tally.candles + 1.0,
        equity,
        tally.returns + change,
        tally.squares + change * change,
        tally.falls + fall * fall,
        tally.equities + equity,
        peak,
        drawdown,
        under,
        max(tally.longest, under),
        tally.held + (1.0 if amount > 0.0 else 0.0),
        tally.entry_amount,
        tally.entry_value,
        tally.entry_fees,
        tally.traded,
        tally.fees,
        tally.closed,
        tally.won,
        tally.gains,
        tally.losses,
        tally.best,
        tally.worst,
    )


def tally_idle(tally: Tally, candles: int) -> Tally:
    """The sums after so many candles without a position, as `tally_close` for each would give."""
    under = tally.under + candles if tally.equity < tally.peak else 0.0
    return Tally(
        tally.candles + candles,
        tally.equity,
        tally.returns,
        tally.squares,
        tally.falls,
        tally.equities + candles * tally.equity,
        max(tally.peak, tally.equity),
        tally.drawdown,
        under,
        max(tally.longest, under),
        *tally[10:],
    )


def tally_held(
    tally: Tally,
    amount: float,
    close: float,
    before: np.ndarray,
    after: np.ndarray,
    candles: int,
    peak: float,
    drawdown: float,
    under: float,
    longest: float,
) -> Tally:
    """The sums after so many candles with the same position, the last of which closes at `close`.

    before, after: sums of the market's returns, their squares, falls' squares and closes, up to
    the close before these candles and to the last. peak, …: as in `Tally`, these candles included.
    """
    return Tally(
        tally.candles + candles,
        amount * close,
        tally.returns + after[0] - before[0],
        tally.squares + after[1] - before[1],
        tally.falls + after[2] - before[2],
        tally.equities + amount * (after[3] - before[3]),
        peak,
        min(tally.drawdown, drawdown),
        under,
        longest,
        tally.held + candles,
        *tally[11:],
    )


def tally_fill(tally: Tally, signed: float, price: float, fee: float) -> Tally:
    """The sums after a fill of `signed` base units, negative when sold, that cost `fee` quote."""
    value = abs(signed) * price
    held, paid, fees = tally.entry_amount, tally.entry_value, tally.entry_fees
    closed, won, gains, losses = tally.closed, tally.won, tally.gains, tally.losses
    best, worst = tally.best, tally.worst
    if signed > 0.0:
        held, paid, fees = held + signed, paid + value, fees + fee
    elif held > 0.0:
        # What is left of a position after a sale is rounding where it is a billionth of it.
        share = -signed / held
        share = share if share < 1.0 - 1e-9 else 1.0
        cost = paid * share
        profit = value - cost - fees * share - fee
        closed += 1.0
        if profit > 0.0:
            won, gains = won + 1.0, gains + profit
        else:
            losses = losses - profit
        best, worst = max(best, profit / cost), min(worst, profit / cost)
        held, paid, fees = held * (1.0 - share), paid - cost, fees * (1.0 - share)
    return Tally(
        tally.candles,
        tally.equity,
        tally.returns,
        tally.squares,
        tally.falls,
        tally.equities,
        tally.peak,
        tally.drawdown,
        tally.under,
        tally.longest,
        tally.held,
        held,
        paid,
        fees,
        tally.traded + value,
        tally.fees + fee,
        closed,
        won,
        gains,
        losses,
        best,
        worst,
    )


def check_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """The names, or InvalidInput for one that is no metric."""
    names = tuple(names)
    for name in names:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    return names


def metrics_of(
    tallies: np.ndarray, timeframe: str, cash: float, market_return: float
) -> dict[str, np.ndarray]:
    """Every metric of every tally; `tallies` holds one in each row, its fields in order."""
    sums = dict(zip(Tally._fields, np.asarray(tallies, dtype="float64").T, strict=True))
    count, growth = sums["candles"], sums["equity"] / cash
    year = YEAR_MS / timeframe_ms(timeframe)
    mean = _over(sums["returns"], count)
    deviation = _deviation(sums, mean)
    closed = sums["closed"]
    # Short ranges grow beyond every number in a year; that says nothing, so it is undefined.
    with np.errstate(over="ignore"):
        annual = growth ** _over(np.full_like(count, year), count) - 1
    annual = np.where(np.isfinite(annual), annual, np.nan)
    found = {
        "total_return": growth - 1,
        "annual_return": annual,
        "sharpe": _over(mean, deviation) * np.sqrt(year),
        "sortino": _over(mean, np.sqrt(_over(sums["falls"], count))) * np.sqrt(year),
        "calmar": _over(annual, -sums["drawdown"]),
        "max_drawdown": sums["drawdown"],
        "max_drawdown_candles": sums["longest"],
        "volatility": deviation * np.sqrt(year),
        "exposure": _over(sums["held"], count),
        "trades": closed + (sums["entry_amount"] > 0),
        "closed_trades": closed,
        "win_rate": _over(sums["won"], closed),
        "profit_factor": _over(sums["gains"], sums["losses"]),
        "expectancy": _over(sums["gains"] - sums["losses"], closed),
        "best_trade": np.where(closed > 0, sums["best"], np.nan),
        "worst_trade": np.where(closed > 0, sums["worst"], np.nan),
        "turnover": _over(sums["traded"], _over(sums["equities"], count)),
        "fees": sums["fees"],
        "market_return": np.full_like(count, market_return),
    }
    return {name: found[name] for name in METRICS}


def _deviation(sums: Mapping[str, np.ndarray], mean: np.ndarray) -> np.ndarray:
    """Standard deviation of the returns, with n - 1; nan for fewer than two."""
    count = sums["candles"]
    spread = sums["squares"] - count * mean * mean
    # Where returns hardly differ, what is left of the difference is rounding.
    spread = np.where(spread > 1e-14 * sums["squares"], spread, 0.0)
    return np.sqrt(_over(spread, np.where(count > 1, count - 1, 0.0)))


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and nan where the whole is 0."""
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole != 0)
