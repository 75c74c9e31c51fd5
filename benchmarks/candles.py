"""What the candle store takes to load, to look at the newest, to append and to share.

    python benchmarks/candles.py [--json] [--candles 1000000] [--symbols 100] [--rounds 5]

Loading alternates with pandas.read_sql of the same columns from SQLite, so that what else the
machine does falls on both. Every candle that comes back is compared with the one that went in.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from tradelib.candles.schema import candles_from_arrays, candles_hash, open_ms
from tradelib.candles.store import CandleStore
from tradelib.clock import from_ms

MINUTE = 60_000
START = 1_640_995_200_000  # 2022-01-01
SERIES = ("bench", "BTC/USDT", "1m")
NEWEST = 500
WRITERS = READERS = 8
PIECES = 20
PIECE = 75


def make_candles(count: int, seed: int = 1) -> pd.DataFrame:
    """A random walk of minutes in cents, volumes of five digits."""
    draw = np.random.default_rng(seed)
    close = (100 * np.exp(np.cumsum(draw.normal(0, 1e-4, count)))).round(2)
    first = np.r_[100.0, close[:-1]]
    high, low = np.maximum(first, close) + 0.01, np.minimum(first, close) - 0.01
    times = START + MINUTE * np.arange(count)
    return candles_from_arrays(times, first, high, low, close, draw.random(count).round(5))


def close_of(minute: int) -> Any:
    return from_ms(START + MINUTE * (minute + 1))


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    given = call()
    return time.perf_counter() - started, given


def write_sqlite(file: Path, candles: pd.DataFrame) -> None:
    table = candles.reset_index()
    table["open_time"] = open_ms(candles)
    with closing(sqlite3.connect(file)) as connection:
        table.to_sql("candles", connection, index=False)


def read_sqlite(file: Path) -> pd.DataFrame:
    with closing(sqlite3.connect(file)) as connection:
        return pd.read_sql("SELECT * FROM candles ORDER BY rowid", connection)


def measure_loads(home: Path, count: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of loading everything, from both, and the newest."""
    candles, store = make_candles(count), CandleStore(home / "long")
    wrote, _ = timed(lambda: store.append(*SERIES, candles, as_of=close_of(count)))
    write_sqlite(home / "peer.sqlite", candles)
    times: dict[str, list[float]] = {"write": [wrote], "load": [], "sqlite": [], "newest": []}
    for _ in range(rounds):
        seconds, loaded = timed(lambda: store.load(*SERIES))
        times["load"].append(seconds)
        require(candles_hash(loaded) == candles_hash(candles), "the store gave other candles")
        seconds, told = timed(lambda: read_sqlite(home / "peer.sqlite"))
        times["sqlite"].append(seconds)
        require(told["close"].to_numpy().tobytes() == candles["close"].to_numpy().tobytes(),
                "SQLite gave other candles")  # fmt: skip
        seconds, newest = timed(lambda: store.load(*SERIES, limit=NEWEST))
        times["newest"].append(seconds)
        require(newest.equals(candles.iloc[-NEWEST:]), "the newest are others")
    return times


def measure_appends(home: Path, symbols: int, rounds: int) -> list[float]:
    """Seconds of appending one candle to each of so many symbols, whose month is full but for
    some days."""
    store, count = CandleStore(home / "wide"), 40_000
    candles = make_candles(count + rounds, seed=2)
    names = [("bench", f"C{number}/USDT", "1m") for number in range(symbols)]
    for name in names:
        store.append(*name, candles.iloc[:count], as_of=close_of(count - 1))

    def append_one(place: int) -> None:
        one, as_of = candles.iloc[place : place + 1], close_of(place)
        for name in names:
            store.append(*name, one, as_of=as_of)

    times = [timed(lambda place=count + n: append_one(place))[0] for n in range(rounds)]
    for name in names:
        require(store.load(*name).equals(candles), f"{name[1]} lost candles")
    return times


def write_share(root: Path, share: int) -> None:
    """Every eighth piece, so that the writers meet in the same months."""
    store, candles = CandleStore(root), make_candles(WRITERS * PIECES * PIECE, seed=3)
    for piece in range(share, WRITERS * PIECES, WRITERS):
        part = candles.iloc[piece * PIECE : (piece + 1) * PIECE]
        store.append(*SERIES, part, as_of=close_of(len(candles)))


