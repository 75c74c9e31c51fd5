"""run_notebook: one notebook, executed once, with a record of what, when, on which code and how
it ended."""

from __future__ import annotations

import contextvars
import hashlib
import json
import os
import platform
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import papermill
from jupyter_core.utils import ensure_event_loop
from papermill.exceptions import PapermillExecutionError

from tradelib.clock import utc_now
from tradelib.errors import (
    InvalidInput,
    NoQuote,
    RateLimited,
    RunFailed,
    StorageFailed,
    VenueUnavailable,
)
from tradelib.kernels.specs import find_kernel
from tradelib.logs import CYCLE_ENV
from tradelib.notebooks.desk import RUN_ENV, TOKEN_ENV
from tradelib.notebooks.engine import ENGINE, PAGE_KEY, PageStopped
from tradelib.notebooks.keeper import Limits
from tradelib.notebooks.parameters import check_parameters
from tradelib.notebooks.provenance import CodeVersion, code_version, notebook_hash
from tradelib.notebooks.results import CANDLES_MIME, RESULT_MIME
from tradelib.scrubber import Scrubber, desk_scrubber, is_secret_name
from tradelib.settings import LIVE_KERNEL, NOTEBOOKS, PROJECT, DeskSettings
from tradelib.trading.ledger import Ledger
from tradelib.trading.runs import Outcome, Run, finish_run, hash_token, load_run, start_run

if TYPE_CHECKING:
    from tradelib.notebooks.preheat import KernelPool

# What a page may die of that another try may not meet; the first is how the death of a kernel that
# kept within its limits is told.
_PASSING = (
    "its kernel ",
    *(error.__name__ for error in (VenueUnavailable, NoQuote, RateLimited)),
)
_LONGEST_REASON = 2_000


def run_notebook(
    settings: DeskSettings,
    ledger: Ledger,
    notebook: str,
    parameters: Mapping[str, Any],
    *,
    bot: str | None = None,
    venue: str | None = None,
    cycle: str | None = None,
    as_of: datetime | None = None,
    kernel: str = LIVE_KERNEL,
    pool: KernelPool | None = None,
) -> Run:
    """Execute `notebooks/<notebook>.ipynb` and return its finished record.

    The record is in the ledger before the kernel starts, so that a killed run is seen as such.
    kernel: a kernelspec's name; the one that the notebook itself names is for those who open it.
    pool: kernels that may have been started for it. The executed page is kept under
    `reports/<date>/<run>/`, as far as it got.

    Raises InvalidInput for parameters that are unknown, ill-typed or hold a secret (nothing is
    started) and RunFailed when a cell failed, a limit was exceeded, the kernel died or no result
    was recorded.
    """
    path = NOTEBOOKS / f"{notebook}.ipynb"
    check_parameters(path, {"run": "", **parameters})
    token = secrets.token_urlsafe(32)
    scrubber = desk_scrubber(settings, {token: "the token of this run"})
    _refuse_secrets(scrubber, notebook, parameters)
    kernel = find_kernel(kernel)
    run = new_run(
        path, notebook, parameters, token, bot, venue, cycle, as_of, kernel, code_version()
    )  # fmt: skip
    page = make_page_path(settings, run)
    start_run(ledger, run)
    try:
        environment = kernel_environment(settings) | _own_environment(run, token)
        done = execute_page(settings, path, page, run, environment, scrubber, pool=pool)
    except BaseException:
        finish_run(ledger, run.id, Outcome.FAILED, reason="interrupted")
        raise
    finish_run(
        ledger,
        run.id,
        Outcome.FAILED if done.reason else Outcome.SUCCEEDED,
        reason=done.reason,
        page=str(page.relative_to(settings.reports)) if page.exists() else None,
        kernel_kind=done.kernel_kind,
        timings=done.timings,
        candles=done.candles,
        result=done.result,
    )
    if done.reason:
        raise RunFailed(
            f"Notebook {notebook} failed: {done.reason}; its page is {page}.",
            run=run.id,
            retryable=any(name in done.reason for name in _PASSING),
        )
    return load_run(ledger, run.id)


def _refuse_secrets(scrubber: Scrubber, notebook: str, parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        if found := scrubber.find(value):
            raise InvalidInput(
                f"Parameter {name!r} of notebook {notebook} holds {found}; parameters are kept for "
                "all to read, so let the notebook take it from the environment or from a file."
            )


@dataclass(frozen=True)
class Executed:
    """What became of a page: why it failed or None, and what its outputs and metadata tell."""

    reason: str | None
    result: dict[str, Any] | None = None
    candles: list[dict[str, Any]] | None = None
    timings: dict[str, Any] | None = None
    kernel_kind: str | None = None


def new_run(
    path: Path,
    notebook: str,
    parameters: Mapping[str, Any],
    token: str,
    bot: str | None,
    venue: str | None,
    cycle: str | None,
    as_of: datetime | None,
    kernel: str,
    version: CodeVersion,
) -> Run:
    """The record of a run that starts now, not in the ledger yet. version: of the code it runs."""
    now = utc_now()
    unique = hashlib.sha256(token.encode()).hexdigest()[:6]
    name = "-".join(part for part in (path.stem, bot or venue) if part)
    return Run(
        id=f"{now:%Y%m%dT%H%M%S}-{name}"[:57] + f"-{unique}",
        cycle=cycle,
        notebook=notebook,
        notebook_hash=notebook_hash(path),
        bot=bot,
        venue=venue,
        parameters=dict(parameters),
        as_of=as_of,
        git_commit=version.git_commit,
        git_clean=version.git_clean,
        lock_hash=version.lock_hash,
        host=socket.gethostname(),
        kernel=kernel,
        python=platform.python_version(),
        seed=_derive_seed(notebook, parameters),
        token_hash=hash_token(token),
        started_at=now,
    )


def _derive_seed(notebook: str, parameters: Mapping[str, Any]) -> int:
    """32 bits that another try of the same work starts from too."""
    told = json.dumps([notebook, parameters], sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:4])


