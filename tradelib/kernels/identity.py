"""Which kernels may share a fork server: those of one Python, one set of packages, one start-time
environment and one owner."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Names one process, `PID:START`, whose end ends the servers that were started for it.
OWNER_ENV = "WARM_KERNELS_OWNER"
# In a kernel's environment: whoever loses its parent among those that the kernel starts becomes the
# kernel's own child, so that whoever ends the kernel finds them all.
ADOPT_ENV = "WARM_KERNELS_ADOPT"
# The folder of the servers' sockets; else one of the user's own.
FOLDER_ENV = "WARM_KERNELS_FOLDER"

# Seconds without a kernel after which a server that nobody owns ends.
IDLE = 600.0

# What Python and the packages read once, when they are loaded, and never again.
_START_PREFIXES = (
    "PYTHON",
    "LD_",
    "MALLOC_",
    "OMP_",
    "OPENBLAS_",
    "GOTO_",
    "MKL_",
    "BLIS_",
    "NUMBA_",
    "NUMEXPR_",
    "ARROW_",
    "MPL",
    "LC_",
)
_START_NAMES = ("HOME", "LANG", "LANGUAGE")
# Of no meaning for a process whose output goes to a notebook.
_NEVER = ("PYTHONUNBUFFERED", "PYTHONSTARTUP")


@dataclass(frozen=True)
class Identity:
    """What a fork server is for. idle: seconds without a kernel after which one that nobody owns
    ends. preload: modules that it imports, in this order."""

    executable: str
    preload: tuple[str, ...]
    environment: dict[str, str] = field(hash=False)
    owner: str = ""
    idle: float = IDLE

    @property
    def key(self) -> str:
        told = [self.executable, self.preload, self.environment, self.owner, self.idle]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def identity_for(
    executable: str, preload: tuple[str, ...], environment: Mapping[str, str], idle: float
) -> Identity:
    """The server for a kernel that `executable` would run in `environment`."""
    start = {name: text for name, text in environment.items() if _counts_at_start(name)}
    return Identity(executable, preload, start, environment.get(OWNER_ENV, ""), idle)


def _counts_at_start(name: str) -> bool:
    return name not in _NEVER and (name in _START_NAMES or name.startswith(_START_PREFIXES))


def socket_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The folder of the sockets, made if need be, which nobody else can enter.

    Raises PermissionError for one that somebody else could have prepared.
    """
    environment = os.environ if environment is None else environment
    folder = Path(environment.get(FOLDER_ENV) or _users_folder())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"folder {folder} is not this user's alone")
    return folder


def _users_folder() -> Path:
    """In /run/user where there is one: a name in /tmp is short too, as a socket's must be."""
    runtime = Path(f"/run/user/{os.getuid()}")
    if os.access(runtime, os.W_OK):
        return runtime / "warm-kernels"
    return Path(f"/tmp/warm-kernels-{os.getuid()}")


def this_process() -> str:
    """This process as an owner."""
    return f"{os.getpid()}:{_born(os.getpid())}"


def is_owner(owner: str) -> bool:
    """Whether that process lives."""
    handle = open_owner(owner)
    if handle is not None:
        os.close(handle)
    return handle is not None


def open_owner(owner: str) -> int | None:
    """A pidfd that becomes readable when the owner ends; None when it has ended."""
    pid, _, born = owner.partition(":")
    try:
        handle = os.pidfd_open(int(pid))
    except (OSError, ValueError):
        return None
    if _born(int(pid)) == born:
        return handle
    os.close(handle)  # the id is another's by now
    return None


def _born(pid: int) -> str:
    """When the process began, in the system's ticks since it started; empty when it has ended."""
    try:
        # The second field, the command, is in brackets and may hold spaces.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
