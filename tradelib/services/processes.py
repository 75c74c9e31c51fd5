"""Child processes that end when the desk ends, with everything they started.

A service's descendants may leave its process group (Jupyter starts each kernel in a session of
its own) and lose their parent. So every child carries a mark in its environment, which its
descendants inherit, and ending a service ends whatever carries its mark.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from tradelib.services.environment import environment_for_child

MARK = "NOTEDESK_SERVICE"
_LAUNCH = Path(__file__).with_name("launch.py")
_GUARD = "tradelib.services.guard"


def start(
    command: Sequence[str],
    *,
    mark: str,
    env: Mapping[str, str],
    folder: Path | None,
    log: IO[bytes],
) -> subprocess.Popen[bytes]:
    """Run `command` in a session of its own, its output going to `log`.

    On Linux it is killed when the thread that calls this ends, so call it from one that stays.
    """
    # -I -S: a bare interpreter that only replaces itself with the command, 15 ms.
    launcher = [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid())]
    return subprocess.Popen(
        [*launcher, *command],
        env={**env, MARK: mark},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def marked(mark: str) -> list[psutil.Process]:
    """Every living process whose mark is `mark` or starts with `mark` and a slash."""
    return [process for process in psutil.process_iter() if _carries(process, mark)]


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        found = process.environ().get(MARK, "")
        alive = process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):  # ended meanwhile, or not ours to look at
        return False
    return alive and (found == mark or found.startswith(f"{mark}/"))


def end(process: subprocess.Popen[bytes], mark: str, grace: float) -> None:
    """End a service: ask its group, wait up to `grace` seconds, then kill all that is left of it.

    The service is asked alone, so that it can shut its own kernels down in its own way.
    """
    family = _descendants(process.pid)
    if process.poll() is None:  # else the group's id may be another's by now
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also when a person's second Ctrl-C ends the wait
        kill([*family, *marked(mark)])
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def kill(processes: Iterable[psutil.Process], wait: float = 3.0) -> None:
    """SIGKILL, and wait until they are gone, at most `wait` seconds."""
    processes = list(processes)
    for process in processes:
        with suppress(psutil.Error):  # psutil never signals a process that took over the id
            process.kill()
    psutil.wait_procs(processes, timeout=wait)


class Guard:
    """A process that outlives the desk by a moment, to end what carries `mark`.

    It waits on a pipe that only this process holds open: whatever ends this process, a SIGKILL
    included, closes it.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __enter__(self) -> Guard:
        self._process = subprocess.Popen(
            [sys.executable, "-m", _GUARD, self._mark],
            # Without the mark of a desk that this one may run in, whose end it must outlive.
            env={name: value for name, value in environment_for_child().items() if name != MARK},
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
