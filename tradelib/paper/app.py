"""Putting a paper exchange together, and running it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette

from tradelib.clock import format_time, from_ms, parse_time, timeframe_ms, to_ms
from tradelib.errors import InvalidInput
from tradelib.paper.clock import MarketClock, Wall, wall_ms
from tradelib.paper.config import (
    ACCOUNTS_FILE,
    PaperAccount,
    PaperConfig,
    ccxt_settings,
    make_accounts_file,
    read_accounts,
    start_balance,
)
from tradelib.paper.exchange import Exchange
from tradelib.paper.gate import Gate
from tradelib.paper.liquidity import EXACT_SHAPE
from tradelib.paper.live import LiveMarket, LiveTape
from tradelib.paper.market import Market, Tape
from tradelib.paper.seeded import USUAL_SHAPE, SeededMarket
from tradelib.paper.server import TOKEN_HEADER, Lines, make_app
from tradelib.paper.store import Store

HOST = "127.0.0.1"
# Where a seeded market that is stepped begins, so that a seed alone tells what will happen.
SEEDED_START = to_ms(parse_time("2024-01-01T00:00:00Z"))


def open_market(config: PaperConfig) -> Market:
    """The market a configuration asks for."""
    if config.files and config.source:
        raise InvalidInput("A paper market plays files or follows an exchange, not both.")
    if config.files:
        from tradelib.paper.filed import FileMarket  # pandas, which nothing else here needs

        return FileMarket(config.files, config.shape or EXACT_SHAPE)
    if config.source:
        return LiveMarket(
            config.source,
            config.source_symbols,
            config.source_timeframe,
            config.shape or USUAL_SHAPE,
        )
    return SeededMarket(config.seed, config.shape or USUAL_SHAPE)


def load_accounts(config: PaperConfig, market: Market) -> tuple[PaperAccount, ...]:
    """The configured accounts, else those of the home's accounts file, made when missing."""
    if config.accounts:
        return config.accounts
    path = config.home / ACCOUNTS_FILE
    if not path.exists():
        quotes = sorted({each.quote for each in market.instruments})
        make_accounts_file(path, {each: start_balance(each) for each in quotes})
    return read_accounts(path)


def open_exchange(config: PaperConfig, wall: Wall = wall_ms) -> tuple[Exchange, Gate]:
    """The exchange with its state loaded, and its gate; nothing listens yet."""
    market = open_market(config)
    tape = LiveTape(market) if market.is_live else Tape(market)
    store = Store(config.home if config.is_kept else None)
    try:
        clock = _start_clock(config, market, store, wall)
        accounts = load_accounts(config, market)
        exchange = Exchange(tape, clock, store, config.fees)
        store.note("market", market.identity)
        exchange.open_accounts({each.name: each.balances for each in accounts})
        for each in accounts:
            exchange.choose_fee_asset(each.name, each.fee_asset)
    except BaseException:
        store.discard()
        raise
    return exchange, Gate(exchange, accounts, config.limits, wall)


def _start_clock(config: PaperConfig, market: Market, store: Store, wall: Wall) -> MarketClock:
    """A clock that goes on where the state left it, or begins where it is told to."""
    known = store.fact("market")
    if known is not None and known != market.identity:
        raise InvalidInput(
            f"The state in {store.path} belongs to another market ({known}); "
            f"this one is {market.identity}. Choose another --home."
        )
    speed = config.speed
    if speed is None:
        speed = 0.0 if config.files else 1.0
    if speed < 0 or (market.is_live and speed != 1):
        raise InvalidInput(f"Speed {speed} is not possible here; a live market runs at speed 1.")
    start = _start_time(config, market, speed, store.fact("time"), wall)
    return MarketClock(start, speed, market.span[1], wall)


def _start_time(
    config: PaperConfig, market: Market, speed: float, kept: int | None, wall: Wall
) -> int:
    first, end = market.span
    is_present = not config.files and speed == 1 and config.start is None
    if is_present:
        start = max(wall(), kept or 0)  # market time never goes back
    elif kept is not None:
        start = kept
    elif config.start is not None:
        start = to_ms(config.start)
    else:
        start = first if config.files else SEEDED_START
    if speed == 0:
        start = start // timeframe_ms(market.base) * timeframe_ms(market.base)
    if not first <= start <= end:
        raise InvalidInput(
            f"Start {format_time(from_ms(start))} lies outside of the market's candles, "
            f"{format_time(from_ms(first))} to {format_time(from_ms(end))}."
        )
    return start


