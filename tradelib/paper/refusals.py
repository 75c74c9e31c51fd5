"""The dialect's errors: an HTTP status, a code and the exchange's own words."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """A definite no to one request, in the words the real exchange uses.

    data: further members of the reply's body; headers: further headers of the reply.
    """

    def __init__(
        self,
        code: int,
        message: str,
        status: int = 400,
        data: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status
        self.data, self.headers = data, headers or {}

    def body(self) -> dict[str, Any]:
        reply: dict[str, Any] = {"code": self.code, "msg": self.message}
        return {**reply, "data": self.data} if self.data is not None else reply


def missing(name: str) -> Refusal:
    return Refusal(
        -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    )


def not_required(name: str) -> Refusal:
    return Refusal(-1106, f"Parameter '{name}' sent when not required.")


def illegal(name: str, legal: str) -> Refusal:
    return Refusal(
        -1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."
    )


def filter_failure(name: str) -> Refusal:
    return Refusal(-1013, f"Filter failure: {name}")


def rejected(message: str) -> Refusal:
    """The order was well formed, and the exchange will not take it."""
    return Refusal(-2010, message)


_INSUFFICIENT = "Account has insufficient balance for requested action."

# How the user stream names what the matching rejects, by code and message.
REJECT_REASONS = {
    (-2010, _INSUFFICIENT): "INSUFFICIENT_BALANCES",
    (-2010, "Order would immediately match and take."): "WOULD_MATCH_IMMEDIATELY",
    (-2010, "Stop price would trigger immediately."): "STOP_PRICE_WOULD_TRIGGER_IMMEDIATELY",
    (-2010, "The relationship of the prices for the orders is not correct."): "OCO_BAD_PRICES",
}


def insufficient() -> Refusal:
    return rejected(_INSUFFICIENT)


def unknown_order() -> Refusal:
    """What a cancel gets for an order that is not open."""
    return Refusal(-2011, "Unknown order sent.")


def no_such_order() -> Refusal:
    """What a query gets for an order that never was."""
    return Refusal(-2013, "Order does not exist.")


def too_many_requests(limit: int, wait: int, headers: dict[str, str] | None = None) -> Refusal:
    """limit: weight per minute; wait: ms until it may be asked again."""
    return Refusal(
        -1003,
        f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE. "
        "Please use WebSocket Streams for live updates to avoid polling the API.",
        status=429,
        headers={**(headers or {}), "Retry-After": _seconds(wait)},
    )


def banned(until: int, now: int) -> Refusal:
    """until, now: ms of the wall."""
    return Refusal(
        -1003,
        f"Way too much request weight used; IP banned until {until}. "
        "Please use WebSocket Streams for live updates to avoid bans.",
        status=418,
        headers={"Retry-After": _seconds(until - now)},
    )


def too_many_orders(limit: int, span: str) -> Refusal:
    return Refusal(
        -1015, f"Too many new orders; current limit is {limit} orders per {span}.", status=429
    )


def _seconds(milliseconds: int) -> str:
    return str(-(-milliseconds // 1000))


def invalid_symbol() -> Refusal:
    return Refusal(-1121, "Invalid symbol.")
