"""A desk on a paper exchange, small and real, for tests that trade."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from unittest import mock

import ccxt
from sqlalchemy import event, insert, select

from tradelib.candles.fetch import fetch_candles
from tradelib.candles.store import CandleStore
from tradelib.cli import main
from tradelib.cli.markets import file_market, find_start, seeded_market
from tradelib.cli.stepped import SteppedDesk, stepped_desk
from tradelib.clock import utc_now
from tradelib.settings import PROJECT
from tradelib.trading import tables
from tradelib.trading.accounts import Equity
from tradelib.trading.bots import Bot, load_bots
from tradelib.trading.decisions import Action, Decision, record_decision
from tradelib.trading.execution import Execution, execute_decision
from tradelib.trading.ledger import Ledger, as_row
from tradelib.trading.orders import Order, decision_id
from tradelib.trading.reconciliation import Reconciliation, reconcile
from tradelib.trading.runs import Outcome, Run, start_run
from tradelib.venue import Venue

SHARED = PROJECT.parent / "shared"
SHARED_DATA = SHARED / "data"


@dataclass(frozen=True)
class PaperDesk(SteppedDesk):
    """A stepped desk with what tests do on it."""

    def ccxt(self) -> ccxt.binance:
        """Somebody else's program on the same account."""
        return ccxt.binance(self.paper.ccxt_settings(ccxt.binance))

    def decide(self, action: Action, fraction: str = "0.1", bot: Bot | None = None) -> Decision:
        """A decision for the candle that has just closed, recorded under a run of its own."""
        bot = bot or self.bot
        now = self.venue().fetch_time()
        run = Run(
            id=f"run-{bot.name}-{now:%Y%m%dT%H%M}", cycle=None, notebook="test", bot=bot.name,
            notebook_hash="", venue=bot.venue, parameters={}, as_of=now, git_commit=None,
            git_clean=None, lock_hash=None, host="test", kernel="none", token_hash="",
            started_at=utc_now(), outcome=Outcome.RUNNING,
        )  # fmt: skip
        start_run(self.ledger, run)
        return record_decision(
            self.ledger,
            Decision(
                id=decision_id(bot.name, now), bot=bot.name, candle_close=now, run=run.id,
                action=action, fraction=Decimal(fraction), temperature="HOT", reason="test",
                price=Decimal(1), state={}, decided_at=utc_now(),
            ),
            None,
        )  # fmt: skip

    def execute(self, decision: Decision, venue: Venue | None = None) -> Execution:
        bot = next(bot for bot in load_bots(self.ledger) if bot.name == decision.bot)
        return execute_decision(
            self.ledger, venue or self.venue(), self.settings.limits, bot, decision, decision.run
        )

    def trade(self, action: Action, fraction: str = "0.1") -> Execution:
        """Decide and execute at the present candle, then move on by one."""
        done = self.execute(self.decide(action, fraction))
        self.step()
        return done

    def reconcile(self) -> Reconciliation:
        return reconcile(self.ledger, self.venue(), self.market.symbols)

    def repeat(self, order: Order, count: int, **changes: object) -> None:
        """Add so many orders like one to the ledger, which the venue does not have."""
        many = (replace(order, client_id=f"nd-{n}", **changes) for n in range(count))
        with self.ledger.write() as books:
            books.execute(insert(tables.orders), [as_row(one) for one in many])

    def count_steps(self, work: Callable[[], object]) -> int:
        """How many steps SQLite's own machine takes for what is done in the ledger."""
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        def watch(connection, *_) -> None:
            connection.set_progress_handler(count, 1)

        self.ledger.close()
        event.listen(self.ledger.engine, "checkout", watch)
        work()
        event.remove(self.ledger.engine, "checkout", watch)
        self.ledger.close()
        return steps

    def fetch(self, history: int = 600) -> CandleStore:
        """The candles of every symbol of the market, in the desk's store."""
        store, venue = CandleStore(self.settings.candles), self.venue()
        fetch_candles(
            venue, store, self.market.venue, self.market.symbols, self.market.timeframe,
            as_of=venue.fetch_time(), history=history,
        )  # fmt: skip
        return store


@contextmanager
def paper_desk(
    home: Path,
    *,
    files: Sequence[Path] = (),
    start: datetime | None = None,
    **paper: object,
) -> Iterator[PaperDesk]:
    """A desk and its stepped paper exchange for as long as the block lasts.

    start: market time to begin at; None where a default bot finds an entry, for files, and the
        seeded market's usual one else. paper: more of PaperConfig.
    """
    market = file_market(tuple(files)) if files else seeded_market(1)
    if files and start is None:
        frames = {file.symbol: file.frame for file in market.files}
        start = find_start(frames, market.timeframe, cycles=2)
    with stepped_desk(home, market, start=start, **paper) as desk:
        yield PaperDesk(desk.settings, desk.ledger, desk.paper, desk.market)


def desk_command(
    *arguments: object, home: Path, fresh: bool = False, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the desk command; `fresh` in a process of its own, as a user does, else in this one,
    which spares the imports."""
    words = [str(argument) for argument in arguments]
    kept = {name: text for name, text in os.environ.items() if not name.startswith("DESK_")}
    env = {**kept, "DESK_HOME": str(home), "COLUMNS": "200"}
    if fresh:
        return subprocess.run(
            [sys.executable, "-m", "tradelib.cli", *words], cwd=PROJECT, env=env,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
    return _command_here(words, env)


def _command_here(words: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    out, err = io.StringIO(), io.StringIO()
    loggers = [logging.getLogger(name) for name in ("tradelib", "flows", "stamina")]
    before = [(list(one.handlers), one.propagate) for one in loggers]
    with (
        mock.patch.dict(os.environ, env, clear=True),
        mock.patch.object(sys, "argv", ["desk", *words]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    for one, (handlers, propagate) in zip(loggers, before, strict=True):
        one.handlers, one.propagate = handlers, propagate
    return subprocess.CompletedProcess(words, int(code or 0), out.getvalue(), err.getvalue())


def load_equity(ledger: Ledger, venue: str) -> list[Equity]:
    """An account's worth over time, oldest first."""
    query = select(tables.equity).where(tables.equity.c.venue == venue)
    return ledger.rows(query.order_by(tables.equity.c.as_of), Equity)
