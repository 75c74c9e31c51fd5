"""A proxy in front of an exchange that plays what happens on the wire.

with wire_proxy(paper.url, read_wire_plan({"script": [{"kind": "cut_after"}]})) as wire:
    exchange = ccxt.binance(ccxt_settings(wire.url, key, secret, ccxt.binance))
    wire.tell()["log"]  # what was played, and whether the request was forwarded

It understands just enough HTTP to see where a request and a reply end: a head, and a body as
long as its Content-Length says.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tradelib.errors import InvalidInput
from tradelib.paper.faults import (
    NO_FAULTS,
    Catalogue,
    Dice,
    Fault,
    FaultPlan,
    Kind,
    Seen,
    read_plan,
)

HOST = "127.0.0.1"
_API = "/api/v3/"
_MOST_TOLD = 10_000
_LONGEST_HEAD = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # linger for no time: the peer gets a reset, not an end

WIRE = Catalogue(
    "fault of the wire",
    {
        "reset_before": Kind(None, True),  # RST; nothing was forwarded
        "black_hole": Kind(None, True),  # held until the client gives up; nothing was forwarded
        "black_hole_after": Kind(None, True),  # the same, but the exchange got the request
        "cut_after": Kind(None, True),  # forwarded; the connection ends without a reply
        "reset_after": Kind(None, True),  # the same, with RST
        "half_reply": Kind(None, True),  # forwarded; the connection ends within the reply
        "latency": Kind(None, False),  # the request waits for latency_ms, and goes on
    },
    {"latency_ms": 100},
)


def read_wire_plan(asked: Mapping[str, Any]) -> FaultPlan:
    """A plan as of the control API; a request is 'POST order' under /api/v3, else 'GET /path'."""
    return read_plan(asked, (), WIRE)


@dataclass(frozen=True)
class WirePlayed:
    """One fault as it was played. number: of the request, from 1. forwarded: whether the exchange
    got the request."""

    kind: str
    route: str
    symbol: str
    client_id: str
    number: int
    forwarded: bool


@dataclass(frozen=True)
class _Message:
    """A request or a reply, as it came."""

    head: bytes
    body: bytes

    @property
    def whole(self) -> bytes:
        return self.head + self.body

    @property
    def is_last(self) -> bool:
        """The connection ends after it."""
        return _header(self.head, b"connection").lower() == b"close"


@dataclass(frozen=True)
class _Line:
    """A client's connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        opened = self.writer.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()

    async def wait_for_end(self) -> None:
        while await self.reader.read(_LONGEST_HEAD):
            pass


