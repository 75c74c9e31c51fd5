"""A kernel that may look and compute and nothing else.

An audit hook sees what Python is about to do, in whatever library, and cannot be taken off again.
It does not see what a library in C does by itself, as when Arrow writes a file that it is told to.
It guards against accidents, not against code that means harm.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tradelib.errors import ReadOnly

_PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"}
_NETWORK = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"}
_NAMES = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
# Their arguments begin with paths, and end with the open folders that these are relative to.
_CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.removexattr", "os.rename",
    "os.rmdir", "os.setxattr", "os.symlink", "os.truncate", "os.utime",
    "shutil.chown", "shutil.copyfile", "shutil.move", "shutil.rmtree",
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class NoProgram(ReadOnly, PermissionError):
    """Known to libraries as what happens where programs cannot be started: some do without."""


def seal(*folders: Path | str) -> None:
    """From here on this process reaches no network, starts no program and writes nothing under
    the folders."""
    guarded = tuple(os.path.realpath(folder) for folder in folders)

    def guard(event: str, arguments: Sequence[Any]) -> None:
        if event in _PROGRAMS:
            raise NoProgram(f"A replay starts no program, as {event} would.")
        if event in _NAMES or (event in _NETWORK and arguments[0].family != socket.AF_UNIX):
            raise ReadOnly("A replay reaches no venue and nothing else beyond its own process.")
        if (event == "open" and _is_written(arguments, guarded)) or (
            event in _CHANGES and _changes(arguments, guarded)
        ):
            raise ReadOnly(f"A replay changes nothing of the desk, such as {arguments[0]}.")
        if event == "sqlite3.connect" and _opens_to_write(arguments[0], guarded):
            raise ReadOnly(f"A replay opens no database of the desk to write: {arguments[0]}.")

    sys.addaudithook(guard)


def _changes(arguments: Sequence[Any], guarded: Sequence[str]) -> bool:
    """Whether one of the paths is guarded, or may be, being relative to an open folder."""
    folders = [one for one in arguments[1:] if isinstance(one, int) and one >= 0]
    paths = [one for one in arguments[:2] if isinstance(one, str | bytes | os.PathLike)]
    return any(
        _is_within(os.path.join(base, os.fsdecode(path)), guarded)
        for path in paths
        for base in ("", *(f"/proc/self/fd/{folder}" for folder in folders))
    )


def _is_written(arguments: Sequence[Any], guarded: Sequence[str]) -> bool:
    path, _, flags = arguments
    return bool(isinstance(flags, int) and flags & _WRITING) and _is_within(path, guarded)


def _opens_to_write(database: Any, guarded: Sequence[str]) -> bool:
    told = os.fsdecode(database)
    path = unquote(told.removeprefix("file:").partition("?")[0])
    return "mode=ro" not in told and _is_within(path, guarded)


def _is_within(path: Any, guarded: Sequence[str]) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return False  # a descriptor that is open already
    real = os.path.realpath(os.fsdecode(path))
    return any(real == folder or real.startswith(folder + os.sep) for folder in guarded)
