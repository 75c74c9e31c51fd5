"""A kernel that somebody else's fork is, held like a `subprocess.Popen`."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
from contextlib import suppress

from tradelib.kernels import wire

# What is told when the server that knew the exit code ended before the kernel did.
UNKNOWN_EXIT = 255
# Seconds that a server may take to tell the exit code of a kernel that has ended.
PATIENCE = 2.0


class WarmProcess:
    """pid, handle: the process and a pidfd of it, which never means another one. connection: tells
    the exit code. lifeline: once this end is closed, the kernel ends."""

    stdin = stdout = stderr = None

    def __init__(
        self, pid: int, handle: int, connection: socket.socket, lifeline: socket.socket
    ) -> None:
        self.pid, self.handle = pid, handle
        self.returncode: int | None = None
        self._connection, self._lifeline = connection, lifeline

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code, at most `timeout` seconds; raises TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("kernel", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and self._has_ended(timeout):
            self.returncode = self._ask_exit_code()
            self.close()
        return self.returncode

    def _has_ended(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))

    def _ask_exit_code(self) -> int:
        try:
            self._connection.settimeout(PATIENCE)
            told, _ = wire.receive(self._connection)
        except (OSError, EOFError, ValueError):
            return UNKNOWN_EXIT
        return int(told.get("exit", UNKNOWN_EXIT))

    def close(self) -> None:
        """Let go of the kernel, which ends it."""
        for one in (self._lifeline, self._connection):
            one.close()
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def __del__(self) -> None:
        self.close()
