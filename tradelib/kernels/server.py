"""The fork server: it imports packages once and forks a kernel for each that asks.

It has one thread, no event loop and no messaging context, for none of them would survive a fork;
and it never reads what a kernel is given, secrets included: the fork itself does, from the
connection that it inherits.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tradelib.kernels import wire
from tradelib.kernels.child import await_call, run_kernel
from tradelib.kernels.files import Files, files_under, find_change, imported_files
from tradelib.kernels.identity import open_owner

# What every kernel needs, whatever its notebook imports.
KERNEL_MODULES = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.debugger",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.display",
    "IPython.extensions.storemagic",
    "comm",
    "faulthandler",
    "pdb",
    "sqlite3",
    "tornado.platform.asyncio",
    "zmq.eventloop.zmqstream",
)
# Threads that survive being forked away, by name: pyarrow's allocator keeps one.
HARMLESS_THREADS = ("jemalloc_bg_thd",)
# Seconds that a connection may take to say what it wants; the others wait meanwhile.
PATIENCE = 1.0
# Seconds of quiet after which a spare is forked: it spares the next kernel the fork, and takes no
# time from one that runs for a moment only.
QUIET = 0.25


@dataclass(frozen=True)
class Plan:
    """What a server was started for: its socket's path, its modules, its owner, and the seconds
    without a kernel after which it ends when it has no owner."""

    path: str
    preload: tuple[str, ...]
    owner: str
    idle: float


@dataclass(frozen=True)
class Kernel:
    """A living kernel, and the connection over which its exit code is told."""

    pid: int
    connection: socket.socket


@dataclass(frozen=True)
class Spare:
    """A fork that waits to become a kernel. handle: its pidfd; channel: takes the connection that
    it is to serve, and ends it when closed."""

    pid: int
    handle: int
    channel: socket.socket


class Server:
    """Forks kernels until its owner has ended, or until it has been idle, or is stale, and its
    last kernel has ended."""

    def __init__(
        self, plan: Plan, listener: socket.socket, loaded: Sequence[str], files: Files
    ) -> None:
        self._plan, self._listener, self._loaded, self._files = plan, listener, loaded, files
        self._inode = os.stat(plan.path).st_ino
        self._kernels: dict[int, Kernel] = {}
        self._started = self._busy_at = time.time()
        self._served = 0
        self._stale = ""
        self._spare: Spare | None = None
        self._owner = open_owner(plan.owner) if plan.owner else None
        self._poll = select.poll()
        for handle in (listener.fileno(), self._owner):
            if handle is not None:
                self._poll.register(handle, select.POLLIN)

    def serve(self) -> socket.socket | None:
        """The connection to read a kernel's request from, in the fork that is to be that kernel;
        None in the server, once it has nothing left to do."""
        while self._is_needed():
            events = self._poll.poll(self._milliseconds_left())
            connection = self._handle(events) if events else self._make_spare()
            if connection:
                return connection
        return None

    def _handle(self, events: Sequence[tuple[int, int]]) -> socket.socket | None:
        for handle, _ in events:
            if handle == self._owner:
                self._retire("its owner has ended")
                self._end_kernels()
            elif handle in self._kernels:
                self._bury(handle)
            elif self._spare and handle == self._spare.handle:
                self._drop_spare()
            elif connection := self._welcome():
                return connection
        return None

    def close(self) -> None:
        """Leave nothing behind: no spare, and no socket that a client could try."""
        if self._spare:
            self._drop_spare()
        with suppress(OSError):
            if os.stat(self._plan.path).st_ino == self._inode:  # not a newer server's
                os.unlink(self._plan.path)

    def _is_needed(self) -> bool:
        if self._kernels:
            return True
        if self._stale or (self._plan.owner and self._owner is None):
            return False
        if self._plan.owner:
            return True
        return time.time() - self._busy_at < self._plan.idle

    def _milliseconds_left(self) -> float | None:
        if self._wants_spare():
            return QUIET * 1000
        if self._kernels or self._plan.owner:
            return None
        return max(0.0, self._busy_at + self._plan.idle - time.time()) * 1000 + 1

    def _wants_spare(self) -> bool:
        return self._spare is None and not self._stale

    def _welcome(self) -> socket.socket | None:
        """Answer one connection; it is returned in the fork that is to serve it."""
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return None  # it went away again, or this server is stale
        try:
            connection.settimeout(PATIENCE)
            ours = wire.peer_user(connection) == os.getuid()
            wanted = connection.recv(1) if ours else b""
            return self._answer(connection, wanted)
        except (OSError, EOFError):
            connection.close()
            return None

    def _answer(self, connection: socket.socket, wanted: bytes) -> socket.socket | None:
        if wanted == wire.WANT_KERNEL:
            return self._fork(connection)
        if wanted == wire.WANT_STATUS:
            wire.send(connection, self._status())
        elif wanted == wire.WANT_END:
            self._retire("it was asked to end")
            self._end_kernels()
        connection.close()
        return None

    def _fork(self, connection: socket.socket) -> socket.socket | None:
        """Let the spare, else a new fork, serve the connection; and only then look whether the
        packages have changed, for that takes as long as half a fork: whoever asked is told, and
        lets go of a kernel that would run old code."""
        if self._spare:
            pid, handle = self._call_spare(connection)
        elif (pid := _fork_quietly()) == 0:
            self._let_go()
            return connection
        else:
            handle = os.pidfd_open(pid)
            self._poll.register(handle, select.POLLIN)
        self._served += 1
        self._kernels[handle] = Kernel(pid, connection)
        wire.send(connection, {"pid": pid, "stale": self._find_staleness()}, [handle])
        return None

    def _call_spare(self, connection: socket.socket) -> tuple[int, int]:
        spare, self._spare = self._spare, None
        with spare.channel:
            socket.send_fds(spare.channel, [b"1"], [connection.fileno()])
        return spare.pid, spare.handle

    def _make_spare(self) -> socket.socket | None:
        """Fork one in advance; in the fork, once it is called, the connection that it is to serve.
        Called when nothing has happened for a while."""
        if not self._wants_spare():
            return None
        ours, theirs = socket.socketpair()
        if (pid := _fork_quietly()) == 0:
            self._let_go()
            ours.close()
            return await_call(theirs)
        theirs.close()
        self._spare = Spare(pid, os.pidfd_open(pid), ours)
        self._poll.register(self._spare.handle, select.POLLIN)
        return None

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        self._poll.unregister(spare.handle)
        spare.channel.close()
        os.waitpid(spare.pid, 0)
        os.close(spare.handle)

    def _find_staleness(self) -> str:
        """Why this server is stale; empty when it is not."""
        changed = None if self._stale else find_change(self._files)
        if changed:
            self._retire(f"{changed} has changed")
        return self._stale

    def _retire(self, reason: str) -> None:
        """Fork no more; living kernels go on, and their exit codes are still told."""
        if self._stale:
            return
        self._stale = reason
        self.close()
        with suppress(KeyError):
            self._poll.unregister(self._listener)
        self._listener.close()

    def _let_go(self) -> None:
        """In a fork: close what belongs to the server and to other kernels."""
        self._listener.close()
        if self._spare:
            self._spare.channel.close()
            os.close(self._spare.handle)
        for handle, kernel in self._kernels.items():
            os.close(handle)
            kernel.connection.close()
        if self._owner is not None:
            os.close(self._owner)

    def _bury(self, handle: int) -> None:
        """Tell a kernel's exit code to whom it belonged."""
        kernel = self._kernels.pop(handle)
        self._poll.unregister(handle)
        os.close(handle)
        _, status = os.waitpid(kernel.pid, 0)
        with suppress(OSError):
            wire.send(kernel.connection, {"exit": os.waitstatus_to_exitcode(status)})
        kernel.connection.close()
        self._busy_at = time.time()

    def _end_kernels(self) -> None:
        for handle, kernel in list(self._kernels.items()):
            _kill_family(kernel.pid)
            self._bury(handle)

    def _status(self) -> dict[str, object]:
        return {
            "pid": os.getpid(),
            "since": self._started,
            "owner": self._plan.owner,
            "preload": list(self._plan.preload),
            "missing": [name for name in self._plan.preload if name not in self._loaded],
            "served": self._served,
            "kernels": [one.pid for one in self._kernels.values()],
            "stale": self._find_staleness(),
        }


