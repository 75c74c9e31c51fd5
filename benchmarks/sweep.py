"""How fast a sweep is beside vectorbt and backtesting.py, and whether its numbers are the same.

    uv run --frozen --all-extras --with vectorbt-rust==1.2.0 --with backtesting benchmarks/sweep.py
        [--quick] [--json] [--file F]

Moving averages that cross: 1,485 pairs of 55 windows, filled at the close as vectorbt's
from_signals does, from the same columns of averages to return, Sharpe ratio, drawdown and trades.
vectorbt takes the pairs in batches, for its matrices of all of them would fill the memory; each
batch is timed beside a whole sweep of ours, so that what else the machine does falls on both.

Then the weighted strategy with confirmation, cooldown, sizing and stop. vectorbt gets its scores
ready, and folds them in two ways: by an order function of its own that follows the same rules, bar
by bar, and must come to the same trades; and by signals with sizing and stop, which know neither
confirmation nor cooldown. Then a Dask cluster of two processes beside one process; and how time and
memory grow with combinations and with candles, each point in a process of its own.

All of it takes some three minutes on two quiet cores. --quick takes a sixth of the candles and of
everything else in less than one: it tries the script and says little of speed. Without
vectorbt-rust or backtesting (whose licence, AGPL, keeps it from being a dependency) their lines say
so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from tradelib.candles.files import read_candle_file
from tradelib.research.backtest import fold_inputs, fold_plainly, fold_times
from tradelib.research.crossings import sweep_crossings
from tradelib.research.sweep import sweep
from tradelib.strategy.decision import NEVER_MS, DecisionParams
from tradelib.strategy.indicators import sma
from tradelib.strategy.registry import strategy

CANDLES = Path(__file__).parents[2] / "shared" / "data" / "coinbase_BTC-USD_1h.csv"
FEE, CASH = 0.001, 10_000.0
WINDOWS = range(2, 57)
PAIRS = [(fast, slow) for fast in WINDOWS for slow in WINDOWS if fast < slow]
BATCH = 99
LEAN = ("total_return", "sharpe", "max_drawdown", "trades")
COMPARED = 40
"""Combinations of the weighted strategy that vectorbt's order function is given."""
WEIGHTED = strategy("weighted")
SPACE = {"fast_window": [10, 20], "slow_window": [50, 100], "rsi_window": [7, 14]}
DECISIONS = {
    "buy_threshold": np.linspace(0.1, 0.5, 10),
    "sell_threshold": np.linspace(-0.5, -0.1, 10),
    "confirmation_minutes": [0, 60, 120, 180, 240],
    "cooldown_minutes": [0, 60, 120, 240, 480],
    "stop_loss": [0.03, 0.05, 0.1, 0.15, 0.2],
}
AGREEMENT = 1e-9


@dataclass(frozen=True)
class Size:
    """How much is measured.

    candles: of the file, from its beginning. batches: of pairs, for vectorbt. rounds: of the
    weighted strategy. scales: combinations over all candles; bars: candles under `scaled`
    combinations.
    """

    candles: int | None
    batches: int | None
    rounds: int
    scales: tuple[int, ...]
    bars: tuple[int, ...]
    scaled: int


FULL = Size(None, None, 5, (1_000, 10_000, 100_000), (2_500, 5_000, 10_000, 20_111), 10_000)
QUICK = Size(3_000, 2, 1, (500, 1_000, 2_000), (1_000, 2_000, 3_000), 1_000)


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


