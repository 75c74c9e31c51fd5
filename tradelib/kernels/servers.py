"""Finding a fork server, starting one where there is none, and getting a kernel from it."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from tradelib.kernels import wire
from tradelib.kernels.identity import (
    OWNER_ENV,
    Identity,
    is_owner,
    socket_folder,
    this_process,
)
from tradelib.kernels.process import WarmProcess

# Seconds that a server may take to import its packages, and a fork to become a kernel.
START_PATIENCE = 60.0
KERNEL_PATIENCE = 30.0
ANSWER_PATIENCE = 10.0
# Seconds in which a server that could not be started is not tried again.
REST = 60.0
_KEPT = 86_400.0  # seconds after which a server's log may go
# A socket's path has 107 characters, some of which its first name in server.listen needs.
_LONGEST_PATH = 95

_failures: dict[str, tuple[float, str]] = {}


class NoWarmKernel(Exception):
    """A warm kernel is not to be had; its text says why."""


class _Stale(Exception):
    """The server's packages have changed since it imported them."""


@dataclass(frozen=True)
class Request:
    """How a kernel is to run. argv: ipykernel's own arguments. env: all of its environment, kept
    out of `repr`. out, err: file descriptors."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    out: int = 1
    err: int = 2

    def __repr__(self) -> str:
        return f"Request({self.argv}, cwd={self.cwd!r})"


def start_kernel(identity: Identity, request: Request) -> WarmProcess:
    """A running kernel, forked by the server for `identity`, which is started if need be.

    A server that is stale or dies in between is replaced once. Raises NoWarmKernel.
    """
    _check_can_fork()
    reason = ""
    for _ in range(2):
        try:
            return _ask(_connect_or_start(identity), request)
        except (_Stale, OSError, EOFError, ValueError) as error:
            reason = str(error) or type(error).__name__
    raise NoWarmKernel(reason)


def warm_up(identity: Identity) -> None:
    """Have a server ready for that identity. Raises NoWarmKernel."""
    _check_can_fork()
    try:
        with _connect_or_start(identity):
            return
    except OSError as error:
        raise NoWarmKernel(str(error)) from error


@contextmanager
def own_servers() -> Iterator[None]:
    """Let the servers that this process and its children start live as long as the block, or as
    this process should it be killed; those that belong to somebody already go on being theirs."""
    if not can_fork() or is_owner(os.environ.get(OWNER_ENV, "")):
        yield
        return
    owner = os.environ[OWNER_ENV] = this_process()
    try:
        yield
    finally:
        os.environ.pop(OWNER_ENV, None)
        end_servers(owner)


def end_servers(owner: str) -> None:
    """End the servers that belong to `owner`, with their kernels."""
    for server in load_servers():
        if server.owner == owner:
            with suppress(OSError), connect(server.path) as connection:
                connection.sendall(wire.WANT_END)
                connection.recv(1)  # returns when it is done


@dataclass(frozen=True)
class ServerStatus:
    """A fork server that runs. since: seconds since 1970; missing: modules that could not be
    imported; served: kernels forked so far; kernels: process ids of the living ones; stale: why it
    forks no more, as that what it imported has changed; else empty."""

    path: Path
    pid: int
    since: float
    owner: str
    preload: tuple[str, ...]
    missing: tuple[str, ...]
    served: int
    kernels: tuple[int, ...]
    stale: str


def load_servers() -> list[ServerStatus]:
    """The user's fork servers, oldest first."""
    if not can_fork():
        return []
    try:
        paths = [path for path in socket_folder().iterdir() if path.is_socket()]
    except OSError:
        return []
    found = [status for path in paths if (status := _load_status(path))]
    return sorted(found, key=lambda status: status.since)


def _load_status(path: Path) -> ServerStatus | None:
    """None when no server listens there any more."""
    try:
        with connect(path) as connection:
            connection.sendall(wire.WANT_STATUS)
            told, _ = wire.receive(connection)
    except (OSError, EOFError, ValueError):
        return None
    return ServerStatus(
        path=path,
        pid=told["pid"],
        since=told["since"],
        owner=told["owner"],
        preload=tuple(told["preload"]),
        missing=tuple(told["missing"]),
        served=told["served"],
        kernels=tuple(told["kernels"]),
        stale=told.get("stale", "an earlier version of this code runs it"),
    )


