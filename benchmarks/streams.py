"""How many messages a second the paper exchange streams, and how soon an order's report comes.

    python benchmarks/streams.py [--json] [--readers 4] [--candles 5000] [--orders 200]

Processes of their own read the public trades of a step; the report of an order is timed from the
moment its request is sent, as the request's answer is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from kernels import make_bar, show_bars
from pydantic import SecretStr
from rich.console import Console
from websockets.asyncio.client import connect

from tradelib.paper import PaperAccount, PaperConfig, PaperHandle, RateLimits, paper_exchange
from tradelib.settings import VenueSettings
from tradelib.venue import Keys
from tradelib.venue.client import make_exchange, make_stream_exchange

PAIR, STREAM = "BTC/USDT", "btcusdt@trade"
TRADES = 4  # of each candle
ENOUGH = 5000.0  # messages a second, all readers together
ACCOUNT = PaperAccount("ann", "key", "secret", {"USDT": Decimal(10**6)})
KEYS = Keys(key=SecretStr(ACCOUNT.key), secret=SecretStr(ACCOUNT.secret))
LIMITS = RateLimits(weight=10**6, orders_10s=10**6)


def read(url: str, count: int, answer: Any) -> None:
    """Reads so many messages, and answers the seconds from the first to the last."""

    async def run() -> None:
        async with connect(f"{url}/ws/{STREAM}", compression=None) as socket:
            await socket.recv()
            began = time.perf_counter()
            for _ in range(count - 1):
                await socket.recv()
            answer.put(time.perf_counter() - began)

    asyncio.run(run())


def time_trades(paper: PaperHandle, readers: int, candles: int) -> float:
    """Messages a second, all readers together, until the last has read all."""
    answer, count = multiprocessing.Queue(), candles * TRADES
    url = f"ws{paper.url.removeprefix('http')}"
    started = [
        multiprocessing.Process(target=read, args=(url, count, answer)) for _ in range(readers)
    ]
    for each in started:
        each.start()
    while paper.control("status")["streams"].get(STREAM) != readers:
        time.sleep(0.05)
    paper.control("step", candles=candles)
    slowest = max(answer.get() for _ in started)
    for each in started:
        each.join()
    return readers * count / slowest


def time_reports(paper: PaperHandle, orders: int) -> tuple[float, float]:
    """Median ms from a request to its answer, and to ccxt.pro's word of the order."""
    settings = VenueSettings(rest_url=paper.url)
    reports: dict[str, float] = {}
    ready = threading.Event()

    async def watch() -> None:
        exchange = make_stream_exchange("paper", settings, KEYS)
        try:
            await exchange.load_markets()
            await exchange.authenticate()
            ready.set()
            while len(reports) < orders:
                for each in await exchange.watch_orders(PAIR):
                    reports.setdefault(each["clientOrderId"], time.perf_counter())
        finally:
            await exchange.close()

    watcher = threading.Thread(target=lambda: asyncio.run(watch()))
    watcher.start()
    exchange = make_exchange("paper", settings, KEYS)
    exchange.load_markets()
    ready.wait()
    sent, answered = {}, []
    for number in range(orders):
        name, began = f"order-{number}", time.perf_counter()
        sent[name] = began
        exchange.create_order(PAIR, "market", "buy", 0.001, None, {"clientOrderId": name})
        answered.append(time.perf_counter() - began)
    watcher.join()
    heard = [reports[name] - began for name, began in sent.items()]
    return 1000 * statistics.median(answered), 1000 * statistics.median(heard)


def run(readers: int, candles: int, orders: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as home:
        config = PaperConfig(Path(home), speed=0, is_kept=False, accounts=(ACCOUNT,), limits=LIMITS)
        with paper_exchange(config) as paper:
            rate = time_trades(paper, readers, candles)
            answered, heard = time_reports(paper, orders)
    bars = [make_bar("messages a second, at least", rate, "", ENOUGH, at_least=True)]
    return {
        "readers": readers, "candles": candles, "orders": orders, "messages_per_s": rate,
        "answer_ms": answered, "report_ms": heard, "bars": bars,
    }  # fmt: skip


def show(told: dict[str, Any]) -> None:
    console = Console()
    console.print(
        f"{told['readers']} readers of trades: {told['messages_per_s']:,.0f} messages/s together; "
        f"an order is answered after {told['answer_ms']:.1f} ms (median) and reported to ccxt.pro "
        f"after {told['report_ms']:.1f} ms"
    )
    show_bars(told, console)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--candles", type=int, default=5000)
    parser.add_argument("--orders", type=int, default=200)
    asked = parser.parse_args()
    told = run(asked.readers, asked.candles, asked.orders)
    print(json.dumps(told)) if asked.json else show(told)
    return 0 if all(bar["holds"] for bar in told["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
