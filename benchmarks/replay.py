"""Whether every run of a session of fifty bots comes out again, and whether exactly the runs that
read a candle say so once it is altered.

    python benchmarks/replay.py [--json] [--bots 50] [--cycles 10]

The session is `desk up --cycles 10` on the seeded market, in a home of its own. Every run of it is
replayed; then one stored candle's close is changed behind the store's back, and every run is
replayed again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import cycle
import pandas as pd
from kernels import make_bar, show_bars
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tradelib.candles.partitions import read_month, write_month
from tradelib.candles.store import CandleRead
from tradelib.notebooks.replay import Replay, Verdict, replay_runs
from tradelib.settings import PROJECT, DeskSettings, load_settings
from tradelib.trading.ledger import open_ledger
from tradelib.trading.runs import Outcome, Run, load_runs

SYMBOL = "BTC-USDT"


def run_session(home: Path, bots: int, cycles: int) -> None:
    cycle.prepare(home, bots).close()
    kept = {name: text for name, text in os.environ.items() if not name.startswith("DESK_")}
    command = [sys.executable, "-m", "tradelib.cli", "up", "--cycles", str(cycles)]
    done = subprocess.run(
        command, cwd=PROJECT, env={**kept, "DESK_HOME": str(home)}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"The session failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def replay_all(
    settings: DeskSettings, runs: Sequence[Run], what: str
) -> tuple[dict[str, Replay], float]:
    """Every run's replay by the run's id, and the seconds that one took."""
    begun = time.perf_counter()
    told = track(
        replay_runs(settings, runs), what, total=len(runs), console=Console(stderr=True),
        transient=True,
    )  # fmt: skip
    found = {one.run.id: one for one in told}
    return found, (time.perf_counter() - begun) / len(runs)


@contextmanager
def altered_candle(settings: DeskSettings, before: int) -> Any:
    """The open time of the candle that stands so many before the newest, its close altered."""
    file = sorted(settings.candles.glob(f"*/{SYMBOL}/*/*.parquet"))[-1]
    whole, frame = file.read_bytes(), read_month(file)
    frame.iloc[-before, frame.columns.get_loc("close")] += 0.01
    write_month(file, frame)
    try:
        yield frame.index[-before]
    finally:
        file.write_bytes(whole)


def has_read(run: Run, time: pd.Timestamp | datetime) -> bool:
    return any(
        read.symbol == SYMBOL.replace("-", "/") and read.first <= time <= read.last
        for read in map(CandleRead.from_json, run.candles or ())
    )


def measure(bots: int, cycles: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="desk-replay-") as folder:
        home = Path(folder) / "desk"
        run_session(home, bots, cycles)
        settings = load_settings(home)
        runs = load_runs(open_ledger(settings), limit=1_000_000)
        found, seconds = replay_all(settings, runs, "replaying")
        with altered_candle(settings, max(cycles // 2, 1)) as time_of_candle:
            readers = {run.id for run in runs if has_read(run, time_of_candle)}
            after, _ = replay_all(settings, runs, "replaying with an altered candle")
    verdicts = Counter((one.run.notebook, str(one.verdict)) for one in found.values())
    differing = {name for name, one in after.items() if one.verdict is Verdict.DIFFERS}
    silent = [
        name for name in differing if not after[name].differences[0].name.startswith("candles of")
    ]
    failed = sum(run.outcome == Outcome.FAILED for run in runs)
    unlike = failed + sum(not one.verdict.good for one in found.values())
    unsaid = len(readers - differing) + len(silent)
    counts = {
        "did not come out again, at most": unlike,
        "read the altered candle and do not say so, at most": unsaid,
        "did not read it and differ, at most": len(differing - readers),
    }
    bars = [make_bar(name, number, " runs", 0) for name, number in counts.items()]
    return {
        "runs": len(runs),
        "failed_runs": failed,
        "verdicts": {f"{notebook} {verdict}": n for (notebook, verdict), n in verdicts.items()},
        "seconds_per_replay": round(seconds, 3),
        "bars": [*bars, make_bar("read it, at least", len(readers), " runs", 1, at_least=True)],
    }


def show(told: dict[str, Any]) -> None:
    table = Table(title=f"{told['runs']} runs replayed, {told['seconds_per_replay']} s each")
    for column in ("notebook and verdict", "runs"):
        table.add_column(column)
    for name, count in sorted(told["verdicts"].items()):
        table.add_row(name, str(count))
    console = Console()
    console.print(table)
    show_bars(told, console)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bots", type=int, default=50)
    parser.add_argument("--cycles", type=int, default=10)
    asked = parser.parse_args()
    told = measure(asked.bots, asked.cycles)
    print(json.dumps(told)) if asked.json else show(told)
    return 0 if all(bar["holds"] for bar in told["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
