"""What Binance and Kraken once replied settles the ledger's orders and books their fills."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.venue.test_recorded import (
    binance,  # noqa: F401
    kraken,  # noqa: F401
    recorded,
)
from tradelib.clock import utc_now
from tradelib.trading.accounts import booked_balances
from tradelib.trading.discrepancies import (
    Account,
    Books,
    BookTrades,
    find_discrepancies,
    venue_key,
)
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import Order, OrderStatus, Side, insert_order, load_fills, load_order
from tradelib.venue import VenueOrder

LAG = timedelta(seconds=60)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    opened.migrate()
    yield opened
    opened.close()


def pending(answer: VenueOrder) -> Order:
    """An order of ours that waits for just this answer."""
    now = utc_now()
    return Order(
        client_id="nd-recorded", decision=None, run=None, bot=None, venue="recorded",
        symbol=answer.symbol, side=Side(answer.side), type=answer.type,
        amount=answer.amount or Decimal(1), limit_price=answer.limit_price,
        expected_price=Decimal(50), status=OrderStatus.UNRESOLVED, as_of=now, created_at=now,
        updated_at=now, sent_at=now,
    )  # fmt: skip


def settle(ledger: Ledger, order: Order, answer: VenueOrder) -> list[str]:
    """The kinds of what differs, each repaired twice."""
    named = {order.client_id: order, venue_key(answer.symbol, answer.venue_order_id): order}
    books = Books("recorded", (order,), named, {}, LAG)
    found = find_discrepancies(books, Account(at=utc_now(), orders={order.client_id: answer}))
    for finding in [*found, *found]:
        if finding.repair:
            with ledger.write() as written:
                finding.repair.apply(written, "recorded")
    return [finding.kind for finding in found]


@pytest.mark.parametrize("name", ["binance", "kraken"])
def test_a_pending_order_becomes_what_the_venue_said(
    ledger: Ledger, name: str, request: pytest.FixtureRequest
):
    venue, served = request.getfixturevalue(name)
    for number, case in enumerate(recorded(name, "fetchOrder")):
        served.exchange.reply = case["httpResponse"]
        asked = next(iter(case["httpResponse"].get("result", {"3397148653": None})))
        answer = venue.fetch_order("LTC/USDT", "", asked)
        mine = pending(answer)
        mine = Order(**{**vars(mine), "client_id": f"nd-recorded-{number}"})
        with ledger.write() as books:
            insert_order(books, mine)
        assert settle(ledger, mine, answer) == ["order status"]
        settled = load_order(ledger, mine.client_id)
        assert settled.status == answer.status.value
        assert (settled.filled, settled.venue_order_id) == (answer.filled, answer.venue_order_id)
        assert settled.cost == (answer.cost or 0)


@pytest.mark.parametrize("name", ["binance", "kraken"])
def test_open_orders_of_others_are_named_and_have_no_repair(
    name: str, request: pytest.FixtureRequest
):
    venue, served = request.getfixturevalue(name)
    for case in recorded(name, "fetchOpenOrders"):
        served.exchange.reply = case["httpResponse"]
        there = venue.fetch_open_orders(["LTC/USDT"])
        found = find_discrepancies(
            Books("recorded", (), {}, {}, LAG), Account(at=utc_now(), open_orders=there)
        )
        assert [(f.kind, f.repair) for f in found] == [("foreign order", None)] * len(there)


def test_recorded_executions_are_booked_once_to_the_last_digit(ledger: Ledger, binance):  # noqa: F811
    venue, served = binance
    (case,) = recorded("binance", "fetchMyTrades")
    served.exchange.reply = case["httpResponse"]
    trades = venue.fetch_trades_since("LTC/USDT", None)
    for _ in range(2):
        with ledger.write() as books:
            BookTrades("LTC/USDT", trades, trades[-1].trade_id).apply(books, "recorded")
    assert [fill.trade_id for fill in load_fills(ledger)] == [trade.trade_id for trade in trades]
    with ledger.read() as books:
        booked = {b.asset: b.booked for b in booked_balances(books, "recorded")}
    assert booked == {"LTC": Decimal("-0.2"), "USDT": Decimal("13.926") - Decimal("0.013926")}
