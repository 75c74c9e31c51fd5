"""ccxt's exceptions as the desk's, without the signed URLs that their texts carry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import ccxt

from tradelib.errors import (
    AuthenticationFailed,
    DeskError,
    InsufficientFunds,
    InvalidInput,
    OrderRejected,
    OrderUnknown,
    RateLimited,
    UnresolvedError,
    VenueUnavailable,
)
from tradelib.scrubber import Scrubber

_QUERY = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']*")
# Without a client's own keys, what looks like one is removed all the same.
_NO_KEYS = Scrubber()

# The venue's no: the request reached it and did nothing.
_DEFINITE = (ccxt.InvalidOrder, ccxt.BadRequest, ccxt.NotSupported, ccxt.OperationRejected)
Clearer = tuple[tuple[re.Pattern[str], type[ccxt.BaseError]], ...]


def redact(text: str, scrubber: Scrubber = _NO_KEYS) -> str:
    """The text without query strings, keys, and values that look like credentials."""
    return scrubber.scrub(_QUERY.sub(r"\1?***", text))


@contextmanager
def translated(
    venue: str,
    action: str,
    *,
    sends: bool = False,
    clearer: Clearer = (),
    scrubber: Scrubber = _NO_KEYS,
) -> Iterator[None]:
    """Run a ccxt call; its exceptions come out as the desk's.

    sends: the call may create or cancel an order, so that any answer that is not a definite
        yes or no is an UnresolvedError and not something to try again.
    clearer: patterns of what a venue says, each with the class of error that ccxt should have
        raised for it.
    scrubber: knows the keys that the venue may repeat.
    """
    try:
        yield
    except ccxt.BaseError as error:
        # `from None`: the original's text and frames carry the signed URL.
        told = _clear(error, clearer)
        # When the venue takes requests again, as the budget was told.
        told.retry_after = getattr(error, "retry_after", None)
        raise _translate(told, redact(str(told), scrubber), venue, action, sends) from None
    except DeskError:
        raise
    except Exception as error:
        # ccxt's parsers, before an answer of a shape they do not know, or its signing, before
        # keys that are none; neither's text is fit to be shown.
        shown = ccxt.BadResponse(f"answer or keys of an unknown shape ({type(error).__name__})")
        raise _translate(shown, str(shown), venue, action, sends) from None


def _clear(error: ccxt.BaseError, clearer: Clearer) -> ccxt.BaseError:
    said = str(error)
    return next((kind(said) for pattern, kind in clearer if pattern.search(said)), error)


def _translate(error: ccxt.BaseError, said: str, venue: str, action: str, sends: bool) -> DeskError:
    text = f"Venue {venue} could not {action}: {said[:300]}"
    # The order of these lines is from the special to the general; ccxt's tree is nested.
    if isinstance(error, ccxt.InsufficientFunds):
        return InsufficientFunds(text)
    if isinstance(error, ccxt.OrderNotFound):
        return OrderUnknown(text)
    if isinstance(error, ccxt.DDoSProtection | ccxt.RateLimitExceeded):
        seconds = getattr(error, "retry_after", None)
        again = "wait a minute" if seconds is None else f"come again in {seconds:.0f} s"
        return RateLimited(f"{text}; it wants fewer requests, {again}.", retry_after=seconds)
    if isinstance(error, ccxt.InvalidNonce):
        # A read that another process overtook, or that was held up, may be asked again.
        kind = OrderRejected if sends else VenueUnavailable
        return kind(f"{text}; it came too late or too early, set this machine's clock.")
    if isinstance(error, ccxt.AuthenticationError):
        return AuthenticationFailed(f"{text}; check the venue's keys and what they may do.")
    if isinstance(error, ccxt.BadSymbol):
        return InvalidInput(f"{text}; check the symbol.")
    if isinstance(error, _DEFINITE):
        return OrderRejected(text)
    if sends:
        # Refused and dropped connections are the same class, and a bare exchange error may hide
        # either outcome: the class cannot tell "never sent" from "maybe executed".
        return UnresolvedError(f"{text}; whether it took effect is not known.")
    return VenueUnavailable(f"{text}; check its address and this machine's network.")
