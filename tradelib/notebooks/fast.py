"""The fast path: a bot's pages acted in this process, and written afterwards.

A kernel that waits still needs a tenth of a second for a page. Where that is too slow, the verbs of
the live pages are called here, in the same order and with the same records: a run for the signal, a
run for the execution, each with its inputs and what was computed. The page is the notebook opened
again for that run, which computes all of it anew from what was recorded.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from tradelib.errors import DeskError
from tradelib.notebooks.cycle import EXECUTE, SIGNALS, Step, execute_step, signal_step
from tradelib.notebooks.desk import Desk, Recordable
from tradelib.notebooks.results import without_infinities
from tradelib.notebooks.runner import execute_page, make_page_path, new_run, plain_environment
from tradelib.scrubber import desk_scrubber
from tradelib.settings import LIVE_KERNEL, NOTEBOOKS, DeskSettings
from tradelib.trading.bots import Bot
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

    def act(step: Step, verb: Callable[[Desk], Recordable]) -> Run:
        return _act(settings, ledger, step, verb, trade_at, cycle)

    signal = act(signal_step(bot, as_of), lambda desk: desk.generate_signal(bot.name, str(as_of)))
    yield signal
    step = execute_step(bot, signal)
    if step is not None:
        decision = step.parameters["decision"]
        yield act(step, lambda desk: desk.execute_order(bot.name, decision))


def _act(
    settings: DeskSettings,
    ledger: Ledger,
    step: Step,
    verb: Callable[[Desk], Recordable],
    trade_at: Callable[[str], Venue],
    cycle: str | None,
) -> Run:
    path, token = NOTEBOOKS / f"{step.notebook}.ipynb", secrets.token_urlsafe(32)
    run = new_run(
        path, step.notebook, step.parameters, token, step.bot, step.venue, cycle, step.as_of,
        LIVE_KERNEL,
    )  # fmt: skip
    start_run(ledger, run)
    desk = Desk(settings, ledger, run, live=True, trade_at=trade_at)
    try:
        with spending_as(step.notebook.removeprefix("live/"), run.id, step.bot):
            result: dict[str, Any] = without_infinities(verb(desk).to_json())
    except BaseException as error:
        told = desk_scrubber(settings).scrub(f"{type(error).__name__}: {error}")
        finish_run(ledger, run.id, Outcome.FAILED, reason=told, kernel_kind=IN_PROCESS)
        raise
    finish_run(
        ledger,
        run.id,
        Outcome.SUCCEEDED,
        kernel_kind=IN_PROCESS,
        candles=[read.to_json() for read in desk.reads],
        result=result,
    )
    return load_run(ledger, run.id)


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
