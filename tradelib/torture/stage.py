"""The stage: a fresh paper exchange for each schedule, served by the worker's own loop.

One process drives and serves, so that a fork is all that ever runs beside it, and whatever the
exchange does lies at a known place between two steps of the schedule.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tradelib.paper.app import listen, open_exchange
from tradelib.paper.config import PaperAccount, PaperConfig, RateLimits
from tradelib.paper.exchange import Exchange
from tradelib.paper.faulty import FaultyGate
from tradelib.paper.fees import FeeAsset
from tradelib.paper.gate import Reply, Request
from tradelib.paper.hub import Hub
from tradelib.paper.server import Control
from tradelib.paper.wire import Wire, open_wire, read_wire_plan
from tradelib.torture.wall import SharedWall

ACCOUNT = "paper"
KEY, SECRET = "k" * 64, "s" * 64
_BALANCES = {"USDT": Decimal(100_000), "BTC": Decimal(1), "ETH": Decimal(10), "BNB": Decimal(1)}
_API = "/api/v3/"
_UNLIMITED = RateLimits(weight=10**9, orders_10s=10**6)


class Stage:
    """One exchange after the other at one address. wire: a proxy in front of it."""

    def __init__(self, wall: SharedWall, opened: socket.socket) -> None:
        self._wall, self._opened = wall, opened
        self.url = "http://{}:{}".format(*opened.getsockname())
        self.wire: Wire
        self.exchange: Exchange
        self.faulty: FaultyGate
        self._control: Control

    def raise_curtain(self, market_seed: int, fee_asset: FeeAsset | None) -> None:
        """A fresh exchange, without faults."""
        account = PaperAccount(ACCOUNT, KEY, SECRET, _BALANCES, fee_asset)
        config = PaperConfig(
            Path(), speed=0.0, seed=market_seed, accounts=(account,), limits=_UNLIMITED,
            is_kept=False,
        )  # fmt: skip
        self.exchange, gate = open_exchange(config, self._wall.peek_ms)
        self.faulty = FaultyGate(gate)
        hub = Hub(self.exchange, gate.wall)  # nobody listens here
        self._control = Control(self.exchange, gate, self.faulty, hub, "")
        self.wire.replace(read_wire_plan({}))

    def lower_curtain(self) -> None:
        self.faulty.close()
        self.exchange.close()

    @property
    def now_ms(self) -> int:
        """Market time."""
        return self.exchange.now

    def step(self, candles: int, timeframe: str) -> None:
        self._control.step({"candles": candles, "timeframe": timeframe})

    def play(self, faults: Mapping[str, Any], wire: Mapping[str, Any]) -> None:
        """Faults from now on."""
        self.faulty.replace(faults)
        self.wire.replace(read_wire_plan(wire))

    def record(self) -> dict[str, Any]:
        """The exchange's own record, whatever its reads show."""
        return self._control.record({"account": ACCOUNT})

    def list_instruments(self) -> Any:
        """What the exchange tells of its instruments."""
        asked = Request("GET", "exchangeInfo", "", "", None, "")
        return json.loads(self.faulty.gate.handle(asked).encode())

    # Sockets.

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, asyncio.CancelledError):
            while (request := await _read_request(reader)) is not None:
                reply = await self.faulty.handle(request, lambda ms: _hold(reader, ms))
                if reply is None:
                    break
                writer.write(_encode(reply))
                await writer.drain()
        writer.close()


@asynccontextmanager
async def open_stage(wall: SharedWall) -> AsyncIterator[Stage]:
    opened = listen(0)
    stage = Stage(wall, opened)
    server = await asyncio.start_server(stage.serve, sock=opened)
    try:
        async with open_wire(stage.url) as stage.wire:
            yield stage
    finally:
        server.close()


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in head)}
    body = await reader.readexactly(int(headers.get("content-length") or 0))
    path, _, query = target.partition("?")
    key = headers.get("x-mbx-apikey")
    return Request(method, path.removeprefix(_API), query, body.decode(), key, "127.0.0.1")


async def _hold(reader: asyncio.StreamReader, milliseconds: int) -> None:
    """Keep a connection so long, or until the client gives up."""
    with suppress(TimeoutError):
        await asyncio.wait_for(reader.read(), milliseconds / 1000)


def _encode(reply: Reply) -> bytes:
    body = reply.encode()
    headers = {
        "Content-Type": "application/json;charset=UTF-8",
        **reply.headers,
        "Content-Length": str(len(body)),
    }
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
