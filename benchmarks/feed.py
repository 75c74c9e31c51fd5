"""What the feed saves of a venue's rate budget, how soon it trades, and whether it stays right.

    python benchmarks/feed.py [--json] [--bots 50] [--minutes 30] [--trades 200] [--faulty 60]

Everything runs on a stepped paper exchange that enforces Binance's limits and plays random walks of
twenty symbols, minute by minute.

Sharing: in each minute every bot asks for itself, as programs do that share nothing (candles, the
price every ten seconds, balances, its open orders), and sends nothing; then the same minutes pass
on a desk whose feed wakes the same bots, and their orders count too. The exchange itself counts
both, and lets nobody ask too much but those first, whose minutes pass too fast for it. A
reconciliation is no part of it; its weight is told.
Speed: from when the exchange begins to tell of a step, whose messages close a candle and move the
quote, to the ledger's note that the order was answered; on the fast path and by a warm notebook.
The feed has a process of its own; each step waits until the pages of the one before are written.
Faults: an hour of minutes in which stream messages are dropped, doubled, delayed, sent again late
and out of order, and connections end, fall silent or are terminated; then store and books are held
against the exchange's own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from kernels import make_bar, show_bars
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table
from sqlalchemy import select

from flows.feed import follow_venue, wait_for_nobody
from tradelib.candles.store import CandleStore
from tradelib.candles.walk import START, random_candles
from tradelib.cli.markets import file_market
from tradelib.cli.stepped import SteppedDesk, stepped_desk
from tradelib.clock import parse_time
from tradelib.feed.status import StreamStatus, load_streams
from tradelib.kernels.servers import own_servers, warm_up
from tradelib.kernels.specs import load_identity
from tradelib.notebooks.cycle import EXECUTE
from tradelib.paper import RateLimits
from tradelib.services.environment import environment_for_child
from tradelib.settings import LIVE_KERNEL
from tradelib.strategy.decision import DecisionParams
from tradelib.trading import tables
from tradelib.trading.accounts import load_balances
from tradelib.trading.bots import BotStatus, add_bot, load_bots, new_bot, remove_bot, update_bot
from tradelib.trading.decisions import Action
from tradelib.trading.execution import OrderInputs
from tradelib.trading.orders import load_fills
from tradelib.trading.reconciliation import reconcile
from tradelib.trading.runs import Outcome, load_runs
from tradelib.venue.client import make_exchange, resolve_venue

SYMBOLS = [f"C{number:02}/USDT" for number in range(20)]
HISTORY, PATIENCE = 600, 180.0
# Seconds from the last page of a trade to the next candle, in which what wrote it comes to rest;
# candles of a minute leave more.
PAUSE = 0.5
LIMITS = """
[limits]
max_trades_per_day = 100000
max_daily_loss_share = 1
max_position_share = 1
max_open_positions = 50
min_cash_share = 0

