"""Kernels that are started before their page is known, as Voilà preheats them: the start of two
kernels was a quarter of the time from a candle to its order.

A preheated kernel is one page's, as any other: it has run nothing, and it is used only where one
that started now would be no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

from tradelib.kernels.client import QuickKernelManager, private_sockets
from tradelib.kernels.files import Files, settings_files
from tradelib.kernels.process import WarmProcess
from tradelib.kernels.servers import NoWarmKernel, is_current, warm_up
from tradelib.kernels.specs import find_kernel, load_identity
from tradelib.logs import CYCLE_ENV
from tradelib.notebooks.desk import RUN_ENV, TOKEN_ENV
from tradelib.notebooks.keeper import Ties
from tradelib.notebooks.runner import kernel_environment
from tradelib.settings import LIVE_KERNEL, PROJECT, DeskSettings

log = logging.getLogger(__name__)

# Seconds that a kernel may take to answer.
_PATIENCE = 60.0
# What a page's environment has of its run, and a kernel is told last.
_OF_A_RUN = (RUN_ENV, TOKEN_ENV, CYCLE_ENV)


@dataclass(frozen=True)
class PreheatedKernel:
    """A kernel that waits for its page. kernel: its kernelspec's name; environment: what it was
    started in, but for its mark; configured: the files that it was configured by."""

    kernel: str
    environment: dict[str, str]
    configured: Files
    manager: QuickKernelManager
    ties: Ties

    @property
    def process(self) -> WarmProcess:
        return self.manager.provisioner.process

    def fits(self, kernel: str, environment: Mapping[str, str]) -> bool:
        """Whether one of that name that started now, in that environment, would be no other but
        for its run."""
        try:
            return (
                (self.kernel, self.environment) == (kernel, _without_run(environment))
                and self.configured == settings_files()
                and is_current(load_identity(kernel, environment), self.process)
            )
        except NoWarmKernel:
            return False

    def tell_run(self, environment: Mapping[str, str]) -> str:
        """Code that gives it what the environment has of the run."""
        own = {name: environment[name] for name in _OF_A_RUN if name in environment}
        return f"__import__('os').environ.update({own!r})"

    def discard(self) -> None:
        asyncio.run(self.manager.shutdown_kernel(now=True))
        self.ties.close()


class KernelPool:
    """Preheated kernels of a desk, started and ended in a thread of its own. kernel: their
    kernelspec's name."""

    def __init__(self, settings: DeskSettings, kernel: str = LIVE_KERNEL) -> None:
        self._settings, self._kernel = settings, kernel
        self._starter = ThreadPoolExecutor(1, "preheat")
        self._lock = Lock()
        self._waiting: list[PreheatedKernel] = []
        self._is_closed = False

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def take(self, kernel: str, environment: Mapping[str, str]) -> PreheatedKernel | None:
        """The one that has waited longest and still is what it should be, now the caller's; None
        where there is none."""
        while True:
            with self._lock:
                if not self._waiting:
                    return None
                oldest = self._waiting.pop(0)
            if oldest.fits(kernel, environment):
                return oldest
            oldest.discard()

    def fill(self, size: int) -> None:
        """See to it that so many wait, soon; nothing is waited for."""
        with self._lock:
            if not self._is_closed and self.count < size:
                self._starter.submit(self._fill, size)

    def close(self) -> None:
        """End those that wait, and one that is being started as soon as it is."""
        with self._lock:
            self._is_closed = True
            left, self._waiting = self._waiting, []
            self._starter.shutdown(wait=False)
        for one in left:
            one.discard()

    def _fill(self, size: int) -> None:
        try:
            while self.count < size and not self._is_closed:
                started = _preheat(self._settings, find_kernel(self._kernel))
                if started is None or not self._keep(started):
                    return
        except Exception:  # pages start kernels of their own, and tell what is wrong
            log.exception("kernels are not preheated")

    def _keep(self, started: PreheatedKernel) -> bool:
        with self._lock:
            if not self._is_closed:
                self._waiting.append(started)
                return True
        started.discard()
        return False


def _preheat(settings: DeskSettings, kernel: str) -> PreheatedKernel | None:
    """A started kernel; None where it cannot be a warm one: pages say so."""
    environment, configured = kernel_environment(settings), settings_files()
    try:
        warm_up(load_identity(kernel, environment))
    except NoWarmKernel:
        return None
    sockets = private_sockets(settings.kernel_sockets)
    manager = QuickKernelManager(kernel_name=kernel, config=sockets)
    started = PreheatedKernel(kernel, environment, configured, manager, Ties.make())
    try:
        asyncio.run(_start(started))
    except BaseException:
        started.discard()
        raise
    if isinstance(started.process, WarmProcess):
        return started
    started.discard()
    return None


async def _start(kernel: PreheatedKernel) -> None:
    """Start it, and come back when it answers."""
    await kernel.manager.start_kernel(**kernel.ties.launch(PROJECT, kernel.environment))
    client = kernel.manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(_PATIENCE)
    finally:
        client.stop_channels()


def _without_run(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: told for name, told in environment.items() if name not in _OF_A_RUN}
