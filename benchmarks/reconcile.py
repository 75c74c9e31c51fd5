"""How long a reconcile pass takes with 20 open orders, for 1,000 and for 100,000 closed ones.

    python benchmarks/reconcile.py [--json] [--orders 1000 100000] [--rounds 9]

Each history lies in a paper exchange of its own, with a ledger rebuilt from it just now; half of it
is of a bot that has stops. Passes over the two alternate, so that what else the machine does falls
on both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import resync as history
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from tradelib.settings import LimitSettings, NotionalRange, ProtectionSettings, VenueSettings
from tradelib.trading.bots import add_bot, new_bot
from tradelib.trading.ledger import Ledger
from tradelib.trading.manual import ManualOrder, place_manual_order
from tradelib.trading.orders import OrderStatus, Side, load_orders
from tradelib.trading.resync import resync
from tradelib.trading.upkeep import reconcile_venue
from tradelib.venue import Keys, OrderType, Venue

OPEN_ORDERS = 20
GROWTH = 1.5
SYMBOL = "BTC/USDT"
WIDE = LimitSettings(
    order_notional={"default": NotionalRange(min=Decimal(1), max=Decimal(10**9))},
    max_trades_per_day=10**9,
    max_daily_loss_share=Decimal(1),
    max_position_share=Decimal(1),
    protections=ProtectionSettings(max_drawdown=Decimal(1), stop_streak=0, low_profit_after=0),
)


@dataclass(frozen=True)
class Case:
    """One history: how many closed orders, the ledger's size in MiB, and both ends."""

    orders: int
    ledger: Ledger
    venue: Venue
    mebibytes: float


@contextmanager
def case(orders: int) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home, script = Path(folder), history.__file__
        command = [sys.executable, script, "--home", folder, "--orders", str(orders), "--part"]
        subprocess.run([*command, "make"], check=True)
        server = subprocess.Popen(
            [*command, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stack.callback(server.wait)
        stack.callback(server.stdin.close)
        url = server.stdout.readline().strip()
        keys = Keys(key=SecretStr(history.ACCOUNT.key), secret=SecretStr(history.ACCOUNT.secret))
        venue = Venue("bench", VenueSettings(rest_url=url), keys, trading=True, is_local=True)
        ledger = Ledger(f"sqlite:///{home / 'ledger.sqlite'}")
        stack.callback(ledger.close)
        add_bot(ledger, new_bot("bench", "bench", SYMBOL, "1h", "trend", stops={"loss": 0.5}))
        resync(ledger, venue)
        place_resting(ledger, venue)
        size = sum(file.stat().st_size for file in home.glob("ledger.sqlite*")) / 2**20
        yield Case(orders, ledger, venue, size)


def place_resting(ledger: Ledger, venue: Venue) -> None:
    """Purchases far below the market."""
    bid = venue.fetch_quotes([SYMBOL])[SYMBOL].bid
    for number in range(OPEN_ORDERS):
        price = (bid / 2 + number).quantize(Decimal("0.01"))
        wanted = ManualOrder(SYMBOL, Side.BUY, Decimal("0.001"), OrderType.LIMIT, price)
        place_manual_order(ledger, venue, WIDE, wanted, "process 0 on bench")
    if len(load_orders(ledger, unsettled=True)) != OPEN_ORDERS:
        raise SystemExit("The open orders were not accepted.")


def time_pass(one: Case) -> float:
    """Seconds of one pass, which must find everything in order."""
    started = time.perf_counter()
    told = reconcile_venue(one.ledger, one.venue, "process 0 on bench")
    seconds = time.perf_counter() - started
    known = load_orders(one.ledger, unsettled=True)
    if not told.agrees or {order.status for order in known} != {OrderStatus.OPEN}:
        raise SystemExit(f"The pass found what should not be there: {told.discrepancies}.")
    return seconds


def run(sizes: list[int], rounds: int) -> dict:
    with ExitStack() as stack:
        cases = [stack.enter_context(case(orders)) for orders in sizes]
        for one in cases:
            time_pass(one)  # the first pass learns whose account it is
        times = [[time_pass(one) for one in cases] for _ in range(rounds)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    rows = [
        {"closed_orders": one.orders, "seconds": median, "ledger_mebibytes": one.mebibytes}
        for one, median in zip(cases, medians, strict=True)
    ]
    growth = medians[-1] / medians[0]
    bar = {
        "name": f"a pass with {sizes[-1]:,} closed orders against {sizes[0]:,}",
        "value": round(growth, 3), "unit": "x", "target": GROWTH, "holds": growth <= GROWTH,
    }  # fmt: skip
    return {"open_orders": OPEN_ORDERS, "rounds": rounds, "passes": rows, "bars": [bar]}


def show(told: dict) -> None:
    table = Table("closed orders", "open", "ms a pass (median)", "ledger MiB", box=None)
    for row in told["passes"]:
        table.add_row(
            f"{row['closed_orders']:,}", str(told["open_orders"]), f"{row['seconds'] * 1e3:.1f}",
            f"{row['ledger_mebibytes']:.0f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    for bar in told["bars"]:
        verdict = "holds" if bar["holds"] else "MISSED"
        console.print(
            f"{bar['name']}: {bar['value']}{bar['unit']}, at most {bar['target']}: {verdict}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--orders", type=int, nargs=2, default=[1000, 100_000])
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    told = run(asked.orders, asked.rounds)
    print(json.dumps(told)) if asked.json else show(told)
    return 0 if all(bar["holds"] for bar in told["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