def is_current(identity: Identity, kernel: WarmProcess) -> bool:
    """Whether the server for `identity` would fork that kernel no other than it is."""
    try:
        server = _load_status(socket_path(identity))
    except NoWarmKernel:
        return False
    return server is not None and not server.stale and kernel.pid in server.kernels


def can_fork() -> bool:
    """Whether this system has what a fork server needs."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


def _check_can_fork() -> None:
    if not can_fork():
        raise NoWarmKernel("this system has no pidfds")


def socket_path(identity: Identity) -> Path:
    """Where the server for `identity` listens. Raises NoWarmKernel when it cannot anywhere."""
    try:
        path = socket_folder() / identity.key
    except OSError as error:
        raise NoWarmKernel(str(error)) from error
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise NoWarmKernel(f"folder {path.parent} has too long a name for sockets")
    return path


def connect(path: Path) -> socket.socket:
    """A connection to the server at `path`. Raises OSError when none listens there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ANSWER_PATIENCE)
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_or_start(identity: Identity) -> socket.socket:
    path = socket_path(identity)
    with suppress(OSError):
        return connect(path)
    with _sole_starter(path):
        with suppress(OSError):  # another was quicker
            return connect(path)
        start_server(identity, path)
        return connect(path)


@contextmanager
def _sole_starter(path: Path) -> Iterator[None]:
    with FileLock(path.with_suffix(".lock")):
        yield


def start_server(identity: Identity, path: Path) -> None:
    """Start a server and return once it listens. Raises NoWarmKernel when it does not, also
    without trying for a while after it did not."""
    failed_at, reason = _failures.get(identity.key, (-REST, ""))
    if time.monotonic() - failed_at < REST:
        raise NoWarmKernel(reason)
    try:
        _tidy(path.parent)
        _start_server(identity, path)
    except NoWarmKernel as error:
        _failures[identity.key] = (time.monotonic(), str(error))
        raise


def _tidy(folder: Path) -> None:
    """Remove what servers of earlier days wrote."""
    old = time.time() - _KEPT
    for file in folder.iterdir():
        if file.suffix in (".log", ".lock"):
            with suppress(OSError):  # another tidies too
                if file.stat().st_mtime < old:
                    file.unlink()


def _start_server(identity: Identity, path: Path) -> None:
    plan = {"path": str(path), **asdict(identity)}
    told = json.dumps({name: plan[name] for name in ("path", "preload", "owner", "idle")})
    ready, theirs = os.pipe()
    with ExitStack() as stack:
        stack.callback(os.close, ready)
        try:
            with path.with_suffix(".log").open("wb") as log:
                _launch([identity.executable, "-m", "tradelib.kernels", str(theirs), told],
                        identity.environment, theirs, log)  # fmt: skip
        finally:
            os.close(theirs)
        if not select.select([ready], [], [], START_PATIENCE)[0]:
            raise NoWarmKernel(f"the fork server was not ready after {START_PATIENCE:g} s")
        if not os.read(ready, 1):
            raise NoWarmKernel(f"the fork server did not start: {_last_line(path)}")


def _launch(command: list[str], environment: Mapping[str, str], handle: int, log: Any) -> None:
    """Run the command, which goes on in a process of nobody's. It sees nothing of this process's
    environment but what counts when Python starts, so no secret."""
    try:
        subprocess.run(
            command,
            env=dict(environment),
            cwd="/",
            pass_fds=[handle],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=START_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoWarmKernel(f"the fork server did not start: {error}") from error


def _last_line(path: Path) -> str:
    lines = path.with_suffix(".log").read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def _ask(connection: socket.socket, request: Request) -> WarmProcess:
    with ExitStack() as stack:
        stack.callback(connection.close)
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        with theirs:
            connection.sendall(wire.WANT_KERNEL)
            body = {"argv": request.argv, "env": dict(request.env), "cwd": request.cwd,
                    "umask": _umask()}  # fmt: skip
            wire.send(connection, body, [theirs.fileno(), request.out, request.err])
        told, handles = wire.receive(connection, handles=1)
        for handle in handles:
            stack.callback(os.close, handle)
        if told["stale"]:
            raise _Stale(f"the fork server is stale: {told['stale']}")
        _await_ready(ours)
        stack.pop_all()
    return WarmProcess(told["pid"], handles[0], connection, ours)


def _await_ready(lifeline: socket.socket) -> None:
    lifeline.settimeout(KERNEL_PATIENCE)
    if not lifeline.recv(1):
        raise EOFError("the kernel ended before it was ready")


def _umask() -> int:
    """This process's umask, read without the change that `os.umask` is."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
