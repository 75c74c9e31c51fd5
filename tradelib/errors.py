"""Every error the desk raises, grouped by what its caller does next.

    DeskError
    ├── RetryableError         nothing changed; ask again later
    │   ├── RateLimited            the venue wants fewer requests
    │   ├── VenueUnavailable       no usable answer to a read
    │   │   └── NoQuote                the venue answers, but has no bid and ask for a symbol
    │   └── LeaseHeld              another process trades this bot right now
    ├── RefusedError           the answer is no; asking again changes nothing
    │   ├── InvalidInput           bad parameter, file, symbol or setting
    │   ├── OrderRejected          the venue will not take this order
    │   │   └── InsufficientFunds
    │   ├── OrderUnknown           the venue knows no such order
    │   └── RunFailed              a notebook's cell failed, or its time ran out
    ├── UnresolvedError        an order may or may not exist; look it up, never resend blindly
    └── StopError              the desk must not go on
        ├── AuthenticationFailed   the venue refuses the keys
        ├── ReadOnly               this page may look, and never touch
        ├── LeaseLost              another process has taken over; this one must not write
        └── StorageFailed          the ledger, candles or pages cannot be read or written

A message is one sentence or two: what is wrong, where, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DeskError(Exception):
    """Base of the desk's errors; its text is fit to be shown to a user as it stands."""

    exit_code = 1


class RetryableError(DeskError):
    """Nothing changed at the other side; the same call may succeed later."""


class RateLimited(RetryableError):
    """The venue refuses requests for now.

    retry_after: seconds to wait, as told by the venue; None when it told nothing.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class VenueUnavailable(RetryableError):
    """A read got no usable answer from the venue."""


class NoQuote(VenueUnavailable):
    """The venue has no bid and ask for a symbol; its others may have."""


class LeaseHeld(RetryableError):
    """Another process trades this bot; it will have ended soon."""


class RefusedError(DeskError):
    """A definite no: the same call would get the same answer."""


class InvalidInput(RefusedError):
    """A parameter, file, symbol, strategy or setting is not acceptable."""

    exit_code = 2


class OrderRejected(RefusedError):
    """The venue refused the order; it does not exist there."""


class InsufficientFunds(OrderRejected):
    """The account cannot pay for the order."""


class OrderUnknown(RefusedError):
    """The venue has no order by that id."""


class RunFailed(RefusedError):
    """A notebook did not run to its end.

    run: its id. retryable: whether what stopped it may be gone at the next try, as a silent venue
    may.
    """

    def __init__(self, message: str, *, run: str | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.run = run
        self.retryable = retryable


class UnresolvedError(DeskError):
    """An order was sent and no answer came: it may or may not exist at the venue."""


class StopError(DeskError):
    """The desk must not go on without a person."""


class AuthenticationFailed(StopError):
    """The venue does not accept the keys."""


class ReadOnly(StopError):
    """Something outside a scheduled run tried to write the ledger or reach a venue's orders."""


class LeaseLost(StopError):
    """A process that lost its lease tried to place an order."""


class StorageFailed(StopError):
    """A file or database of the desk cannot be read or written."""


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> InvalidInput:
    """The error for a name that does not exist, with the nearest known one suggested."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}."
    return InvalidInput(f"Unknown {kind} {name!r}{f' in {where}' if where else ''}; {hint}")
