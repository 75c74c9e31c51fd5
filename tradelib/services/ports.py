"""Ports on loopback: which are free, and who listens."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Collection

import psutil

from tradelib.services.service import LOOPBACK

# Below what Linux, macOS and Windows give to outgoing connections, above the usual servers.
_FIRST_OTHER = 20_000
_OTHERS = 10_000


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
    """`preferred` if it is free and not in `taken`, else another free port, by chance.

    Not one that the system would give: those it hands to outgoing connections as well, and one
    of them could take the port before the server does.
    """
    port = preferred
    while port in taken or not is_free(port):
        port = _FIRST_OTHER + secrets.randbelow(_OTHERS)
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
