"""Ports on loopback: which are free, and who listens."""

from __future__ import annotations

import socket
from collections.abc import Collection

import psutil

from tradelib.services.service import LOOPBACK


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of loopback now."""
    with socket.socket() as probe:
        # As servers do, so that a port that was closed a moment ago counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose_port(preferred: int, taken: Collection[int] = ()) -> int:
    """`preferred` if it is free and not in `taken`, else any other free port."""
    if preferred not in taken and is_free(preferred):
        return preferred
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = probe.getsockname()[1]
        if port not in taken:
            return port


def listens(pid: int, port: int) -> bool:
    """Whether process `pid` or a descendant of it listens on `port`.

    True as well where the system will not tell, as for a process of another user.
    """
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return any(_listens(member, port) for member in family)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _listens(process: psutil.Process, port: int) -> bool:
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for connection in process.net_connections(kind="tcp")
    )
