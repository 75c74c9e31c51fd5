"""The WebSocket dialect: market streams under /ws and /stream, and the WebSocket API's stream of
an account under /ws-api/v3.

Each connection has a bounded queue and one task that empties it, so that a reader who is slow
harms only itself: when too much waits, its connection is cut.
"""

from __future__ import annotations

import asyncio
import json
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tradelib.errors import DeskError
from tradelib.paper import events
from tradelib.paper.config import RateLimits
from tradelib.paper.faults import Fault, Seen
from tradelib.paper.faulty import FaultyGate
from tradelib.paper.faulty_streams import FaultyOutlet
from tradelib.paper.gate import INTERNAL_ERROR
from tradelib.paper.hub import Hub
from tradelib.paper.limits import Arrivals
from tradelib.paper.params import NUMBER
from tradelib.paper.refusals import Refusal, illegal

GOING_AWAY, AGAINST_POLICY = 1001, 1008
_ABORTED = 1006
_CALL_ID = "[a-zA-Z0-9-_]{1,36}"

Cut = Callable[[WebSocket, bool], None]


class Connection(ABC):
    """One client's WebSocket. `serve` it until it ends."""

    def __init__(self, socket: WebSocket, hub: Hub, faulty: FaultyGate, cut: Cut) -> None:
        self.is_gone = False
        self.hub, self.faulty, self.gate = hub, faulty, faulty.gate
        self.limits: RateLimits = faulty.gate.limiter.limits
        self._socket, self._cut = socket, cut
        self._waiting: deque[str | Callable[[], Any]] = deque()
        self._is_ready, self._has_room = asyncio.Event(), asyncio.Event()
        self._outlet = FaultyOutlet(self, faulty, faulty.gate.wall)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.call_later(self.limits.stream_seconds, self.close, GOING_AWAY)
        writer = asyncio.create_task(self._write())
        try:
            await self._socket.accept()
            self.begin()
            await self._read()
        finally:
            end.cancel()
            self._leave()
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer

    async def _read(self) -> None:
        loop, arrived = asyncio.get_running_loop(), deque[float](maxlen=self._most_messages)
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            now = loop.time()
            if len(arrived) == arrived.maxlen and now - arrived[0] < 1:
                self.close(AGAINST_POLICY, "Too many requests")
                continue
            arrived.append(now)
            text = message.get("text")
            self.answer(text if text is not None else message["bytes"].decode("utf-8", "replace"))

    @abstractmethod
    def begin(self) -> None:
        """Does what the address asks for."""

    @property
    @abstractmethod
    def _most_messages(self) -> int:
        """How many a client may send in a second."""

    @abstractmethod
    def answer(self, text: str) -> None:
        """Takes one message of the client's."""

    @abstractmethod
    def unsubscribe(self) -> None:
        """Leaves every stream."""

    def _leave(self) -> None:
        self.is_gone = True
        self._has_room.set()
        self._waiting.clear()
        self.unsubscribe()

    # Sending.

    def deliver(self, stream: str, seen: Seen, text: str) -> None:
        if not self.is_gone:
            self._outlet.deliver(stream, seen, text)

    def send(self, stream: str, text: str) -> None:
        self._put(text)

    def reply(self, message: dict[str, Any]) -> None:
        self._put(json.dumps(message, separators=(",", ":")))

    def pause(self, milliseconds: int) -> None:
        self._put(lambda: asyncio.sleep(milliseconds / 1000))

    def terminate(self, stream: str) -> None:
        """Ends a stream; where that cannot be told, the connection ends."""
        self.hang_up()

    def hang_up(self) -> None:
        self._end(lambda: self._cut(self._socket, False))

    def close(self, code: int, reason: str = "") -> None:
        self._end(lambda: self._socket.close(code, reason))

    def _end(self, last: Callable[[], Any]) -> None:
        """Nothing is sent any more but what waits already."""
        if not self.is_gone:
            self._put(last)
            self.is_gone = True

    def _put(self, what: str | Callable[[], Any]) -> None:
        if self.is_gone:
            return
        if len(self._waiting) >= self.limits.stream_backlog:
            self._give_up()
        else:
            self._waiting.append(what)
            self._is_ready.set()

    def _give_up(self) -> None:
        """Its reader is too slow."""
        self.is_gone = True
        self._waiting.clear()
        self._has_room.set()
        self._cut(self._socket, True)

    @property
    def is_crowded(self) -> bool:
        return not self.is_gone and len(self._waiting) > self.limits.stream_backlog // 2

    async def make_room(self) -> None:
        try:
            async with asyncio.timeout(self.limits.stream_patience):
                while self.is_crowded:
                    self._has_room.clear()
                    await self._has_room.wait()
        except TimeoutError:
            self._give_up()

    async def _write(self) -> None:
        with suppress(WebSocketDisconnect):  # its reader is told as well
            while True:
                await self._is_ready.wait()
                self._is_ready.clear()
                while self._waiting:
                    await self._write_one(self._waiting.popleft())
                    if not self.is_crowded:
                        self._has_room.set()

    async def _write_one(self, what: str | Callable[[], Any]) -> None:
        if isinstance(what, str):
            await self._socket.send_text(what)
        elif (done := what()) is not None:
            await done


