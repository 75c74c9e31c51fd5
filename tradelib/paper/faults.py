"""Which faults are played on which requests: a plan, by script or by seed.

A fault has a kind. A rule says which requests of the dialect it may meet, and when it comes: at
the n-th of them (a script), or at a share of them, drawn from a generator of the rule's own. The
same plan and the same sequence of requests give the same faults.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tradelib.errors import InvalidInput, unknown_name

Routes = frozenset[str] | None

NEW_ORDERS = frozenset({"POST order", "POST order/cancelReplace", "POST orderList/oco"})
CANCELS = frozenset({"DELETE order", "DELETE openOrders", "DELETE orderList"})
WRITES = NEW_ORDERS | CANCELS
# Not a request: the market, on its way, fills an order that rested.
MARKET_FILL = "MARKET fill"
# Neither: a message of a stream to one of those who listen, and a wish to listen.
ACCOUNT_MESSAGES = frozenset({
    "STREAM executionReport", "STREAM outboundAccountPosition", "STREAM balanceUpdate",
    "STREAM listStatus",
})  # fmt: skip
MESSAGES = ACCOUNT_MESSAGES | {
    "STREAM trade", "STREAM aggTrade", "STREAM kline", "STREAM ticker", "STREAM miniTicker",
    "STREAM bookTicker", "STREAM depth",
}  # fmt: skip
SUBSCRIPTIONS = frozenset({"STREAM SUBSCRIBE", "STREAM userDataStream.subscribe.signature"})


@dataclass(frozen=True)
class Kind:
    """routes: the requests it meets unless a rule says otherwise; None: every one.

    is_answer: it decides what becomes of the request and its answer, so that a request meets one
    such fault at most; the others change what the exchange does or shows, and may come together.
    is_stream: it meets streams, and nothing but its routes.
    """

    routes: Routes
    is_answer: bool
    is_stream: bool = False


@dataclass(frozen=True)
class Catalogue:
    """The faults that one place can play. options: their usual values, by name; whole numbers.

    what: such a fault, in words.
    """

    what: str
    kinds: Mapping[str, Kind]
    options: Mapping[str, int]


_KINDS = {
    # The request takes effect; its connection closes after hold_ms without a reply.
    "accept_then_hang": Kind(WRITES, True),
    # It takes effect, and is answered with -1007: execution status unknown.
    "accept_then_timeout": Kind(WRITES, True),
    # It takes effect, and is answered with a page of 502, 503 or 504, or "Unknown error".
    "accept_then_5xx": Kind(WRITES, True),
    # Its connection closes after hold_ms; it takes effect late_ms after it came, if still in time.
    "late": Kind(WRITES, True),
    # It never takes effect, and its connection closes after hold_ms.
    "hang_before": Kind(None, True),
    # It never takes effect: 503. A maintenance refuses all that comes in maintenance_ms.
    "refuse_5xx": Kind(None, True),
    "maintenance": Kind(None, True),
    # 429 with Retry-After; 418 for all that comes in ban_ms; -1015.
    "rate_limit": Kind(None, True),
    "ban": Kind(None, True),
    "order_limit": Kind(NEW_ORDERS, True),
    # For lag_ms the account's orders and balances show what was before it.
    "read_lag": Kind(WRITES, False),
    # For trades_lag_ms the account's trades end before it.
    "trades_lag": Kind(WRITES | {MARKET_FILL}, False),
    # The market fills the order right before its cancel.
    "cancel_fill_race": Kind(CANCELS | {"POST order/cancelReplace"}, False),
    # The market has only a part of what it showed; the rest expires, or rests.
    "partial": Kind(frozenset({"POST order", "POST order/cancelReplace"}), False),
    # The request is judged by a clock that is skew_ms ahead of the client's.
    "skew": Kind(WRITES, False),
    # The symbol is halted, for halt_ms or halt_requests, from this request on.
    "halt_symbol": Kind(NEW_ORDERS, False),
    # A stream's message is not sent; or it is sent twice.
    "stream_drop": Kind(MESSAGES, True, True),
    "stream_double": Kind(MESSAGES, True, True),
    # It is sent, and once more after stale_messages further ones of its stream.
    "stream_stale": Kind(MESSAGES, True, True),
    # It is sent after the next one of its stream, or after disorder_ms when none comes.
    "stream_disorder": Kind(MESSAGES, True, True),
    # It, and all that follow it on the connection, are sent delay_ms later.
    "stream_delay": Kind(MESSAGES, True, True),
    # The connection closes without a word; the message is lost.
    "stream_disconnect": Kind(MESSAGES, True, True),
    # The account's stream is terminated in its stead; the connection stays.
    "stream_terminate": Kind(ACCOUNT_MESSAGES, True, True),
    # It, and what follows on the connection for silence_ms, or silence_messages, is not sent.
    "stream_silence": Kind(MESSAGES, True, True),
    # A subscription is refused.
    "stream_refuse": Kind(SUBSCRIPTIONS, True, True),
}

# Milliseconds of the wall, but for hold_ms, disorder_ms and delay_ms (the event loop's), the
# *_requests and the *_messages.
_OPTIONS = {
    "hold_ms": 1000,  # a connection is held so long before it is closed without a reply
    "late_ms": 3000,  # between a late request's arrival and its effect
    "maintenance_ms": 2000,
    "lag_ms": 500,  # reads show the past for so long after a write
    "trades_lag_ms": 500,
    "retry_after_ms": 1000,
    "ban_ms": 2000,  # the first ban; each further one doubles it
    "skew_ms": 15_000,  # the exchange's clock less the client's
    "halt_ms": 2000,
    "halt_requests": 0,  # when more than 0: how many requests a halt lasts, instead of halt_ms
    "stale_messages": 2,
    "disorder_ms": 1000,
    "delay_ms": 500,
    "silence_ms": 5000,
    "silence_messages": 0,  # when more than 0: how many messages, instead of silence_ms
}
EXCHANGE = Catalogue("fault", _KINDS, _OPTIONS)
_LONGEST = 30 * 86_400_000

# What people see who ask for some of everything.
_MILD = {
    "accept_then_hang": 0.01, "accept_then_timeout": 0.02, "accept_then_5xx": 0.02, "late": 0.01,
    "hang_before": 0.005, "refuse_5xx": 0.01, "maintenance": 0.001, "rate_limit": 0.003,
    "ban": 0.0005, "order_limit": 0.01, "read_lag": 0.1, "trades_lag": 0.1,
    "cancel_fill_race": 0.05, "partial": 0.1, "skew": 0.01, "halt_symbol": 0.005,
    "stream_drop": 0.005, "stream_double": 0.01, "stream_stale": 0.01, "stream_disorder": 0.01,
    "stream_delay": 0.005, "stream_disconnect": 0.001, "stream_terminate": 0.005,
    "stream_silence": 0.001, "stream_refuse": 0.02,
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """When one kind of fault comes.

    routes: as 'POST order'. rate: share of the matching requests, 0 to 1; None: a script, which
    comes at the matching requests number `nth` to `nth + count - 1`, counted from 1.
    symbol, account: only their requests. options: over the plan's.
    """

    kind: str
    routes: Routes
    is_answer: bool
    rate: float | None = None
    nth: int = 1
    count: int = 1
    symbol: str | None = None
    account: str | None = None
    options: Mapping[str, int] = field(default_factory=dict)

    def fits(self, seen: Seen) -> bool:
        return (
            (self.routes is None or seen.route in self.routes)
            and (seen.is_request or self.routes is not None)
            and self.symbol in (None, seen.symbol)
            and self.account in (None, seen.account)
        )


@dataclass(frozen=True)
class Seen:
    """What a rule looks at. route: as 'POST order'; account: its name, '' for a public request."""

    route: str
    symbol: str = ""
    account: str = ""
    client_id: str = ""

    @property
    def is_request(self) -> bool:
        return not self.route.startswith(("MARKET ", "STREAM "))


@dataclass(frozen=True)
class Fault:
    """One fault to be played. share: a number between 0 and 1 of its own, for what is random."""

    kind: str
    is_answer: bool
    options: Mapping[str, int]
    share: float

    def __getitem__(self, option: str) -> int:
        return self.options[option]


@dataclass(frozen=True)
class FaultPlan:
    """seed: of every draw. options: all of them, by name."""

    seed: int = 0
    rules: tuple[Rule, ...] = ()
    options: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.rules)


NO_FAULTS = FaultPlan()


class Dice:
    """Tells, request by request, which faults a plan gives."""

    def __init__(self, plan: FaultPlan) -> None:
        self._options = plan.options
        self._rules = [
            (rule, random.Random(f"{plan.seed}/{_label(rule, number)}"))
            for number, rule in enumerate(plan.rules)
        ]
        self._met = [0] * len(self._rules)

    def throw(self, seen: Seen, is_barred: bool = False) -> list[Fault]:
        """At most one fault of those that answer, and any of the others.

        A scripted fault that finds its request taken waits for the next one; one of chance is
        drawn all the same, so that the draws follow from the requests alone.
        is_barred: the request gets nowhere, so that it meets none.
        """
        found: list[Fault] = []
        is_answered = is_barred
        for number, (rule, numbers) in enumerate(self._rules):
            is_taken = is_barred or (is_answered and rule.is_answer)
            if not rule.fits(seen) or (is_taken and rule.rate is None):
                continue
            share = self._draw(number, rule, numbers)
            if share is not None and not is_taken:
                options = {**self._options, **rule.options}
                found.append(Fault(rule.kind, rule.is_answer, options, share))
                is_answered |= rule.is_answer
        return found

    def _draw(self, number: int, rule: Rule, numbers: random.Random) -> float | None:
        """The share of a fault that comes now."""
        chance, share = numbers.random(), numbers.random()
        self._met[number] += 1
        if rule.rate is not None:
            return share if chance < rule.rate else None
        return share if rule.nth <= self._met[number] < rule.nth + rule.count else None


def _label(rule: Rule, number: int) -> str:
    """Names a rule's generator, so that a new rate leaves the draws of the others alone."""
    return f"script {number}" if rule.rate is None else f"{rule.kind} {sorted(rule.routes or ())}"


