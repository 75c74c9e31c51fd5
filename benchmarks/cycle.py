"""Whether a desk of fifty bots ends every cycle with half of its minute to spare, and what of the
processor a bot's cycle takes.

    python benchmarks/cycle.py [--json] [--bots 50] [--cycles 10] [--cold-bots 10] [--cold-cycles 2]

It is `desk up` as a user runs it: the seeded market at the wall's speed, every service, Prefect's
own schedule of a cycle a minute and of a reconciliation every 30 s, each in a process of its own.
A cycle's seconds are from its scheduled time to the end of its flow, as Prefect recorded both, so
that a late start counts. The cold desk runs every page in a kernel that starts from nothing; it
has fewer bots, so that its cycles end before the next too.

CPU seconds are user's and system's, of a cycle's own flow process, from its start, which is
before the scheduled time, and of kernels, fork server, exchange and Prefect's server while that
process lived. `--cold-cycles 0` leaves the cold desk out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tradelib.cli.home import prepare_home
from tradelib.cli.markets import seeded_market
from tradelib.clock import parse_time, utc_now
from tradelib.kernels.servers import load_servers
from tradelib.paper.seeded import COINS
from tradelib.services.addresses import Running, load_services
from tradelib.settings import LIVE_KERNEL, PROJECT, DeskSettings, load_settings
from tradelib.trading.bots import BotStatus, add_bot, load_bots, new_bot
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import load_fills, load_orders
from tradelib.trading.runs import Outcome, Run, load_runs

MINUTE = 60.0
HALF = MINUTE / 2
START_PATIENCE = 240.0
SAMPLE_SECONDS = 0.2
LIMITS = """
[limits]
max_trades_per_day = 100000
max_daily_loss_share = 0.9
max_open_positions = 50

[limits.protections]
max_drawdown = 1
stop_streak = 0
low_profit_after = 0
"""
# Trades often: small positions, signals at once and little rest.
_LIVELY = {
    "buy_threshold": 0.02, "sell_threshold": -0.02, "confirmation_minutes": 0,
    "cooldown_minutes": 1, "hot_size": 0.02, "warm_size": 0.02, "cool_size": 0.02,
}  # fmt: skip
_MIX = (
    ("momentum", {"window": 5}, _LIVELY),
    ("weighted", {}, {}),
    ("momentum", {}, {}),
    ("weighted", {}, {**_LIVELY, "buy_threshold": 0.1, "sell_threshold": -0.1}),
    ("momentum", {"window": 3, "full": 0.5}, _LIVELY),
)


@dataclass(frozen=True)
class Cycle:
    """One cycle of the schedule. wall: seconds from its scheduled time to its flow's end; started:
    from the scheduled time to its start; cpu: seconds by kind of process."""

    id: str
    state: str
    wall: float
    started: float
    cpu: dict[str, float]


class Meter(threading.Thread):
    """Watches the desk's processes. flows: by flow run, CPU seconds so far of its process and
    those that it started and waited for, and of each other kind when it was first and last seen.
    """

    def __init__(self, services: dict[str, Running], owner: int) -> None:
        super().__init__(daemon=True)
        self._services, self._owner = services, owner
        self._done = threading.Event()
        self._runs: dict[tuple[int, float], str | None] = {}
        self._kernels: dict[tuple[int, float], float] = {}
        self.flows: dict[str, dict[str, float]] = defaultdict(dict)
        self._first: dict[str, dict[str, float]] = {}

    def run(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            with suppress(psutil.Error, OSError):
                self._look()

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _look(self) -> None:
        others = self._look_at_services()
        for process in psutil.Process(self._services["flows"].pid).children():
            with suppress(psutil.Error):
                run = self._flow_run(process)
                if run is None:
                    continue
                first = self._first.setdefault(run, others)
                told = {name: spent - first[name] for name, spent in others.items()}
                living = process.children(recursive=True)
                self.flows[run] = told | {"flow": _spent(process) + sum(map(_spent, living))}

    def _look_at_services(self) -> dict[str, float]:
        told = {
            "exchange": _spent(psutil.Process(self._services["paper"].pid)),
            "prefect": _spent(psutil.Process(self._services["prefect"].pid)),
        }
        for server in load_servers():
            if server.owner.startswith(f"{self._owner}:"):
                process = psutil.Process(server.pid)
                living = process.children(recursive=True)
                # What was reaped must not vanish when a server is replaced.
                self._kernels[server.pid, process.create_time()] = sum(
                    map(_spent, (process, *living))
                )
        return told | {"kernels": sum(self._kernels.values())}

    def _flow_run(self, process: psutil.Process) -> str | None:
        key = process.pid, process.create_time()
        if self._runs.get(key) is None:
            self._runs[key] = process.environ().get("PREFECT__FLOW_RUN_ID")
        return self._runs[key]


def _spent(process: psutil.Process) -> float:
    """CPU seconds of a process and of its children that have ended."""
    try:
        return sum(process.cpu_times()[:4])
    except psutil.Error:
        return 0.0


@dataclass
class Desk:
    """A desk that runs, and what was seen of it."""

    home: Path
    process: subprocess.Popen[bytes]
    settings: DeskSettings
    ledger: Ledger
    log: Path
    services: dict[str, Running] = field(default_factory=dict)
    since: datetime = field(default_factory=utc_now)

    def wait_until_it_trades(self) -> None:
        deadline = time.monotonic() + START_PATIENCE
        while b"Trading every" not in self.log.read_bytes():
            self.check()
            if time.monotonic() > deadline:
                raise SystemExit(f"The desk was not up in {START_PATIENCE:.0f} s:\n{self.told()}")
            time.sleep(0.2)
        self.services = load_services(self.settings)
        self.since = utc_now()

    def check(self) -> None:
        if self.process.poll() is not None:
            raise SystemExit(f"The desk ended early:\n{self.told()}")

    def told(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def cycles(self) -> list[dict[str, Any]]:
        """Prefect's record of the cycles that its schedule planned for the time since the desk's
        first one, which it runs by itself; oldest first."""
        asked = {
            "flows": {"name": {"any_": ["trading_cycle"]}},
            "flow_runs": {
                "deployment_id": {"is_null_": False},
                "expected_start_time": {"after_": self.since.isoformat()},
                "state": {"type": {"not_any_": ["SCHEDULED", "PENDING"]}},
            },
            "sort": "EXPECTED_START_TIME_ASC",
        }
        request = urllib.request.Request(
            f"{self.services['prefect'].url}/api/flow_runs/filter",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)


@contextmanager
def desk(bots: int, *, cold: bool) -> Iterator[Desk]:
    """`desk up` in a home of its own, which is gone afterwards, as are all its processes."""
    with tempfile.TemporaryDirectory(prefix="desk-cycle-") as folder:
        home = Path(folder) / "desk"
        kept = {name: text for name, text in os.environ.items() if not name.startswith("DESK_")}
        env = {**kept, "DESK_HOME": str(home)}
        if cold:
            env["JUPYTER_PATH"] = str(write_cold_kernel(Path(folder) / "jupyter"))
        ledger = prepare(home, bots)
        log = Path(folder) / "up.log"
        with log.open("wb") as lines:
            process = subprocess.Popen(
                [sys.executable, "-m", "tradelib.cli", "up"], cwd=PROJECT, env=env,
                stdin=subprocess.DEVNULL, stdout=lines, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield Desk(home, process, load_settings(home), ledger, log)
        finally:
            end(process)
            ledger.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """End the desk as Ctrl-C does; one that does not listen is killed with all it started."""
    if process.poll() is not None:
        return
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        for one in (*started, process):
            with suppress(psutil.Error, OSError):
                one.kill()
        process.wait()


def write_cold_kernel(folder: Path) -> Path:
    """A folder of Jupyter data in which the desk's kernel starts from nothing."""
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}",
                 "--HistoryManager.hist_file=:memory:"],
        "display_name": "cold", "language": "python",
    }  # fmt: skip
    kernel = folder / "kernels" / LIVE_KERNEL
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps(spec))
    return folder