def measure_crossings(candles: pd.DataFrame, batches: int | None) -> dict[str, Any]:
    lines = pd.DataFrame({window: sma(candles["close"], window) for window in WINDOWS})

    def ours() -> pd.DataFrame:
        return sweep_crossings(
            candles, "1h", lines, PAIRS, fill="close", fee=FEE, cash=CASH, metrics=LEAN
        )

    found = ours()  # compiles
    for engine in engines():
        cross_in_vectorbt(candles, lines, PAIRS[:2], engine)
    mine, theirs, apart = [], {engine: [] for engine in engines()}, dict.fromkeys(LEAN, 0.0)
    for first in range(0, len(PAIRS), BATCH)[:batches]:
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
    asked = {name: values[:3] for name, values in DECISIONS.items()}

    def ours() -> pd.DataFrame:
        return sweep(
            candles, "1h", WEIGHTED, SPACE, asked, fee=FEE, cash=CASH, progress=False
        ).frame

    found, engine = ours(), engines()[0]
    rows = found.iloc[:: len(found) // COMPARED][:COMPARED]
    scores, rules = scores_of(candles, rows), rules_of(rows)
    theirs = {
        "order function": lambda: orders_in_vectorbt(candles, scores, rules),
        f"signals, {engine}": lambda: signals_in_vectorbt(candles, scores, engine),
    }
    told, _ = (work() for work in theirs.values())  # which compiles both
    mine, costs = [], {name: [] for name in theirs}
    for _ in range(rounds):
        mine.append(timed(ours, len(found) * len(candles))[0])
        for name, work in theirs.items():
            costs[name].append(timed(work, scores.size)[0])
    differs = np.abs(rows[list(LEAN)].to_numpy() - told.to_numpy()).max(axis=0)
    return {
        "combinations": len(found),
        "compared": len(rows),
        "trades": float(rows["trades"].mean()),
        "ours_ns": statistics.median(mine),
        "vectorbt_ns": {name: statistics.median(one) for name, one in costs.items()},
        "vectorbt_apart": dict(zip(LEAN, map(float, differs), strict=True)),
        "apart": furthest_from_plain(candles, found.iloc[:: len(found) // 7]),
    }


def scores_of(candles: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
    """A column of scores for each row."""

    @cache
    def score(*values: Any) -> np.ndarray:
        params = WEIGHTED.params(**dict(zip(SPACE, values, strict=True)))
        return WEIGHTED.score(candles, params)["score"].to_numpy()

    return np.column_stack([score(*row) for row in rows[list(SPACE)].itertuples(index=False)])


def rules_of(rows: pd.DataFrame) -> np.recarray:
    """What each row's decision step goes by."""
    steps = [DecisionParams(**row).step() for row in rows[list(DECISIONS)].to_dict("records")]
    kinds = [(name, type(value)) for name, value in steps[0]._asdict().items()]
    return np.array([tuple(one) for one in steps], dtype=kinds).view(np.recarray)


@cache
def order_function() -> Callable:
    """What vectorbt asks for at each candle: an order at its open for what the close before it
    says. Single entries by the rules of `decide`, written once more for vectorbt's engine."""
    import numba
    from vectorbt.portfolio.enums import Direction, NoOrder
    from vectorbt.portfolio.nb import order_nb

    long_only = Direction.LongOnly

    @numba.njit
    def order(c, scores, opens, closes, opened, closed, rules, seen):
        i, k = c.i, c.col
        if i == 0:
            return NoOrder
        rule, mine = rules[k], seen[k]
        score, price, now = scores[i - 1, k], closes[i - 1], closed[i - 1]
        held, cash = c.position_now, c.cash_now
        equity = cash + held * price

        side, beyond = 0, 0.0
        if score >= rule.buy_threshold:
            side, beyond = 1, score - rule.buy_threshold
        elif score <= rule.sell_threshold:
            side = -1
        stopped = held > 0.0 and price <= mine.entry * (1.0 - rule.stop_loss)
        if stopped:
            side = 0
        if side != mine.side:
            mine.side, mine.since = side, now

        waits = now - mine.since < rule.confirmation_ms or now - mine.traded < rule.cooldown_ms
        if stopped or (side < 0 and held > 0.0 and not waits):
            mine.traded = opened[i]
            return order_nb(-held, opens[i], fees=FEE, direction=long_only)
        if side <= 0 or waits or cash < rule.smallest_step * equity:
            return NoOrder
        size = rule.cool_size
        if beyond >= rule.hot_from:
            size = rule.hot_size
        elif beyond >= rule.warm_from:
            size = rule.warm_size
        missing = size - held * price / equity
        if missing < rule.smallest_step:
            return NoOrder
        amount = min(missing * equity, cash / (1.0 + FEE)) / opens[i]
        mine.entry = (held * mine.entry + amount * opens[i]) / (held + amount)
        mine.traded = opened[i]
        return order_nb(amount, opens[i], fees=FEE, direction=long_only)

    return order


def orders_in_vectorbt(
    candles: pd.DataFrame, scores: np.ndarray, rules: np.recarray
) -> pd.DataFrame:
    import vectorbt as vbt

    opened, closed, opens, closes = fold_times(candles, "1h")
    kinds = [("side", np.int64), ("since", np.int64), ("traded", np.int64), ("entry", np.float64)]
    seen = np.zeros(len(rules), dtype=kinds).view(np.recarray)
    seen.traded = NEVER_MS
    portfolio = vbt.Portfolio.from_order_func(
        candles["close"], order_function(), vbt.Rep("scores"), opens, closes, opened, closed,
        rules, seen, broadcast_named_args={"scores": scores}, init_cash=CASH, freq="1h",
    )  # fmt: skip
    return told_by(portfolio)


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


def run_scale(file: str, bars: int | None, count: int) -> dict[str, float]:
    """Seconds of so many combinations, and the peak of this process's memory in MB."""
    candles, spent = read_candle_file(file).frame[:bars], []
    # Few are done in no time, so they are done again and again; the first time compiles.
    for samples in (64, *[count] * (1 + 10_000 // count)):
        wall, busy = time.perf_counter(), time.process_time()
        rows = sweep(
            candles, "1h", WEIGHTED, SPACE, DECISIONS, samples=samples, progress=False
        ).frame
        spent.append((time.perf_counter() - wall, time.process_time() - busy))
    seconds, busy_seconds = (statistics.median(one) for one in zip(*spent[1:], strict=True))
    return {
        "combinations": len(rows),
        "candles": len(candles),
        "seconds": seconds,
        "busy_seconds": busy_seconds,
        "megabytes": peak_megabytes(),
    }


def peak_megabytes() -> float:
    """The most memory that this program has held; getrusage would tell its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure_scales(file: str, size: Size) -> dict[str, Any]:
    """Each in a process of its own, whose memory is nothing else's."""

    def measure(bars: int | None, count: int) -> dict[str, float]:
        command = [sys.executable, __file__, "--file", file, "--one-scale", str(count)]
        command += ["--bars", str(bars)] if bars else []
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    by_count = [measure(size.candles, count) for count in size.scales]
    by_bars = [measure(bars, size.scaled) for bars in size.bars]
    return {
        "rows": by_count + by_bars,
        "combinations": fit_line(by_count, "combinations"),
        "candles": fit_line(by_bars, "candles"),
    }


def fit_line(rows: list[dict[str, float]], by: str) -> dict[str, float]:
    """Seconds of all cores as so many at the start and so many for each combination or candle, and
    how far from that the furthest is, as a share of it."""
    counts, seconds = (np.array([row[name] for row in rows]) for name in (by, "busy_seconds"))
    table = np.column_stack([1 / seconds, counts / seconds])
    (fixed, each), *_ = np.linalg.lstsq(table, np.ones(len(rows)))
    off = np.abs(table @ (fixed, each) - 1).max()
    return {"fixed_seconds": float(fixed), "seconds_each": float(each), "off": float(off)}


def measure_dask(candles: pd.DataFrame, samples: int) -> dict[str, Any] | None:
    """A sweep by two processes of a Dask cluster and by one thread of this one; None without it."""
    if not importlib.util.find_spec("distributed"):
        return None
    import distributed

    def work(**more: Any) -> pd.DataFrame:
        asked = {"samples": samples, "fee": FEE, "cash": CASH, "progress": False}
        return sweep(candles, "1h", WEIGHTED, SPACE, DECISIONS, **asked, **more).frame

    size = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**size, silence_logs=logging.ERROR) as cluster:
        work(cluster=cluster)  # compiles in each
        spread, theirs = timed(lambda: work(cluster=cluster), 1)
    alone, ours = timed(lambda: work(workers=1), 1)
    same = (theirs == ours) | (theirs.isna() & ours.isna())
    return {
        "combinations": len(ours),
        "cluster_seconds": spread / 1e9,
        "alone_seconds": alone / 1e9,
        "rows_apart": int((~same.all(axis=1)).sum()),
    }


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
    for name, cost in weighted["vectorbt_ns"].items():
        yield make_bar(f"weighted against vectorbt's {name}, at least", cost / weighted["ours_ns"],
                       "x", 50.0, at_least=True)  # fmt: skip
    for name in LEAN:
        limit = 0.0 if name == "trades" else AGREEMENT
        yield make_bar(f"weighted {name}, off vectorbt's order function by at most",
                       weighted["vectorbt_apart"][name], "", limit)  # fmt: skip
    yield make_bar("weighted, off the plain fold by at most", weighted["apart"], "", AGREEMENT)
    if told["dask"] is not None:
        yield make_bar("rows of a cluster of two processes that differ, at most",
                       told["dask"]["rows_apart"], "", 0.0)  # fmt: skip
    if scale is not None:
        most = max(scale["rows"], key=lambda row: (row["combinations"], row["candles"]))
        yield make_bar(f"memory of {most['combinations']:,} combinations, at most",
                       most["megabytes"], " MB", 1000.0)  # fmt: skip
        for name in ("combinations", "candles"):
            yield make_bar(f"time, off a straight line in {name} by at most", scale[name]["off"],
                           "", 0.1)  # fmt: skip


def run(file: str, size: Size, scale: bool) -> dict[str, Any]:
    candles = read_candle_file(file).frame[: size.candles]
    told: dict[str, Any] = {
        "candles": len(candles),
        "crossings": measure_crossings(candles, size.batches),
        "weighted": measure_weighted(candles, size.rounds),
        "dask": measure_dask(candles, size.scaled),
        "scale": measure_scales(file, size) if scale else None,
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
    theirs = ", ".join(f"{cost:.0f} {name}" for name, cost in weighted["vectorbt_ns"].items())
    table.add_row(f"{weighted['combinations']:,} weighted", f"{weighted['ours_ns']:.2f}", theirs,
                  "")  # fmt: skip
    console.print(table)
    if "rust" not in cross["vectorbt_ns"]:
        console.print("vectorbt-rust is not installed: only vectorbt's numba engine was measured.")
    if dask := told["dask"]:
        console.print(
            f"{dask['combinations']:,} combinations: {dask['cluster_seconds']:.1f} s by a cluster "
            f"of two processes, {dask['alone_seconds']:.1f} s by one thread"
        )
    else:
        console.print("distributed is not installed: no cluster was tried.")
    for row in (told["scale"] or {"rows": []})["rows"]:
        console.print(
            f"{row['combinations']:,} combinations of {row['candles']:,} candles: "
            f"{row['seconds']:.1f} s, of all cores {row['busy_seconds']:.1f} s, "
            f"{row['megabytes']:.0f} MB"
        )
    for bar in told["bars"]:
        verdict = "holds" if bar["holds"] else "MISSED"
        console.print(f"{bar['name']}: {bar['value']:.4g}{bar['unit']}, {bar['target']}: {verdict}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--file", default=str(CANDLES), help="hourly candles")
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--no-scale", dest="scale", action="store_false")
    parser.add_argument("--one-scale", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--bars", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one_scale:
        print(json.dumps(run_scale(asked.file, asked.bars, asked.one_scale)))
        return 0
    told = run(asked.file, QUICK if asked.quick else FULL, asked.scale)
    print(json.dumps(told)) if asked.json else show(told)
    return 0 if all(bar["holds"] for bar in told["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
