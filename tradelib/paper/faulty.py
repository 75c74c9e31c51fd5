"""A gate at which faults are played.

The real gate handles a request at most once; a fault may change when that is, what the request
meets, and what becomes of the answer. Spans of time are the wall's; the event loop only holds
connections.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from tradelib.errors import DeskError
from tradelib.paper.engine import Changes
from tradelib.paper.faults import EXCHANGE, MARKET_FILL, NO_FAULTS, Dice, Fault, FaultPlan, Seen
from tradelib.paper.faults import read_plan as read_known_plan
from tradelib.paper.gate import STRAIGHT, Gate, Reply, Request, Twist
from tradelib.paper.lags import Lags
from tradelib.paper.orders import Order
from tradelib.paper.params import Params
from tradelib.paper.refusals import Refusal, banned, too_many_orders, too_many_requests
from tradelib.paper.rest import ENDPOINTS

Hold = Callable[[int], Awaitable[None]]

_MOST_TOLD = 10_000
_LOOK = 0.005  # seconds between two looks at the wall while a request is on its way
_PAGE = {"Content-Type": "text/html"}
_TIMEOUT = Reply(504, {"code": -1007, "msg": (
    "Timeout waiting for response from backend server. "
    "Send status unknown; execution status unknown."
)})  # fmt: skip
_UNKNOWN_ERROR = Reply(
    503, {"code": -1000, "msg": "Unknown error, please check your request or try again later."}
)


def _page(status: int, title: str) -> Reply:
    """What a proxy in front of the exchange says in its stead."""
    text = f"<html><head><title>{status} {title}</title></head><body>{title}</body></html>"
    return Reply(status, text.encode(), _PAGE)


_CLOSED = _page(503, "Service Temporarily Unavailable")
_BROKEN = (_page(502, "Bad Gateway"), _CLOSED, _page(504, "Gateway Time-out"), _UNKNOWN_ERROR)


@dataclass
class Played:
    """One fault as it was played. took_effect: whether the exchange accepted the request; None
    while that is not known yet. time: of the wall, in ms."""

    kind: str
    route: str
    symbol: str
    account: str
    client_id: str
    time: int
    took_effect: bool | None = None


@dataclass(frozen=True)
class Case:
    """One request, what the rules saw of it, and what it will meet when it is handled."""

    request: Request
    seen: Seen
    effects: tuple[Fault, ...]


@dataclass(frozen=True)
class Late:
    """A request that is on its way until `due`, in ms of the wall.

    It is judged by when it was due, however long nobody looked. market: the market's time when it
    was sent, and its delay, so that it can be too late where the market's clock stands.
    """

    due: int
    case: Case
    market: int
    told: Played

    @property
    def moment(self) -> Twist:
        return Twist(wall=self.due, market=self.market)


@dataclass
class Span:
    """Something that lasts until `until`, in ms of the wall, or for `left` requests."""

    until: int
    left: int | None = None

    def is_over(self, now: int) -> bool:
        return now >= self.until if self.left is None else self.left <= 0


class FaultyGate:
    """Plays the faults of a plan on what comes to a gate. Use it from one thread."""

    def __init__(self, gate: Gate, plan: FaultPlan = NO_FAULTS) -> None:
        self.gate, self.exchange, self._wall = gate, gate.exchange, gate.wall
        self.lags = Lags(gate.exchange, gate.wall)
        self._late: list[Late] = []
        self._delivery: asyncio.Task[None] | None = None
        self._halts: dict[str, Span] = {}
        self._is_handling = False
        self.exchange.listeners.append(self._hear)
        self._begin(plan)

    def _begin(self, plan: FaultPlan) -> None:
        self.plan, self._dice = plan, Dice(plan)
        self.meets_streams = any(EXCHANGE.kinds[each.kind].is_stream for each in plan.rules)
        self.lags.end()
        self._maintenance = self._ban = Span(0)
        self._bans = self._requests = 0
        self._counts: Counter[str] = Counter()
        self._routes: dict[str, Counter[str]] = {}
        self._log: deque[Played] = deque(maxlen=_MOST_TOLD)
        for symbol in list(self._halts):
            self._unhalt(symbol)

    @property
    def is_idle(self) -> bool:
        """Nothing is, or will be, played."""
        return not self.plan and not self._late

    # Commands.

    def replace(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Another plan from now on. Late requests that are on their way stay so."""
        plan = read_plan(asked)
        self.catch_up()
        self._begin(plan)
        return self.tell()

    def tell(self) -> dict[str, Any]:
        """What was played since the plan began. pending: late requests on their way."""
        self.catch_up()
        return {
            "seed": self.plan.seed,
            "rules": len(self.plan.rules),
            "requests": self._requests,
            "played": dict(self._counts),
            "routes": {kind: dict(found) for kind, found in self._routes.items()},
            "log": [asdict(each) for each in self._log],
            "pending": len(self._late),
        }

    def catch_up(self) -> None:
        """What the wall's clock says is due: late requests arrive, halts end, the market moves."""
        if self.is_idle:
            return
        now = self._wall()
        for symbol in [name for name, span in self._halts.items() if span.is_over(now)]:
            self._unhalt(symbol)
        with suppress(DeskError):  # a full disk: whoever asks next is told
            self.exchange.advance()
        for each in sorted((each for each in self._late if each.due <= now), key=lambda x: x.due):
            self._late.remove(each)
            each.told.took_effect = self._pass(each.case, each.moment).status == 200

    def close(self) -> None:
        if self._delivery is not None:
            self._delivery.cancel()

    # Requests.

    async def handle(self, request: Request, hold: Hold) -> Reply | None:
        """The answer, or None where the connection closes without one.

        hold: waits so many ms, or until the client gives up.
        """
        seen = self._look_at(request)
        self._count_down(seen.symbol)
        self.catch_up()
        self._requests += 1
        barred = self._barred()
        faults = self._dice.throw(seen, barred is not None)
        case = Case(request, seen, tuple(each for each in faults if not each.is_answer))
        answer = next((each for each in faults if each.is_answer), None)
        if barred is not None:
            return barred
        return await self._answer(case, answer, hold) if answer else self._pass(case)

    def _look_at(self, request: Request) -> Seen:
        values = _values(request, "symbol", "origClientOrderId", "newClientOrderId")
        account = self.gate.account_of(request.key)
        return Seen(request.route, values[0] or "", account, values[1] or values[2] or "")

    def _barred(self) -> Reply | None:
        """What every request gets during a maintenance or a ban."""
        now = self._wall()
        if not self._maintenance.is_over(now):
            return _CLOSED
        return None if self._ban.is_over(now) else _refused(banned(self._ban.until, now))

    async def _answer(self, case: Case, fault: Fault, hold: Hold) -> Reply | None:
        return await getattr(self, f"_play_{fault.kind}")(case, fault, hold)

    async def _play_accept_then_hang(self, case: Case, fault: Fault, hold: Hold) -> None:
        self._note(fault, case.seen, self._pass(case).status == 200)
        await hold(fault["hold_ms"])

    async def _play_accept_then_timeout(self, case: Case, fault: Fault, hold: Hold) -> Reply:
        self._note(fault, case.seen, self._pass(case).status == 200)
        return _TIMEOUT

    async def _play_accept_then_5xx(self, case: Case, fault: Fault, hold: Hold) -> Reply:
        self._note(fault, case.seen, self._pass(case).status == 200)
        return _BROKEN[int(fault.share * len(_BROKEN))]

    async def _play_late(self, case: Case, fault: Fault, hold: Hold) -> None:
        told = self._note(fault, case.seen, None)
        delay = fault["late_ms"]
        self._late.append(Late(self._wall() + delay, case, self.exchange.now + delay, told))
        if self._delivery is None or self._delivery.done():
            self._delivery = asyncio.create_task(self._deliver())
        await hold(fault["hold_ms"])

    async def _deliver(self) -> None:
        while self._late:
            await asyncio.sleep(_LOOK)
            self.catch_up()

    async def _play_hang_before(self, case: Case, fault: Fault, hold: Hold) -> None:
        self._note(fault, case.seen, False)
        await hold(fault["hold_ms"])

    async def _play_refuse_5xx(self, case: Case, fault: Fault, hold: Hold) -> Reply:
        self._note(fault, case.seen, False)
        return _CLOSED

    async def _play_maintenance(self, case: Case, fault: Fault, hold: Hold) -> Reply:
        self._note(fault, case.seen, False)
        self._maintenance = Span(self._wall() + fault["maintenance_ms"])
        return _CLOSED

    async def _play_rate_limit(self, case: Case, fault: Fault, hold: Hold) -> Reply:
        self._note(fault, case.seen, False)
        limit = self.gate.limiter.limits.weight
        return _refused(too_many_requests(limit, fault["retry_after_ms"]))

    async def _play_ban(self, case: Case, fault: Fault, hold: Hold) -> Reply:
        self._note(fault, case.seen, False)
        now = self._wall()
        self._ban = Span(now + fault["ban_ms"] * 2**self._bans)
        self._bans += 1
        return _refused(banned(self._ban.until, now))

    async def _play_order_limit(self, case: Case, fault: Fault, hold: Hold) -> Reply:
        self._note(fault, case.seen, False)
        return _refused(too_many_orders(self.gate.limiter.limits.orders_10s, "10 SECOND"))

    # What a request meets when it is handled.

    def _pass(self, case: Case, twist: Twist = STRAIGHT) -> Reply:
        """The real gate's answer, with the effects played."""
        twist = replace(twist, look=self.lags.sight)
        confirmed: list[tuple[Fault, Callable[[Reply], bool]]] = []
        for fault in sorted(case.effects, key=lambda each: _RANKS[each.kind]):
            played, changes = getattr(self, f"_begin_{fault.kind}")(case, fault)
            twist = replace(twist, **changes)
            confirmed.append((fault, played))
        reply = self._handle(case.request, twist)
        for fault, played in confirmed:
            if played(reply):
                self._note(fault, case.seen, reply.status == 200)
        return reply

    def _handle(self, request: Request, twist: Twist) -> Reply:
        self._is_handling = True
        try:
            return self.gate.handle(request, twist)
        finally:
            self._is_handling = False

    # Each begins one effect, and answers how to tell whether it was played, and what it twists.

    def _begin_read_lag(self, case: Case, fault: Fault) -> Any:
        lag = self.lags.hide_all(case.seen.account, fault["lag_ms"])
        return (lambda reply: self.lags.keep(lag, reply.status == 200)), {}

    def _begin_trades_lag(self, case: Case, fault: Fault) -> Any:
        end = self.exchange.engine.next_trade
        lag = self.lags.hide_trades(case.seen.account, end, fault["trades_lag_ms"])
        return (lambda reply: self.lags.keep(lag, self.exchange.engine.next_trade > end)), {}

    def _begin_cancel_fill_race(self, case: Case, fault: Fault) -> Any:
        order = self._racing(case, fault)
        was_filled = order is not None and self._rush(order)
        return (lambda reply: was_filled), {}

    def _racing(self, case: Case, fault: Fault) -> Order | None:
        """The order that the request is about to cancel; any of them when it means all."""
        engine, account, symbol = self.exchange.engine, case.seen.account, case.seen.symbol
        if case.request.route == "DELETE openOrders":
            waiting = engine.open_orders(account, symbol)
            return waiting[int(fault.share * len(waiting))] if waiting else None
        numbers = ("orderListId", "cancelOrderId", "orderId")
        *found, one, other = _values(
            case.request, *numbers, "cancelOrigClientOrderId", "origClientOrderId"
        )
        in_list, *names = [int(each) if each and each.isdecimal() else None for each in found]
        if in_list in engine.lists and case.request.route == "DELETE orderList":
            return engine.open.get(engine.lists[in_list].order_ids[0])
        number, name = names[0] or names[1], one or other
        return engine.find_open(account, symbol, number, name) if number or name else None

    def _rush(self, order: Order) -> bool:
        try:
            with self.exchange.settle() as engine:
                engine.rush(order, self.exchange.now)
        except Refusal:  # the symbol is halted
            return False
        return True

    def _begin_partial(self, case: Case, fault: Fault) -> Any:
        def was_cut(reply: Reply) -> bool:
            order = self._last_order(case) if reply.status == 200 else None
            return order is not None and 0 < order.filled < order.amount

        return was_cut, {"share": fault.share}

    def _last_order(self, case: Case) -> Order | None:
        number = self.exchange.engine.next_order - 1
        return self.exchange.store.order(case.seen.account, case.seen.symbol, number, None)

    def _begin_skew(self, case: Case, fault: Fault) -> Any:
        return (lambda reply: True), {"skew": fault["skew_ms"]}

    def _begin_halt_symbol(self, case: Case, fault: Fault) -> Any:
        symbol, requests = case.seen.symbol, fault["halt_requests"]
        is_played = symbol in self.exchange.engine.books and symbol not in self._halts
        if is_played:
            self._halts[symbol] = Span(self._wall() + fault["halt_ms"], requests or None)
            self.exchange.pause(symbol, True)
        return (lambda reply: is_played), {}

    def _count_down(self, symbol: str) -> None:
        span = self._halts.get(symbol)
        if span is not None and span.left is not None:
            span.left -= 1

    def _unhalt(self, symbol: str) -> None:
        self.exchange.pause(symbol, False)
        del self._halts[symbol]

    # The market's own fills.

    def _hear(self, changes: Changes) -> None:
        """A fill that no request made may lag in the account's trades too."""
        if not self.plan or self._is_handling:
            return
        trades = [each.trade for each in changes.executions if each.trade]
        for account in sorted({each.account for each in trades}):
            first = next(each for each in trades if each.account == account)
            seen = Seen(MARKET_FILL, first.symbol, account)
            for fault in (each for each in self._dice.throw(seen) if each.kind == "trades_lag"):
                self.lags.hide_trades(account, first.id, fault["trades_lag_ms"])
                self._note(fault, seen, True)

    # Streams.

    def meet(self, seen: Seen) -> Fault | None:
        """The fault, if any, that a stream's message or a subscription meets."""
        return next(iter(self._dice.throw(seen)), None) if self.meets_streams else None

    def tell_played(self, fault: Fault, seen: Seen) -> None:
        """Puts a fault of a stream into the record."""
        self._note(fault, seen, None)

    # The record.

    def _note(self, fault: Fault, seen: Seen, took_effect: bool | None) -> Played:
        told = Played(
            fault.kind, seen.route, seen.symbol, seen.account, seen.client_id, self._wall(),
            took_effect,
        )  # fmt: skip
        self._counts[fault.kind] += 1
        self._routes.setdefault(fault.kind, Counter())[seen.route] += 1
        self._log.append(told)
        return told


_RANKS = {kind: rank for rank, kind in enumerate(EXCHANGE.kinds)}


def read_plan(asked: Mapping[str, Any]) -> FaultPlan:
    """A plan as the control API takes it; see `faults.read_plan`."""
    return read_known_plan(asked, {*map(" ".join, ENDPOINTS), MARKET_FILL})


def _refused(refusal: Refusal) -> Reply:
    return Reply(refusal.status, refusal.body(), refusal.headers)


def _values(request: Request, *names: str) -> list[str | None]:
    """Parameters as they were sent; None for what is missing or malformed."""
    try:
        params = Params("&".join(filter(None, (request.query, request.body))))
        return [params.text(name) for name in names]
    except Refusal:
        return [None] * len(names)