async def create_app(config: PaperConfig, wall: Wall = wall_ms) -> Starlette:
    """The paper exchange as an ASGI app, its state loaded."""
    return _app(config, wall)[0]


def _app(config: PaperConfig, wall: Wall = wall_ms) -> tuple[Starlette, Exchange]:
    exchange, gate = open_exchange(config, wall)
    market = exchange.tape.market
    if isinstance(market, LiveMarket):
        market.start()
    return make_app(exchange, gate, config.control_token, config.faults), exchange


def listen(port: int) -> socket.socket:
    """A listening socket on loopback; port 0 takes a free one."""
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((HOST, port))
        opened.listen(1024)
    except (OSError, OverflowError) as error:
        opened.close()
        raise InvalidInput(
            f"Port {port} of {HOST} cannot be used ({error}); choose another --port."
        ) from error
    return opened


class _Server(uvicorn.Server):
    """A server that another thread can stop at once, not at its next tick."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                date_header=False,
                server_header=False,
                # As the real exchange: a ping every 20 seconds, answered within a minute. What a
                # client has to say is short, and on loopback nothing is worth compressing.
                ws_ping_interval=20,
                ws_ping_timeout=60,
                ws_max_size=65_536,
                ws_per_message_deflate=False,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()
        self._lines: Lines = app.state.lines
        self._lines.connections = self.server_state.connections

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            await self._told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers what was asked, and closes; a client that never finishes asking is left."""
        for opened in [*self.servers, *(sockets or [])]:
            opened.close()
        self._lines.release()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                while self.server_state.tasks:
                    await asyncio.sleep(0.001)
        await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self.stop()

    def stop(self) -> None:
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._told.set)


def run_paper(config: PaperConfig, announce: Any = None) -> None:
    """Runs a paper exchange until it is told to stop.

    announce: called with the address and the exchange once both are there.
    """
    opened = listen(config.port)
    try:
        app, exchange = _app(config)
        if announce is not None:
            announce(f"http://{HOST}:{opened.getsockname()[1]}", exchange)
        _Server(app).run(sockets=[opened])
    finally:
        opened.close()


_ASKED = ("status", "faults")  # what is answered without being told anything


@dataclass(frozen=True)
class PaperHandle:
    """A running paper exchange. url: its address; exchange: for a look inside, in tests."""

    url: str
    config: PaperConfig
    accounts: tuple[PaperAccount, ...]
    exchange: Exchange = field(repr=False)

    def control(self, command: str, **asked: Any) -> dict[str, Any]:
        """One command of the control API: status, step, halt, unhalt, faults, record, fees or
        transfer.

        handle.control("step", candles=3, timeframe="1h")
        handle.control("faults", seed=7, rates={"late": 0.1})  # an empty plan: rates={}
        handle.control("faults")  # what was played
        handle.control("record", account="paper")
        handle.control("fees", account="paper", asset="BNB", price="600")  # asset=None: as usual
        handle.control("transfer", account="paper", asset="USDT", amount="-100")  # withdrawn
        """
        body = json.dumps(asked).encode() if asked or command not in _ASKED else None
        headers = {TOKEN_HEADER: self.config.control_token, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/paper/{command}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                raise InvalidInput(json.load(error)["error"]) from None

    def ccxt_settings(self, exchange_class: Any = None, account: int = 0) -> dict[str, Any]:
        """Constructor settings for ccxt's binance, with the keys of one of the accounts."""
        who = self.accounts[account]
        return ccxt_settings(self.url, who.key, who.secret, exchange_class)


@contextmanager
def paper_exchange(config: PaperConfig, wall: Wall = wall_ms) -> Iterator[PaperHandle]:
    """Runs a paper exchange in a thread for as long as the block lasts."""
    opened = listen(config.port)
    try:
        app, exchange = _app(config, wall)
    except BaseException:
        opened.close()
        raise
    server = _Server(app)
    # The socket listens already, so a client that comes early waits instead of failing.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, name="paper")
    thread.start()
    try:
        accounts = load_accounts(config, exchange.tape.market)
        url = f"http://{HOST}:{opened.getsockname()[1]}"
        yield PaperHandle(url, config, accounts, exchange)
    finally:
        server.stop()
        thread.join()
        opened.close()
