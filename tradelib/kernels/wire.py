"""How a fork server and those who want kernels talk: a length, JSON, and file descriptors."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

# First byte of a connection: what is wanted.
WANT_KERNEL = b"K"
WANT_STATUS = b"S"
WANT_END = b"E"

_LENGTH = struct.Struct("!I")


def send(
    connection: socket.socket, content: Mapping[str, Any], handles: Sequence[int] = ()
) -> None:
    """Send one message; `handles` are file descriptors that the receiver gets copies of."""
    body = json.dumps(content).encode()
    length = _LENGTH.pack(len(body))
    if handles:
        socket.send_fds(connection, [length], handles)
    else:
        connection.sendall(length)
    connection.sendall(body)


def receive(connection: socket.socket, handles: int = 0) -> tuple[dict[str, Any], list[int]]:
    """One message and at most `handles` file descriptors, which are the caller's to close.

    Raises EOFError when the other side went away first, OSError when it was silent too long.
    """
    length, given = _receive_first(connection, handles)
    try:
        length += _receive_all(connection, _LENGTH.size - len(length))
        body = _receive_all(connection, _LENGTH.unpack(length)[0])
    except BaseException:
        for handle in given:
            os.close(handle)
        raise
    return json.loads(body), given


def _receive_first(connection: socket.socket, handles: int) -> tuple[bytes, list[int]]:
    if not handles:
        return b"", []
    data, given, _, _ = socket.recv_fds(connection, _LENGTH.size, handles)
    for handle in given:
        os.set_inheritable(handle, False)
    return data, given


def _receive_all(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError("the other side went away")
        data += part
    return bytes(data)


def peer_user(connection: socket.socket) -> int:
    """The user id of the process at the other end."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", told)[1])
