"""How papermill runs our notebooks: limits for the whole page, an environment of the kernel's own,
nothing secret in what is kept, and no change of the process's working directory, since pages run
side by side."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from jupyter_core.utils import run_sync
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.iorw import write_ipynb
from traitlets import default

from tradelib.kernels.client import QuickKernelManager, private_sockets
from tradelib.kernels.process import WarmProcess
from tradelib.notebooks.family import ADOPT
from tradelib.notebooks.keeper import Keeper, Limits, Ties
from tradelib.notebooks.scrubbing import scrub_page
from tradelib.scrubber import Scrubber

if TYPE_CHECKING:
    from tradelib.notebooks.preheat import KernelPool

ENGINE = "notedesk"
# Where a page's metadata tell how it was run.
PAGE_KEY = "notedesk"
WARM, COLD = "warm", "cold"
# Whatever it has to say comes back as an exception too.
_papermill_log = logging.getLogger("papermill")
_papermill_log.addHandler(logging.NullHandler())
_papermill_log.propagate = False

# Seconds of a page's work that a killed process may leave unwritten.
_SAVE_EVERY = 2.0
# Characters kept of the beginning and of the end of what was printed, when it was too much.
_KEPT = 50_000


class PageStopped(Exception):
    """A page did not come to its end; its text says why."""


class _Page(NotebookExecutionManager):  # type: ignore[misc]
    """A page that is written when it ends, and on its way only now and then: papermill writes it
    twice per cell, which takes as long as a cell does.

    It is written without secrets, whatever cell or output they stand in. cut: whether it ended
    before its end, so that papermill does not write it.
    """

    cut = False

    def __init__(self, notebook: Any, output_path: str | None, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        super().__init__(
            notebook, output_path=output_path, progress_bar=False, autosave_cell_every=0
        )

    def save(self, **_: Any) -> None:
        since = (self.now() - self.last_save_time).total_seconds()
        if self.end_time is None and since <= _SAVE_EVERY:
            return
        clean = scrub_page(_with_whole_streams(self.nb), self._scrubber)
        if self.end_time is not None:
            self.nb = clean  # what papermill writes; while cells run, they stay as they are
        if self.output_path and (self.cut or self.end_time is None):
            write_ipynb(clean, self.output_path)
        self.last_save_time = self.now()


def _with_whole_streams(notebook: Any) -> Any:
    """The page with what was printed in a row as one text, which may hold a secret that no part of
    it does."""
    cells = [
        NotebookNode({**cell, "outputs": _join_streams(cell.outputs)})
        if cell.get("outputs")
        else cell
        for cell in notebook.cells
    ]
    return NotebookNode({**notebook, "cells": cells})


def _join_streams(outputs: list[Any]) -> list[Any]:
    joined = []
    for _, group in groupby(outputs, key=lambda o: o.get("name", id(o))):
        first, *more = group
        if more and first.output_type == "stream":
            text = "".join("".join(one.text) for one in (first, *more))
            joined.append(NotebookNode({**first, "text": text}))
        else:
            joined += [first, *more]
    return joined


def _shorten(notebook: Any) -> None:
    """Leave out the middle of what was printed, where it is long."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = "".join(output.get("text", ""))
            left_out = len(text) - 2 * _KEPT
            if left_out > 0:
                output["text"] = (
                    f"{text[:_KEPT]}\n[… {left_out:,} characters left out …]\n{text[-_KEPT:]}"
                )


class _PageClient(PapermillNotebookClient):  # type: ignore[misc]
    """Papermill's client of a kernel that a keeper keeps; it notes in the page's metadata how the
    kernel came to be. prepare: code that the kernel runs before the page. answered: whether the
    kernel has."""

    def __init__(self, page: _Page, keeper: Keeper, prepare: str, **options: Any) -> None:
        super().__init__(page, **options)
        self.keeper = keeper
        self.prepare = prepare
        self.answered = False
        self._is_full = False

    async def async_start_new_kernel(self, **launch: Any) -> None:
        await super().async_start_new_kernel(**launch)
        self.keeper.take(self.km.provisioner.process)

    start_new_kernel = run_sync(async_start_new_kernel)

    def use(self, manager: QuickKernelManager) -> None:
        """Let the page run in the kernel of that manager, which is its own from now on."""
        self.km = manager
        self.keeper.take(manager.provisioner.process)

    @default("on_notebook_start")
    def _make_start(self) -> Callable[..., Awaitable[None]]:
        async def start(notebook: Any) -> None:
            self.answered = True
            warm = isinstance(self.km.provisioner.process, WarmProcess)
            notebook.metadata[PAGE_KEY]["kernel_kind"] = WARM if warm else COLD
            if ADOPT and not warm:
                self.kc.execute(ADOPT, silent=True)
            if self.prepare:
                asked = self.kc.execute(self.prepare, silent=True, store_history=False)
                reply = await self.async_wait_for_reply(asked)
                if reply["content"]["status"] != "ok":
                    raise RuntimeError(f"its kernel was not prepared: {reply['content']['evalue']}")

        return start

    def process_message(self, message: Any, cell: Any, cell_index: int) -> Any:
        if not self.keeper.count(_size(message)):
            if self._is_full or message["msg_type"] != "stream":
                return None  # the kernel has been ended, and this was on its way
            self._is_full = True
            message["content"]["text"] = message["content"]["text"][: 2 * _KEPT]
        return super().process_message(message, cell, cell_index)

    def keep_so_far(self) -> None:
        """Make the page what it is worth after an end that was not its own."""
        self.set_widgets_metadata()
        if self.keeper.is_full:
            self.nb_man.nb = _with_whole_streams(self.nb)
            _shorten(self.nb_man.nb)

    def end_kernel(self) -> None:
        """End a kernel that nbclient left, as where it could not be prepared."""
        if self.km is not None and self.km.has_kernel:
            self._cleanup_kernel()

    async def _async_cleanup_kernel(self) -> None:
        self.keeper.note_members()
        await super()._async_cleanup_kernel()

    _cleanup_kernel = run_sync(_async_cleanup_kernel)


