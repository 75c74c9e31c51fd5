"""Wait for the desk to end, then end what it left: guard.py MARK, the desk holding stdin open."""

from __future__ import annotations

import signal
import sys
import time

import psutil

from tradelib.services.processes import kill, marked

GRACE = 3.0  # seconds between asking and killing
PATIENCE = 10.0  # seconds in which a child that was just starting is still found


def end_all(mark: str) -> None:
    """Ask all that carry `mark` to end, then kill them, until a look finds none."""
    deadline = time.monotonic() + PATIENCE
    asked = marked(mark)
    for process in asked:
        try:
            process.terminate()
        except psutil.Error:
            continue
    psutil.wait_procs(asked, timeout=GRACE)
    while (left := marked(mark)) and time.monotonic() < deadline:
        kill(left)


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()  # returns when the desk has ended
    end_all(sys.argv[1])


if __name__ == "__main__":
    main()
