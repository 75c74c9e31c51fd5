"""A ledger full of rows, without a venue, for tests that only keep and compare them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select, text

from tradelib.settings import DeskSettings
from tradelib.trading import tables
from tradelib.trading.decisions import Action, Decision
from tradelib.trading.ledger import Ledger, insert, open_ledger
from tradelib.trading.orders import (
    Fill,
    Order,
    OrderStatus,
    Side,
    client_order_id,
    decision_id,
    insert_order,
)
from tradelib.trading.runs import Outcome, Run

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def fill_ledger(settings: DeskSettings, orders: int = 3) -> Ledger:
    """Runs, decisions, orders and fills, so many of each; with words that are no ASCII."""
    ledger = open_ledger(settings, migrate=True)
    with ledger.write() as books:
        for number in range(orders):
            add_chain(books, NOON + number * timedelta(minutes=1), number)
        books.execute(
            tables.balances.insert().values(
                venue="paper", asset="USDT", booked=Decimal("9999.10"), free=Decimal("9999.1000"),
                used=Decimal(0), as_of=NOON,
            )
        )  # fmt: skip
    return ledger


def add_chain(books: Any, at: datetime, number: int) -> None:
    """A run, its decision, the order of that and its fill."""
    run = Run(
        id=f"run-{number}", cycle=None, notebook="20", bot="btc", notebook_hash="", venue="paper",
        parameters={"name": "grüße “x”"}, as_of=at, git_commit=None, git_clean=None,
        lock_hash=None, host="h", kernel="k", token_hash="", started_at=at,
        outcome=Outcome.SUCCEEDED,
    )  # fmt: skip
    decision = Decision(
        id=decision_id("btc", at), bot="btc", candle_close=at, run=run.id, action=Action.BUY,
        fraction=Decimal("0.1"), temperature="HOT", reason="test", price=Decimal("100.50"),
        state={"n": number, "x": 0.1}, decided_at=at,
    )  # fmt: skip
    order = Order(
        client_id=client_order_id(decision.id), decision=decision.id, run=run.id, bot="btc",
        venue="paper", symbol="BTC/USDT", side=Side.BUY, type="market", amount=Decimal("0.0100"),
        limit_price=None, expected_price=Decimal(100), status=OrderStatus.FILLED, as_of=at,
        created_at=at, updated_at=at, venue_order_id=str(number + 1), filled=Decimal("0.01"),
        cost=Decimal(1),
    )  # fmt: skip
    fill = Fill(
        venue="paper", symbol="BTC/USDT", trade_id=str(number + 1), client_id=order.client_id,
        venue_order_id=str(number + 1), side=Side.BUY, amount=Decimal("0.01"), price=Decimal(100),
        cost=Decimal(1), fee=Decimal("0.00001"), fee_currency="BTC", at=at,
    )  # fmt: skip
    insert(books, tables.runs, run)
    insert(books, tables.decisions, decision)
    insert_order(books, order)
    insert(books, tables.fills, fill)


def all_rows(ledger: Ledger) -> dict[str, list[tuple[Any, ...]]]:
    """Everything the ledger holds, by table."""
    found = {}
    with ledger.read() as books:
        for table in tables.metadata.sorted_tables:
            rows = books.execute(select(*table.columns)).all()
            found[table.name] = sorted(tuple(map(str, row)) for row in rows)
        found["revision"] = list(books.execute(text("SELECT version_num FROM alembic_version")))
    return found
