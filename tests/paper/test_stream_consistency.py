"""Whatever happens, a client that follows the streams by the rules ends where the exchange is."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paper.test_faulty_conservation import Trader, deeds
from tradelib.paper import replies
from tradelib.paper.faults import Seen
from tradelib.paper.gate import Request
from tradelib.paper.hub import Hub

SYMBOL = "BTCUSDT"


class Ear:
    """Hears everything of one market and one account."""

    is_gone = is_crowded = False

    def __init__(self, hub: Hub, *streams: str) -> None:
        self.heard: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for name in streams:
            assert hub.listen(self, f"btcusdt@{name}") is not None
        hub.listen_to_account(self, 0, "ann")

    def deliver(self, stream: str, seen: Seen, text: str) -> None:
        message = json.loads(text)
        self.heard[stream.partition("@")[2]].append(message.get("event", message))


class Follower:
    """A book kept as the exchange tells its clients to: from a snapshot, by updates."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.number = snapshot["lastUpdateId"]
        self.sides = {side: dict(map(tuple, snapshot[side])) for side in ("bids", "asks")}
        self._has_begun = False

    def follow(self, updates: list[dict[str, Any]]) -> None:
        for each in updates:
            if each["u"] <= self.number:
                continue
            assert each["U"] == self.number + 1 or (
                not self._has_begun and each["U"] <= self.number
            )
            self._has_begun, self.number = True, each["u"]
            for side, levels in (("bids", each["b"]), ("asks", each["a"])):
                for price, amount in levels:
                    self.sides[side][price] = amount
                    if not Decimal(amount):
                        del self.sides[side][price]

    def shows(self, snapshot: dict[str, Any]) -> bool:
        return self.sides == {side: dict(map(tuple, snapshot[side])) for side in self.sides}


# Each deed, and who looks at the book after it.
acts = st.lists(
    st.tuples(deeds, st.sampled_from(["tell", "snapshot", ""])), min_size=4, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(acts)
def test_a_book_followed_from_any_snapshot_is_the_exchanges(
    acts: list[tuple[tuple[Any, ...], str]],
) -> None:
    async def play() -> None:
        trader = Trader({})
        hub = Hub(trader.exchange, lambda: trader.now)
        ear, followers = Ear(hub, "depth@100ms"), []

        for deed, after in acts:
            await trader.do(deed)
            if after == "tell":
                await hub.catch_up()
            elif after == "snapshot":
                followers.append(Follower(look(trader)))
        await hub.catch_up()
        last = look(trader)
        updates = ear.heard["depth@100ms"]
        assert all(each["U"] <= each["u"] for each in updates)
        for each in followers:
            each.follow(updates)
            assert each.shows(last)
        trader.exchange.close()

    asyncio.run(play())


def look(trader: Trader) -> dict[str, Any]:
    """The book by REST."""
    request = Request("GET", "depth", f"symbol={SYMBOL}&limit=5000", "", None, "here")
    return json.loads(trader.faulty.gate.handle(request).encode())


@settings(max_examples=60, deadline=None)
@given(st.lists(deeds, min_size=1, max_size=40))
def test_an_account_followed_by_its_events_is_the_exchanges(acts: list[tuple[Any, ...]]) -> None:
    async def play() -> None:
        trader = Trader({})
        ear = Ear(Hub(trader.exchange, lambda: trader.now))
        for act in acts:
            await trader.do(act)
        events = ear.heard[""]
        orders, trades = trader.exchange.store.history("ann")
        reports = [each for each in events if each["e"] == "executionReport"]
        told = {each["i"]: each for each in reports if each["x"] != "REJECTED"}
        assert {number: (each["X"], each["z"], each["Z"]) for number, each in told.items()} == {
            each.id: (row["status"], row["executedQty"], row["cummulativeQuoteQty"])
            for each in orders
            for row in [replies.order_row(each)]
        }
        fills = [(each["t"], each["i"], each["l"], each["n"]) for each in reports if each["t"] >= 0]
        rows = [replies.trade_row(each) for each in trades]
        assert fills == [(row["id"], row["orderId"], row["qty"], row["commission"]) for row in rows]
        held: dict[str, Any] = {}
        for each in events:
            held |= {row["a"]: (row["f"], row["l"]) for row in each.get("B", ())}
        balances = trader.exchange.engine.balances["ann"]
        assert held == {
            asset: (f"{balances[asset].free:.8f}", f"{balances[asset].locked:.8f}")
            for asset in held
        }
        trader.exchange.close()

    asyncio.run(play())


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_candles_and_trades_are_told_without_a_gap(steps: list[int]) -> None:
    intervals = "1m", "5m", "1h", "1d"

    async def play() -> None:
        trader = Trader({})
        hub = Hub(trader.exchange, lambda: trader.now)
        began = trader.exchange.now
        ear = Ear(hub, "trade", *(f"kline_{each}" for each in intervals))
        for count in steps:
            await trader.do(("step", count))
            await hub.catch_up()
        now, tape = trader.exchange.now, trader.exchange.tape
        ids = [each["t"] for each in ear.heard["trade"]]
        assert ids == [each.id for each in tape.prints(SYMBOL, began + 1, now, now)]
        for interval in intervals:
            told = [each["k"] for each in ear.heard[f"kline_{interval}"] if each["k"]["x"]]
            rows = replies.kline_rows(
                tape.klines(SYMBOL, interval, began, None, 10_000, now), interval
            )
            assert [[each[key] for key in "tohlcvT"] for each in told] == [
                row[:7] for row in rows if row[6] < now
            ]
        trader.exchange.close()

    asyncio.run(play())
