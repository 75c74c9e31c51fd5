"""How fast a sweep is beside vectorbt and backtesting.py, and whether its numbers are the same.

    uv run --with vectorbt-rust==1.2.0 --with backtesting benchmarks/sweep.py [--json] [--file F]

Moving averages that cross: 1,485 pairs of 55 windows, filled at the close as vectorbt's
from_signals does, from the same columns of averages to return, Sharpe ratio, drawdown and trades.
vectorbt takes the pairs in batches, for its matrices of all of them would fill the memory; each
batch is timed beside a whole sweep of ours, so that what else the machine does falls on both. Then
the weighted strategy with confirmation, cooldown, sizing and stop, against vectorbt's signals with
sizing and stop, whose scores are given to it. Without vectorbt-rust or backtesting (whose licence,
AGPL, keeps it from being a dependency) their lines say so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from tradelib.candles.files import read_candle_file
from tradelib.research.backtest import fold_inputs, fold_plainly
from tradelib.research.crossings import sweep_crossings
from tradelib.research.sweep import sweep
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.indicators import sma
from tradelib.strategy.registry import strategy

CANDLES = Path(__file__).parents[2] / "shared" / "data" / "coinbase_BTC-USD_1h.csv"
FEE, CASH = 0.001, 10_000.0
WINDOWS = range(2, 57)
PAIRS = [(fast, slow) for fast in WINDOWS for slow in WINDOWS if fast < slow]
BATCH = 99
LEAN = ("total_return", "sharpe", "max_drawdown", "trades")
WEIGHTED = strategy("weighted")
SPACE = {"fast_window": [10, 20], "slow_window": [50, 100], "rsi_window": [7, 14]}
DECISIONS = {
    "buy_threshold": np.linspace(0.1, 0.5, 10),
    "sell_threshold": np.linspace(-0.5, -0.1, 10),
    "confirmation_minutes": [0, 60, 120, 180, 240],
    "cooldown_minutes": [0, 60, 120, 240, 480],
    "stop_loss": [0.03, 0.05, 0.1, 0.15, 0.2],
}
SCALES = (1_000, 10_000, 100_000)
AGREEMENT = 1e-9


def make_bar(name: str, value: float, unit: str, target: float, *, at_least: bool = False) -> dict:
    holds = value >= target if at_least else value <= target
    return {"name": name, "value": value, "unit": unit, "target": target, "holds": bool(holds)}


def timed(work: Callable[[], Any], units: int) -> tuple[float, Any]:
    """Nanoseconds of wall time for each of the units, and what the work gave."""
    started = time.perf_counter()
    found = work()
    return 1e9 * (time.perf_counter() - started) / units, found


def engines() -> tuple[str, ...]:
    return ("rust", "numba") if importlib.util.find_spec("vectorbt_rust") else ("numba",)


def cross_in_vectorbt(
    candles: pd.DataFrame, lines: pd.DataFrame, pairs: list, engine: str
) -> pd.DataFrame:
    import vectorbt as vbt
    from vectorbt.generic import dispatch

    fast = lines[[pair[0] for pair in pairs]].to_numpy()
    slow = lines[[pair[1] for pair in pairs]].to_numpy()
    up = dispatch.crossed_above(fast, slow, 0, engine=engine)
    down = dispatch.crossed_above(slow, fast, 0, engine=engine)
    portfolio = vbt.Portfolio.from_signals(
        candles["close"], up, down, fees=FEE, init_cash=CASH, freq="1h", engine=engine
    )
    return told_by(portfolio)


def told_by(portfolio: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "total_return": portfolio.total_return().to_numpy(),
            "sharpe": portfolio.sharpe_ratio().to_numpy(),
            "max_drawdown": portfolio.max_drawdown().to_numpy(),
            "trades": portfolio.trades.count().to_numpy(),
        }
    )


def measure_crossings(candles: pd.DataFrame) -> dict[str, Any]:
    lines = pd.DataFrame({window: sma(candles["close"], window) for window in WINDOWS})

    def ours() -> pd.DataFrame:
        return sweep_crossings(
            candles, "1h", lines, PAIRS, fill="close", fee=FEE, cash=CASH, metrics=LEAN
        )

    found = ours()  # compiles
    for engine in engines():
        cross_in_vectorbt(candles, lines, PAIRS[:2], engine)
    mine, theirs, apart = [], {engine: [] for engine in engines()}, dict.fromkeys(LEAN, 0.0)
    for first in range(0, len(PAIRS), BATCH):
        batch = PAIRS[first : first + BATCH]
        mine.append(timed(ours, len(PAIRS) * len(candles))[0])
        for engine in engines()[: 1 if first else None]:
            cost, told = timed(
                lambda batch=batch, engine=engine: cross_in_vectorbt(candles, lines, batch, engine),
                len(batch) * len(candles),
            )
            theirs[engine].append(cost)
            differs = np.abs(found.loc[batch].to_numpy() - told.to_numpy()).max(axis=0)
            apart = {
                name: max(apart[name], float(one)) for name, one in zip(LEAN, differs, strict=True)
            }
    return {
        "pairs": len(PAIRS),
        "trades": float(found["trades"].mean()),
        "ours_ns": statistics.median(mine),
        "vectorbt_ns": {name: statistics.median(costs) for name, costs in theirs.items()},
        "backtesting_ns": time_backtesting(candles, lines),
        "apart": apart,
    }


def time_backtesting(candles: pd.DataFrame, lines: pd.DataFrame) -> float | None:
    """Nanoseconds for a candle of one pair, None where backtesting.py is not installed."""
    if not importlib.util.find_spec("backtesting"):
        return None
    import backtesting

    class Cross(backtesting.Strategy):
        pair = (10, 40)

        def init(self) -> None:
            self.fast, self.slow = (
                self.I(lambda window=window: lines[window].to_numpy()) for window in self.pair
            )

        def next(self) -> None:
            if self.fast[-2] < self.slow[-2] and self.fast[-1] > self.slow[-1]:
                self.buy(size=0.99)
            elif self.fast[-2] > self.slow[-2] and self.fast[-1] < self.slow[-1]:
                self.position.close()

    frame = candles.rename(columns=str.title).tz_localize(None)
    costs = []
    for pair in ((5, 20), (10, 40), (20, 55)):
        bench = backtesting.Backtest(
            frame, Cross, cash=1e9, commission=FEE, trade_on_close=True, finalize_trades=True
        )
        costs.append(timed(lambda bench=bench, pair=pair: bench.run(pair=pair), len(frame))[0])
    return statistics.median(costs)


def measure_weighted(candles: pd.DataFrame, rounds: int) -> dict[str, Any]:
    """The whole sweep, from candles to metrics, beside vectorbt from scores to metrics."""
    params = [WEIGHTED.params(fast_window=fast) for fast in range(5, 45)]
    scores = np.column_stack([WEIGHTED.score(candles, one)["score"] for one in params])

    def ours() -> pd.DataFrame:
        asked = {name: values[:3] for name, values in DECISIONS.items()}
        return sweep(
            candles, "1h", WEIGHTED, SPACE, asked, fee=FEE, cash=CASH, progress=False
        ).frame

    found, mine, engine = ours(), [], engines()[0]
    signals_in_vectorbt(candles, scores[:, :1], engine)
    theirs = []
    for _ in range(rounds):
        mine.append(timed(ours, len(found) * len(candles))[0])
        theirs.append(timed(lambda: signals_in_vectorbt(candles, scores, engine), scores.size)[0])
    return {
        "combinations": len(found),
        "ours_ns": statistics.median(mine),
        "vectorbt_ns": statistics.median(theirs),
        "engine": engine,
        "apart": furthest_from_plain(candles, found.iloc[:: len(found) // 7]),
    }


def signals_in_vectorbt(candles: pd.DataFrame, scores: np.ndarray, engine: str) -> pd.DataFrame:
    import vectorbt as vbt

    portfolio = vbt.Portfolio.from_signals(
        candles["close"], scores >= 0.3, scores <= -0.3, size=0.25, size_type="percent",
        sl_stop=0.1, fees=FEE, init_cash=CASH, freq="1h", engine=engine,
    )  # fmt: skip
    return told_by(portfolio)


def furthest_from_plain(candles: pd.DataFrame, rows: pd.DataFrame) -> float:
    """The largest difference, relative above 1, of return and trades to the fold in Python."""
    apart = 0.0
    for row in rows.to_dict("records"):
        params = WEIGHTED.params(**{name: row[name] for name in SPACE})
        decision = DecisionParams(**{name: row[name] for name in DECISIONS})
        inputs = fold_inputs(candles, "1h", WEIGHTED.score(candles, params))
        equity, _, fills = fold_plainly(*inputs, decision.step(), FEE, CASH)
        returns = np.diff(equity, prepend=CASH) / np.concatenate([[CASH], equity[:-1]])
        plain = {
            "total_return": equity[-1] / CASH - 1,
            "sharpe": returns.mean() / returns.std(ddof=1) * np.sqrt(24 * 365),
            "max_drawdown": (equity / np.maximum.accumulate(equity) - 1).min(),
            "fees": fills[:, 1].sum(),
            "trades": (fills[:, 0] < 0).sum() + (fills[:, 0].sum() > 1e-9),
        }
        for name, value in plain.items():
            apart = max(apart, abs(row[name] - value) / max(1.0, abs(value)))
    return apart


def run_scale(file: str, count: int) -> dict[str, float]:
    """Seconds of so many combinations, and the peak of this process's memory in MB."""
    candles, spent = read_candle_file(file).frame, []
    # Few are done in no time, so they are done again and again; the first time compiles.
    for samples in (64, *[count] * (1 + SCALES[-1] // count // 10)):
        wall, busy = time.perf_counter(), time.process_time()
        rows = sweep(
            candles, "1h", WEIGHTED, SPACE, DECISIONS, samples=samples, progress=False
        ).frame
        spent.append((time.perf_counter() - wall, time.process_time() - busy))
    seconds, busy_seconds = (statistics.median(one) for one in zip(*spent[1:], strict=True))
    return {
        "combinations": len(rows),
        "seconds": seconds,
        "busy_seconds": busy_seconds,
        "megabytes": peak_megabytes(),
    }


def peak_megabytes() -> float:
    """The most memory that this program has held; getrusage would tell its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure_scales(file: str) -> dict[str, Any]:
    """Each in a process of its own, whose memory is nothing else's."""
    rows = []
    for count in SCALES:
        command = [sys.executable, __file__, "--file", file, "--one-scale", str(count)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    return {"rows": rows, **fit_line(rows)}


def fit_line(rows: list[dict[str, float]]) -> dict[str, float]:
    """Seconds of all cores as so many for the candles and so many for each combination, and how
    far from that the furthest is, as a share of it."""
    counts, seconds = (
        np.array([row[name] for row in rows]) for name in ("combinations", "busy_seconds")
    )
    table = np.column_stack([1 / seconds, counts / seconds])
    (fixed, each), *_ = np.linalg.lstsq(table, np.ones(len(rows)))
    off = np.abs(table @ (fixed, each) - 1).max()
    return {"fixed_seconds": float(fixed), "seconds_each": float(each), "off": float(off)}


def bars_of(told: dict[str, Any]) -> Iterator[dict]:
    cross, weighted, scale = told["crossings"], told["weighted"], told["scale"]
    for name, cost in cross["vectorbt_ns"].items():
        yield make_bar(f"crossings against vectorbt ({name}), at least", cost / cross["ours_ns"],
                       "x", 150.0, at_least=True)  # fmt: skip
    if cross["backtesting_ns"] is not None:
        yield make_bar("crossings against backtesting.py, at least",
                       cross["backtesting_ns"] / cross["ours_ns"], "x", 1500.0,
                       at_least=True)  # fmt: skip
    for name in LEAN:
        limit = 0.0 if name == "trades" else AGREEMENT
        yield make_bar(f"{name} of all pairs, off vectorbt's by at most", cross["apart"][name],
                       "", limit)  # fmt: skip
    yield make_bar(f"weighted against vectorbt's signals ({weighted['engine']}), at least",
                   weighted["vectorbt_ns"] / weighted["ours_ns"], "x", 50.0,
                   at_least=True)  # fmt: skip
    yield make_bar("weighted, off the plain fold by at most", weighted["apart"], "", AGREEMENT)
    if scale is not None:
        most = max(row["megabytes"] for row in scale["rows"])
        yield make_bar(f"memory of {SCALES[-1]:,} combinations, at most", most, " MB", 1000.0)
        yield make_bar(
            "time, off a straight line in combinations by at most", scale["off"], "", 0.1
        )


def run(file: str, rounds: int, scale: bool) -> dict[str, Any]:
    candles = read_candle_file(file).frame
    told: dict[str, Any] = {
        "candles": len(candles),
        "crossings": measure_crossings(candles),
        "weighted": measure_weighted(candles, rounds),
        "scale": measure_scales(file) if scale else None,
    }
    return told | {"bars": list(bars_of(told))}


def show(told: dict[str, Any]) -> None:
    console = Console()
    table = Table("ns for a candle of one combination", "ours", "vectorbt", "backtesting.py",
                  box=None)  # fmt: skip
    cross, weighted = told["crossings"], told["weighted"]
    theirs = ", ".join(f"{cost:.0f} {name}" for name, cost in cross["vectorbt_ns"].items())
    other = cross["backtesting_ns"]
    table.add_row(f"{cross['pairs']:,} crossings", f"{cross['ours_ns']:.2f}", theirs,
                  "not installed" if other is None else f"{other:.0f}")  # fmt: skip
    table.add_row(f"{weighted['combinations']:,} weighted", f"{weighted['ours_ns']:.2f}",
                  f"{weighted['vectorbt_ns']:.0f} {weighted['engine']}", "")  # fmt: skip
    console.print(table)
    if "rust" not in cross["vectorbt_ns"]:
        console.print("vectorbt-rust is not installed: only vectorbt's numba engine was measured.")
    for row in (told["scale"] or {"rows": []})["rows"]:
        console.print(
            f"{row['combinations']:,} combinations: {row['seconds']:.1f} s, of all cores "
            f"{row['busy_seconds']:.1f} s, {row['megabytes']:.0f} MB"
        )
    for bar in told["bars"]:
        verdict = "holds" if bar["holds"] else "MISSED"
        console.print(f"{bar['name']}: {bar['value']:.4g}{bar['unit']}, {bar['target']}: {verdict}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--file", default=str(CANDLES), help="hourly candles")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-scale", dest="scale", action="store_false")
    parser.add_argument("--one-scale", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one_scale:
        print(json.dumps(run_scale(asked.file, asked.one_scale)))
        return 0
    told = run(asked.file, asked.rounds, asked.scale)
    print(json.dumps(told)) if asked.json else show(told)
    return 0 if all(bar["holds"] for bar in told["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