# Market streams.


class _Malformed(Exception):
    """A request that the market streams do not understand; code and words are the exchange's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


_METHODS = (
    "SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY",
)  # fmt: skip


def _invalid_stream() -> _Malformed:
    return _Malformed(2, "Invalid request: invalid stream")


class MarketConnection(Connection):
    """Market streams. combined: messages come with the name of their stream."""

    def __init__(self, socket: WebSocket, hub: Hub, faulty: FaultyGate, cut: Cut) -> None:
        super().__init__(socket, hub, faulty, cut)
        self._names: dict[str, None] = {}
        self._is_combined = socket.url.path == "/stream"

    @property
    def _most_messages(self) -> int:
        return self.limits.stream_messages

    def begin(self) -> None:
        """Listens to the streams that the address names; what is no stream is passed over."""
        socket = self._socket
        asked = socket.path_params.get("streams") or socket.query_params.get("streams", "")
        names = [each for each in asked.split("/") if each]
        for greet in self._listen(names[: self.limits.streams]):
            greet()

    def unsubscribe(self) -> None:
        for name in self._names:
            self.hub.leave(self, name)
        self._names = {}

    def send(self, stream: str, text: str) -> None:
        self._put(f'{{"stream":"{stream}","data":{text}}}' if self._is_combined else text)

    def answer(self, text: str) -> None:
        number = None
        try:
            asked = _read_request(text)
            number = _request_number(asked)
            begin: list[Callable[[], None]] = []
            result = self._obey(asked, begin)
            self.reply({"result": result, "id": number})
            for greet in begin:
                greet()
        except _Malformed as error:
            told = {"code": error.code, "msg": error.message}
            self.reply({"error": told, "id": number})
        except DeskError:
            self.reply({"error": INTERNAL_ERROR, "id": number})

    def _obey(self, asked: dict[str, Any], begin: list[Callable[[], None]]) -> Any:
        method = asked["method"]
        if method == "LIST_SUBSCRIPTIONS":
            return list(self._names)
        params = asked.get("params")
        if not isinstance(params, list):
            raise _Malformed(2, "Invalid request: missing field `params`")
        if method.endswith("_PROPERTY"):
            return self._property(method, params)
        if not all(isinstance(each, str) for each in params):
            raise _Malformed(2, "Invalid request: property name must be a string")
        if method == "UNSUBSCRIBE":
            for name in params:
                if name in self._names:
                    del self._names[name]
                    self.hub.leave(self, name)
        else:
            self._subscribe(params, begin)
        return None

    def _property(self, method: str, params: list[Any]) -> Any:
        if params[:1] != ["combined"]:
            raise _Malformed(0, "Unknown property")
        if method == "GET_PROPERTY":
            return self._is_combined
        if len(params) != 2 or not isinstance(params[1], bool):
            raise _Malformed(1, "Invalid value type: expected Boolean")
        self._is_combined = params[1]
        return None

    def _subscribe(self, names: list[str], begin: list[Callable[[], None]]) -> None:
        fault = self._meet_refusal(names)
        if fault is not None:
            raise _invalid_stream()
        if len(self._names | dict.fromkeys(names)) > self.limits.streams:
            self.close(AGAINST_POLICY, "Too many streams")
            return
        before = dict(self._names)
        begin += self._listen(names)
        if not all(name in self._names for name in names):
            for name in self._names.keys() - before.keys():
                del self._names[name]
                self.hub.leave(self, name)
            begin.clear()
            raise _invalid_stream()

    def _listen(self, names: list[str]) -> list[Callable[[], None]]:
        """Begins to listen to those there are; what greets the newcomer to each."""
        greets = []
        for name in names:
            greet = self.hub.listen(self, name)
            if greet is not None:
                self._names[name] = None
                greets.append(greet)
        return greets

    def _meet_refusal(self, names: list[str]) -> Fault | None:
        symbols = {name.partition("@")[0].upper() for name in names}
        seen = Seen("STREAM SUBSCRIBE", symbols.pop() if len(symbols) == 1 else "")
        fault = self.faulty.meet(seen)
        if fault is not None:
            self.faulty.tell_played(fault, seen)
        return fault


def _read_request(text: str) -> dict[str, Any]:
    try:
        asked = json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f"line {error.lineno} column {error.colno}" if hasattr(error, "lineno") else "start"
        raise _Malformed(3, f"Invalid JSON: expected value at {place}") from None
    if not isinstance(asked, dict) or "method" not in asked:
        raise _Malformed(2, "Invalid request: missing field `method`")
    if asked["method"] not in _METHODS:
        expected = ", ".join(f"`{each}`" for each in _METHODS)
        unknown = f"unknown variant `{asked['method']}`, expected one of {expected}"
        raise _Malformed(2, f"Invalid request: {unknown}")
    return asked


def _request_number(asked: dict[str, Any]) -> int | str | None:
    number = asked.get("id")
    if number is None or _is_count(number) or (isinstance(number, str) and len(number) <= 36):
        return number
    raise _Malformed(2, "Invalid request: request ID must be an unsigned integer")


# The WebSocket API.


class ApiConnection(Connection):
    """The WebSocket API, as far as the streams of accounts need it."""

    def __init__(self, socket: WebSocket, hub: Hub, faulty: FaultyGate, cut: Cut) -> None:
        super().__init__(socket, hub, faulty, cut)
        self._accounts: dict[int, str] = {}
        self._next = 0
        self._address = socket.client.host if socket.client else ""
        self._then: list[str] = []  # streams that end when the client has its answer
        self._methods: dict[str, tuple[int, Callable[[dict[str, Any]], Any]]] = {
            "ping": (1, lambda params: {}),
            "time": (1, lambda params: {"serverTime": hub.exchange.now}),
            "session.subscriptions": (2, self._subscriptions),
            "userDataStream.subscribe.signature": (2, self._subscribe),
            "userDataStream.unsubscribe": (2, self._unsubscribe),
        }

    @property
    def _most_messages(self) -> int:
        return max(1, self.limits.weight)

    def begin(self) -> None:
        """Nothing: the address asks for nothing."""

    def unsubscribe(self) -> None:
        for number, account in self._accounts.items():
            self.hub.leave_account(self, number, account)
        self._accounts = {}

    def terminate(self, stream: str) -> None:
        number = int(stream.removeprefix("account "))
        self.hub.leave_account(self, number, self._accounts.pop(number))
        event = events.stream_terminated(self.hub.exchange.now)
        self.reply({"subscriptionId": number, "event": event})

    def answer(self, text: str) -> None:
        reply: dict[str, Any] = {"id": None}
        try:
            asked = _read_call(text)
            reply["id"] = _call_id(asked)
            reply |= {"status": 200, "result": self._call(asked)}
        except Refusal as refusal:
            reply |= {"status": refusal.status, "error": refusal.body()}
        self.reply({**reply, "rateLimits": [self._used()]})
        while self._then:
            self.terminate(self._then.pop())

    def _call(self, asked: dict[str, Any]) -> Any:
        weight, method = self._methods.get(asked["method"], (0, None))
        if method is None:
            raise Refusal(-1020, "This operation is not supported.")
        params = asked.get("params")
        if params is not None and not isinstance(params, dict):
            raise Refusal(-1135, "Invalid 'params' in JSON request; expected an object.")
        self.gate.limiter.spend(self._address, weight)
        return method(params or {})

    def _used(self) -> dict[str, Any]:
        limiter = self.gate.limiter
        rule = next(each for each in limiter.rules() if each["rateLimitType"] == "REQUEST_WEIGHT")
        return {**rule, "count": limiter.used_by(self._address)}

    def _subscribe(self, params: dict[str, Any]) -> dict[str, Any]:
        account = self.gate.sign_in(params, self._address)
        seen = Seen("STREAM userDataStream.subscribe.signature", account=account)
        fault = self.faulty.meet(seen)
        if fault is not None:
            self.faulty.tell_played(fault, seen)
            raise Refusal(-1000, "An unknown error occurred while processing the request.", 500)
        if account in self._accounts.values():
            raise Refusal(-2035, "User Data Stream subscription already active.")
        number, self._next = self._next, self._next + 1
        self._accounts[number] = account
        self.hub.listen_to_account(self, number, account)
        return {"subscriptionId": number}

    def _unsubscribe(self, params: dict[str, Any]) -> dict[str, Any]:
        """Ends one subscription, or all of them when none is named."""
        number = params.get("subscriptionId")
        if number is not None and not _is_count(number):
            raise illegal("subscriptionId", NUMBER)
        if number is not None and number not in self._accounts:
            raise Refusal(-2036, "User Data Stream subscription not active.")
        ended = list(self._accounts) if number is None else [number]
        self._then = [f"account {each}" for each in ended]
        return {}

    def _subscriptions(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"subscriptionId": number} for number in self._accounts]


def _read_call(text: str) -> dict[str, Any]:
    try:
        asked = json.loads(text)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
        raise Refusal(-1135, "Invalid JSON Request")
    return asked


def _call_id(asked: dict[str, Any]) -> int | str | None:
    number = asked.get("id")
    is_whole = isinstance(number, int) and not isinstance(number, bool)
    if number is None or is_whole or (isinstance(number, str) and re.fullmatch(_CALL_ID, number)):
        return number
    expected = f"an integer, a string matching '^{_CALL_ID}$', or null"
    raise Refusal(-1135, f"Invalid 'id' in JSON request; expected {expected}.")


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def socket_routes(hub: Hub, faulty: FaultyGate, cut: Cut) -> list[WebSocketRoute]:
    """Where clients connect. cut: ends a connection without a word; at once, or once what was
    written has been sent."""
    limits, wall = faulty.gate.limiter.limits, faulty.gate.wall
    arrivals = Arrivals(limits.stream_connections, wall)

    async def is_refused(socket: WebSocket) -> bool:
        if arrivals.admit(socket.client.host if socket.client else ""):
            return False
        await socket.send_denial_response(Response(status_code=429))
        return True

    async def market(socket: WebSocket) -> None:
        if not await is_refused(socket):
            await MarketConnection(socket, hub, faulty, cut).serve()

    async def api(socket: WebSocket) -> None:
        if not await is_refused(socket):
            await ApiConnection(socket, hub, faulty, cut).serve()

    paths = ("/ws", "/ws/{streams:path}", "/stream", "/stream/ws", "/stream/ws/{streams:path}")
    return [
        *(WebSocketRoute(path, market) for path in paths),
        WebSocketRoute("/ws-api/v3", api),
    ]
