"""How papermill runs our notebooks: one time limit for the whole page, an environment of the
kernel's own, and no change of the process's working directory, since pages run side by side."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

ENGINE = "notedesk"
_log = logging.getLogger("papermill")


class DeskEngine(NBClientEngine):  # type: ignore[misc]
    """A papermill engine with a deadline for the notebook instead of one per cell."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        env: Mapping[str, str],
        folder: Path,
        timeout: float,
        start_timeout: int = 60,
        **_: Any,
    ) -> Any:
        deadline = monotonic() + timeout
        client = PapermillNotebookClient(
            nb_man,
            kernel_name=kernel_name,
            startup_timeout=start_timeout,
            # nbclient takes a falsy limit for none at all, so an overdue page gets one second.
            timeout_func=lambda _cell: max(1, int(deadline - monotonic())),
            shutdown_kernel="immediate",
            log=_log,
        )
        return client.execute(env=dict(env), cwd=str(folder))


papermill_engines.register(ENGINE, DeskEngine)
