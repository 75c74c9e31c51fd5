"""A desk on a stepped paper exchange: the live path at its own pace, candle by candle.

Market time stands still until it is told to move, so that every candle is looked at exactly when
it has closed, as often as the run is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tradelib.candles.schema import candles_from_arrays
from tradelib.candles.store import CandleStore
from tradelib.cli.home import prepare_home
from tradelib.cli.markets import LocalMarket, file_market
from tradelib.clock import from_ms, parse_time, timeframe_ms
from tradelib.errors import InvalidInput
from tradelib.notebooks.cycle import (
    execute_step,
    new_cycle_id,
    plan_venue,
    reconcile_step,
    run_step,
    running_bots,
    signal_step,
)
from tradelib.notebooks.fast import trade_at_once
from tradelib.paper import PaperConfig, PaperHandle, paper_exchange
from tradelib.paper.config import ACCOUNTS_FILE, RateLimits, read_accounts
from tradelib.paper.filed import FileMarket
from tradelib.research.backtest import run_backtest
from tradelib.research.fills import FillModel, venue_fills
from tradelib.settings import SETTINGS_FILE, DeskSettings, load_settings
from tradelib.trading.arming import arm_venue
from tradelib.trading.backtested import Comparison, hold_against
from tradelib.trading.bots import Bot, BotStatus, load_bots, new_bot, update_bot
from tradelib.trading.ledger import Ledger, open_ledger
from tradelib.trading.live_steps import load_live
from tradelib.trading.reconciliation import reconcile
from tradelib.trading.runs import Run
from tradelib.venue import Venue, open_venue


@dataclass(frozen=True)
class SteppedDesk:
    """Settings, ledger and paper exchange of one desk; market time stands until `step`."""

    settings: DeskSettings
    ledger: Ledger
    paper: PaperHandle
    market: LocalMarket

    @property
    def bot(self) -> Bot:
        return load_bots(self.ledger)[0]

    def venue(self, *, trading: bool = True) -> Venue:
        return open_venue(self.settings, self.market.venue, trading=trading)

    def step(self, candles: int = 1) -> datetime:
        """Play so many candles; when, by the wall's clock, those who listen began to be told."""
        done = self.paper.control("step", candles=candles, timeframe=self.market.timeframe)
        return parse_time(done["told_from"])

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
def stepped_desk(
    home: Path, market: LocalMarket, *, start: datetime | None = None, **paper: Any
) -> Iterator[SteppedDesk]:
    """A home with a desk and its stepped exchange, for as long as the block lasts.

    start: market time to begin at; None: the market's usual one. paper: more of PaperConfig.
    """
    prepared = prepare_home(home, market)
    files = tuple(file.path for file in market.files)
    accounts = read_accounts(prepared.paper_home / ACCOUNTS_FILE)
    config = PaperConfig(
        prepared.paper_home, files=files, speed=0.0, start=start, accounts=accounts, **paper
    )
    with paper_exchange(config) as handle:
        point_venue(home, market.venue, handle.url)
        settings = load_settings(home)
        ledger = open_ledger(settings, migrate=True)
        # Named by its address and not as a service of a running desk, it counts as elsewhere.
        arm_venue(ledger, market.venue, timedelta(days=1))
        yield SteppedDesk(settings, ledger, handle, market)
        ledger.close()
        prepared.ledger.close()


def point_venue(home: Path, venue: str, url: str) -> None:
    """Write a venue's address into desk.toml, as a user would for a server of their own."""
    file = home / SETTINGS_FILE
    text = re.sub(rf'"(service:{venue}|http://127[^"]*)"', f'"{url}"', file.read_text())
    file.write_text(text)


# Room for every order that a bot may want: only what the venue itself refuses is refused.
_OPEN_LIMITS = """\
[limits]
max_trades_per_day = 1000000
max_daily_loss_share = 1
max_position_share = 1
min_cash_share = 0

[limits.order_notional.{quote}]
min = "{least}"
max = "1000000000"

[limits.protections]
max_drawdown = 1
stop_streak = 0
low_profit_after = 0
"""
_BOUNDLESS = RateLimits(weight=10**9, orders_10s=10**9, orders_day=10**9)


