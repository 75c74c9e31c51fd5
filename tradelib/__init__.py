"""The library behind Notedesk's notebooks: venues, candles, strategies, orders and pages.

Rooms, each importing only from those before it (and from errors, clock, settings, logs):
services, venue, candles, paper, strategy, research, trading, kernels, notebooks, views, cli.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """What `%load_ext tradelib` does in a notebook: the cell magic `%%strategy`."""
    from tradelib.notebooks.magic import load_magic

    load_magic(shell)
