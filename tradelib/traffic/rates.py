"""What a venue counts and allows, as data, and who in the desk asks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path


@dataclass(frozen=True)
class Pool:
    """One thing that a venue counts.

    limit: units in any `seconds`. by_account: counted for the account, else for the address that
    asks. Counters that decay are told as the window in which they fall from their top to zero:
    whoever keeps to that never reaches the top.
    """

    name: str
    limit: int
    seconds: int
    by_account: bool = False


class Urgency(IntEnum):
    """What may go deeper into a budget than the rest."""

    BULK = -1
    ORDINARY = 0
    RECONCILE = 1
    CANCEL = 2


# The share of each limit that requests may use up: what lies above is reserved for those that are
# more urgent, and a little for programs of others that the venue has not told of yet.
SHARES = {
    Urgency.BULK: 0.50,
    Urgency.ORDINARY: 0.75,
    Urgency.RECONCILE: 0.90,
    Urgency.CANCEL: 0.98,
}
# Seconds that a long walk waits for room where others would give up.
BULK_PATIENCE = 600.0


@dataclass(frozen=True)
class Spender:
    """Who makes requests: a kind of process ('30_execute_orders', 'desk cancel'), its run and its
    bot where it has them."""

    kind: str
    run: str = ""
    bot: str = ""


OTHERS = Spender("others at this address")

_process: list[Spender] = []
_spender: ContextVar[Spender | None] = ContextVar("spender", default=None)
_urgency: ContextVar[Urgency] = ContextVar("urgency", default=Urgency.ORDINARY)
_patience: ContextVar[float | None] = ContextVar("patience", default=None)


def spend_as(kind: str, run: str | None = None, bot: str | None = None) -> None:
    """Name this process in the record of requests from now on."""
    _process[:] = [Spender(kind, run or "", bot or "")]


@contextmanager
def spending_as(kind: str, run: str | None = None, bot: str | None = None) -> Iterator[None]:
    """Who makes the requests of this block, in a process that works for several."""
    token = _spender.set(Spender(kind, run or "", bot or ""))
    try:
        yield
    finally:
        _spender.reset(token)


def current_spender() -> Spender:
    """Who makes requests here: as the block or the process was named, else by its command."""
    if (spender := _spender.get()) is not None:
        return spender
    if _process:
        return _process[0]
    words = [Path(sys.argv[0]).stem or "python", *sys.argv[1:2]]
    is_desk = words[0] in ("desk", "__main__")
    name = f"desk {words[-1]}" if is_desk and len(words) > 1 else words[0]
    return Spender(name[:40], os.environ.get("DESK_RUN", ""))


def current_urgency() -> Urgency:
    return _urgency.get()


def current_patience() -> float | None:
    """Seconds that a request of this block may wait for the budget; None: the client's own."""
    return _patience.get()


@contextmanager
def urgent(urgency: Urgency, patience: float | None = None) -> Iterator[None]:
    """How urgent the requests of this block are, unless they are more so already, and how long
    they may wait for the budget."""
    token = _urgency.set(max(urgency, _urgency.get()))
    other = _patience.set(_patience.get() if patience is None else patience)
    try:
        yield
    finally:
        _urgency.reset(token)
        _patience.reset(other)
