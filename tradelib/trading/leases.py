"""Leases: a bot is traded by one process at a time, and a process that was replaced finds out.

A lease is a name, a holder and a fencing token that grows with every change of hands. Whoever
writes an order shows its token in the same transaction; one that is not the newest is refused, so
that a process that slept through its lease can do no harm when it wakes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import stamina
from sqlalchemy import Connection

from tradelib.clock import utc_now
from tradelib.errors import LeaseHeld, LeaseLost, StorageFailed
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, as_row, find, first, insert, update
from tradelib.trading.runs import Outcome, find_outcome

# Longer than one order takes, with its look-ups; after it anyone may take over.
LEASE_DURATION = timedelta(seconds=90)
_PROCESS = "process "


@dataclass(frozen=True)
class Lease:
    """holder: a run's id, or the process of a person's command."""

    name: str
    holder: str
    token: int
    taken_at: datetime
    expires_at: datetime

    @property
    def run(self) -> str | None:
        """The run that holds it, None where a person's command does."""
        return run_of(self.holder)


def run_of(holder: str) -> str | None:
    """The run that a holder's name is, None for the process of a command."""
    return None if holder.startswith(_PROCESS) else holder


def bot_lease(bot: str) -> str:
    return f"bot {bot}"


def account_lease(venue: str) -> str:
    """Of a person's orders that belong to no bot."""
    return f"account {venue}"


def process_holder() -> str:
    """The name under which a command, which is no run, holds a lease."""
    return f"{_PROCESS}{os.getpid()} on {socket.gethostname()}"


@contextmanager
def lease(
    ledger: Ledger,
    name: str,
    holder: str,
    patience: timedelta = timedelta(0),
    held: Lease | None = None,
) -> Iterator[Lease]:
    """Hold a lease for as long as the block lasts. held: it, where the holder took it already.
    Raises LeaseHeld while another one has it, after asking for it for as long as `patience`."""
    held = held or _await_lease(ledger, name, holder, patience)
    try:
        yield held
    finally:
        # Where the ledger fails, time gives the lease back.
        with suppress(StorageFailed):
            release_lease(ledger, held)


def _await_lease(ledger: Ledger, name: str, holder: str, patience: timedelta) -> Lease:
    if not patience:
        return take_lease(ledger, name, holder)
    for attempt in stamina.retry_context(
        on=LeaseHeld, attempts=None, timeout=patience, wait_initial=0.1, wait_max=1.0
    ):
        with attempt:
            return take_lease(ledger, name, holder)
    raise AssertionError("unreachable")


def take_lease(ledger: Ledger, name: str, holder: str) -> Lease:
    """Take a lease that is free, expired, or held by a run that has ended; else LeaseHeld."""
    with ledger.write() as books:
        taken = claim_lease(books, name, holder)
        known = None if taken else read_lease(books, name)
    if taken is None:
        assert known is not None
        raise LeaseHeld(
            f"The {name} is being traded by {known.holder}; try again after {known.expires_at:%T}Z."
        )
    return taken


def claim_lease(books: Connection, name: str, holder: str) -> Lease | None:
    """The same inside a transaction; None while another one has it."""
    now, known = utc_now(), read_lease(books, name)
    if known and _is_in_force(known, now) and not _has_ended(books, known.holder):
        return None
    token = known.token + 1 if known else 1
    taken = Lease(name, holder, token, now, now + LEASE_DURATION)
    if known is None:
        insert(books, tables.leases, taken)
    else:
        _update(books, taken)
    return taken


def require_lease(books: Connection, held: Lease) -> None:
    """Refuse a holder that was replaced, in the transaction of what it wants to write; one that
    was not has its lease prolonged."""
    known = read_lease(books, held.name)
    if known is None or known.token != held.token:
        now_held = known.holder if known else "nobody"
        raise LeaseLost(
            f"{held.holder} has lost the {held.name} to {now_held} and can place no order."
        )
    _update(books, replace(known, expires_at=utc_now() + LEASE_DURATION))


def release_lease(ledger: Ledger, held: Lease) -> None:
    """Give a lease back; nothing happens when another one has it by now."""
    with ledger.write() as books:
        known = read_lease(books, held.name)
        if known and known.token == held.token:
            _update(books, replace(known, expires_at=utc_now()))


def read_lease(books: Connection, name: str) -> Lease | None:
    return first(find(books, tables.leases, Lease, name=name))


def _is_in_force(known: Lease, now: datetime) -> bool:
    """An expiry further off than any lease lasts was written before the clock was set back."""
    return now < known.expires_at <= now + LEASE_DURATION


def _has_ended(books: Connection, holder: str) -> bool:
    """Whether the holder is a run that is over: it cannot act any more, however it ended."""
    outcome = find_outcome(books, holder)
    return outcome is not None and outcome != Outcome.RUNNING


def _update(books: Connection, held: Lease) -> None:
    update(books, tables.leases, as_row(held), name=held.name)
