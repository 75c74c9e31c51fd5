"""The fast path: a bot's pages acted in this process, and written afterwards.

A kernel that waits still needs a tenth of a second for a page. Where that is too slow, what the
verbs of the live pages do is done here, in the same order and with the same records: a run for the
signal, a run for the execution, each with its inputs and what was computed. The page is the
notebook opened again for that run, which computes all of it anew from what was recorded.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from datetime import datetime

from tradelib.errors import DeskError
from tradelib.notebooks.cycle import EXECUTE, SIGNALS, Step, execute_step, signal_step
from tradelib.notebooks.desk import Desk, Recordable
from tradelib.notebooks.provenance import imported_version
from tradelib.notebooks.results import without_infinities
from tradelib.notebooks.runner import execute_page, make_page_path, new_run, plain_environment
from tradelib.scrubber import desk_scrubber
from tradelib.settings import LIVE_KERNEL, NOTEBOOKS, DeskSettings
from tradelib.trading.bots import Bot
from tradelib.trading.leases import bot_lease, claim_lease
from tradelib.trading.ledger import READ_ONLY_ENV, Ledger
from tradelib.trading.runs import Outcome, Run, attach_page, finish_run, load_run, start_run
from tradelib.traffic import spending_as
from tradelib.venue import Venue

log = logging.getLogger(__name__)

IN_PROCESS = "process"
"""The kind of kernel that such a run had: none."""


def trade_at_once(
    settings: DeskSettings,
    ledger: Ledger,
    bot: Bot,
    as_of: datetime,
    trade_at: Callable[[str], Venue],
    cycle: str | None = None,
) -> Iterator[Run]:
    """Let a bot decide on its candles closed at `as_of` and carry that out, run by run as they
    are asked for; those that came to their end.

    trade_at: gives a venue's client that may trade. Raises what deciding and executing raise,
    once the run that failed says so.
    """
    signal_run = _new_run(signal_step(bot, as_of), cycle)
    desk = Desk(settings, ledger, signal_run, live=True, trade_at=trade_at)
    try:
        signal = desk.score(bot, as_of)
        # Together: a run that is not in the ledger has done nothing yet, and each commit waits for
        # the disk.
        with ledger.write() as books:
            start_run(ledger, signal_run)
            signal = signal.record(ledger)
            signal_run = _succeed(ledger, signal_run, signal, desk)
            step = execute_step(bot, signal_run)
            if step is not None:
                execution = _new_run(step, cycle)
                start_run(ledger, execution)
                held = claim_lease(books, bot_lease(bot.name), execution.id)
    except BaseException as error:
        with ledger.write():
            start_run(ledger, signal_run)
            _fail(settings, ledger, signal_run, error)
        raise
    if step is None:
        yield signal_run
        return
    desk = Desk(settings, ledger, execution, live=True, trade_at=trade_at)
    try:
        yield signal_run
        with spending_as(EXECUTE.removeprefix("live/"), execution.id, bot.name):
            done = desk.carry_out(bot, signal.decision, held)
        execution = _succeed(ledger, execution, done, desk)
    except BaseException as error:
        _fail(settings, ledger, execution, error)
        raise
    yield execution


def _new_run(step: Step, cycle: str | None) -> Run:
    path, token = NOTEBOOKS / f"{step.notebook}.ipynb", secrets.token_urlsafe(32)
    return new_run(
        path, step.notebook, step.parameters, token, step.bot, step.venue, cycle, step.as_of,
        LIVE_KERNEL, imported_version(),
    )  # fmt: skip


def _succeed(ledger: Ledger, run: Run, done: Recordable, desk: Desk) -> Run:
    finish_run(
        ledger,
        run.id,
        Outcome.SUCCEEDED,
        kernel_kind=IN_PROCESS,
        candles=[read.to_json() for read in desk.reads],
        result=without_infinities(done.to_json()),
    )
    return load_run(ledger, run.id)


def _fail(settings: DeskSettings, ledger: Ledger, run: Run, error: BaseException) -> None:
    told = desk_scrubber(settings).scrub(f"{type(error).__name__}: {error}")
    finish_run(ledger, run.id, Outcome.FAILED, reason=told, kernel_kind=IN_PROCESS)


def write_page(settings: DeskSettings, ledger: Ledger, run: Run) -> None:
    """Make the page of a run that acted in a process: its notebook, opened for that run."""
    if run.notebook not in (SIGNALS, EXECUTE):
        raise DeskError(f"Run {run.id} of {run.notebook} did not act in a process.")
    page = make_page_path(settings, run)
    environment = plain_environment(settings) | {READ_ONLY_ENV: "1"}
    done = execute_page(
        settings, NOTEBOOKS / f"{run.notebook}.ipynb", page, run, environment,
        desk_scrubber(settings),
    )  # fmt: skip
    if done.reason:
        log.warning("the page of run %s failed afterwards: %s", run.id, done.reason)
    if page.exists():
        attach_page(ledger, run.id, str(page.relative_to(settings.reports)), done.timings)
