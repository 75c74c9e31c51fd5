"""A desk to look at: one that really traded, and the real Voilà."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.desks import PaperDesk, paper_desk
from tests.replays import entry_file
from tradelib.services.addresses import Running
from tradelib.services.definitions import voila
from tradelib.services.service import Service
from tradelib.services.supervisor import Supervisor

# After which an unattended page's kernel ends here; the desk itself waits for minutes.
IDLE_SECONDS = 20


@dataclass(frozen=True)
class LookedAtDesk:
    """A desk whose market stands still between cycles, and the server of its pages."""

    trading: PaperDesk
    voila: Running

    def run_cycle(self) -> None:
        """Step the market by one candle, then trade."""
        self.trading.step()
        self.trading.run_cycle()

    def let_time_pass(self, candles: int = 40) -> None:
        """Candles that nobody decides on, each reconciled, so that the equity has a curve."""
        for _ in range(candles):
            self.trading.step()
            self.trading.reconcile()


@contextmanager
def open_looked_at_desk(home: Path) -> Iterator[LookedAtDesk]:
    """A desk whose bot bought in the second of three cycles, a while before the third."""
    with paper_desk(home, files=[entry_file(home)]) as trading:
        trading.reconcile()
        trading.run_cycle()
        with Supervisor(trading.settings, [_impatient(voila(trading.settings))]) as services:
            desk = LookedAtDesk(trading, services.running["voila"])
            desk.run_cycle()
            desk.let_time_pass()
            desk.run_cycle()
            yield desk


def _impatient(server: Service) -> Service:
    """Voilà that ends the kernels of vanished browsers after seconds instead of minutes."""
    times = (
        f"--MappingKernelManager.cull_idle_timeout={IDLE_SECONDS}",
        "--MappingKernelManager.cull_interval=5",
    )
    kept = [word for word in server.command if "cull" not in word]
    return replace(server, command=(*kept, *times))