def read_on(root: Path, done: Any, torn: Any, reads: Any) -> None:
    """Read until the writers have ended; a candle that is not the one that was written is torn,
    and one that is gone is lost."""
    store, candles = CandleStore(root), make_candles(WRITERS * PIECES * PIECE, seed=3)
    seen = 0
    while not done.is_set():
        found = store.load(*SERIES)
        if not found.equals(candles.loc[found.index]) or len(found) < seen:
            torn.value += 1
        seen = len(found)
        with reads.get_lock():
            reads.value += 1


def measure_crowd(home: Path) -> dict[str, Any]:
    """Writers and readers of one series at once: what was lost, what was torn."""
    context = multiprocessing.get_context("fork")
    done, torn, reads = context.Event(), context.Value("i", 0), context.Value("i", 0)
    root = home / "crowd"
    readers = [
        context.Process(target=read_on, args=(root, done, torn, reads)) for _ in range(READERS)
    ]
    writers = [context.Process(target=write_share, args=(root, n)) for n in range(WRITERS)]
    started = time.perf_counter()
    for process in [*readers, *writers]:
        process.start()
    for process in writers:
        process.join()
    done.set()
    for process in readers:
        process.join()
    codes = [process.exitcode for process in [*readers, *writers]]
    whole = make_candles(WRITERS * PIECES * PIECE, seed=3)
    found = CandleStore(root).load(*SERIES)
    same = found.equals(whole.loc[found.index])
    return {
        "lost": len(whole) - len(found),
        "torn": torn.value + sum(code != 0 for code in codes) + (not same),
        "candles": len(whole),
        "reads": reads.value,
        "seconds": time.perf_counter() - started,
    }


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"Measured nothing: {otherwise}.")


def bar(name: str, value: float, unit: str, target: float, *, least: bool = False) -> dict:
    holds = value >= target if least else value <= target
    return {"name": name, "value": round(value, 4), "unit": unit, "target": target,
            "holds": holds}  # fmt: skip


def run(count: int, symbols: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        loads = measure_loads(home, count, rounds)
        appends = measure_appends(home, symbols, rounds)
        crowd = measure_crowd(home)
    median = {name: statistics.median(times) for name, times in loads.items()}
    times = {f"{name}_seconds": value for name, value in median.items()}
    times["append_seconds"] = statistics.median(appends)
    bars = [
        bar(f"load of {count:,} candles against pandas.read_sql from SQLite",
            median["sqlite"] / median["load"], "x", 10, least=True),
        bar(f"newest {NEWEST} candles of a symbol", median["newest"] * 1e3, "ms", 10),
        bar(f"appending a candle to {symbols} symbols", times["append_seconds"], "s", 1),
        bar(f"lost with {WRITERS} writers and {READERS} readers", crowd["lost"], "candles", 0),
        bar(f"torn with {WRITERS} writers and {READERS} readers", crowd["torn"], "reads", 0),
    ]  # fmt: skip
    return {"candles": count, "rounds": rounds, **times, "crowd": crowd, "bars": bars}


def show(result: dict[str, Any]) -> None:
    table = Table("", "median", box=None)
    count = f"{result['candles']:,} candles"
    for what, name in (("write", "write_seconds"), ("load", "load_seconds"),
                       ("pandas.read_sql from SQLite", "sqlite_seconds")):  # fmt: skip
        table.add_row(f"{what} of {count}", f"{result[name] * 1e3:,.0f} ms")
    crowd = result["crowd"]
    table.add_row(f"{crowd['reads']:,} reads while {crowd['candles']:,} candles were written",
                  f"{crowd['seconds']:.1f} s")  # fmt: skip
    console = Console()
    console.print(table)
    for one in result["bars"]:
        verdict = "holds" if one["holds"] else "MISSED"
        most = "at least" if one["unit"] == "x" else "at most"
        told = f"{one['value']} {one['unit']}, {most} {one['target']}"
        console.print(f"{one['name']}: {told}: {verdict}", soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--candles", type=int, default=1_000_000)
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    told = run(asked.candles, asked.symbols, asked.rounds)
    print(json.dumps(told)) if asked.json else show(told)
    return 0 if all(one["holds"] for one in told["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
