"""Whatever is asked of the engine, not one unit of any asset appears or is lost."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paper.engines import NO_MARKET, START, new_engine, ticket, totals, walk
from tradelib.paper.engine import Engine
from tradelib.paper.fees import FeeAsset
from tradelib.paper.instruments import SATOSHI, Instrument
from tradelib.paper.liquidity import Shape
from tradelib.paper.orders import BUY, SELL, Order, OrderList
from tradelib.paper.refusals import Refusal

START_FEE = Decimal(3)
TOTALS = {asset: 2 * amount for asset, amount in START.items()} | {"FEE": START_FEE}

accounts = st.sampled_from(["ann", "bob"])
sides = st.sampled_from([BUY, SELL])
prices = st.decimals("90", "110", places=2)
amounts = st.one_of(st.decimals("0.001", "20", places=3), st.decimals("20", "900", places=3))
preventions = st.sampled_from(["EXPIRE_MAKER", "EXPIRE_TAKER", "EXPIRE_BOTH", "NONE"])
in_force = st.sampled_from(["GTC", "IOC", "FOK"])
STOPS = ("STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")


def _limit(side: str, amount: Decimal, price: Decimal, **rest: Any) -> Any:
    return ticket(side, amount=amount, price=price, **rest)


def _stop(kind: str, side: str, amount: Decimal, stop: Decimal, price: Decimal, **rest: Any) -> Any:
    limit = {"price": price} if kind.endswith("LIMIT") else {}
    return ticket(side, kind, amount=amount, stop=stop, **limit, **rest)


tickets = st.one_of(
    st.builds(_limit, sides, amounts, prices, prevention=preventions, time_in_force=in_force),
    st.builds(lambda side, amount: ticket(side, "MARKET", amount=amount), sides, amounts),
    st.builds(lambda side, spend: ticket(side, "MARKET", quote_amount=spend), sides, prices),
    st.builds(_stop, st.sampled_from(STOPS), sides, amounts, prices, prices),
    st.builds(
        lambda kind, side, amount, delta: ticket(side, kind, amount=amount, trailing=delta),
        st.sampled_from(["STOP_LOSS", "TAKE_PROFIT"]),
        sides,
        amounts,
        st.integers(10, 900),
    ),
)
ocos = st.tuples(
    st.just("oco"), accounts, sides, amounts, st.decimals("100", "110", places=2),
    st.decimals("90", "100", places=2),
)  # fmt: skip
# FEE is held by one account alone, and soon spent.
fee_assets = st.builds(
    FeeAsset,
    st.sampled_from(["FEE", "AAA", "USDT"]),
    st.decimals("0", "1", places=2),
    st.none() | st.decimals("0.01", "900", places=2),
)
deeds = st.one_of(
    st.tuples(st.just("place"), accounts, tickets, st.none() | st.floats(0, 1)),
    ocos,
    st.tuples(st.just("cancel"), st.integers(0, 10_000)),
    st.tuples(st.just("rush"), st.integers(0, 10_000)),
    st.tuples(st.just("pay"), accounts, st.none() | fee_assets),
    st.tuples(st.just("walk"), st.lists(prices, min_size=1, max_size=3), st.integers(0, 2000)),
)
shapes = st.sampled_from([Shape(), NO_MARKET, Shape(spread_bp=Decimal(50), top=Decimal("0.001"))])
COARSE = Instrument("AAA", "USDT", Decimal("0.01"), Decimal("0.001"))
FINE = Instrument("AAA", "USDT", SATOSHI, SATOSHI, min_notional=Decimal(0))


def _do(engine: Engine, deed: tuple[Any, ...]) -> None:
    match deed:
        case ("place", account, asked, share):
            engine.place(account, asked, 0, share)
        case ("oco", account, side, amount, upper, lower):
            limit, stop = (upper, lower) if side == SELL else (lower, upper)
            legs = [
                ticket(side, "LIMIT_MAKER", amount=amount, price=limit),
                ticket(side, "STOP_LOSS", amount=amount, stop=stop),
            ]
            engine.place_oco(account, *(legs if side == SELL else legs[::-1]), "pair", 0)
        case ("cancel", number):
            open_orders = list(engine.open.values())
            if open_orders:
                engine.cancel(open_orders[number % len(open_orders)], 0)
        case ("rush", number):
            open_orders = list(engine.open.values())
            if open_orders:
                engine.rush(open_orders[number % len(open_orders)], 0)
        case ("pay", account, chosen):
            engine.fee_assets.pop(account, None)
            if chosen is not None:
                engine.fee_assets[account] = chosen
        case ("walk", there, volume):
            walk(engine, *there, volume=volume)


def _check(engine: Engine) -> None:
    assert totals(engine) == TOTALS
    for account, held in engine.balances.items():
        for asset, balance in held.items():
            assert balance.free >= 0
            waiting = sum(
                order.locked
                for order in engine.open.values()
                if order.account == account and _pays_with(order) == asset
            )
            assert balance.locked == waiting >= 0
    for order in engine.open.values():
        assert 0 <= order.filled < order.amount
        pair = engine.lists.get(order.list_id)
        legs = [engine.open[each] for each in pair.order_ids] if pair in _standing(engine) else []
        assert sum(leg.locked for leg in legs or [order]) > 0


def _pays_with(order: Order) -> str:
    return "USDT" if order.ticket.side == BUY else "AAA"


def _standing(engine: Engine) -> list[OrderList]:
    """The lists of which both legs wait."""
    return [
        each for each in engine.lists.values() if all(leg in engine.open for leg in each.order_ids)
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(deeds, min_size=10, max_size=100), shapes, st.sampled_from([COARSE, FINE]))
def test_nothing_is_made_or_lost(
    done: list[tuple[Any, ...]], shape: Shape, instrument: Instrument
) -> None:
    engine = new_engine(shape=shape, instrument=instrument)
    engine.balance("ann", "FEE").free += START_FEE
    for deed in done:
        with suppress(Refusal):
            _do(engine, deed)
        _check(engine)
    fills = [each.trade for each in engine.drain().executions if each.trade]
    assert all(trade.amount > 0 and trade.fee >= 0 for trade in fills)
    for order in list(engine.open.values()):
        if order.id in engine.open:
            engine.cancel(order, 0)
    assert all(
        balance.locked == 0 for held in engine.balances.values() for balance in held.values()
    )
    assert totals(engine) == TOTALS
