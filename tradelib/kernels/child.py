"""What a fork does to become a kernel that cannot be told from one that was started cold."""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradelib.kernels import wire
from tradelib.kernels.identity import ADOPT_ENV

if TYPE_CHECKING:
    from ipykernel.kernelapp import IPKernelApp

# Seconds in which whoever asked for the kernel must say how it is to run.
PATIENCE = 10.0
PR_SET_CHILD_SUBREAPER = 36


def await_call(channel: socket.socket) -> socket.socket:
    """Prepare as a spare, and wait for the connection to serve; ends with the server."""
    with channel:
        _forget_the_server()
        _touch()
        _, handles, _, _ = socket.recv_fds(channel, 1, 1)
    if not handles:
        os._exit(0)
    return socket.socket(fileno=handles[0])


def _touch() -> None:
    """Look at what ipykernel will look at, so that the memory is this fork's own by then: a third
    of a kernel's start is the copying of pages."""
    from ipykernel.kernelapp import IPKernelApp

    for module in list(sys.modules.values()):
        getattr(module, "__file__", None)
    IPKernelApp().parse_command_line(["-f", "connection.json"])


def run_kernel(connection: socket.socket) -> None:
    """Read how to run from the connection, run, and return when the kernel is shut down.

    The request has argv, env, cwd and umask; with it come the lifeline, stdout and stderr.
    """
    os.setsid()
    connection.settimeout(PATIENCE)
    request, (lifeline, out, err) = wire.receive(connection, handles=3)
    connection.close()
    _take_streams(out, err)
    _take_surroundings(request)
    _forget_the_server()
    _refresh_randomness()
    importlib.invalidate_caches()
    alive = socket.socket(fileno=lifeline)
    alive.settimeout(None)
    threading.Thread(target=_end_with, args=(alive,), name="lifeline", daemon=True).start()
    app = _make_app(request["argv"])
    alive.send(b"1")
    app.start()


def _take_streams(out: int, err: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
        os.close(source)


def _take_surroundings(request: dict[str, Any]) -> None:
    import ipykernel

    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    # As `python -m ipykernel_launcher` has it.
    launcher = str(Path(ipykernel.__file__).parents[1] / "ipykernel_launcher.py")
    sys.argv = [launcher, *request["argv"]]
    sys.orig_argv = [sys.executable, "-m", "ipykernel_launcher", *request["argv"]]
    Path("/proc/self/comm").write_text("warm-kernel")
    if request["env"].get(ADOPT_ENV):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _forget_the_server() -> None:
    """Interrupts reach the kernel, and its collector runs again."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.enable()


def _refresh_randomness() -> None:
    """The standard library's generators notice a fork by themselves; NumPy's does not."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def _end_with(lifeline: socket.socket) -> None:
    """Wait until whoever asked for this kernel has ended; then end it, and what it started."""
    lifeline.recv(1)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _make_app(arguments: list[str]) -> IPKernelApp:
    from ipykernel.kernelapp import IPKernelApp

    class WarmKernelApp(IPKernelApp):  # type: ignore[misc]
        def init_poller(self) -> None:
            """Its parent is the server, whose end means nothing: the lifeline tells."""

    # Read from the environment when ipykernel was imported, which was long ago.
    app = WarmKernelApp.instance(parent_handle=int(os.environ["JPY_PARENT_PID"]))
    app.initialize(arguments)
    atexit.register(_stop_control, app)
    return app


def _stop_control(app: IPKernelApp) -> None:
    """Stop the control thread before the one that publishes: otherwise it may wait 20 seconds for
    flushes that nobody does any more. What is registered last runs first; ipykernel's own way
    comes after it stopped publishing."""
    thread = app.control_thread
    if thread and thread.is_alive():
        thread.stop()
        thread.join()
