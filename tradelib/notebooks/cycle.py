"""A trading cycle as steps: which notebooks run, for whom, with what parameters.

Flows decide when steps run and what happens when one fails; here is only what they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from tradelib.clock import timeframe_ms, utc_now
from tradelib.errors import DeskError, RefusedError, StorageFailed
from tradelib.notebooks.runner import run_notebook
from tradelib.services.addresses import load_services
from tradelib.settings import SERVICE_PREFIX, DeskSettings
from tradelib.trading.bots import Bot, load_bots, symbols_of
from tradelib.trading.decisions import Action
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import load_orders
from tradelib.trading.positions import load_positions
from tradelib.trading.runs import Outcome, Run, load_run_bots
from tradelib.venue import open_venue

if TYPE_CHECKING:
    from tradelib.notebooks.preheat import KernelPool

FETCH = "live/10_fetch_candles"
SIGNALS = "live/20_generate_signals"
EXECUTE = "live/30_execute_orders"
RECONCILE = "live/40_reconcile_orders"
PARITY = "live/50_check_parity"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One notebook to run with its parameters."""

    notebook: str
    parameters: dict[str, Any]
    venue: str
    bot: str | None = None
    as_of: datetime | None = None

    @property
    def name(self) -> str:
        return f"{self.notebook.removeprefix('live/')} {self.bot or self.venue}"


@dataclass(frozen=True)
class VenuePlan:
    """A cycle's work at one venue: a fetch per timeframe, and the bots that wait for each."""

    venue: str
    as_of: datetime
    fetches: dict[str, Step] = field(default_factory=dict)
    bots: tuple[Bot, ...] = ()


def new_cycle_id() -> str:
    return f"c-{utc_now():%Y%m%dT%H%M%S%f}"[:22]


def running_bots(settings: DeskSettings, ledger: Ledger) -> dict[str, list[Bot]]:
    """The bots that run, by venue, but for local exchanges that are not up."""
    running = load_bots(ledger, running_only=True)
    venues = _reachable(settings, (bot.venue for bot in running))
    return {venue: [bot for bot in running if bot.venue == venue] for venue in venues}


def plan_venue(settings: DeskSettings, venue: str, bots: Sequence[Bot]) -> VenuePlan:
    """A cycle's work at a venue, for its bots in this order.

    The market time of a cycle is the venue's own clock: it decides which candles are closed.
    Raises what asking the venue raises.
    """
    as_of = open_venue(settings, venue).fetch_time()
    fetches = {}
    for timeframe in sorted({bot.timeframe for bot in bots}, key=timeframe_ms):
        waiting = [bot for bot in bots if bot.timeframe == timeframe]
        parameters = {
            "venue": venue,
            "symbols": symbols_of(waiting, venue),
            "timeframe": timeframe,
            "as_of": as_of.isoformat(),
        }
        fetches[timeframe] = Step(FETCH, parameters, venue, as_of=as_of)
    return VenuePlan(venue, as_of, fetches, tuple(bots))


def venues_in_use(settings: DeskSettings, ledger: Ledger) -> list[str]:
    """The venues at which something is looked after, but for local exchanges that are not up: a
    bot, an order whose end is not known, or a position, of whomever."""
    return _reachable(settings, venues_looked_after(settings, ledger))


def venues_looked_after(settings: DeskSettings, ledger: Ledger) -> set[str]:
    """Every venue at which the ledger has a bot, an order on its way or a position; what is held
    where desk.toml knows of no venue any more cannot be looked after."""
    orders = (*load_orders(ledger, unsettled=True), *load_orders(ledger, lacking_fills=True))
    held = (p for p in load_positions(ledger) if p.amount and p.venue in settings.venues)
    return {one.venue for one in (*load_bots(ledger), *orders, *held)}


def _reachable(settings: DeskSettings, venues: Iterable[str]) -> list[str]:
    return sorted(venue for venue in set(venues) if is_up(settings, venue))


def is_up(settings: DeskSettings, venue: str) -> bool:
    """Whether a venue can be asked. A local exchange is up while a desk runs it: a home may hold
    the books of several markets and runs one at a time."""
    chosen = settings.venues.get(venue)
    if chosen is None or not chosen.is_local:
        return True  # asking it will tell
    try:
        return (chosen.rest_url or "").removeprefix(SERVICE_PREFIX) in load_services(settings)
    except RefusedError:  # no desk runs
        return False
    except StorageFailed:  # asking will tell, and the other venues are not kept from anything
        return True


def signal_step(bot: Bot, as_of: datetime) -> Step:
    parameters = {"bot": bot.name, "as_of": as_of.isoformat()}
    return Step(SIGNALS, parameters, bot.venue, bot.name, as_of)


def execute_step(bot: Bot, signal: Run) -> Step | None:
    """The step that carries a signal's decision out; None when it decided to hold."""
    told = signal.result or {}
    if told.get("action", Action.HOLD) == Action.HOLD:
        return None
    parameters = {"bot": bot.name, "decision": told["decision"]}
    return Step(EXECUTE, parameters, bot.venue, bot.name, signal.as_of)


def reconcile_step(venue: str) -> Step:
    return Step(RECONCILE, {"venue": venue}, venue)


def parity_step(bot: str, venue: str, day: date) -> Step:
    """Hold a bot's day against its backtest."""
    return Step(PARITY, {"bot": bot, "day": day.isoformat()}, venue, bot)


def bots_that_decided(ledger: Ledger, day: date) -> dict[str, list[str]]:
    """Names of the bots that decided on a UTC day of the wall clock, by venue."""
    found: dict[str, list[str]] = {}
    for venue, bot in load_run_bots(ledger, SIGNALS, day):
        found.setdefault(venue, []).append(bot)
    return found


def run_step(
    settings: DeskSettings,
    ledger: Ledger,
    step: Step,
    cycle: str | None,
    pool: KernelPool | None = None,
) -> Run:
    """Run one step's notebook, in one of the pool's kernels where there is one; raises what
    run_notebook raises."""
    try:
        run = run_notebook(
            settings,
            ledger,
            step.notebook,
            step.parameters,
            bot=step.bot,
            venue=step.venue,
            cycle=cycle,
            as_of=step.as_of,
            pool=pool,
        )
    except DeskError as error:
        failed = {"run": getattr(error, "run", None), "outcome": Outcome.FAILED}
        log.error("%s failed: %s", step.name, error, extra={"fields": failed})
        raise
    log.info("ran %s", step.name, extra={"fields": {"run": run.id, "outcome": run.outcome}})
    return run