def make_page_path(settings: DeskSettings, run: Run) -> Path:
    """Where the run's page is kept, its folder made."""
    settings.logs.mkdir(parents=True, exist_ok=True)
    folder = settings.reports / f"{run.started_at:%Y-%m-%d}" / run.id
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(
            f"The reports folder {folder} cannot be written ({error.strerror}); "
            "make room or choose another home with --home."
        ) from error
    return folder / f"{Path(run.notebook).name}.ipynb"


def execute_page(
    settings: DeskSettings,
    path: Path,
    page: Path,
    run: Run,
    environment: Mapping[str, str],
    scrubber: Scrubber,
    *,
    kernel: str | None = None,
    prepare: str = "",
    pool: KernelPool | None = None,
) -> Executed:
    """Execute the notebook at `path` as that run, keep it as `page`, and tell how it went.

    environment: the kernel's, whole. scrubber: knows what must not be kept. kernel: a kernelspec's
    name; None: the run's. prepare: code that the kernel runs before the page. pool: kernels that
    may have been started for it.
    """
    reason = None
    try:
        _in_own_event_loop(
            papermill.execute_notebook,
            path,
            page,
            {**run.parameters, "run": run.id},
            engine_name=ENGINE,
            kernel_name=kernel or run.kernel,
            progress_bar=False,
            autosave_cell_every=0,
            env=environment,
            prepare=prepare,
            pool=pool,
            folder=PROJECT,
            record=run.provenance,
            limits=_limits(settings),
            log=settings.logs / "kernels.log",
            scrubber=scrubber,
            sockets=settings.kernel_sockets,
        )
    except PapermillExecutionError as error:
        reason = f"cell {error.exec_count}: {error.ename}: {error.evalue}"
    except PageStopped as stop:
        reason = str(stop)
    except OSError as error:
        reason = f"its page cannot be written ({error.strerror})"
    except Exception as error:  # whatever it was, the run has ended and its record must say so
        reason = f"{type(error).__name__}: {error}"
    reason = reason and _short(scrubber.scrub(reason))
    if not page.exists():
        return Executed(reason or "it left no page")
    executed = nbformat.read(page, as_version=4)
    result, candles = _recorded(executed)
    if reason is None and result is None:
        reason = "it recorded no result"
    kind = executed.metadata.get(PAGE_KEY, {}).get("kernel_kind")
    return Executed(reason, result, candles, _timings(executed), kind)


def _short(reason: str) -> str:
    """A reason of a length that people read, without what no database keeps."""
    told = reason.replace("\x00", "�")
    return told if len(told) <= _LONGEST_REASON else f"{told[:_LONGEST_REASON]} …"


def _limits(settings: DeskSettings) -> Limits:
    return Limits(
        settings.notebook_timeout, settings.notebook_memory_mb, settings.notebook_output_mb
    )


def _in_own_event_loop(call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Call with an event loop of its own. Jupyter keeps one in the context, and threads that
    started with copies of one context would run the same loop at once."""

    def run() -> None:
        loop = ensure_event_loop()
        try:
            call(*arguments, **named)
        finally:
            loop.close()

    contextvars.Context().run(run)


def kernel_environment(settings: DeskSettings) -> dict[str, str]:
    """The environment of a kernel that may act, but for its run: no secret but the venues' own."""
    prefixes = tuple(
        venue.keys.removeprefix("env:")
        for venue in settings.venues.values()
        if venue.keys and venue.keys.startswith("env:")
    )
    keys = {n: v for n, v in os.environ.items() if prefixes and n.startswith(prefixes)}
    return plain_environment(settings) | keys


def _own_environment(run: Run, token: str) -> dict[str, str]:
    return {RUN_ENV: run.id, TOKEN_ENV: token} | ({CYCLE_ENV: run.cycle} if run.cycle else {})


def plain_environment(settings: DeskSettings) -> dict[str, str]:
    """This process's environment for a kernel of that home, without anything secret."""
    kept = {name: value for name, value in os.environ.items() if not is_secret_name(name)}
    return kept | {"DESK_HOME": str(settings.home)}


def _recorded(executed: Any) -> tuple[dict[str, Any] | None, list[dict[str, Any]] | None]:
    """The result that the page recorded last, and the candles it read for it."""
    result, candles = None, None
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            result, candles = data.get(RESULT_MIME, result), data.get(CANDLES_MIME, candles)
    return result, candles


def _timings(executed: Any) -> dict[str, Any]:
    """Seconds that each code cell took, by its place on the page."""
    return {
        str(place): round(cell.metadata.get("papermill", {}).get("duration") or 0.0, 4)
        for place, cell in enumerate(executed.cells)
        if cell.cell_type == "code"
    }
