"""Keeps one kernel within its limits, and what it says outside of its page free of secrets."""

from __future__ import annotations

import os
import secrets
import select
import signal
from codecs import getincrementaldecoder
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import Any

import psutil

from tradelib.kernels.identity import ADOPT_ENV
from tradelib.kernels.process import UNKNOWN_EXIT
from tradelib.notebooks.family import MARK_ENV, Family
from tradelib.scrubber import Scrubber
from tradelib.services.logs import open_log

# Characters of a line that are kept back until it has ended, and after that its tail: a secret
# must not be cut in two.
_LONGEST_LINE = 64_000
_TAIL = 4_000
_CHUNK = 1 << 16
# Seconds between looks at a kernel's memory, and how many of them there are to one at whom it has
# started: at most so long a page may take more than it should.
_LOOK = 0.1
_LOOKS_PER_CENSUS = 10
_MEMORY_SIGNALS = (signal.SIGKILL, signal.SIGABRT)


@dataclass(frozen=True)
class Limits:
    """What one page may take: seconds in all, MB that its processes have resident at once (0: any),
    MB of output in all."""

    seconds: float
    memory_mb: int
    output_mb: float


@dataclass(frozen=True)
class Ties:
    """What a kernel is started with so that a keeper can keep it. outlet: file descriptor that
    takes what the kernel says outside of its cells, and what its children say; inlet: where that is
    read; mark: is in its environment."""

    inlet: int
    outlet: int
    mark: str

    @classmethod
    def make(cls) -> Ties:
        inlet, outlet = os.pipe()
        os.set_blocking(inlet, False)
        return cls(inlet, outlet, secrets.token_hex(8))

    def launch(self, folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
        """The arguments of a launch in that folder, with that environment."""
        marked = {**environment, MARK_ENV: self.mark, ADOPT_ENV: "1"}
        return {"cwd": str(folder), "stdout": self.outlet, "stderr": self.outlet, "env": marked}

    def close(self) -> None:
        for handle in (self.inlet, self.outlet):
            os.close(handle)


class Keeper:
    """Ends a kernel that exceeds its limits, and knows why it ended. What the kernel says outside
    of its cells goes to `log`, scrubbed. ties: the kernel's, closed in the end.

    A process that holds the outlet open keeps nobody waiting: once the kernel has ended, what has
    been said by then is all that is taken.
    """

    def __init__(
        self, limits: Limits, log: Path, scrubber: Scrubber, deadline: float, ties: Ties
    ) -> None:
        self.limits, self.ties = limits, ties
        self.reason: str | None = None
        self._deadline = deadline
        self._log, self._scrubber = log, scrubber
        self._kernel: Any = None
        self._process: psutil.Process | None = None
        self._family: Family | None = None
        self._members: list[psutil.Process] = []
        self._children: list[psutil.Process] = []
        self._looked_at, self._looks = monotonic(), 0
        self._shown = 0
        self._decoder = getincrementaldecoder("utf-8")(errors="replace")
        self._unsaid = ""
        self._lock = Lock()

    def __enter__(self) -> Keeper:
        self._sleep, self._wake = os.pipe()
        self._thread = Thread(target=self._watch, name="keeper", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._wake)
        self._thread.join()
        os.close(self._sleep)
        self.ties.close()

    def take(self, kernel: Any) -> None:
        """Keep this process, as a `subprocess.Popen`, from now on."""
        with self._lock, suppress(psutil.Error):  # one that has ended needs no keeper
            self._kernel, self._family = kernel, Family.of(kernel.pid, self.ties.mark)
            self._process = psutil.Process(kernel.pid)
            if self.reason is not None:  # time ran out before
                self._process.kill()

    def count(self, size: int) -> bool:
        """Count `size` more characters of output; whether there is still room."""
        with self._lock:
            self._shown += size
        if self.is_full:
            self.stop(f"it printed more than {self.limits.output_mb:g} MB")
        return not self.is_full

    @property
    def is_full(self) -> bool:
        return self._shown > self.limits.output_mb * 1e6

    def stop(self, reason: str) -> None:
        """End the kernel; the first reason is told."""
        with self._lock:
            if self.reason is None:
                self.reason = reason
                if self._process is not None:
                    self._note_members()
                    with suppress(psutil.Error):
                        self._process.kill()

    def note_members(self) -> None:
        """Find whom the kernel has started, while it can still be asked."""
        with self._lock:
            self._note_members()

    def _note_members(self) -> None:
        if self._family and not self._members:
            self._members = self._family.find()

    def end_members(self, *, thoroughly: bool) -> None:
        """End what the kernel started, once itself has ended. thoroughly: look for more than was
        noted, as after an end that nobody saw coming."""
        if self._family and (self._members or thoroughly):
            self._family.end(self._members or self._family.find())

    @property
    def epitaph(self) -> str:
        """Why the kernel has ended, in words."""
        if self.reason is not None:
            return self.reason
        code = self._kernel.poll() if self._kernel is not None else None
        if code is None or code == UNKNOWN_EXIT:
            return "its kernel died"
        if code >= 0:
            return f"its kernel ended itself with exit code {code}"
        with suppress(ValueError):
            killer = signal.Signals(-code)
            perhaps = ", perhaps for memory" if killer in _MEMORY_SIGNALS else ""
            return f"its kernel was killed by {killer.name}{perhaps}"
        return f"its kernel was killed by signal {-code}"

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self.ties.inlet, select.POLLIN)
        poll.register(self._sleep, select.POLLIN)
        hears = True
        while not any(handle == self._sleep for handle, _ in poll.poll(self._milliseconds_left())):
            self._check()
            if hears and self._hear() is False:
                hears = False
                poll.unregister(self.ties.inlet)
        while hears and self._hear():
            pass
        self._say(len(self._unsaid))

    def _milliseconds_left(self) -> float | None:
        """Until the next look; None once it makes no difference."""
        if self.reason is not None:
            return None
        next_look = self._looked_at + _LOOK if self.limits.memory_mb else self._deadline
        return max(0.0, min(next_look, self._deadline) - monotonic()) * 1000 + 1

    def _check(self) -> None:
        """Stop a kernel that has exceeded its time or its memory."""
        now = monotonic()
        if now >= self._deadline:
            self.stop(f"it took longer than {self.limits.seconds:g} s")
        if self.limits.memory_mb and now >= self._looked_at + _LOOK:
            self._looked_at = now
            if self._is_over(self.limits.memory_mb * 1e6):
                self.stop(f"it needed more than {self.limits.memory_mb} MB")

    def _is_over(self, limit: float) -> bool:
        """Whether the kernel and whom it started, as far as they are known, have so many bytes
        resident, what they share counted once; that is looked at where it could matter."""
        self._looks += 1
        if self._family and self._looks % _LOOKS_PER_CENSUS == 0:
            self._children = self._family.find()
        family = [self._process, *self._children] if self._process else []
        return sum(map(_resident, family)) > limit and (
            len(family) == 1 or sum(map(_proportional, family)) > limit
        )

    def _hear(self) -> bool | None:
        """Take what was said; None where nothing was just now, False where nothing more counts."""
        try:
            said = os.read(self.ties.inlet, _CHUNK)
        except BlockingIOError:
            return None
        if not said or not self.count(len(said)):
            return False
        self._unsaid += self._decoder.decode(said)
        self._say(_whole_lines(self._unsaid))
        return True

    def _say(self, length: int) -> None:
        """Write so much of what was said; a line that does not end is written but for its tail."""
        if length == 0 and len(self._unsaid) > _LONGEST_LINE:
            self._unsaid = self._scrubber.scrub(self._unsaid)
            length = max(0, len(self._unsaid) - _TAIL)
        if length:
            said, self._unsaid = self._unsaid[:length], self._unsaid[length:]
            _write(self._log, self._scrubber.scrub(said))


def _whole_lines(text: str) -> int:
    """The length of the lines that have ended, up to where a key begins that has not."""
    end, key = text.rfind("\n") + 1, text.rfind("-----BEGIN ")
    return min(end, key) if key >= 0 and "-----END " not in text[key:] else end


def _write(log: Path, text: str) -> None:
    with suppress(OSError), open_log(log) as file:  # a full disk stops no page
        file.write(text.encode(errors="replace"))


def _proportional(process: psutil.Process) -> int:
    """Its own bytes, and its part of what it shares; all of both where the system tells no more."""
    try:
        told = process.memory_full_info()
        return int(getattr(told, "pss", told.rss))
    except psutil.Error:
        return 0


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