@dataclass(frozen=True)
class BotPlan:
    """What trades in a stepped run: a strategy with its parameters and a decision's."""

    strategy: str
    parameters: dict[str, Any] = field(default_factory=dict)
    decision: dict[str, Any] = field(default_factory=dict)


@contextmanager
def rehearsal(home: Path, file: Path, plan: BotPlan) -> Iterator[SteppedDesk]:
    """A desk with one bot on the candles of a file, from the first one on. Its limits are open, so
    that nothing but the bot, the venue's rules, its book and its fees decide."""
    market = file_market((file,))
    (rules,) = FileMarket([file]).instruments
    home.mkdir(parents=True, exist_ok=True)
    limits = _OPEN_LIMITS.format(quote=market.quote, least=rules.min_notional)
    (home / SETTINGS_FILE).write_text(limits, encoding="utf-8")
    with stepped_desk(home, market, is_kept=False, limits=_BOUNDLESS) as desk:
        symbol = market.symbols[0]
        bot = new_bot(
            desk.bot.name, market.venue, symbol, market.timeframe, plan.strategy,
            plan.parameters, plan.decision, status=BotStatus.RUNNING,
        )  # fmt: skip
        update_bot(desk.ledger, bot)
        reconcile(desk.ledger, desk.venue(), market.symbols)
        yield desk


def candles_left(desk: SteppedDesk) -> int:
    """How many candles the market still has to play, those that are missing counted in."""
    exchange = desk.paper.exchange
    return (exchange.clock.end - exchange.now) // timeframe_ms(desk.market.timeframe)


def check(desk: SteppedDesk) -> Comparison:
    """All that the desk's bot did beside the backtest of the same candles at the same venue."""
    bot, live = desk.bot, load_live(desk.ledger, desk.bot.name)
    candles = CandleStore(desk.settings.candles).load(bot.venue, bot.symbol, bot.timeframe)
    opening = live[0].inputs
    if opening is None:
        raise InvalidInput("There is nothing to compare before the first candle has closed.")
    tested = run_backtest(
        candles[candles.index < live[-1].close], bot.timeframe, bot.rules, bot.strategy_params,
        bot.decision_params, cash=float(opening.cash), fills=fills_of(desk),
    )  # fmt: skip
    return hold_against(live, tested)


def fills_of(desk: SteppedDesk) -> FillModel:
    """The fill model of the desk's own exchange: its rules, its book and its limits."""
    bot, market = desk.bot, desk.paper.exchange.tape.market
    shape = {field.name: getattr(market.shape, field.name) for field in fields(market.shape)}
    rules = desk.venue().fetch_instrument(bot.symbol)
    salted = {"salt": market.salt, "symbol": bot.symbol.replace("/", "")}
    return venue_fills(rules, **shape, **salted).within(desk.settings.limits, bot.quote)


def run_pages(desk: SteppedDesk, candles: int) -> Iterator[datetime]:
    """So many candles through the live notebooks, one cycle at each close; the closes."""
    venue = desk.venue()
    for _ in range(candles):
        desk.step()
        desk.run_cycle()
        yield venue.fetch_time()


def run_in_process(desk: SteppedDesk, candles: int) -> Iterator[datetime]:
    """The same by the functions that the notebooks call, without a kernel for each page.

    The store has the candles beforehand; a decision sees those that have closed.
    """
    venue = desk.venue()
    _store_all(desk, CandleStore(desk.settings.candles))
    for _ in range(candles):
        desk.step()
        as_of = venue.fetch_time()
        for bot in load_bots(desk.ledger, running_only=True):
            runs = list(trade_at_once(desk.settings, desk.ledger, bot, as_of, lambda _: venue))
            if len(runs) > 1:  # it has traded
                reconcile(desk.ledger, venue, desk.market.symbols)
        yield as_of


def _store_all(desk: SteppedDesk, store: CandleStore) -> None:
    market = desk.market
    end = from_ms(desk.paper.exchange.clock.end)
    for symbol in market.symbols:
        candles = desk.paper.exchange.tape.market.candles(
            symbol.replace("/", ""), *desk.paper.exchange.tape.market.span
        )
        frame = candles_from_arrays(*candles.columns)
        store.append(market.venue, symbol, market.timeframe, frame, as_of=end)