class Wire:
    """A running proxy. url: its address."""

    def __init__(self, upstream_url: str, plan: FaultPlan = NO_FAULTS) -> None:
        self._upstream = _address(upstream_url)
        self._opened = socket.socket()
        self._opened.bind((HOST, 0))
        self._opened.listen(1024)
        self.url = f"http://{HOST}:{self._opened.getsockname()[1]}"
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lock = threading.Lock()
        self.replace(plan)

    # For any thread.

    def replace(self, plan: FaultPlan) -> None:
        """Another plan from now on; the record begins anew."""
        with self._lock:
            self.plan, self._dice = plan, Dice(plan)
            self._log: deque[WirePlayed] = deque(maxlen=_MOST_TOLD)
            self._counts: Counter[str] = Counter()
            self._routes: dict[str, Counter[str]] = {}
            self._requests = self._forwarded = 0

    def tell(self) -> dict[str, Any]:
        """What was played since the plan began. forwarded: requests that the exchange got."""
        with self._lock:
            return {
                "seed": self.plan.seed,
                "rules": len(self.plan.rules),
                "requests": self._requests,
                "forwarded": self._forwarded,
                "played": dict(self._counts),
                "routes": {kind: dict(found) for kind, found in self._routes.items()},
                "log": [asdict(each) for each in self._log],
            }

    # In the loop.

    async def serve(self) -> None:
        """Runs until it is cancelled."""
        server = await asyncio.start_server(self._serve_client, sock=self._opened)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        self._opened.close()

    async def _serve_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
                await self._carry(_Line(reader, writer))
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _carry(self, line: _Line) -> None:
        """One request after the other, for as long as the connection lasts."""
        while await self._exchange(line, await _read_message(line.reader)):
            pass

    async def _exchange(self, line: _Line, request: _Message) -> bool:
        """Plays one request; whether the connection goes on after it."""
        seen, number = _look_at(request), self._count()
        faults = self._dice.throw(seen)
        for fault in (each for each in faults if not each.is_answer):
            self._note(fault, seen, number, True)
            await asyncio.sleep(fault.options["latency_ms"] / 1000)
        answer = next((each for each in faults if each.is_answer), None)
        if answer is None:
            reply = await self._forward(request)
            await line.send(reply.whole)
            return not (reply.is_last or request.is_last)
        if answer.kind not in ("reset_before", "black_hole"):
            reply = await self._forward(request)
            self._note(answer, seen, number, True)
            await self._spoil(line, answer, reply.whole)
        else:
            self._note(answer, seen, number, False)
            await self._spoil(line, answer, b"")
        return False

    async def _spoil(self, line: _Line, fault: Fault, reply: bytes) -> None:
        if fault.kind in ("reset_before", "reset_after"):
            line.reset()
        elif fault.kind in ("black_hole", "black_hole_after"):
            await line.wait_for_end()
        elif fault.kind == "half_reply":
            await line.send(reply[: 1 + int(fault.share * (len(reply) - 1))])

    async def _forward(self, request: _Message) -> _Message:
        """The exchange's reply. Each request has a connection of its own there, so that none is
        lost because an idle one just closed."""
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request.whole)
            await writer.drain()
            with self._lock:
                self._forwarded += 1
            return await _read_message(reader)
        finally:
            writer.close()

    def _count(self) -> int:
        with self._lock:
            self._requests += 1
            return self._requests

    def _note(self, fault: Fault, seen: Seen, number: int, forwarded: bool) -> None:
        told = WirePlayed(
            fault.kind, seen.route, seen.symbol, seen.client_id, number, forwarded
        )  # fmt: skip
        with self._lock:
            self._counts[fault.kind] += 1
            self._routes.setdefault(fault.kind, Counter())[seen.route] += 1
            self._log.append(told)


@asynccontextmanager
async def open_wire(upstream_url: str, plan: FaultPlan = NO_FAULTS) -> AsyncIterator[Wire]:
    """A proxy in the running loop for as long as the block lasts."""
    wire = Wire(upstream_url, plan)
    task = asyncio.create_task(wire.serve())
    try:
        yield wire
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        wire.close()


@contextmanager
def wire_proxy(upstream_url: str, plan: FaultPlan = NO_FAULTS) -> Iterator[Wire]:
    """A proxy in a thread of its own for as long as the block lasts."""
    wire = Wire(upstream_url, plan)
    loop = asyncio.new_event_loop()
    task = loop.create_task(wire.serve())
    thread = threading.Thread(target=_run, args=(loop, task), name="wire")
    thread.start()
    try:
        yield wire
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        wire.close()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


async def _read_message(reader: asyncio.StreamReader) -> _Message:
    head = await reader.readuntil(b"\r\n\r\n")
    return _Message(head, await reader.readexactly(int(_header(head, b"content-length") or 0)))


def _header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return b""


def _look_at(request: _Message) -> Seen:
    method, target, _ = request.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    path, _, query = target.partition("?")
    values = dict(parse_qsl(f"{query}&{request.body.decode('latin-1')}"))
    name = path.removeprefix(_API) if path.startswith(_API) else path
    client_id = values.get("origClientOrderId") or values.get("newClientOrderId") or ""
    return Seen(f"{method} {name}", values.get("symbol", ""), "", client_id)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or not parts.port:
        raise InvalidInput(f"A wire leads to an address like http://127.0.0.1:8620, not {url!r}.")
    return parts.hostname, parts.port