def _fork_quietly() -> int:
    """Fork without Python's warning about threads: those that there are have been looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def _kill_family(pid: int) -> None:
    """Kill a kernel and its children; it leads a group of its own once it runs."""
    for kill, target in ((os.killpg, pid), (os.kill, pid)):
        with suppress(ProcessLookupError):
            kill(target, signal.SIGKILL)


def preload(modules: Sequence[str]) -> list[str]:
    """Import modules; returns those that could be."""
    return [name for name in modules if _can_import(name)]


def _can_import(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception as error:  # a kernel that needs it will say so itself
        print(f"{name} is not preloaded: {error}", file=sys.stderr)
        return False
    return True


def find_strange_threads() -> list[str]:
    """Threads that a fork would cut off in the middle of something, by name.

    Numerical libraries end theirs when a process forks, so one fork comes first.
    """
    pid = _fork_quietly()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    tasks = Path("/proc/self/task")
    names = [(task / "comm").read_text().strip() for task in tasks.iterdir()]
    own = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
    strange = [name for name in names if name not in HARMLESS_THREADS]
    return own + strange[1:]


def freeze() -> None:
    """Keep the collector from touching, and so copying, what all kernels share."""
    gc.collect()
    gc.disable()
    gc.freeze()


def listen(path: str) -> socket.socket:
    """A listener that takes the place of a dead or stale server's at once."""
    fresh = f"{path}.{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(fresh)
    finally:
        os.umask(before)
    listener.listen(64)
    os.rename(fresh, path)
    return listener


def detach() -> None:
    """Become nobody's child, so that no starter is left with a zombie."""
    if _fork_quietly():
        os._exit(0)
    os.setsid()
    if _fork_quietly():
        os._exit(0)


def main() -> None:
    """`python -m tradelib.kernels READY PLAN`: READY is the number of a pipe's end, to which a
    byte is written once the server listens; PLAN is JSON."""
    ready, told = int(sys.argv[1]), json.loads(sys.argv[2])
    plan = Plan(told["path"], tuple(told["preload"]), told["owner"], told["idle"])
    detach()
    with suppress(ValueError):
        sys.path.remove(os.getcwd())
    # What IPython sets before a notebook can import matplotlib, which reads it then.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    project = files_under(Path(__file__).parents[1])  # before it is imported, for it is edited
    loaded = preload([*KERNEL_MODULES, *plan.preload])
    if strange := find_strange_threads():
        sys.exit(f"the preloaded packages keep threads: {', '.join(strange)}")
    files = imported_files(project)
    freeze()
    server = Server(plan, listen(plan.path), loaded, files)
    os.write(ready, b"1")
    os.close(ready)
    connection = server.serve()
    if connection is None:
        server.close()
    else:
        run_kernel(connection)
