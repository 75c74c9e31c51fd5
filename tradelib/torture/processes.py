"""Processes: each act is done by a fork of the worker, which waits for it to end or stop itself.

A fork has everything imported and begins at once. One whose act came to its end does the next,
as a warm kernel would; one that was killed is gone, and one that sleeps is left asleep.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tradelib.errors import DeskError
from tradelib.torture.points import Aim, Points

# Real seconds after which an act that neither ends nor stops is a fault of the desk.
PATIENCE = 60
_LINE = 3
_LONGEST = 1 << 20
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Ended:
    """What became of an act.

    how: 'done', 'refused' (a DeskError), 'crashed' (anything else), 'killed' or 'hung'. text: the
    act's own words or the error's. place: the point at which it signalled itself, if it did.
    """

    how: str
    text: str = ""
    error: str = ""
    place: str = ""


@dataclass(eq=False)
class Process:
    """One fork. line: on which it hears of its next act and says what became of it. place: the
    point at which it last signalled itself. ended: its present act, once that is over."""

    pid: int
    line: socket.socket
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    is_stopped: bool = False
    place: str = ""
    ended: Ended | None = None

    @property
    def is_running(self) -> bool:
        return self.ended is None and not self.is_stopped


class Processes:
    """The forks of one worker; its loop serves the exchange while it waits for them.

    perform: does an act, in the fork. points: counted there.
    """

    def __init__(self, points: Points, perform: Callable[[Any], str]) -> None:
        self._points, self._perform = points, perform
        self._alive: list[Process] = []
        self._idle: list[Process] = []

    def __enter__(self) -> Processes:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._look)
        gc.collect()
        gc.freeze()  # so that forks do not touch, and so copy, what they never change
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        gc.unfreeze()

    def begin(self, act: Any, aim: Aim | None) -> Process:
        """Let a process do an act. aim: where it is to signal itself."""
        process = self._idle.pop() if self._idle else self._fork()
        process.ended, process.place = None, ""
        process.line.send(pickle.dumps((act, aim)))
        return process

    async def settle(self, process: Process) -> None:
        """Wait until a process's act is over or it has stopped itself."""
        try:
            async with asyncio.timeout(PATIENCE):
                while process.is_running:
                    process.changed.clear()
                    await process.changed.wait()
        except TimeoutError:
            self._end(process, "hung")
        if process in self._alive and process.ended is not None:
            self._idle.append(process)

    def wake(self, process: Process) -> None:
        """Let a stopped process go on."""
        process.is_stopped = False
        os.kill(process.pid, signal.SIGCONT)

    def end_all(self) -> None:
        for process in list(self._alive):
            self._end(process, "killed")

    def end_sleepers(self) -> None:
        for process in [one for one in self._alive if one not in self._idle]:
            self._end(process, "killed")

    def _fork(self) -> Process:
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._live(its)
        its.close()
        mine.setblocking(False)
        process = Process(pid, mine)
        self._alive.append(process)
        asyncio.get_running_loop().add_reader(mine, self._hear, process)
        return process

    def _end(self, process: Process, how: str) -> None:
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
        self._bury(process, how)

    def _look(self) -> None:
        """After SIGCHLD: who stopped, and who is gone?"""
        for process in list(self._alive):
            pid, status = os.waitpid(process.pid, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                continue
            if os.WIFSTOPPED(status):
                process.is_stopped = True
                process.changed.set()
            else:
                self._bury(process, "killed" if os.WIFSIGNALED(status) else "crashed")

    def _bury(self, process: Process, how: str) -> None:
        self._hear(process)
        asyncio.get_running_loop().remove_reader(process.line)
        process.line.close()
        self._alive.remove(process)
        if process in self._idle:
            self._idle.remove(process)
        if process.ended is None:
            process.ended = Ended(how, place=process.place)
        process.is_stopped = False
        process.changed.set()

    def _hear(self, process: Process) -> None:
        """Take down what a process says."""
        with suppress(BlockingIOError):
            while True:
                said = json.loads(process.line.recv(_LONGEST))
                process.place = said.get("place", process.place)
                if "how" in said:
                    process.ended = Ended(**said, place=process.place)
                    process.changed.set()

    # In the fork.

    def _live(self, line: socket.socket) -> NoReturn:
        try:
            die_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(line.fileno(), _LINE)
            # The exchange's ends of all connections are open here too, and would stay so.
            os.closerange(_LINE + 1, os.sysconf("SC_OPEN_MAX"))
            self._work(socket.socket(fileno=_LINE))
        finally:
            os._exit(0)

    def _work(self, line: socket.socket) -> NoReturn:
        def say(**words: str) -> None:
            line.send(json.dumps(words).encode())

        while True:
            act, aim = pickle.loads(line.recv(_LONGEST))
            self._points.begin(aim, lambda place: say(place=place))
            say(**self._do(act))

    def _do(self, act: Any) -> dict[str, str]:
        try:
            return {"how": "done", "text": self._perform(act)}
        except DeskError as error:
            return {"how": "refused", "text": str(error), "error": type(error).__name__}
        except Exception as error:
            told = "".join(traceback.format_exception(error))
            return {"how": "crashed", "text": told, "error": type(error).__name__}


def die_with_parent() -> None:
    """Let this process be killed when the one that made it is gone, asleep or not."""
    with suppress(AttributeError):  # not on Linux: a killed worker leaves its sleepers
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
