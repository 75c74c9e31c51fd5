"""How long a whole run_notebook takes in a warm kernel and in a cold one, and whether a thousand
kernels leave anything behind in the fork server.

    python benchmarks/kernels.py [--json] [--rounds 9] [--kernels 1000]

Cold is the kernel python3 with its bytecode compiled, through the same engine and client. Each
round runs one after the other, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_notebook
from rich.console import Console
from rich.table import Table

from tradelib.kernels.client import QuickKernelManager
from tradelib.kernels.servers import ServerStatus, load_servers, own_servers, warm_up
from tradelib.kernels.specs import COLD_KERNEL, load_identity
from tradelib.notebooks import runner
from tradelib.notebooks.results import RESULT_MIME
from tradelib.notebooks.runner import run_notebook
from tradelib.settings import LIVE_KERNEL, RESEARCH_KERNEL, DeskSettings, load_settings
from tradelib.trading.ledger import Ledger, open_ledger

# By itself, for what the project's own imports take is the same in every kernel.
RECORD = f"from IPython.display import display\ndisplay({{{RESULT_MIME!r}: {{}}}}, raw=True)"
GROWTH = 2.0  # MB that a server's own memory may grow by


@dataclass(frozen=True)
class Case:
    """A page that imports, and the warm kernel that it runs in. faster: how many times so, at
    least; within: ms that it may take, at most, None for any."""

    name: str
    kernel: str
    imports: str
    faster: float
    within: float | None = None


CASES = (
    Case("light", LIVE_KERNEL, "import pandas, sqlalchemy, ccxt", 10.0, 150.0),
    Case("vectorbt", RESEARCH_KERNEL, "import pandas, sqlalchemy, ccxt, vectorbt", 25.0),
)


def make_bar(name: str, value: float, unit: str, target: float, *, at_least: bool = False) -> dict:
    holds = value >= target if at_least else value <= target
    return {"name": name, "value": round(value, 2), "unit": unit, "target": target, "holds": holds}


def show_bars(told: dict, console: Console) -> None:
    for bar in told["bars"]:
        verdict = "holds" if bar["holds"] else "MISSED"
        console.print(f"{bar['name']}: {bar['value']}{bar['unit']}, {bar['target']}: {verdict}")


@dataclass(frozen=True)
class Bench:
    """A desk's home with a page for each case."""

    settings: DeskSettings
    ledger: Ledger

    def time_run(self, page: str, kernel: str) -> float:
        """Seconds of one run, from the call to the finished record."""
        started = time.perf_counter()
        run_notebook(self.settings, self.ledger, page, {}, kernel=kernel)
        return time.perf_counter() - started


@contextmanager
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as folder, own_servers():
        home = os.environ["DESK_HOME"] = folder
        runner.NOTEBOOKS = Path(home)
        for case in CASES:
            write_page(Path(home) / f"{case.name}.ipynb", case.imports)
        settings = load_settings(home)
        ledger = open_ledger(settings, migrate=True)
        yield Bench(settings, ledger)
        ledger.close()


def write_page(path: Path, imports: str) -> None:
    """A page of two cells, and the one that takes its parameters."""
    parameters = new_code_cell('run: str = ""\nunused: int = 0', metadata={"tags": ["parameters"]})
    page = new_notebook(cells=[parameters, new_code_cell(imports), new_code_cell(RECORD)])
    page.metadata["kernelspec"] = {"name": COLD_KERNEL, "display_name": "", "language": "python"}
    nbformat.write(page, path)


def measure(bench: Bench, case: Case, rounds: int) -> dict[str, Any]:
    for kernel in (COLD_KERNEL, case.kernel):  # compiles, and starts the server
        bench.time_run(case.name, kernel)
    times = [
        (bench.time_run(case.name, COLD_KERNEL), bench.time_run(case.name, case.kernel))
        for _ in range(rounds)
    ]
    cold, warm = (1000 * statistics.median(column) for column in zip(*times, strict=True))
    best = 1000 * min(pair[1] for pair in times)
    return {
        "page": case.name, "imports": case.imports, "cold_ms": cold, "warm_ms": warm,
        "warm_best_ms": best, "faster": cold / warm,
    }  # fmt: skip


def bars_of(case: Case, row: dict[str, Any]) -> Iterator[dict]:
    yield make_bar(f"{case.name}: warm against cold, at least", row["faster"], "x", case.faster,
                   at_least=True)  # fmt: skip
    if case.within is not None:
        yield make_bar(
            f"{case.name}: a whole warm run, at most", row["warm_ms"], " ms", case.within
        )


async def start_and_end(sockets: str) -> None:
    manager = QuickKernelManager(kernel_name=LIVE_KERNEL, transport="ipc", ip=sockets)
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)


def soak(folder: Path, kernels: int) -> dict[str, Any]:
    """What so many kernels, one after the other, leave behind in the server."""

    async def run_all(count: int) -> None:
        for number in range(count):
            await start_and_end(str(folder / f"k{number}"))

    warm_up(load_identity(LIVE_KERNEL, os.environ))
    asyncio.run(run_all(5))
    before, started = look(), time.perf_counter()
    asyncio.run(run_all(kernels))
    seconds = time.perf_counter() - started
    grown = {name: told - before[name] for name, told in look().items()}
    return {"kernels": kernels, "ms_each": 1000 * seconds / kernels, **grown}


def look() -> dict[str, float]:
    """The live server's files, but for the two of a spare; threads, living kernels, and MB of
    memory that no file backs, whether or not forks share it."""
    server = live_server()
    process = psutil.Process(server.pid)
    memory = process.memory_info()
    return {
        "files": process.num_fds() - 2 * len(process.children()),
        "threads": process.num_threads(),
        "living": len(server.kernels),
        "megabytes": (memory.rss - memory.shared) / 1e6,
    }


def live_server() -> ServerStatus:
    ours = [one for one in load_servers() if one.owner == os.environ["WARM_KERNELS_OWNER"]]
    return next(one for one in ours if "vectorbt" not in one.preload)


def run(rounds: int, kernels: int) -> dict[str, Any]:
    with bench() as desk:
        rows = [measure(desk, case, rounds) for case in CASES]
        left = soak(desk.settings.home, kernels)
    bars = [bar for case, row in zip(CASES, rows, strict=True) for bar in bars_of(case, row)]
    for name, unit, target in (
        ("files", "", 0), ("threads", "", 0), ("living", "", 0), ("megabytes", " MB", GROWTH),
    ):  # fmt: skip
        bars.append(
            make_bar(f"{kernels:,} kernels leave {name}, at most", left[name], unit, target)
        )
    return {"rounds": rounds, "pages": rows, "soak": left, "bars": bars}


def show(told: dict[str, Any]) -> None:
    table = Table("page", "cold ms (median)", "warm ms (median)", "warm ms (best)", "x", box=None)
    for row in told["pages"]:
        numbers = (row["cold_ms"], row["warm_ms"], row["warm_best_ms"])
        table.add_row(row["page"], *(f"{one:.0f}" for one in numbers), f"{row['faster']:.1f}")
    console = Console()
    console.print(table)
    console.print(f"{told['soak']['kernels']:,} kernels: {told['soak']['ms_each']:.0f} ms each")
    show_bars(told, console)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--kernels", type=int, default=1000)
    asked = parser.parse_args()
    told = run(asked.rounds, asked.kernels)
    print(json.dumps(told)) if asked.json else show(told)
    return 0 if all(bar["holds"] for bar in told["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
