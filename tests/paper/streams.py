"""Those who listen to the paper exchange: an unmodified ccxt.pro, and a bare WebSocket."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import ccxt
import ccxt.pro
from websockets.sync.client import ClientConnection, connect

from tests.paper.conftest import ANN
from tradelib.paper import PaperAccount, PaperHandle, ccxt_settings

PAIR = "BTC/USDT"


def run(watching: Coroutine[Any, Any, Any]) -> Any:
    """Runs a test's coroutine; one that hears nothing fails."""
    return asyncio.run(asyncio.wait_for(watching, 60))


@asynccontextmanager
async def watcher(
    paper: PaperHandle, account: PaperAccount = ANN, **settings: Any
) -> AsyncIterator[ccxt.pro.binance]:
    """An unmodified ccxt.pro with an account's keys, its markets loaded."""
    known = ccxt_settings(paper.url, account.key, account.secret, ccxt.binance)
    exchange = ccxt.pro.binance({**known, "enableRateLimit": False, "timeout": 5000, **settings})
    try:
        await exchange.load_markets()
        yield exchange
    finally:
        await exchange.close()


async def begin(paper: PaperHandle, stream: str, watching: Any) -> asyncio.Task[Any]:
    """Starts to watch, and waits until the exchange knows of it."""
    task = asyncio.ensure_future(watching)
    while stream not in paper.control("status")["streams"]:
        await asyncio.sleep(0.01)
    return task


async def watch_until(watch: Callable[[], Any], is_enough: Callable[[Any], bool]) -> Any:
    """Watches on until what is seen is enough; the test's own time limit ends it."""
    while not is_enough(seen := await watch()):
        pass
    return seen


class Listener:
    """A bare WebSocket that speaks JSON."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self._number = socket, 0

    def get(self) -> Any:
        return json.loads(self.socket.recv(timeout=10))

    def tell(self, message: Any) -> None:
        self.socket.send(message if isinstance(message, str) else json.dumps(message))

    def ask(self, method: str, params: Any = None, **more: Any) -> Any:
        """Sends a request and answers what comes next."""
        self._number += 1
        asked = {"method": method, "id": self._number, **more}
        self.tell(asked if params is None else {**asked, "params": params})
        return self.get()

    def subscribe(self, *names: str) -> None:
        assert self.ask("SUBSCRIBE", list(names)) == {"result": None, "id": self._number}

    def sign_in(self, account: PaperAccount = ANN, **changes: Any) -> Any:
        """Asks for an account's stream."""
        params = {
            "apiKey": account.key, "timestamp": int(time.time() * 1000), "recvWindow": 10_000,
            **changes,
        }  # fmt: skip
        text = "&".join(f"{name}={params[name]}" for name in sorted(params))
        sign = hmac.new(account.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        return self.ask("userDataStream.subscribe.signature", {"signature": sign, **params})

    def event(self) -> Any:
        """The next event of an account's stream."""
        return self.get()["event"]


@contextmanager
def listening(paper: PaperHandle, path: str = "/ws") -> Iterator[Listener]:
    with connect(f"ws{paper.url.removeprefix('http')}{path}", compression=None) as socket:
        yield Listener(socket)


@contextmanager
def signed_in(paper: PaperHandle, account: PaperAccount = ANN) -> Iterator[Listener]:
    with listening(paper, "/ws-api/v3") as listener:
        assert listener.sign_in(account)["status"] == 200
        yield listener
