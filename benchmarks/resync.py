"""How long a resync takes and how much memory, for 10,000 and for 100,000 closed orders.

    python benchmarks/resync.py [--json] [--orders 10000 100000]

The orders lie in a paper exchange, which runs in a process of its own. Every second one is the
desk's, whose ledger has lost all rows but the decisions: the most that a resync has to do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

from tradelib.clock import from_ms
from tradelib.errors import OrderRejected
from tradelib.paper import PaperAccount, PaperConfig, RateLimits, paper_exchange
from tradelib.paper.app import open_exchange
from tradelib.paper.orders import Ticket
from tradelib.settings import VenueSettings
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import client_order_id
from tradelib.trading.resync import resync
from tradelib.venue import Keys, Venue

HOLDINGS = {"USDT": Decimal(10**7), "BTC": Decimal(1000)}
ACCOUNT = PaperAccount("bench", "bench-key", "bench-secret", HOLDINGS)
MEMORY_GROWTH = 1.3
SECONDS = 300.0
BATCH = 1000


def config(home: Path) -> PaperConfig:
    limits = RateLimits(weight=10**9)
    return PaperConfig(home / "paper", speed=0.0, accounts=(ACCOUNT,), limits=limits)


def decision_of(number: int) -> str:
    return f"d-bench{number:08d}"


def make(home: Path, orders: int) -> None:
    """An exchange with so many filled orders, and a ledger with the decisions of half of them."""
    exchange, _ = open_exchange(config(home))
    exchange.advance("BTCUSDT")
    for start in range(0, orders, BATCH):
        with exchange.settle() as engine:
            for number in range(start, min(start + BATCH, orders)):
                engine.place(ACCOUNT.name, ticket(number), exchange.now)
    begun = from_ms(exchange.now)
    exchange.close()
    ledger = Ledger(f"sqlite:///{home / 'ledger.sqlite'}")
    ledger.migrate()
    with ledger.write() as books:
        books.execute(insert(tables.runs).values(
            id="run", notebook="bench", notebook_hash="", parameters={}, host="", kernel="",
            token_hash="", started_at=begun, outcome="SUCCEEDED",
        ))  # fmt: skip
        for start in range(0, orders, BATCH):
            books.execute(insert(tables.decisions), [
                {
                    "id": decision_of(number), "bot": "bench", "run": "run", "action": "BUY",
                    "candle_close": begun + timedelta(minutes=number), "fraction": Decimal(1),
                    "temperature": "HOT", "reason": "", "state": {}, "decided_at": begun,
                }
                for number in range(start, start + BATCH, 2)
            ])  # fmt: skip
    ledger.close()


def ticket(number: int) -> Ticket:
    name = client_order_id(decision_of(number)) if number % 2 == 0 else f"other-{number}"
    side = "BUY" if number % 4 < 2 else "SELL"
    return Ticket("BTCUSDT", side, "MARKET", name, amount=Decimal("0.001"))


def serve(home: Path) -> None:
    with paper_exchange(config(home)) as running:
        print(running.url, flush=True)
        sys.stdin.read()


def measure(home: Path, url: str) -> None:
    venue = Venue(
        "bench",
        VenueSettings(rest_url=url),
        Keys(key=SecretStr(ACCOUNT.key), secret=SecretStr(ACCOUNT.secret)),
    )
    ledger, started = Ledger(f"sqlite:///{home / 'ledger.sqlite'}"), time.monotonic()
    done = resync(ledger, venue, backup=home / "before.sqlite")
    seconds = time.monotonic() - started
    if done.counts["orders added"] != done.orders / 2 or done.counts["fills added"] != done.fills:
        raise OrderRejected(f"The books are not what they should be: {done.counts}.")
    print(json.dumps({"seconds": seconds, "mebibytes": peak_memory(), "orders": done.orders}))


def peak_memory() -> float:
    """The most memory that this process has held, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("this system does not tell a process's peak memory")


def run_case(orders: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--home", folder]
        subprocess.run([*command, "--part", "make", "--orders", str(orders)], check=True)
        with subprocess.Popen(
            [*command, "--part", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server:
            url = server.stdout.readline().strip()
            done = subprocess.run(
                [*command, "--part", "measure", "--url", url], check=True, stdout=subprocess.PIPE,
                text=True,
            )  # fmt: skip
            server.stdin.close()
        return json.loads(done.stdout)


def bars(cases: dict[int, dict[str, float]]) -> list[dict[str, object]]:
    small, large = min(cases), max(cases)
    growth = cases[large]["mebibytes"] / cases[small]["mebibytes"]
    seconds = cases[large]["seconds"]
    return [
        bar(f"peak memory, {large} orders against {small}", growth, "x", MEMORY_GROWTH),
        bar(f"time for {large} orders", seconds, "s", SECONDS),
    ]


def bar(name: str, value: float, unit: str, limit: float) -> dict[str, object]:
    return {
        "name": name, "value": round(value, 3), "unit": unit, "target": f"< {limit:g}",
        "holds": value < limit,
    }  # fmt: skip


def show(cases: dict[int, dict[str, float]], found: list[dict[str, object]]) -> None:
    console = Console()
    table = Table("Orders", "Seconds", "Orders per second", "Peak MiB", box=None)
    for orders, case in cases.items():
        seconds = case["seconds"]
        table.add_row(
            f"{orders:,}", f"{seconds:.1f}", f"{orders / seconds:,.0f}", f"{case['mebibytes']:.0f}"
        )
    console.print(table)
    for each in found:
        verdict = "holds" if each["holds"] else "FAILS"
        console.print(
            f"{each['name']}: {each['value']} {each['unit']} ({each['target']}) {verdict}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--orders", type=int, nargs="+", default=[10_000, 100_000])
    for name in ("--part", "--url"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    match asked.part:
        case "make":
            make(asked.home, asked.orders[0])
        case "serve":
            serve(asked.home)
        case "measure":
            measure(asked.home, asked.url)
        case _:
            cases = {orders: run_case(orders) for orders in asked.orders}
            found = bars(cases)
            if asked.json:
                print(json.dumps({"cases": cases, "bars": found}, indent=2))
            else:
                show(cases, found)
            return 0 if all(each["holds"] for each in found) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