# From JSON.


def read_plan(
    asked: Mapping[str, Any], routes: Collection[str], catalogue: Catalogue = EXCHANGE
) -> FaultPlan:
    """A plan as the control API takes it.

    {"seed": 7, "rates": {"late": 0.1, "ban": {"rate": 0.01, "on": ["GET order"]}},
     "script": [{"kind": "accept_then_5xx", "nth": 2, "count": 1, "on": "POST order"}],
     "options": {"late_ms": 500}}

    routes: the requests there are; none given: whatever is named. A rate or a line of the script
    may bear `on`, `symbol`, `account` and options of its own.
    """
    _only(asked, {"seed", "rates", "script", "options"}, "part of a fault plan")
    reader = _Reader(catalogue, routes)
    script, rates = asked.get("script") or (), asked.get("rates") or {}
    rules = [*map(reader.scripted, script), *(reader.drawn(*each) for each in rates.items())]
    options = reader.options(asked.get("options") or {}, ())
    return FaultPlan(
        _integer("seed", asked.get("seed", 0)), tuple(rules), {**catalogue.options, **options}
    )


def mild_plan(seed: int) -> FaultPlan:
    """A little of everything."""
    return read_plan({"seed": seed, "rates": _MILD}, ())


_PARTS = ("on", "symbol", "account")