def _size(message: Any) -> int:
    """Characters that a message adds to a page, or nearly."""
    content = message["content"]
    text = content.get("text")
    if text is None:
        text = json.dumps(content.get("data", ""), default=str)
    text += "".join(content.get("traceback", ())) + content.get("evalue", "")
    return len(text) + sum(len(one) for one in message.get("buffers") or ())


class DeskEngine(NBClientEngine):  # type: ignore[misc]
    """A papermill engine with limits for the whole page instead of a deadline per cell.

    env, folder: the kernel's environment and working directory. limits: what the page may take.
    log: file that takes what the kernel and its children say outside of cells. scrubber: knows the
    secrets that must not be written. sockets: folder for its channels. record: what the page's
    metadata tell of its run. prepare: code that the kernel runs before the page. pool: what may
    have a kernel for it that has been started already.

    Raises PageStopped when the kernel did not live to the page's end; whatever the end, no process
    that the page started is left.
    """

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,
        *,
        record: Mapping[str, Any],
        scrubber: Scrubber,
        **options: Any,
    ) -> Any:
        nb.metadata[PAGE_KEY] = dict(record)
        page = _Page(nb, output_path, scrubber)
        page.notebook_start()
        try:
            cls.execute_managed_notebook(page, kernel_name, scrubber=scrubber, **options)
        except BaseException:
            page.cut = True
            raise
        finally:
            page.notebook_complete()
        return page.nb

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        env: Mapping[str, str],
        folder: Path,
        limits: Limits,
        log: Path,
        scrubber: Scrubber,
        sockets: Path,
        prepare: str = "",
        pool: KernelPool | None = None,
        start_timeout: int = 60,
        **_: Any,
    ) -> None:
        deadline = monotonic() + limits.seconds
        preheated = pool.take(kernel_name, env) if pool else None
        for may_try_again in (True, False):
            ties = preheated.ties if preheated else Ties.make()
            with Keeper(limits, log, scrubber, deadline, ties) as keeper:
                client = _PageClient(
                    nb_man,
                    keeper,
                    f"{preheated.tell_run(env)}\n{prepare}" if preheated else prepare,
                    config=private_sockets(sockets),
                    kernel_manager_class=QuickKernelManager,
                    kernel_name=kernel_name,
                    startup_timeout=start_timeout,
                    # The keeper ends a kernel that takes too long; this is how often it is noticed.
                    shell_timeout_interval=1,
                    shutdown_kernel="immediate",
                    log=_papermill_log,
                )
                if preheated:
                    client.use(preheated.manager)
                if _run(client, ties.launch(folder, env), may_try_again):
                    return
            preheated = None


def _run(client: _PageClient, launch: Mapping[str, Any], may_try_again: bool) -> bool:
    """Execute a page. False when its kernel died before it answered, so that nothing has happened
    yet, and may be tried again."""
    keeper, well = client.keeper, False
    try:
        client.execute(**launch)
        well = True
    except Exception as error:
        if not client.answered and keeper.reason is None and may_try_again:
            return False
        client.keep_so_far()
        told = _explain(error, client)
        if told is None:
            raise
        raise PageStopped(told) from error
    finally:
        client.end_kernel()
        keeper.end_members(thoroughly=not well)
    return True


def _explain(error: Exception, client: _PageClient) -> str | None:
    """Why the page has ended, in words; None for what explains itself."""
    if client.keeper.reason is not None or isinstance(error, DeadKernelError):
        return client.keeper.epitaph
    if isinstance(error, CellTimeoutError):
        return "what it printed did not arrive"
    return None if client.answered else f"its kernel did not start: {error}"


papermill_engines.register(ENGINE, DeskEngine)