[limits.protections]
max_drawdown = 1
stop_streak = 0
low_profit_after = 0
"""
FAULTS = {
    "stream_drop": 0.02, "stream_double": 0.05, "stream_stale": 0.05, "stream_disorder": 0.05,
    "stream_disconnect": 0.005, "stream_terminate": 0.02, "stream_silence": 0.005,
}  # fmt: skip
WRONG = ("candles_missing", "candles_different", "fills_not_equal", "balances_not_equal")
BINANCE, COUNTED_ONLY = RateLimits(), RateLimits(weight=10**9)
# Bots as people run them, and bots that buy and sell at nearly every close.
CALM = DecisionParams(hot_size=0.01, warm_size=0.01, cool_size=0.01, smallest_step=0.005)
RESTLESS = DecisionParams(
    confirmation_minutes=0, cooldown_minutes=0, buy_threshold=0.01, sell_threshold=-0.01,
    hot_size=0.02, warm_size=0.02, cool_size=0.02, smallest_step=0.001, stop_loss=1,
)  # fmt: skip


@contextmanager
def desk(
    bots: int,
    symbols: Sequence[str],
    minutes: int,
    decision: DecisionParams,
    limits: RateLimits = BINANCE,
    **wake: Any,
) -> Iterator[SteppedDesk]:
    """A stepped desk with so many bots, in turn on the symbols. limits: the exchange's, of minutes
    of the wall's clock, in which many of the market's pass."""
    with tempfile.TemporaryDirectory(prefix="desk-feed-") as folder:
        home, files = Path(folder) / "desk", []
        for number, symbol in enumerate(symbols):
            walk = random_candles(HISTORY + minutes, seed=number, timeframe="1m", volatility=0.001)
            files.append(Path(folder) / f"walk_{symbol.replace('/', '-')}_1m.csv")
            walk.to_csv(files[-1], index_label="date")
        home.mkdir()
        (home / "desk.toml").write_text(LIMITS)
        start = START + timedelta(minutes=HISTORY)
        with stepped_desk(home, file_market(files), start=start, limits=limits) as stepped:
            for bot in load_bots(stepped.ledger):
                update_bot(stepped.ledger, replace(bot, status=BotStatus.STOPPED))
                remove_bot(stepped.ledger, bot.name, "benchmark")
            for number in range(bots):
                add_bot(
                    stepped.ledger,
                    new_bot(
                        f"bot-{number:02}", stepped.market.venue, symbols[number % len(symbols)],
                        "1m", "momentum", {"window": 2, "full": 0.2},
                        decision.model_dump(mode="json"), None, wake, status=BotStatus.RUNNING,
                    ),
                )  # fmt: skip
            yield stepped


@contextmanager
def following(stepped: SteppedDesk, *, warm: bool = False) -> Iterator[None]:
    """The desk's feed at work in a process of its own, as under `desk up`, its bots awake. warm:
    with a kernel that waits for each page."""
    spawn = multiprocessing.get_context("spawn")
    name, home = stepped.market.venue, str(stepped.settings.home)
    child = spawn.Process(target=follow, args=(home, name, warm))
    child.start()
    try:
        until(lambda: (told := streams(stepped)) and all(one.joined for one in told))
        until(lambda: not overdue(stepped))
        yield
    finally:
        child.terminate()
        child.join()


def follow(home: str, venue: str, warm: bool) -> None:
    """What the process does until it is told to end."""
    with own_servers() if warm else nullcontext():
        if warm:
            warm_up(load_identity(LIVE_KERNEL, environment_for_child()))
        asyncio.run(_follow(home, venue))


async def _follow(home: str, venue: str) -> None:
    wait_for_nobody()
    task = asyncio.ensure_future(follow_venue.fn(home, venue))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


def streams(stepped: SteppedDesk) -> list[StreamStatus]:
    return load_streams(stepped.settings)


def overdue(stepped: SteppedDesk) -> list[str]:
    """The bots' symbols of which a candle that has closed is not stored."""
    store, at, name = CandleStore(stepped.settings.candles), now(stepped), stepped.market.venue
    bots = load_bots(stepped.ledger, running_only=True)
    lasts = {bot.symbol: store.last_close(name, bot.symbol, "1m") for bot in bots}
    return [one for one, last in lasts.items() if last is None or at - last >= timedelta(minutes=1)]


