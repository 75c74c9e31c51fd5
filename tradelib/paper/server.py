"""The sockets: a Starlette app over the gate, and the control of the market beside it."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from decimal import Decimal, InvalidOperation
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from tradelib.clock import format_time, from_ms, utc_now
from tradelib.errors import DeskError, InvalidInput, unknown_name
from tradelib.paper import replies
from tradelib.paper.exchange import Exchange
from tradelib.paper.faults import NO_FAULTS, FaultPlan
from tradelib.paper.faulty import FaultyGate
from tradelib.paper.fees import read_fee_asset
from tradelib.paper.gate import Gate, Reply, Request
from tradelib.paper.hub import Hub
from tradelib.paper.instruments import text8
from tradelib.paper.refusals import Refusal
from tradelib.paper.sockets import socket_routes

TOKEN_HEADER = "X-Paper-Token"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PULSE = 0.1  # seconds between two looks at a market that runs by itself


class Lines:
    """The connections of a server, for faults that hold them and cut them.

    connections: the server's own set of protocols, each with `client` and `transport`.
    """

    def __init__(self) -> None:
        self.connections: Collection[Any] = ()
        self._closing = asyncio.Event()

    def release(self) -> None:
        """Nothing is held any longer; the server stops."""
        self._closing.set()

    async def hold(self, http: HttpRequest, milliseconds: int) -> None:
        """Waits so long, unless the client gives up before."""
        waits = [asyncio.create_task(each) for each in (_gone(http), self._closing.wait())]
        await asyncio.wait(waits, timeout=milliseconds / 1000, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()

    async def cut(self, http: HttpRequest) -> Response:
        """Closes the connection without an answer; nobody will read the one returned."""
        for each in self._of(http):
            each.transport.close()
            await _gone(http)
        return Response(status_code=500)

    def drop(self, caller: HTTPConnection, at_once: bool) -> None:
        """Ends a connection without a word; at once, or once what was written has been sent."""
        for each in self._of(caller):
            each.transport.abort() if at_once else each.transport.close()

    def _of(self, caller: HTTPConnection) -> list[Any]:
        return [each for each in self.connections if each.client == tuple(caller.client or ())]


async def _gone(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def make_app(exchange: Exchange, gate: Gate, token: str, plan: FaultPlan = NO_FAULTS) -> Starlette:
    """The exchange as an ASGI app. plan: faults to be played from the first request on."""
    faulty, lines, hub = FaultyGate(gate, plan), Lines(), Hub(exchange, gate.wall)
    control = Control(exchange, gate, faulty, hub, token)

    async def api(http: HttpRequest) -> Response:
        body = (await http.body()).decode("utf-8", "replace")
        request = Request(
            http.method,
            http.path_params["path"],
            http.url.query,
            body,
            http.headers.get("X-MBX-APIKEY"),
            http.client.host if http.client else "",
        )
        if faulty.is_idle:
            return _response(gate.handle(request))
        reply = await faulty.handle(request, lambda length: lines.hold(http, length))
        return _response(reply) if reply else await lines.cut(http)

    async def command(http: HttpRequest) -> Response:
        return _response(await control.handle(http))

    app = Starlette(
        routes=[
            Route("/api/v3/{path:path}", api, methods=["GET", "POST", "PUT", "DELETE"]),
            Route("/paper/{command}", command, methods=["GET", "POST"]),
            *socket_routes(hub, faulty, lines.drop),
        ],
        lifespan=_lifespan(exchange, faulty, hub),
    )
    app.state.lines = lines
    return app


def _response(reply: Reply) -> Response:
    kind = None if "Content-Type" in reply.headers else "application/json;charset=UTF-8"
    return Response(reply.encode(), reply.status, reply.headers, media_type=kind)


def _lifespan(exchange: Exchange, faulty: FaultyGate, hub: Hub) -> Callable[[Starlette], Any]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        going = hub.run() if exchange.clock.is_stepped else _beat(exchange, hub)
        pulse = asyncio.create_task(going)
        yield
        pulse.cancel()
        with suppress(asyncio.CancelledError):
            await pulse
        faulty.close()
        exchange.close()

    return lifespan


async def _beat(exchange: Exchange, hub: Hub) -> None:
    """Resting orders are filled when the market meets them, whether or not anyone asks."""
    while True:
        with suppress(DeskError):  # a full disk: whoever asks next is told
            exchange.advance()
        await hub.catch_up()
        await asyncio.sleep(_PULSE)


class Control:
    """Commands to the market itself, for whoever started it."""

    def __init__(
        self, exchange: Exchange, gate: Gate, faulty: FaultyGate, hub: Hub, token: str
    ) -> None:
        self._exchange, self._gate, self._faulty, self._token = exchange, gate, faulty, token
        self._hub = hub
        self._commands: dict[tuple[str, str], Callable[[dict[str, Any]], dict[str, Any]]] = {
            ("GET", "status"): lambda _: self.status(),
            ("POST", "step"): self.step,
            ("POST", "halt"): lambda asked: self.halt(asked, True),
            ("POST", "unhalt"): lambda asked: self.halt(asked, False),
            ("GET", "faults"): lambda _: faulty.tell(),
            ("POST", "faults"): faulty.replace,
            ("POST", "record"): self.record,
            ("POST", "fees"): self.fees,
            ("POST", "transfer"): self.transfer,
        }

    async def handle(self, http: HttpRequest) -> Reply:
        if not self._is_allowed(http):
            return Reply(403, {"error": f"The header {TOKEN_HEADER} does not open this."})
        command = self._commands.get((http.method, http.path_params["command"]))
        if command is None:
            return Reply(404, {"error": f"Commands are {self._names()}."})
        try:
            asked = json.loads(await http.body() or "{}") if http.method == "POST" else {}
            self._faulty.catch_up()
            answer = command(asked)
            if self._exchange.clock.is_stepped:
                await self._hub.catch_up()  # so that a step is over when all have been told of it
            return Reply(200, answer)
        except (DeskError, Refusal) as error:
            return Reply(400, {"error": str(error)})
        except (ValueError, TypeError, AttributeError, KeyError):
            return Reply(400, {"error": "The command's body is not the JSON it needs."})

    def _names(self) -> str:
        return ", ".join(f"{method} {name}" for method, name in self._commands)

    def _is_allowed(self, http: HttpRequest) -> bool:
        """A local caller with the token, who also called us by a local name."""
        given = http.headers.get(TOKEN_HEADER, "").encode()
        is_local = http.client is not None and http.client.host in _LOOPBACK
        is_named_locally = http.url.hostname in _LOOPBACK
        return is_local and is_named_locally and hmac.compare_digest(given, self._token.encode())

    def status(self) -> dict[str, Any]:
        exchange, gate = self._exchange, self._gate
        first, last = exchange.tape.market.span
        exchange.advance()
        return {
            "time": format_time(from_ms(exchange.now)),
            "time_ms": exchange.now,
            "first_candle": format_time(from_ms(first)),
            "last_candle": format_time(from_ms(last - exchange.tape.step)),
            "base": exchange.tape.market.base,
            "market": exchange.tape.market.identity,
            "speed": exchange.clock.speed,
            "symbols": {
                symbol: {
                    "symbol": f"{each.base}/{each.quote}",
                    "status": "HALT" if exchange.engine.is_halted(symbol) else "TRADING",
                }
                for symbol, each in exchange.engine.instruments.items()
            },
            "accounts": sorted(exchange.engine.balances),
            "requests": dict(gate.requests),
            "weight_used": gate.limiter.weight_used,
            "refused_429": gate.limiter.refused,
            "orders": exchange.engine.next_order - 1,
            "open_orders": len(exchange.engine.open),
            "trades": exchange.engine.next_trade - 1,
            "streams": self._hub.counts,
        }

    def step(self, asked: dict[str, Any]) -> dict[str, Any]:
        """candles: how many (1); timeframe: of which (the base). told_from: by the wall's clock,
        right before the first of those who listen is told."""
        timeframe = asked.get("timeframe") or self._exchange.tape.market.base
        self._exchange.step(int(asked.get("candles", 1)), str(timeframe))
        time, now = self._exchange.now, format_time(utc_now())
        return {"time": format_time(from_ms(time)), "time_ms": time, "told_from": now}

    def record(self, asked: dict[str, Any]) -> dict[str, Any]:
        """account: whose orders, trades and balances to tell, whatever its reads show."""
        name, engine = str(asked["account"]), self._exchange.engine
        if name not in engine.balances:
            raise unknown_name("account", name, engine.balances)
        self._exchange.advance()
        orders, trades = self._exchange.store.history(name)
        return {
            "account": name,
            "time_ms": self._exchange.now,
            "orders": [replies.order_row(each) for each in orders],
            "trades": [replies.trade_row(each) for each in trades],
            "balances": {
                asset: {"free": text8(each.free), "locked": text8(each.locked)}
                for asset, each in sorted(engine.balances[name].items())
            },
        }

    def fees(self, asked: dict[str, Any]) -> dict[str, Any]:
        """account: who; asset, discount, price: see FeeAsset."""
        name = str(asked["account"])
        given = {part: value for part, value in asked.items() if part != "account"}
        chosen = read_fee_asset(given, f"account {name!r}")
        self._exchange.choose_fee_asset(name, chosen)
        return {"account": name, "asset": chosen and chosen.asset}

    def transfer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """account: whose; asset, amount: what comes to it from elsewhere, or leaves it (-5)."""
        name, asset = str(asked["account"]), str(asked["asset"])
        try:
            amount = Decimal(str(asked["amount"]))
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite() or amount != round(amount, 8):
            raise InvalidInput(f"An amount has at most 8 decimals; {asked['amount']!r} is none.")
        self._exchange.transfer(name, asset, amount)
        return {"account": name, "asset": asset, "amount": text8(amount)}

    def halt(self, asked: dict[str, Any], is_halted: bool) -> dict[str, Any]:
        symbol = str(asked["symbol"]).replace("/", "")
        self._exchange.halt(symbol, is_halted)
        return {"symbol": symbol, "status": "HALT" if is_halted else "TRADING"}
