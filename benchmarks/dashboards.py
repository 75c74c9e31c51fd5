"""How long the portfolio dashboard takes from GET to its whole page, in a warm kernel and a cold.

    python benchmarks/dashboards.py [--json] [--rounds 9]

Two Voilàs show the same desk, one as `desk up` starts it, one with the kernel python3 and Jupyter's
own client; each round asks one after the other.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kernels import make_bar, show_bars
from rich.console import Console
from rich.table import Table

from tradelib.kernels.servers import own_servers
from tradelib.services.addresses import Running
from tradelib.services.definitions import dashboard_path, voila
from tradelib.services.service import Service
from tradelib.services.supervisor import Supervisor
from tradelib.settings import PROJECT, load_settings

PAGE = dashboard_path("portfolio")
FASTER = 4.0
WITHIN = 1000.0  # ms


@contextmanager
def two_voilas() -> Iterator[list[Running]]:
    """The cold one and the warm one, over a desk that has traded."""
    with tempfile.TemporaryDirectory() as home, own_servers():
        subprocess.run(
            [sys.executable, "tests/prepare_home.py", home], cwd=PROJECT, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        warm = voila(load_settings(Path(home)))
        with Supervisor(load_settings(Path(home)), [as_cold(warm), warm]) as desk:
            yield [desk.running["cold"], desk.running["voila"]]


def as_cold(server: Service) -> Service:
    """The same pages in kernels that start from nothing."""
    command = [word for word in server.command if "client_class" not in word]
    env = {name: text for name, text in server.env.items() if name != "JUPYTER_PATH"}
    return replace(server, name="cold", command=tuple(command), env=env)


def time_page(server: Running) -> float:
    """Seconds from GET to the last byte; the page's kernel is ended afterwards."""
    started = time.perf_counter()
    status, text = ask(server, "GET", PAGE)
    seconds = time.perf_counter() - started
    kernel = re.search(r'"kernelId": "([^"]+)"', text)
    if status != 200 or not kernel or "Traceback" in text:
        raise SystemExit(f"The page is not what it should be: status {status}.")
    ask(server, "POST", f"/voila/api/shutdown/{kernel[1]}")
    return seconds


def ask(server: Running, method: str, path: str) -> tuple[int, str]:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=120)
    connection.request(method, path, headers={"Authorization": f"token {server.token}"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


def run(rounds: int) -> dict[str, Any]:
    with two_voilas() as servers:
        for server in servers:  # compiles, and starts the fork server
            time_page(server)
        times = [[time_page(server) for server in servers] for _ in range(rounds)]
    cold, warm = (1000 * statistics.median(column) for column in zip(*times, strict=True))
    bars = [
        make_bar("portfolio: warm against cold, at least", cold / warm, "x", FASTER, at_least=True),
        make_bar("portfolio: GET to whole page, at most", warm, " ms", WITHIN),
    ]
    best = 1000 * min(pair[1] for pair in times)
    return {
        "rounds": rounds, "cold_ms": cold, "warm_ms": warm, "warm_best_ms": best, "bars": bars,
    }  # fmt: skip


def show(told: dict[str, Any]) -> None:
    table = Table("page", "cold ms (median)", "warm ms (median)", "warm ms (best)", box=None)
    numbers = (told["cold_ms"], told["warm_ms"], told["warm_best_ms"])
    table.add_row("portfolio", *(f"{one:.0f}" for one in numbers))
    console = Console()
    console.print(table)
    show_bars(told, console)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    told = run(asked.rounds)
    print(json.dumps(told)) if asked.json else show(told)
    return 0 if all(bar["holds"] for bar in told["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
