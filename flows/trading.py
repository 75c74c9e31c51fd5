"""The desk's flows: the trading cycle, reconciliation between cycles, the nightly check against
the backtest, the halt, old pages."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial

from filelock import FileLock
from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State

from flows.dispatch import Kernels, dispatch, make_lock, try_lock
from flows.turns import in_turn, load_turns, next_turns, save_turns
from flows.work import InTurn, Pages, VenueCycle, tell
from tradelib.clock import parse_time, utc_now
from tradelib.logs import configure_logging
from tradelib.notebooks.cycle import (
    bots_that_decided,
    new_cycle_id,
    plan_venue,
    running_bots,
    venues_in_use,
)
from tradelib.notebooks.retention import prune_pages as remove_old_pages
from tradelib.settings import DeskSettings, load_settings
from tradelib.trading.bots import Bot
from tradelib.trading.halts import halt_trading as set_halt
from tradelib.trading.ledger import open_ledger
from tradelib.traffic import spend_as

# By name: Prefect loads this file as a module of another one.
log = logging.getLogger("flows.trading")

# For a run that is not told when the next one comes.
MAX_LATENESS_SECONDS = 20.0
# Somebody may look whether a cycle is at work just when one begins.
LOCK_PATIENCE_SECONDS = 1.0
# Before the next cycle is due, so that it does not find this one at work.
HAND_OVER_SECONDS = 1.0


@flow(name="trading_cycle")
def trading_cycle(
    home: str, cycle: str | None = None, interval: float | None = None
) -> State[None]:
    """Fetch once per venue and timeframe, let every running bot decide and execute, reconcile.

    interval: seconds to the next cycle. When they are over, bots that have not begun wait for that
    one and are its first; what runs goes on beside it. A cycle that starts later than that or
    finds another one at work is skipped, not queued: its candles are the next cycle's too.
    """
    settings, cycle = _begin(home, cycle)
    late = _why_late(interval)
    if late:
        return _skipped(late)
    with _claimed(settings, "cycle", LOCK_PATIENCE_SECONDS) as lock:
        if lock is None:
            return _skipped("another cycle is at work")
        return _run_cycle(settings, cycle, lock, _end_of_turn(interval))


@flow(name="reconcile_orders")
def reconcile_orders(
    home: str, cycle: str | None = None, interval: float | None = None
) -> State[None]:
    """Make the books equal to every venue that bots use; skipped while a cycle is at work, which
    reconciles at its end. interval: seconds to the next reconciliation."""
    settings, cycle = _begin(home, cycle)
    late = _why_late(interval)
    if late:
        return _skipped(late)
    if cycle_at_work(settings):
        return _skipped("a cycle is at work")
    with _claimed(settings, "reconciliation") as lock:
        if lock is None:
            return _skipped("another reconciliation is at work")
        return _run_reconciliation(settings, cycle)


@flow(name="halt_trading")
def halt_trading(home: str, reason: str) -> None:
    """Stop every new order until `desk resume`."""
    settings = load_settings(home)
    configure_logging(settings)
    halt = set_halt(open_ledger(settings), reason)
    log.warning("trading is halted: %s", halt.reason)


@flow(name="prune_pages")
def prune_pages(home: str) -> State[None]:
    """Remove the pages that `[retention]` does not keep; what orders lead to stays."""
    settings, _ = _begin(home, None)
    ledger = open_ledger(settings)
    try:
        done = remove_old_pages(settings, ledger)
    finally:
        ledger.close()
    return _finished([f"{folder}: {why}" for folder, why in done.failed.items()], told=done.summary)


@flow(name="check_parity")
def check_parity(home: str, day: str | None = None) -> State[None]:
    """Hold what every bot did on a UTC day, yesterday unless said, against its backtest; day: as
    2026-01-31."""
    settings, cycle = _begin(home, None)
    chosen = parse_time(day, "day").date() if day else utc_now().date() - timedelta(days=1)
    ledger = open_ledger(settings)
    try:
        bots = bots_that_decided(ledger, chosen)
    finally:
        ledger.close()
    pages = Pages(str(settings.home), cycle)
    failures: list[str] = []
    plans = [
        partial(
            InTurn, venue, [partial(pages.check_parity, bot, venue, chosen) for bot in names],
            failures,
        )
        for venue, names in bots.items()
    ]  # fmt: skip
    dispatch(plans, Kernels(settings, len(plans)))
    return _finished(failures, told=f"{sum(map(len, bots.values()))} bots of {chosen}")


def cycle_at_work(settings: DeskSettings) -> bool:
    """Whether a cycle has work to hand out."""
    with _claimed(settings, "cycle") as lock:
        return lock is None


def _begin(home: str, cycle: str | None) -> tuple[DeskSettings, str]:
    settings, cycle = load_settings(home), cycle or new_cycle_id()
    configure_logging(settings, cycle)
    spend_as("cycle", cycle)
    return settings, cycle


def _run_reconciliation(settings: DeskSettings, cycle: str) -> State[None]:
    ledger = open_ledger(settings)
    venues = venues_in_use(settings, ledger)
    ledger.close()
    pages = Pages(str(settings.home), cycle)
    failures: list[str] = []
    plans = [
        partial(InTurn, venue, [partial(pages.reconcile, venue)], failures) for venue in venues
    ]
    dispatch(plans, Kernels(settings, len(venues)))
    return _finished(failures)


def _run_cycle(
    settings: DeskSettings, cycle: str, lock: FileLock, until: datetime | None
) -> State[None]:
    ledger = open_ledger(settings)
    bots = running_bots(settings, ledger)
    ledger.close()
    turns = load_turns(settings)
    pages = Pages(str(settings.home), cycle, until)
    works: list[VenueCycle] = []
    failures: list[str] = []

    def plan(venue: str, bots: Sequence[Bot]) -> VenueCycle | None:
        try:
            work = VenueCycle(settings, plan_venue(settings, venue, bots), pages, failures)
        except Exception as error:  # one venue's trouble is no other's
            failures.append(tell(error))
            return None
        works.append(work)
        return work

    def hand_over() -> None:
        order = {work.venue: next_turns(work.names, work.had_turn) for work in works}
        save_turns(settings, order)
        lock.release()

    plans = [partial(plan, v, in_turn(those, turns.get(v, ()))) for v, those in bots.items()]
    dispatch(plans, Kernels(settings, len(plans)), until=until, handed_out=hand_over)
    return _finished(failures, [name for work in works for name in work.left_out])


def _finished(
    failures: Sequence[str], left_out: Sequence[str] = (), told: str | None = None
) -> State[None]:
    for failure in failures:
        log.error("%s", failure)
    if failures:
        return Failed(message="; ".join(failures))
    if not left_out:
        return Completed(message=told)
    told = f"out of time; first in the next cycle: {', '.join(left_out)}"
    log.warning("%s", told)
    return Completed(message=told)


def _skipped(why: str) -> State[None]:
    log.warning("skipped: %s", why)
    return Completed(name="Skipped", message=why)


def _why_late(interval: float | None) -> str | None:
    """What to say of a run that starts when its successor is due, None for one in time."""
    planned = flow_run.get_scheduled_start_time()
    late = (utc_now() - planned).total_seconds() if planned else 0.0
    return f"{late:.0f} s late" if late > (interval or MAX_LATENESS_SECONDS) else None


def _end_of_turn(interval: float | None) -> datetime | None:
    """When this cycle hands over to the next one; None for one that was asked for by hand."""
    planned = flow_run.get_scheduled_start_time()
    if interval is None or planned is None:
        return None
    return planned + timedelta(seconds=max(0.0, interval - HAND_OVER_SECONDS))


@contextmanager
def _claimed(settings: DeskSettings, what: str, patience: float = 0.0) -> Iterator[FileLock | None]:
    """A lock that the system releases when its holder dies, unlike a concurrency slot kept in a
    database; None while another process has it."""
    lock = make_lock(settings.home / "run" / f"{what}.lock")
    if not try_lock(lock, patience):
        yield None
        return
    try:
        yield lock
    finally:
        lock.release()
