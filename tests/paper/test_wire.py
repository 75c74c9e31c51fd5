"""Between a client and the exchange lies a wire, on which a request or its reply can be lost."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import ccxt
import pytest

from tests.paper.conftest import ANN
from tradelib.errors import InvalidInput
from tradelib.paper import PaperHandle, ccxt_settings
from tradelib.paper.wire import Wire, open_wire, read_wire_plan, wire_proxy

PAIR = "BTC/USDT"
Lay = Callable[..., Wire]


@pytest.fixture
def lay(paper: PaperHandle) -> Iterator[Lay]:
    """Lays a wire to the exchange, with faults by script."""
    with ExitStack() as laid:

        def run(*script: dict, **plan: object) -> Wire:
            asked = read_wire_plan({"script": list(script), **plan})
            return laid.enter_context(wire_proxy(paper.url, asked))

        yield run


def trader_on(wire: Wire, timeout: int = 5000) -> ccxt.binance:
    known = ccxt_settings(wire.url, ANN.key, ANN.secret, ccxt.binance)
    exchange = ccxt.binance({**known, "enableRateLimit": False, "timeout": timeout})
    exchange.load_markets()
    return exchange


def on_orders(kind: str, **more: object) -> dict:
    return {"kind": kind, "on": "POST order", **more}


def orders(paper: PaperHandle) -> list[str]:
    found = paper.control("record", account="ann")["orders"]
    return [each["clientOrderId"] for each in found]


def buy(exchange: ccxt.binance, name: str) -> dict:
    return exchange.create_order(PAIR, "market", "buy", 0.01, None, {"clientOrderId": name})


def test_a_wire_without_faults_changes_nothing(lay: Lay) -> None:
    wire = lay()
    exchange = trader_on(wire)
    assert buy(exchange, "one")["status"] == "closed"
    assert exchange.fetch_order(None, PAIR, {"clientOrderId": "one"})["filled"] == 0.01
    told = wire.tell()
    assert (told["requests"], told["forwarded"], told["played"]) == (3, 3, {})


@pytest.mark.parametrize(
    ("kind", "arrives"),
    [
        ("reset_before", False),
        ("cut_after", True),
        ("reset_after", True),
        ("half_reply", True),
        ("black_hole", False),
        ("black_hole_after", True),
    ],
)
def test_each_fault_loses_the_answer_and_tells_whether_the_request_arrived(
    lay: Lay, paper: PaperHandle, kind: str, arrives: bool
) -> None:
    wire = lay(on_orders(kind))
    exchange = trader_on(wire, 500 if kind.startswith("black_hole") else 5000)
    with pytest.raises(ccxt.BaseError):
        buy(exchange, "one")
    assert orders(paper) == (["one"] if arrives else [])
    [told] = wire.tell()["log"]
    assert (told["kind"], told["client_id"], told["forwarded"]) == (kind, "one", arrives)
    assert buy(exchange, "two")["status"] == "closed"


def test_latency_delays_and_loses_nothing(lay: Lay) -> None:
    wire = lay(on_orders("latency", latency_ms=50))
    exchange = trader_on(wire)
    began = time.monotonic()
    assert buy(exchange, "one")["status"] == "closed"
    assert time.monotonic() - began >= 0.05
    assert wire.tell()["played"] == {"latency": 1}


def test_a_connection_carries_many_requests_and_a_fault_meets_one_of_them(
    lay: Lay, paper: PaperHandle
) -> None:
    wire = lay(on_orders("cut_after", nth=3))
    exchange = trader_on(wire)
    for name in ("one", "two"):
        assert buy(exchange, name)["status"] == "closed"
    with pytest.raises(ccxt.NetworkError):
        buy(exchange, "three")
    assert orders(paper) == ["one", "two", "three"]


def test_the_same_seed_gives_the_same_faults(lay: Lay) -> None:
    def run() -> list[dict]:
        wire = lay(seed=5, rates={"cut_after": 0.2, "reset_before": 0.2, "latency": 0.3},
                   options={"latency_ms": 1})  # fmt: skip
        for _ in range(40):
            with suppress(OSError):
                urllib.request.urlopen(f"{wire.url}/api/v3/time").close()
        return wire.tell()["log"]

    first, second = run(), run()
    assert first == second
    assert {each["kind"] for each in first} == {"cut_after", "reset_before", "latency"}


def test_an_exchange_that_hangs_up_hangs_up_through_the_wire(lay: Lay, paper: PaperHandle) -> None:
    exchange = trader_on(lay())
    paper.control("faults", script=[{"kind": "accept_then_hang", "hold_ms": 1}])
    with pytest.raises(ccxt.NetworkError):
        buy(exchange, "one")
    assert orders(paper) == ["one"]


def test_a_wire_can_lie_in_a_running_loop(paper: PaperHandle) -> None:
    async def ask() -> dict:
        async with open_wire(paper.url) as wire:
            reply = await asyncio.to_thread(urllib.request.urlopen, f"{wire.url}/api/v3/time")
            reply.close()
            return wire.tell()

    assert asyncio.run(ask())["forwarded"] == 1


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"script": [{"kind": "cut_afer"}]}, "did you mean 'cut_after'"),
        ({"script": [{"kind": "latency", "latency": 5}]}, "did you mean 'latency_ms'"),
        ({"rates": {"latency": 2}}, "a number from 0 to 1"),
    ],
)
def test_a_bad_plan_is_one_sentence(plan: dict, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        read_wire_plan(plan)


def test_a_wire_leads_to_a_plain_address() -> None:
    with pytest.raises(InvalidInput, match=r"not 'https://example\.org'"):
        Wire("https://example.org")