@dataclass(frozen=True)
class _Reader:
    """Reads rules, and says of a bad one what is wrong with it."""

    catalogue: Catalogue
    known_routes: Collection[str]

    def scripted(self, line: Any) -> Rule:
        if not isinstance(line, Mapping) or "kind" not in line:
            raise InvalidInput(f"A line of the script names its kind of fault; {line!r} does not.")
        nth, count = (_integer(name, line.get(name, 1), 1) for name in ("nth", "count"))
        return self._rule(line["kind"], line, ("kind", "nth", "count"), nth=nth, count=count)

    def drawn(self, kind: str, rate: Any) -> Rule:
        given = rate if isinstance(rate, Mapping) else {"rate": rate}
        share = given.get("rate")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise InvalidInput(f"The rate of {kind!r} is a number from 0 to 1, not {share!r}.")
        return self._rule(kind, given, ("rate",), rate=float(share))

    def _rule(self, kind: Any, given: Mapping[str, Any], own: Iterable[str], **when: Any) -> Rule:
        if kind not in self.catalogue.kinds:
            raise unknown_name(self.catalogue.what, str(kind), self.catalogue.kinds)
        options = self.options(given, (*own, *_PARTS))
        symbol = _text("symbol", given.get("symbol"))
        return Rule(
            kind,
            self._routes(kind, given.get("on")),
            self.catalogue.kinds[kind].is_answer,
            symbol=symbol and symbol.replace("/", ""),
            account=_text("account", given.get("account")),
            options=options,
            **when,
        )

    def _routes(self, kind: str, on: Any) -> Routes:
        if on is None:
            return self.catalogue.kinds[kind].routes
        routes = [on] if isinstance(on, str) else list(on)
        met = self.catalogue.kinds[kind]
        what, known = ("stream", met.routes) if met.is_stream else ("request", self.known_routes)
        for route in routes:
            if known and route not in known:
                raise unknown_name(what, str(route), known)
        return frozenset(routes)

    def options(self, given: Mapping[str, Any], beside: Iterable[str]) -> dict[str, int]:
        """The options among what is given; nothing but they and `beside` may be."""
        _only(given, {*beside, *self.catalogue.options}, f"part of a {self.catalogue.what}")
        return {
            name: _integer(name, value, -_LONGEST if name == "skew_ms" else 0, _LONGEST)
            for name, value in given.items()
            if name in self.catalogue.options
        }


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"The {name} of a fault is text, not {value!r}.")
    return value


def _integer(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    is_low = is_whole and least is not None and value < least
    if not is_whole or is_low or (most is not None and value > most):
        bounds = "".join((
            "" if least is None else f" of {least} or more",
            "" if most is None else f", {most} at most",
        ))  # fmt: skip
        raise InvalidInput(f"{name} is a whole number{bounds}, not {value!r}.")
    return value


def _only(given: Any, known: Iterable[str], what: str) -> None:
    if not isinstance(given, Mapping):
        raise InvalidInput(f"A {what} stands in a JSON object, not in {given!r}.")
    for name in given:
        if name not in known:
            raise unknown_name(what, str(name), known)
