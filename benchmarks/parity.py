"""Whether live trading is its backtest: every decision, order, fill, fee and the equity at every
close, on the candles of real markets.

    python benchmarks/parity.py [--json] [--candles 1000] [--in-process 0] [--workers 2] [--only E]

Each file has a bot of another kind: all in at once, in equal parts with a stop, in growing and in
shrinking parts, as the price moves; some run out of cash, some leave dust, all walk down the book.
`--candles` of each go through the live notebooks, cycle by cycle on the stepped paper exchange;
`--in-process` of each (0: all) through the functions that those notebooks call. Both are held
against `run_backtest` with the exchange's own fill model. Files run side by side in `--workers`
processes; with fewer than one candle a part is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tradelib.cli.stepped import (
    BotPlan,
    candles_left,
    check,
    rehearsal,
    run_in_process,
    run_pages,
)
from tradelib.settings import PROJECT

DATA = PROJECT.parent / "shared" / "data"
_ALL = {"hot_size": 1.0, "warm_size": 1.0, "cool_size": 1.0}
_MOST = {"hot_size": 0.9, "warm_size": 0.6, "cool_size": 0.3}
_STEEP = {"hot_size": 1.0, "warm_size": 0.9, "cool_size": 0.8}
PLANS = {
    "binance_ADA-BTC_5m.csv": BotPlan(
        "momentum", {"window": 12, "full": 1.0},
        {**_MOST, "confirmation_minutes": 0, "cooldown_minutes": 0, "stop_loss": 0.02},
    ),
    "binance_ETH-BTC_5m.csv": BotPlan(
        "momentum", {"window": 8, "full": 1.0},
        {**_MOST, "cooldown_minutes": 10, "stop_loss": 0.01,
         "entry_plan": "equal", "tranches": 4, "tranche_spacing": 0.001},
    ),
    "binance_LTC-BTC_5m.csv": BotPlan(
        "mean_reversion", {},
        {**_ALL, "confirmation_minutes": 0, "cooldown_minutes": 5, "stop_loss": 0.015,
         "entry_plan": "pyramid_up", "tranches": 3, "tranche_spacing": 0.002},
    ),
    "binance_XMR-BTC_5m.csv": BotPlan(
        "momentum", {"window": 6, "full": 1.5},
        {**_STEEP, "confirmation_minutes": 0, "stop_loss": 0.03,
         "entry_plan": "adaptive", "tranches": 5, "tranche_spacing": 0.001},
    ),
    "coinbase_BTC-USD_1h.csv": BotPlan(
        "momentum", {"window": 12, "full": 1.0},
        {**_STEEP, "confirmation_minutes": 60, "cooldown_minutes": 60, "stop_loss": 0.03,
         "entry_plan": "pyramid_down", "tranches": 3, "tranche_spacing": 0.002},
    ),
}  # fmt: skip


def compare(file: str, candles: int | None, *, pages: bool) -> dict[str, Any]:
    """A file's bot on so many of its candles, None: all, beside the backtest."""
    for name in [name for name in os.environ if name.startswith("DESK_")]:
        del os.environ[name]
    with (
        tempfile.TemporaryDirectory(prefix="desk-parity-") as folder,
        rehearsal(Path(folder) / "desk", DATA / file, PLANS[file]) as desk,
    ):
        count = min(candles or candles_left(desk), candles_left(desk))
        started = time.perf_counter()
        for _ in (run_pages if pages else run_in_process)(desk, count):
            pass
        lived = time.perf_counter() - started
        found = check(desk)
        return {
            "file": file,
            "by": "notebooks" if pages else "in process",
            **{name: value for name, value in asdict(found).items() if name != "mismatches"},
            "gaps": len(found.mismatches),
            "first": [asdict(one) for one in found.mismatches[:5]],
            "live_s": round(lived, 1),
            "check_s": round(time.perf_counter() - started - lived, 1),
        }


def run(asked: argparse.Namespace) -> list[dict[str, Any]]:
    files = [file for file in PLANS if asked.only in file]
    parts = [(file, asked.candles, True) for file in files if asked.candles > 0]
    parts += [(file, asked.in_process or None, False) for file in files if asked.in_process >= 0]
    done = []
    with ProcessPoolExecutor(asked.workers) as pool:
        waiting = {pool.submit(compare, file, count, pages=pages) for file, count, pages in parts}
        for ended in as_completed(waiting):
            done.append(ended.result())
            print(f"{len(done)} of {len(parts)}: {told(done[-1])}", file=sys.stderr, flush=True)
    return sorted(done, key=lambda one: (one["by"], one["file"]))


def told(one: dict[str, Any]) -> str:
    return (
        f"{one['file']} {one['by']}: {one['candles']} candles, {one['fills']} fills, "
        f"{one['gaps']} gaps, {one['live_s']} s"
    )


def make_bar(name: str, value: float, unit: str, target: float, *, at_least: bool = False) -> dict:
    holds = value >= target if at_least else value <= target
    return {"name": name, "value": value, "unit": unit, "target": target, "holds": holds}


def bars_of(found: list[dict[str, Any]]) -> list[dict]:
    bars = []
    for by in sorted({one["by"] for one in found}):
        mine = [one for one in found if one["by"] == by]
        apart = sum(one["equity"] != one["backtest"] for one in mine)
        candles = sum(one["candles"] for one in mine)
        fills = sum(one["fills"] for one in mine)
        gaps = sum(one["gaps"] for one in mine)
        bars += [
            make_bar(f"{by}: values that differ, of {candles} candles", gaps, "", 0),
            make_bar(f"{by}: files whose final equity differs", apart, "", 0),
            make_bar(f"{by}: fills, at least", fills, "", candles // 50, at_least=True),
        ]
    return bars


def show(found: list[dict[str, Any]], bars: list[dict]) -> None:
    names = ("file", "by", "candles", "decisions", "orders", "refused", "fills", "gaps")
    table = Table(*names, "equity", "backtest", "live s", "check s", box=None)
    for one in found:
        worth = repr(one["equity"]), repr(one["backtest"])
        spent = str(one["live_s"]), str(one["check_s"])
        table.add_row(*(str(one[name]) for name in names), *worth, *spent)
    console = Console(width=180)
    console.print(table)
    for bar in bars:
        verdict = "holds" if bar["holds"] else "MISSED"
        console.print(f"{bar['name']}: {bar['value']}{bar['unit']}, {bar['target']}: {verdict}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--candles", type=int, default=1000, help="of each file by notebooks")
    parser.add_argument("--in-process", type=int, default=0, help="of each file; 0: all, -1: none")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="files whose name holds this")
    asked = parser.parse_args()
    found = run(asked)
    bars = bars_of(found)
    if asked.json:
        print(json.dumps({"parts": found, "bars": bars}, default=str))
    else:
        show(found, bars)
    return 0 if all(bar["holds"] for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
