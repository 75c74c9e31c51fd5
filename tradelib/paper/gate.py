"""Where every request of the dialect is handled: counted, authenticated, answered."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tradelib.errors import DeskError
from tradelib.paper.clock import Wall, wall_ms
from tradelib.paper.config import PaperAccount, RateLimits
from tradelib.paper.exchange import Exchange
from tradelib.paper.limits import RateLimiter
from tradelib.paper.params import Params
from tradelib.paper.reads import Sight
from tradelib.paper.refusals import Refusal
from tradelib.paper.rest import ENDPOINTS, Call, Endpoint

_SIGNING = frozenset({"timestamp", "recvWindow", "signature"})
_SIGNATURE = re.compile(r"(?:^|&)signature=([^&]*)")
_KEY = re.compile(r"^[A-Za-z0-9_-]{1,128}$")
_WINDOW, _LONGEST_WINDOW, _AHEAD = 5000, 60_000, 1000


@dataclass(frozen=True)
class Request:
    """One request as it came. path: below /api/v3/; query, body: exact, as they were signed."""

    method: str
    path: str
    query: str
    body: str
    key: str | None
    address: str

    @property
    def route(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Reply:
    """body: JSON, or text as it is."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Twist:
    """What a fault changes in the handling of a request.

    skew: how far the exchange's clock is off, in ms. wall, market: the moments at which the
    request is judged, when not now; the market's clock may already be past its own.
    share: see Call. look: what an account sees.
    """

    skew: int = 0
    wall: int | None = None
    market: int = 0
    share: float | None = None
    look: Callable[[str], Sight | None] = lambda account: None


STRAIGHT = Twist()
INTERNAL_ERROR = {
    "code": -1001,
    "msg": "Internal error; unable to process your request. Please try again.",
}


class Gate:
    """The only way in. Faults are played around `handle`."""

    def __init__(
        self,
        exchange: Exchange,
        accounts: Iterable[PaperAccount],
        limits: RateLimits,
        wall: Wall = wall_ms,
    ) -> None:
        self.exchange, self.limiter, self.wall = exchange, RateLimiter(limits, wall), wall
        self.requests: Counter[str] = Counter()
        self._accounts = {each.key: each for each in accounts}

    def account_of(self, key: str | None) -> str:
        """The name of the account with this key; '' when there is none."""
        account = self._accounts.get(key or "")
        return account.name if account else ""

    def handle(self, request: Request, twist: Twist = STRAIGHT) -> Reply:
        headers: dict[str, str] = {}
        try:
            return Reply(200, self._answer(request, headers, twist), headers)
        except Refusal as refusal:
            return Reply(refusal.status, refusal.body(), headers | refusal.headers)
        except DeskError:
            return Reply(500, INTERNAL_ERROR, headers)

    def _answer(self, request: Request, headers: dict[str, str], twist: Twist) -> Any:
        endpoint = ENDPOINTS.get((request.method, request.path))
        if endpoint is None:
            raise _unserved(request)
        self.requests[request.route] += 1
        params = Params("&".join(filter(None, (request.query, request.body))))
        headers |= self.limiter.spend(request.address, endpoint.weight(params))
        account = self._authenticate(request, params, twist) if endpoint.is_signed else ""
        _refuse_unread(params, endpoint)
        sight = twist.look(account)
        call = Call(self.exchange, self.limiter, params, account, headers, sight, twist.share)
        return endpoint.answer(call)

    def _authenticate(self, request: Request, params: Params, twist: Twist) -> str:
        """The name of the account that signed the request."""
        if request.key is None or not _KEY.match(request.key):
            raise Refusal(-2014, "API-key format invalid.", status=401)
        for name in ("timestamp", "signature"):
            params.need(name)
        account = self._accounts.get(request.key)
        if account is None:
            message = "Invalid API-key, IP, or permissions for action."
            raise Refusal(-2015, message, status=401)
        self._check_time(params, twist)
        expected = hmac.new(
            account.secret.encode(), _signed_text(request).encode(), hashlib.sha256
        ).hexdigest()
        if not hmac.compare_digest(expected.encode(), params.need("signature").encode()):
            raise Refusal(-1022, "Signature for this request is not valid.")
        return account.name

    def sign_in(self, params: Mapping[str, Any], address: str) -> str:
        """The name of the account that signed a request of the WebSocket API: its parameters in
        the order of their names. Raises Refusal."""
        given = {name: value for name, value in params.items() if value is not None}
        text = "&".join(f"{name}={given[name]}" for name in sorted(given) if name != "signature")
        query = f"{text}&signature={params.get('signature', '')}"
        request = Request("WS", "", query, "", str(given.get("apiKey", "")), address)
        return self._authenticate(request, Params(query), STRAIGHT)

    def _check_time(self, params: Params, twist: Twist) -> None:
        """A client may sign by the wall's clock, or by the market's when it adjusted to that."""
        sent, window = params.integer("timestamp"), params.integer("recvWindow") or _WINDOW
        if window > _LONGEST_WINDOW:
            raise Refusal(-1131, f"'recvWindow' must be less than {_LONGEST_WINDOW}.")
        wall = self.wall() if twist.wall is None else twist.wall
        clocks = wall, max(self.exchange.now, twist.market)
        late = [clock + twist.skew - sent for clock in clocks]
        if any(-_AHEAD < each <= window for each in late):
            return
        if all(each <= -_AHEAD for each in late):
            message = f"Timestamp for this request was {_AHEAD}ms ahead of the server's time."
        else:
            message = "Timestamp for this request is outside of the recvWindow."
        raise Refusal(-1021, message)


def _unserved(request: Request) -> Refusal:
    if any(path == request.path for _, path in ENDPOINTS):
        return Refusal(-1020, "This operation is not supported.", status=405)
    return Refusal(-1000, f"Path /api/v3/{request.path} is not served here.", status=404)


def _signed_text(request: Request) -> str:
    """Query and body end to end, as sent, without the signature itself."""
    return "".join(_SIGNATURE.sub("", text) for text in (request.query, request.body))


def _refuse_unread(params: Params, endpoint: Endpoint) -> None:
    known = endpoint.params | (_SIGNING if endpoint.is_signed else frozenset())
    read = len(params.names & known)
    if read < len(params.names):
        raise Refusal(
            -1104,
            f"Not all sent parameters were read; read '{read}' parameter(s) "
            f"but was sent '{len(params.names)}'.",
        )
