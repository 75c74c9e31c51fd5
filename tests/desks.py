"""A desk on a paper exchange, small and real, for tests that trade."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from unittest import mock

import ccxt
from sqlalchemy import select

from tradelib.candles.fetch import fetch_candles
from tradelib.candles.store import CandleStore
from tradelib.cli import main
from tradelib.cli.home import prepare_home
from tradelib.cli.markets import LocalMarket, file_market, find_start, seeded_market
from tradelib.clock import utc_now
from tradelib.notebooks.cycle import (
    execute_step,
    new_cycle_id,
    plan_venue,
    reconcile_step,
    run_step,
    running_bots,
    signal_step,
)
from tradelib.paper import PaperConfig, PaperHandle, paper_exchange
from tradelib.paper.config import read_accounts
from tradelib.settings import PROJECT, DeskSettings, load_settings
from tradelib.trading import tables
from tradelib.trading.accounts import Equity
from tradelib.trading.arming import arm_venue
from tradelib.trading.bots import Bot, load_bots
from tradelib.trading.decisions import Action, Decision, record_decision
from tradelib.trading.execution import Execution, execute_decision
from tradelib.trading.ledger import Ledger, open_ledger
from tradelib.trading.orders import decision_id
from tradelib.trading.reconciliation import Reconciliation, reconcile
from tradelib.trading.runs import Outcome, Run, start_run
from tradelib.venue import Venue, open_venue

SHARED = PROJECT.parent / "shared"
SHARED_DATA = SHARED / "data"


@dataclass(frozen=True)
class PaperDesk:
    """settings, ledger and paper exchange of one desk; market time stands until `step`."""

    settings: DeskSettings
    ledger: Ledger
    paper: PaperHandle
    market: LocalMarket

    @property
    def bot(self) -> Bot:
        return load_bots(self.ledger)[0]

    def venue(self, *, trading: bool = True) -> Venue:
        return open_venue(self.settings, self.market.venue, trading=trading)

    def ccxt(self) -> ccxt.binance:
        """Somebody else's program on the same account."""
        return ccxt.binance(self.paper.ccxt_settings(ccxt.binance))

    def step(self, candles: int = 1) -> None:
        self.paper.control("step", candles=candles, timeframe=self.market.timeframe)

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

    def fetch(self, history: int = 600) -> CandleStore:
        """The candles of every symbol of the market, in the desk's store."""
        store, venue = CandleStore(self.settings.candles), self.venue()
        fetch_candles(
            venue, store, self.market.venue, self.market.symbols, self.market.timeframe,
            as_of=venue.fetch_time(), history=history,
        )  # fmt: skip
        return store

    def run_cycle(self) -> list[Run]:
        """A whole cycle of notebooks, one after the other, without Prefect."""
        cycle, runs = new_cycle_id(), []
        for venue, bots in running_bots(self.settings, self.ledger).items():
            plan = plan_venue(self.settings, venue, bots)
            steps = [*plan.fetches.values(), *(signal_step(b, plan.as_of) for b in plan.bots)]
            runs += [run_step(self.settings, self.ledger, step, cycle) for step in steps]
            for bot in plan.bots:
                signal = next(r for r in runs if r.bot == bot.name)
                wanted = execute_step(bot, signal)
                if wanted:
                    runs.append(run_step(self.settings, self.ledger, wanted, cycle))
            runs.append(run_step(self.settings, self.ledger, reconcile_step(plan.venue), cycle))
        return runs


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
    prepared = prepare_home(home, market)
    accounts = read_accounts(prepared.paper_home / "accounts.toml")
    config = PaperConfig(
        prepared.paper_home, files=tuple(files), speed=0.0, start=start, accounts=accounts, **paper
    )
    with paper_exchange(config) as handle:
        point_venue(home, market.venue, handle.url)
        settings = load_settings(home)
        ledger = open_ledger(settings, migrate=True)
        # Named by its address and not as a service of a running desk, it counts as elsewhere.
        arm_venue(ledger, market.venue, timedelta(days=1))
        yield PaperDesk(settings, ledger, handle, market)
        ledger.close()
        prepared.ledger.close()


def point_venue(home: Path, venue: str, url: str) -> None:
    """Write a venue's address into desk.toml, as a user would for a server of their own."""
    file = home / "desk.toml"
    text = re.sub(rf'"(service:{venue}|http://127[^"]*)"', f'"{url}"', file.read_text())
    file.write_text(text)


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
