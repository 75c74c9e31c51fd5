"""The desk's flows: the trading cycle, reconciliation between cycles, and the halt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from filelock import FileLock, Timeout
from prefect import flow
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.pages import read_page, run_page
from tradelib.errors import DeskError
from tradelib.logs import configure_logging
from tradelib.notebooks.cycle import (
    VenuePlan,
    execute_step,
    new_cycle_id,
    plan_cycle,
    reconcile_step,
    signal_step,
    venues_in_use,
)
from tradelib.settings import DeskSettings, load_settings
from tradelib.trading.bots import Bot
from tradelib.trading.halts import halt_trading as set_halt
from tradelib.trading.ledger import open_ledger
from tradelib.trading.runs import Run

# By name: Prefect loads this file as a module of another one.
log = logging.getLogger("flows.trading")

MAX_LATENESS_SECONDS = 20.0


class Busy(Exception):
    """Another cycle has the desk."""


@flow(name="trading_cycle", task_runner=ThreadPoolTaskRunner(max_workers=2))
def trading_cycle(home: str, cycle: str | None = None) -> State[None]:
    """Fetch once per venue and timeframe, let every running bot decide and execute, reconcile.

    A cycle that starts late or finds another one at work is skipped, not queued: its candles
    are the next cycle's too.
    """
    return _alone(home, cycle, _run_cycle)


@flow(name="reconcile_orders", task_runner=ThreadPoolTaskRunner(max_workers=1))
def reconcile_orders(home: str, cycle: str | None = None) -> State[None]:
    """Make the books equal to every venue that bots use; skipped while a cycle is at work, which
    reconciles at its end."""
    return _alone(home, cycle, _run_reconciliation)


@flow(name="halt_trading")
def halt_trading(home: str, reason: str) -> None:
    """Stop every new order until `desk resume`."""
    settings = load_settings(home)
    configure_logging(settings)
    halt = set_halt(open_ledger(settings), reason)
    log.warning("trading is halted: %s", halt.reason)


def _alone(
    home: str, cycle: str | None, work: Callable[[DeskSettings, str], State[None]]
) -> State[None]:
    """Do the work unless this run starts late or another one has the desk."""
    settings = load_settings(home)
    cycle = cycle or new_cycle_id()
    configure_logging(settings, cycle)
    late = _seconds_late()
    if late > MAX_LATENESS_SECONDS:
        return _skipped(f"{late:.0f} s late")
    try:
        with _exclusive(settings):
            return work(settings, cycle)
    except Busy:
        return _skipped("another cycle is at work")


def _run_reconciliation(settings: DeskSettings, cycle: str) -> State[None]:
    ledger = open_ledger(settings)
    venues = venues_in_use(settings, ledger)
    ledger.close()
    failures = [_why(_reconcile(settings, venue, cycle)) for venue in venues]
    return _finished([why for why in failures if why])


def _run_cycle(settings: DeskSettings, cycle: str) -> State[None]:
    ledger = open_ledger(settings)
    plans, failures = plan_cycle(settings, ledger)
    ledger.close()
    for plan in plans:
        failures += _run_venue(settings, plan, cycle)
    return _finished(failures)


def _run_venue(settings: DeskSettings, plan: VenuePlan, cycle: str) -> list[str]:
    """The whole cycle at one venue; why steps failed. One bot's failure does not stop another."""
    home = str(settings.home)
    fetches = {
        timeframe: read_page.submit(home, step, cycle) for timeframe, step in plan.fetches.items()
    }
    failures = [why for why in map(_why, fetches.values()) if why]
    signals: dict[str, PrefectFuture[Run]] = {}
    bots: dict[str, Bot] = {}
    for bot in plan.bots:
        if _why(fetches[bot.timeframe]) is None:
            bots[bot.name] = bot
            signals[bot.name] = read_page.submit(home, signal_step(bot, plan.as_of), cycle)
    wait(list(signals.values()))
    executions = []
    for name, future in signals.items():
        why = _why(future)
        if why:
            failures.append(why)
            continue
        step = execute_step(bots[name], future.result())
        if step:
            executions.append(run_page.submit(home, step, cycle))
    failures += [why for why in map(_why, executions) if why]
    why = _why(_reconcile(settings, plan.venue, cycle))
    return [*failures, why] if why else failures


def _reconcile(settings: DeskSettings, venue: str, cycle: str) -> PrefectFuture[Run]:
    return read_page.submit(str(settings.home), reconcile_step(venue), cycle)


def _why(future: PrefectFuture[Run]) -> str | None:
    """Why a task failed, or None when it did not; waits for its end."""
    future.wait()
    if future.state.is_completed():
        return None
    try:
        future.result()
    except DeskError as error:
        return str(error)
    except Exception as error:  # whatever a task died of is the cycle's reason, not its end
        return f"{type(error).__name__}: {error}"
    return future.state.message or "the task did not complete"


def _finished(failures: list[str]) -> State[None]:
    for failure in failures:
        log.error("%s", failure)
    return Failed(message="; ".join(failures)) if failures else Completed()


def _skipped(why: str) -> State[None]:
    log.warning("skipped: %s", why)
    return Completed(name="Skipped", message=why)


def _seconds_late() -> float:
    """How long after its scheduled time this run starts; 0 when it was asked for by hand."""
    planned = flow_run.get_scheduled_start_time()
    return (datetime.now(UTC) - planned).total_seconds() if planned else 0.0


@contextmanager
def _exclusive(settings: DeskSettings) -> Iterator[None]:
    """A lock that the system releases when its holder dies, unlike a concurrency slot kept in a
    database."""
    path = settings.home / "run" / "cycle.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise Busy from None