def until(seen: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not seen():
        if time.monotonic() > end:
            raise SystemExit(f"Not within {PATIENCE:g} s: {seen}")
        time.sleep(0.01)


def now(stepped: SteppedDesk) -> datetime:
    """The market's time, at no weight."""
    return parse_time(stepped.paper.control("status")["time"])


def decided(stepped: SteppedDesk, close: datetime) -> int:
    query = select(tables.decisions.c.id).where(tables.decisions.c.candle_close == close)
    return len(stepped.ledger.mappings(query))


def carried_out(stepped: SteppedDesk, close: datetime) -> bool:
    """Whether what was decided at a close has become orders, or has failed to."""
    decisions = tables.decisions.c
    wanted = select(decisions.id).where(
        decisions.candle_close == close, decisions.action != Action.HOLD
    )
    made = load_runs(stepped.ledger, limit=None, notebook=EXECUTE)
    done = {run.parameters["decision"] for run in made if run.outcome != Outcome.RUNNING}
    return {row["id"] for row in stepped.ledger.mappings(wanted)} <= done


def is_written(stepped: SteppedDesk, since: datetime) -> bool:
    """Whether every page of the runs since then is."""
    made = load_runs(stepped.ledger, limit=None, since=since)
    return all(run.page or run.outcome == Outcome.FAILED for run in made)


# Sharing


def ask_alone(bots: int, minutes: int) -> dict[str, Any]:
    """What the exchange counts when every bot asks for itself."""
    with desk(bots, SYMBOLS, minutes, CALM, COUNTED_ONLY) as stepped:
        account = resolve_venue(stepped.settings, stepped.market.venue)
        clients = [
            (bot.symbol, make_exchange(bot.venue, *account)) for bot in load_bots(stepped.ledger)
        ]
        for _ in shown(minutes, "each bot for itself"):
            stepped.step()
            for symbol, client in clients:
                client.fetch_ohlcv(symbol, "1m", None, 500)
                for _ in range(6):
                    client.fetch_bids_asks([symbol])
                client.fetch_balance()
                client.fetch_open_orders(symbol)
        return counts(stepped)


def ask_together(bots: int, minutes: int) -> dict[str, Any]:
    """The same minutes on a desk whose feed wakes the bots; and how old what they used was."""
    with desk(bots, SYMBOLS, minutes, CALM, on="close", fast=True) as stepped:
        # Books are opened once in an account's life, at the cost of each symbol's last trade.
        reconcile(stepped.ledger, stepped.venue(), SYMBOLS)
        opened = counts(stepped)["weight_used"]
        with following(stepped):
            for _ in shown(minutes, "a feed for all"):
                stepped.step()
                close = now(stepped)
                until(lambda close=close: decided(stepped, close) == bots)
                until(lambda close=close: carried_out(stepped, close))
            told = counts(stepped)
        before = told["weight_used"]
        agrees = reconcile(stepped.ledger, stepped.venue(), SYMBOLS).agrees
        return told | ages(stepped) | {
            "weight_used": before - opened,
            "opening": opened,
            "reconciliation": counts(stepped)["weight_used"] - before,
            "agrees": agrees,
        }  # fmt: skip


def ages(stepped: SteppedDesk) -> dict[str, Any]:
    """Of what orders were sized with: how old the quotes were, and how far behind the market the
    candle that was decided on had closed."""
    longest = stepped.settings.cache.max_quote_seconds
    behind, quotes, failed = [], [], 0
    for run in load_runs(stepped.ledger, limit=None):
        failed += run.outcome == Outcome.FAILED
        inputs = (run.result or {}).get("inputs")
        if run.notebook != EXECUTE or not inputs:
            continue
        told = OrderInputs.from_json(inputs)
        behind.append(told.portfolio.candle_age.total_seconds())
        as_of, at = told.portfolio.as_of, told.quote.venue_time
        quotes.append((as_of - at).total_seconds() if at else 0.0)
    return {
        "orders": len(quotes),
        "failed_runs": failed,
        "oldest_quote": max(quotes, default=0.0),
        "oldest_candle": max(behind, default=0.0),
        "too_old": sum(age > longest for age in quotes) + sum(age > 60 for age in behind),
    }


def counts(stepped: SteppedDesk) -> dict[str, Any]:
    told = stepped.paper.control("status")
    return {name: told[name] for name in ("weight_used", "refused_429")}


# Speed


def time_orders(trades: int, *, fast: bool) -> list[float]:
    """Seconds from when a step is told to the answer of the order that it made a bot send."""
    found: list[float] = []
    restless = desk(1, SYMBOLS[:1], 10 * trades, RESTLESS, on="close", fast=fast)
    progress = Progress(transient=True, console=Console(stderr=True))
    with restless as stepped, following(stepped, warm=True), progress:
        task = progress.add_task("fast path" if fast else "warm notebooks", total=trades)
        while len(found) < trades:
            began = stepped.step()
            # The exchange shares this process: who looked now would keep it from answering.
            time.sleep(PAUSE)
            close = now(stepped)
            until(lambda close=close: decided(stepped, close) == 1)
            until(lambda close=close: carried_out(stepped, close))
            until(lambda began=began: is_written(stepped, began))
            time.sleep(PAUSE)
            answered = newest_answer(stepped, began)
            if answered is not None:
                found.append((answered - began).total_seconds())
                progress.advance(task)
    return found


def newest_answer(stepped: SteppedDesk, since: datetime) -> datetime | None:
    """When the ledger noted the answer to an order that was made since then."""
    events, orders = tables.order_events.c, tables.orders.c
    made = select(orders.client_id).where(orders.created_at >= since)
    query = (
        select(events.at)
        .where(events.client_id.in_(made), events.status.in_(("FILLED", "PARTIALLY_FILLED")))
        .order_by(events.id)
    )
    rows = stepped.ledger.mappings(query)
    return rows[0]["at"] if rows else None


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile, in ms."""
    return tuple((1e3 * np.percentile(seconds, (50, 99))).tolist())


# Faults


def stand_faults(bots: int, minutes: int) -> dict[str, Any]:
    """Minutes under random faults of the streams; what is not as the exchange has it, and how long
    each channel took from a cut to all that it had missed."""
    with desk(bots, SYMBOLS, minutes + 2, RESTLESS, on="close", fast=True) as stepped:
        with following(stepped):
            options = {"silence_ms": 5_000, "disorder_ms": 200, "delay_ms": 200}
            stepped.paper.control("faults", seed=1, rates=FAULTS, options=options)
            for _ in shown(minutes, "under faults"):
                stepped.step()
                close = now(stepped)
                until(lambda close=close: decided(stepped, close) == bots)
            played = stepped.paper.control("faults")["played"]
            stepped.paper.control("faults", rates={})
            stepped.step()
            until(lambda: not overdue(stepped))
            until(lambda: carried_out(stepped, now(stepped)))
            gaps = {told.channel: sorted(told.gaps) for told in streams(stepped)}
            cuts = {told.channel: told.cuts for told in streams(stepped)}
        reconcile(stepped.ledger, stepped.venue(), SYMBOLS)
        return {"played": played, "cuts": cuts, "gaps": gaps, **wrongs(stepped)}


def wrongs(stepped: SteppedDesk) -> dict[str, int]:
    """What store and books have that the exchange has not, and the other way round."""
    store, venue = CandleStore(stepped.settings.candles), stepped.venue()
    missing = different = 0
    for symbol in sorted({bot.symbol for bot in load_bots(stepped.ledger)}):
        mine = store.load(stepped.market.venue, symbol, "1m")
        since = mine.index[0].to_pydatetime()
        theirs = venue.fetch_ohlcv(symbol, "1m", since, 1000)
        theirs = theirs[theirs.index <= mine.index[-1]]
        missing += len(theirs.index.difference(mine.index))
        both = theirs.index.intersection(mine.index)
        different += int((mine.loc[both] != theirs.loc[both]).any(axis=1).sum())
    trades = stepped.paper.control("record", account="paper")["trades"]
    known = [(fill.symbol.replace("/", ""), fill.trade_id) for fill in load_fills(stepped.ledger)]
    record = [(row["symbol"], str(row["id"])) for row in trades]
    held = {a: b.free + b.used for a, b in venue.fetch_balances().items()}
    booked = {b.asset: b.booked for b in load_balances(stepped.ledger, stepped.market.venue)}
    return {
        "candles_missing": missing,
        "candles_different": different,
        "fills_not_equal": len(set(known) ^ set(record)) + len(known) - len(set(known)),
        "balances_not_equal": sum(booked.get(a, 0) != held.get(a, 0) for a in {*booked, *held}),
        "fills": len(record),
    }


def shown(count: int, what: str) -> Any:
    return track(range(count), what, console=Console(stderr=True), transient=True)


def measure(bots: int, minutes: int, trades: int, faulty: int) -> dict[str, Any]:
    alone, together = ask_alone(bots, minutes), ask_together(bots, minutes)
    saved = 100 * (1 - together["weight_used"] / alone["weight_used"])
    fast, slow = time_orders(trades, fast=True), time_orders(trades, fast=False)
    faults = stand_faults(bots, faulty)
    wrong = sum(
        n for name, n in faults.items() if name.endswith(("_missing", "different", "equal"))
    )
    (fast_50, fast_99), (slow_50, slow_99) = percentiles(fast), percentiles(slow)
    return {
        "alone": alone,
        "together": together,
        "fast_ms": {"orders": len(fast), "p50": fast_50, "p99": fast_99},
        "notebook_ms": {"orders": len(slow), "p50": slow_50, "p99": slow_99},
        "faults": faults,
        "bars": [
            make_bar("weight saved, at least", saved, " %", 99, at_least=True),
            make_bar("refused with 429 or 418, at most", together["refused_429"], "", 0),
            make_bar("decided or ordered on older data than stated, at most", together["too_old"],
                     "", 0),
            make_bar("fast path to the answer, 99th percentile", fast_99, " ms", 50),
            make_bar("warm notebook to the answer, 99th percentile", slow_99, " ms", 500),
            make_bar("wrong in store or books after faults, at most", wrong, "", 0),
        ],
    }  # fmt: skip


def show(told: dict[str, Any]) -> None:
    console = Console()
    table = Table(title="The feed")
    for column in ("what", "each for itself", "together"):
        table.add_column(column, justify="right")
    alone, together = told["alone"], told["together"]
    table.add_row("request weight", f"{alone['weight_used']:,}", f"{together['weight_used']:,}")
    table.add_row("refused", str(alone["refused_429"]), str(together["refused_429"]))
    table.add_row("a reconciliation's weight", "", str(together["reconciliation"]))
    table.add_row("orders", "", str(together["orders"]))
    table.add_row("oldest quote (s)", "", f"{together['oldest_quote']:.2f}")
    console.print(table)
    for name in ("fast_ms", "notebook_ms"):
        one = told[name]
        console.print(f"{name}: {one['orders']} orders, {one['p50']:.1f}, p99 {one['p99']:.1f}")
    faults = told["faults"]
    console.print(f"faults {faults['played']}, cuts {faults['cuts']}, {faults['fills']} fills")
    for channel, gaps in faults["gaps"].items():
        if gaps:
            console.print(f"{channel}: {statistics.median(gaps):.2f} s to all, most {gaps[-1]:.2f}")
    show_bars(told, console)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bots", type=int, default=50)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--trades", type=int, default=200)
    parser.add_argument("--faulty", type=int, default=60)
    asked = parser.parse_args()
    told = measure(asked.bots, asked.minutes, asked.trades, asked.faulty)
    print(json.dumps(told)) if asked.json else show(told)
    return 0 if all(bar["holds"] for bar in told["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
