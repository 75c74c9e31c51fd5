"""`%%strategy my_idea`: a notebook's cell becomes a strategy of one's own, kept in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.display import display

from tradelib.notebooks.desk import tell_errors_plainly
from tradelib.strategy.own import Source, make_strategy
from tradelib.strategy.registry import require_free, save_strategy, strategy_file

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from tradelib.strategy.base import Strategy


def load_magic(shell: InteractiveShell) -> None:
    """Let a notebook know `%%strategy`; the desk's own errors become sentences."""
    tell_errors_plainly()

    def keep(line: str, cell: str) -> None:
        """Keep the cell as the strategy of the name behind `%%strategy`, and give it that name in
        the notebook."""
        source = Source(line.strip(), cell)
        require_free(source.name)
        kept = _Kept(make_strategy(source), str(strategy_file(source.name)))
        shell.user_ns[source.name] = save_strategy(source)
        display(kept)

    shell.register_magic_function(keep, "cell", "strategy")


class _Kept:
    """What a cell became, as a line."""

    def __init__(self, made: Strategy, file: str) -> None:
        params = made.params()
        told = ", ".join(f"{name}={value!r}" for name, value in dict(params).items())
        needs = f"first score after {made.warm_up(params):,} candles"
        self.lines = [
            f"{made.name}, kept in {file}",
            f"parameters: {told or 'none'}",
            f"by default: {needs}, history {made.history(params):,}",
        ]

    def __repr__(self) -> str:
        return "\n".join(self.lines)