def prepare(home: Path, bots: int) -> Ledger:
    """A home whose market has so many running bots, of several strategies on all its symbols."""
    home.mkdir()
    (home / "desk.toml").write_text(LIMITS)
    prepared = prepare_home(home, seeded_market(1))
    symbols = [f"{coin.name}/USDT" for coin in COINS]
    known = len(load_bots(prepared.ledger))
    for number in range(known, bots):
        strategy, params, decision = _MIX[number // len(symbols) % len(_MIX)]
        symbol = symbols[number % len(symbols)]
        name = f"{symbol[:-5].lower()}-{strategy}-{number:02}"
        add_bot(
            prepared.ledger,
            new_bot(name, "paper", symbol, "1m", strategy, params, decision,
                    status=BotStatus.RUNNING),
        )  # fmt: skip
    return prepared.ledger


def measure(bots: int, cycles: int, *, cold: bool = False) -> dict[str, Any]:
    """A desk that runs for so many cycles of its schedule."""
    with desk(bots, cold=cold) as running:
        running.wait_until_it_trades()
        meter = Meter(running.services, running.process.pid)
        meter.start()
        try:
            found = await_cycles(running, cycles)
        finally:
            meter.stop()
        seen = [look_at(one, meter) for one in found]
        return told_of(running, seen, cold=cold)


def await_cycles(running: Desk, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + (count + 3) * MINUTE
    while True:
        found = running.cycles()[:count]
        if len(found) == count and all(one["end_time"] for one in found):
            return found
        running.check()
        if time.monotonic() > deadline:
            ended = sum(bool(one["end_time"]) for one in found)
            raise SystemExit(f"Only {ended} of {count} cycles ended in time:\n{running.told()}")
        time.sleep(1)


def look_at(flow_run: dict[str, Any], meter: Meter) -> Cycle:
    planned, start, end = (
        parse_time(flow_run[name]) for name in ("expected_start_time", "start_time", "end_time")
    )
    return Cycle(
        flow_run["id"], flow_run["state_name"], (end - planned).total_seconds(),
        (start - planned).total_seconds(), dict(meter.flows.get(flow_run["id"], {})),
    )  # fmt: skip


def told_of(running: Desk, cycles: list[Cycle], *, cold: bool) -> dict[str, Any]:
    known = load_runs(running.ledger, limit=100_000)
    runs = [run for run in known if run.cycle and run.started_at >= running.since]
    bots = len(load_bots(running.ledger, running_only=True))
    failed = [run.reason for run in runs if run.outcome == Outcome.FAILED]
    cpu = [sum(cycle.cpu.values()) for cycle in cycles]
    return {
        "kernel": "cold" if cold else "warm",
        "bots": bots,
        "cycles": [
            {"state": c.state, "seconds": round(c.wall, 2), "started": round(c.started, 2),
             "cpu": {name: round(spent, 2) for name, spent in sorted(c.cpu.items())}}
            for c in cycles
        ],
        "cpu_per_bot": statistics.median(cpu) / bots,
        "pages": len(runs),
        "served": served_bots(runs),
        "failed": failed,
        "refused_429": count_refused(running.settings, failed),
        "orders": Counter(str(one.status) for one in load_orders(running.ledger, limit=100_000)),
        "fills": len(load_fills(running.ledger)),
    }  # fmt: skip


def served_bots(runs: list[Run]) -> dict[str, int]:
    """How many bots each cycle served, by its id; reconciliations have none."""
    bots = defaultdict(set)
    for run in runs:
        if run.bot and run.outcome == Outcome.SUCCEEDED:
            bots[run.cycle].add(run.bot)
    return {cycle: len(names) for cycle, names in sorted(bots.items())}


def count_refused(settings: DeskSettings, failed: list[str | None]) -> int:
    """Refusals for too many requests, in pages' reasons and in every log."""
    told = sum("RateLimited" in (reason or "") for reason in failed)
    for file in settings.logs.glob("*"):
        told += len(re.findall(r"429 Too Many|RateLimited|too many requests", file.read_text(
            encoding="utf-8", errors="replace")))  # fmt: skip
    return told


def make_bar(name: str, value: float, unit: str, target: float, *, at_least: bool = False) -> dict:
    holds = value >= target if at_least else value <= target
    return {"name": name, "value": round(value, 2), "unit": unit, "target": target, "holds": holds}


def bars_of(warm: dict[str, Any]) -> list[dict]:
    cycles = warm["cycles"]
    count, bots = len(cycles), warm["bots"]
    done = [cycle for cycle in cycles if cycle["state"] == "Completed"]
    slowest = max(cycle["seconds"] for cycle in cycles)
    served = sum(n == bots for n in warm["served"].values())
    return [
        make_bar(f"{bots} bots: the longest of {count} cycles, at most", slowest, " s", HALF),
        make_bar("cycles that ended well, at least", len(done), "", count, at_least=True),
        make_bar("cycles that served every bot, at least", served, "", count, at_least=True),
        make_bar("pages that failed, at most", len(warm["failed"]), "", 0),
        make_bar("refusals for too many requests, at most", warm["refused_429"], "", 0),
        make_bar("fills, at least", warm["fills"], "", 1, at_least=True),
    ]


def run(asked: argparse.Namespace) -> dict[str, Any]:
    desks = [measure(asked.bots, asked.cycles)]
    if asked.cold_cycles:
        desks.append(measure(asked.cold_bots, asked.cold_cycles, cold=True))
    return {"desks": desks, "bars": bars_of(desks[0])}


def show(told: dict[str, Any]) -> None:
    kinds = sorted({kind for desk in told["desks"] for c in desk["cycles"] for kind in c["cpu"]})
    heads = ["kernels", "bots", "cycle", "state", "start s", "wall s"]
    table = Table(*heads, *(f"CPU {kind}" for kind in kinds), "CPU s per bot", box=None)
    for desk in told["desks"]:
        for number, cycle in enumerate(desk["cycles"], 1):
            spent = [cycle["cpu"].get(kind, 0.0) for kind in kinds]
            table.add_row(
                desk["kernel"], str(desk["bots"]), str(number), cycle["state"],
                f"{cycle['started']:.1f}", f"{cycle['seconds']:.1f}",
                *(f"{one:.1f}" for one in spent), f"{sum(spent) / desk['bots']:.2f}",
            )  # fmt: skip
    console = Console(width=140)
    console.print(table)
    for desk in told["desks"]:
        console.print(
            f"{desk['kernel']}: {desk['cpu_per_bot']:.2f} CPU s per bot and cycle (median), "
            f"{desk['pages']} pages, {len(desk['failed'])} failed, orders {dict(desk['orders'])}, "
            f"{desk['fills']} fills"
        )
    for bar in told["bars"]:
        verdict = "holds" if bar["holds"] else "MISSED"
        console.print(f"{bar['name']}: {bar['value']}{bar['unit']}, {bar['target']}: {verdict}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bots", type=int, default=50)
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--cold-bots", type=int, default=10)
    parser.add_argument("--cold-cycles", type=int, default=2)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    told = run(asked)
    print(json.dumps(told)) if asked.json else show(told)
    return 0 if all(bar["holds"] for bar in told["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
