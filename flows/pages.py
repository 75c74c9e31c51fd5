"""A notebook as a Prefect task, with a link to its page."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.runtime import task_run
from prefect.states import State

from tradelib.clock import utc_now
from tradelib.errors import DeskError, RetryableError, RunFailed
from tradelib.logs import configure_logging
from tradelib.notebooks.cycle import Step, run_step
from tradelib.services.addresses import find_service
from tradelib.services.definitions import report_path
from tradelib.settings import load_settings
from tradelib.trading.ledger import open_ledger
from tradelib.trading.runs import Run, load_run

# By name: Prefect loads this file as a module of another one.
log = logging.getLogger("flows.pages")


def _task_name() -> str:
    return str(task_run.parameters["step"].name)


@task(name="notebook", task_run_name=_task_name)
def run_page(home: str, step: Step, cycle: str, until: datetime | None = None) -> Run:
    """Run one step's notebook and link its page in Prefect's UI. until: when its result is of no
    use any more."""
    settings = load_settings(home)
    if until is not None:
        left = max(1.0, (until - utc_now()).total_seconds())
        timeout = min(settings.notebook_timeout, left)
        settings = settings.model_copy(update={"notebook_timeout": timeout})
    configure_logging(settings, cycle)
    ledger = open_ledger(settings)
    try:
        run = run_step(settings, ledger, step, cycle)
    except RunFailed as error:
        if error.run:
            _link_page(home, load_run(ledger, error.run))
        raise
    finally:
        ledger.close()
    _link_page(home, run)
    return run


def _may_pass(_task: Any, _run: Any, state: State[Run]) -> bool:
    """Whether another try may go better; a wrong parameter stays wrong."""
    try:
        state.result()
    except Exception as error:
        return getattr(error, "retryable", isinstance(error, RetryableError))
    return False


# Reading again is safe; a notebook that sends orders is never run twice for one decision.
read_page = run_page.with_options(
    name="read notebook", retries=2, retry_delay_seconds=1, retry_condition_fn=_may_pass
)


def _link_page(home: str, run: Run) -> None:
    """A link to the executed page. Its token stays out: the browser that opened the desk's
    links is let in, and Prefect's database holds no secret."""
    settings = load_settings(home)
    try:
        voila = find_service(settings, "voila").url
    except DeskError:
        return  # the page is in reports/ all the same
    if not run.page:
        return
    create_link_artifact(
        link=f"{voila}{report_path(settings, settings.reports / (run.page or ''))}",
        link_text=run.id,
        key=re.sub(r"[^a-z0-9-]+", "-", f"{run.notebook}-{run.bot or run.venue}".lower()),
        description=f"{run.notebook} of {run.bot or run.venue}: {run.outcome}",
    )
