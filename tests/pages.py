"""Notebooks run from a test, over sockets that no other test's process can take from them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tradelib.kernels.client import private_sockets


def execute_page(
    page: nbformat.NotebookNode,
    *,
    kernel: str = "python3",
    timeout: float = 120,
    folder: Path | None = None,
    **launch: Any,
) -> nbformat.NotebookNode:
    """Execute a notebook in place, in `folder`. timeout: seconds per cell."""
    with tempfile.TemporaryDirectory(prefix="wk", dir="/tmp") as sockets:
        client = NotebookClient(
            page,
            timeout=timeout,
            kernel_name=kernel,
            config=private_sockets(Path(sockets)),
            resources={"metadata": {"path": folder}} if folder else {},
        )
        return client.execute(**launch)
