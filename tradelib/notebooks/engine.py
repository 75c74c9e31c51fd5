"""How papermill runs our notebooks: one time limit for the whole page, an environment of the
kernel's own, and no change of the process's working directory, since pages run side by side."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from traitlets import Unicode, default

from tradelib.kernels.client import QuickKernelManager, private_sockets
from tradelib.kernels.process import WarmProcess

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


class _Page(NotebookExecutionManager):  # type: ignore[misc]
    """A page that is written when it ends, and on its way only now and then: papermill writes it
    twice per cell, which takes as long as a cell does."""

    def save(self, **_: Any) -> None:
        since = (self.now() - self.last_save_time).total_seconds()
        if self.end_time is not None or since > _SAVE_EVERY:
            super().save()


class _PageClient(PapermillNotebookClient):  # type: ignore[misc]
    """Papermill's client that notes in the page's metadata how its kernel came to be, and prepares
    it by code that is no part of the page."""

    prepare = Unicode()

    @default("on_notebook_start")
    def _make_start(self) -> Callable[..., Awaitable[None]]:
        async def start(notebook: Any) -> None:
            warm = isinstance(self.km.provisioner.process, WarmProcess)
            notebook.metadata[PAGE_KEY]["kernel_kind"] = WARM if warm else COLD
            if self.prepare:
                asked = self.kc.execute(self.prepare, silent=True, store_history=False)
                reply = await self.async_wait_for_reply(asked)
                if reply["content"]["status"] != "ok":
                    raise RuntimeError(f"its kernel was not prepared: {reply['content']['evalue']}")

        return start


class DeskEngine(NBClientEngine):  # type: ignore[misc]
    """A papermill engine with a deadline for the notebook instead of one per cell.

    env, folder: the kernel's environment and working directory. log: file that takes what the
    kernel says outside of cells. sockets: folder for its channels. timeout: seconds for the whole
    page. record: what the page's metadata tell of its run. prepare: code that the kernel runs
    before the page.
    """

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,
        *,
        record: Mapping[str, Any],
        **options: Any,
    ) -> Any:
        nb.metadata[PAGE_KEY] = dict(record)
        page = _Page(nb, output_path=output_path, progress_bar=False, autosave_cell_every=0)
        page.notebook_start()
        try:
            cls.execute_managed_notebook(page, kernel_name, **options)
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
        log: Path,
        sockets: Path,
        timeout: float,
        prepare: str = "",
        start_timeout: int = 60,
        **_: Any,
    ) -> Any:
        deadline = monotonic() + timeout
        client = _PageClient(
            nb_man,
            config=private_sockets(sockets),
            kernel_manager_class=QuickKernelManager,
            kernel_name=kernel_name,
            startup_timeout=start_timeout,
            # nbclient takes a falsy limit for none at all, so an overdue page gets one second.
            timeout_func=lambda _cell: max(1, int(deadline - monotonic())),
            shutdown_kernel="immediate",
            prepare=prepare,
            log=_papermill_log,
        )
        with log.open("ab") as lines:
            return client.execute(env=dict(env), cwd=str(folder), stdout=lines, stderr=lines)


papermill_engines.register(ENGINE, DeskEngine)
