"""Whatever faults are played, the exchange's own books stay whole."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Sequence
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paper.conftest import ANN, NO_LIMITS
from tradelib.paper import FeeAsset, PaperAccount, PaperConfig, read_plan
from tradelib.paper.app import open_exchange
from tradelib.paper.faults import EXCHANGE
from tradelib.paper.faulty import FaultyGate
from tradelib.paper.gate import Reply, Request

START = 1_800_000_000_000
HELD = {"USDT": Decimal(100_000), "BTC": Decimal(2), "BNB": Decimal("0.01")}
PAYS = FeeAsset("BNB", price=Decimal(600))
TRADER = PaperAccount("ann", ANN.key, ANN.secret, HELD, PAYS)
CONFIG = PaperConfig(
    home=Path("nowhere"), is_kept=False, speed=0, accounts=(TRADER,), limits=NO_LIMITS
)
names = count(1)

sides = st.sampled_from(["BUY", "SELL"])
amounts = st.decimals("0.001", "0.5", places=3)
offsets = st.integers(-200, 200)  # basis points of the last price
deeds = st.one_of(
    st.tuples(st.just("market"), sides, amounts),
    st.tuples(st.just("limit"), sides, amounts, offsets),
    st.tuples(st.just("stop"), sides, amounts, st.integers(1, 200)),
    st.tuples(st.just("cancel"), st.integers(1, 30)),
    st.tuples(st.just("cancel all")),
    st.tuples(st.just("look"), st.sampled_from(["account", "allOrders", "myTrades", "openOrders"])),
    st.tuples(st.just("wait"), st.integers(1, 5000)),
    st.tuples(st.just("step"), st.integers(1, 90)),
)
plans = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "rates": st.dictionaries(
            st.sampled_from(sorted(EXCHANGE.kinds)), st.sampled_from([0.1, 0.5, 1.0])
        ),
    }
)


class Trader:
    """Sends signed requests through a faulty gate, and forgets what it is told."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.now = START
        self.exchange, gate = open_exchange(CONFIG, lambda: self.now)
        self.faulty = FaultyGate(gate, read_plan(plan))

    async def ask(self, method: str, path: str, **params: Any) -> Reply | None:
        query = urlencode({"timestamp": self.now, **params})
        signature = hmac.new(ANN.secret.encode(), query.encode(), hashlib.sha256).hexdigest()
        request = Request(method, path, f"{query}&signature={signature}", "", ANN.key, "here")
        return await self.faulty.handle(request, self._hold)

    async def _hold(self, length: int) -> None:
        """A client that gives up at once."""

    async def order(self, side: str, kind: str, amount: Decimal, **more: str) -> None:
        await self.ask(
            "POST", "order", symbol="BTCUSDT", side=side, type=kind, quantity=amount,
            newClientOrderId=f"order-{next(names)}", **more,
        )  # fmt: skip

    async def do(self, deed: tuple[Any, ...]) -> None:
        match deed:
            case ("market", side, amount):
                await self.order(side, "MARKET", amount)
            case ("limit", side, amount, offset):
                await self.order(side, "LIMIT", amount, price=self.price(offset), timeInForce="GTC")
            case ("stop", side, amount, offset):
                stop = self.price(offset if side == "BUY" else -offset)
                await self.order(side, "STOP_LOSS", amount, stopPrice=stop)
            case ("cancel", number):
                await self.ask("DELETE", "order", symbol="BTCUSDT", orderId=number)
            case ("cancel all",):
                await self.ask("DELETE", "openOrders", symbol="BTCUSDT")
            case ("look", path):
                symbol = {} if path == "account" else {"symbol": "BTCUSDT"}
                reply = await self.ask("GET", path, **symbol)
                if reply is not None and reply.status == 200:
                    json.loads(reply.encode())
            case ("wait", length):
                self.now += length
            case ("step", minutes):
                self.exchange.step(minutes, "1m")

    def price(self, offset: int) -> str:
        last = self.exchange.tape.price("BTCUSDT", self.exchange.now)
        return f"{last * (1 + Decimal(offset) / 10_000):.2f}"

    def check(self) -> None:
        engine = self.exchange.engine
        for asset, start in HELD.items():
            held = engine.balance("ann", asset)
            assert held.free >= 0
            assert held.locked >= 0
            outside = engine.house.fees.get(asset, 0) + engine.house.market.get(asset, 0)
            assert held.free + held.locked + outside == start
        orders, trades = self.exchange.store.history("ann")
        for order in orders:
            own = [each for each in trades if each.order_id == order.id]
            assert sum(each.amount for each in own) == order.filled <= order.amount
            assert sum(each.quote for each in own) == order.filled_quote


async def live(plan: dict[str, Any], done: Sequence[tuple[Any, ...]]) -> None:
    trader = Trader(plan)
    try:
        for deed in done:
            await trader.do(deed)
            trader.check()
        trader.now += 3_600_000
        assert trader.faulty.tell()["pending"] == 0
        trader.check()
    finally:
        trader.faulty.close()
        trader.exchange.close()


@settings(max_examples=60, deadline=None)
@given(plans, st.lists(deeds, min_size=5, max_size=40))
def test_no_fault_makes_or_loses_anything(
    plan: dict[str, Any], done: list[tuple[Any, ...]]
) -> None:
    asyncio.run(live(plan, done))
