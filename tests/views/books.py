"""A small ledger with a story: a bot that bought twice and sold once, and one that was refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import nbformat

from tradelib.candles.schema import candles_from_rows
from tradelib.candles.store import CandleStore
from tradelib.clock import to_ms
from tradelib.settings import DeskSettings
from tradelib.trading import tables
from tradelib.trading.accounts import Account, Balance, Equity, record_equity, save_balance
from tradelib.trading.bots import BotStatus, add_bot, new_bot
from tradelib.trading.decisions import Action, Decision, record_decision
from tradelib.trading.incidents import open_incident
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
from tradelib.trading.positions import book_positions
from tradelib.trading.runs import Outcome, Run, finish_run, load_run, start_run

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVIL = '<script>alert("no")</script>'


def open_books(settings: DeskSettings) -> Ledger:
    return open_ledger(settings, migrate=True)


def add_story(settings: DeskSettings, ledger: Ledger) -> None:
    """Two buys of 0.5 at 100 and 110, a sale of 0.4 at 120, fees of 0.1 USDT each; an order that
    a limit refused; candles that close at 125."""
    add_bot(ledger, new_bot("first", "paper", "BTC/USDT", "1m", "momentum"))
    add_bot(
        ledger, new_bot("second", "paper", "ETH/USDT", "1m", "momentum", status=BotStatus.RUNNING)
    )
    for minute, side, amount, price in ((1, "buy", "0.5", "100"), (2, "buy", "0.5", "110"),
                                        (3, "sell", "0.4", "120")):  # fmt: skip
        add_trade(ledger, "first", minute, Side(side), Decimal(amount), Decimal(price))
    add_refused_order(ledger, "second", 4)
    with ledger.write() as books:
        insert(books, tables.accounts, Account("paper", "USDT", START))
        for minute, worth in ((0, "10000"), (2, "9990.5"), (4, "10012.75")):
            as_of = START + timedelta(minutes=minute)
            value = Equity("paper", as_of, "USDT", Decimal(worth), Decimal("9900"), {}, None)
            record_equity(books, value)
        save_balance(books, balance("BTC", "0.6", "0.6"))
        save_balance(books, balance("USDT", "9942.7", "9940"))
        open_incident(books, "balance differs", "paper", "USDT", {"ledger": "9942.7"})
    add_candles(settings, "BTC/USDT", (100, 110, 120, 125))


def balance(asset: str, booked: str, free: str) -> Balance:
    return Balance("paper", asset, Decimal(booked), Decimal(free), Decimal(0), START)


def add_run(
    ledger: Ledger,
    notebook: str,
    *,
    bot: str | None = None,
    outcome: Outcome = Outcome.SUCCEEDED,
    reason: str | None = None,
    cycle: str = "c-1",
    as_of: datetime = START + timedelta(minutes=4),
) -> str:
    """A finished run with a page."""
    with ledger.read() as books:
        number = len(books.execute(tables.runs.select()).all())
    run = Run(
        id=f"run-{number}", cycle=cycle, notebook=notebook, notebook_hash="0" * 64, bot=bot,
        venue="paper", parameters={}, as_of=as_of, git_commit=None,
        git_clean=None, lock_hash=None, host="here", kernel="python3", token_hash="0" * 64,
        started_at=START + timedelta(seconds=number),
    )  # fmt: skip
    start_run(ledger, run)
    finish_run(ledger, run.id, outcome, reason=reason, page=f"2026-03-01/{run.id}/page.ipynb")
    return run.id


def add_page(settings: DeskSettings, ledger: Ledger, run: str, *lines: str) -> None:
    """The page of a run, with a code cell for each of the lines."""
    page = settings.reports / str(load_run(ledger, run).page)
    page.parent.mkdir(parents=True)
    cells = [nbformat.v4.new_code_cell(line) for line in lines]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), page)


def add_decision(ledger: Ledger, bot: str, minute: int, action: Action, reason: str) -> Decision:
    close = START + timedelta(minutes=minute)
    run = add_run(ledger, "live/20_generate_signals", bot=bot)
    decision = Decision(
        id=decision_id(bot, close), bot=bot, candle_close=close, run=run, action=action,
        fraction=Decimal("0.25"), temperature="HOT", reason=reason, price=Decimal(100), state={},
        decided_at=close,
    )  # fmt: skip
    return record_decision(ledger, decision, None)


def add_order(
    ledger: Ledger, bot: str, minute: int, side: Side, amount: Decimal, price: Decimal,
    status: OrderStatus, *, symbol: str = "BTC/USDT", reason: str | None = None,
) -> Order:  # fmt: skip
    action = Action.BUY if side is Side.BUY else Action.SELL
    decision = add_decision(ledger, bot, minute, action, "confirmed signal")
    filled = amount if status is OrderStatus.FILLED else Decimal(0)
    order = Order(
        client_id=client_order_id(decision.id), decision=decision.id,
        run=add_run(ledger, "live/30_execute_orders", bot=bot), bot=bot, venue="paper",
        symbol=symbol, side=side, type="market", amount=amount, limit_price=None,
        expected_price=price, status=status, as_of=decision.candle_close,
        created_at=decision.candle_close, updated_at=decision.candle_close, reason=reason,
        venue_order_id=str(minute), filled=filled, cost=filled * price,
    )  # fmt: skip
    with ledger.write() as books:
        insert_order(books, order)
    return order


def add_trade(
    ledger: Ledger, bot: str, minute: int, side: Side, amount: Decimal, price: Decimal
) -> None:
    order = add_order(ledger, bot, minute, side, amount, price, OrderStatus.FILLED)
    fill = Fill(
        venue="paper", symbol=order.symbol, trade_id=str(minute), client_id=order.client_id,
        venue_order_id=str(minute), side=side, amount=amount, price=price, cost=amount * price,
        fee=Decimal("0.1"), fee_currency="USDT", at=order.as_of,
    )  # fmt: skip
    with ledger.write() as books:
        insert(books, tables.fills, fill)
        book_positions(books, [fill])


def add_refused_order(ledger: Ledger, bot: str, minute: int) -> None:
    order = add_order(
        ledger, bot, minute, Side.BUY, Decimal(1), Decimal(50), OrderStatus.DENIED,
        symbol="ETH/USDT", reason=f"too large {EVIL}",
    )  # fmt: skip
    with ledger.write() as books:
        books.execute(
            tables.refusals.insert().values(
                client_id=order.client_id, limit_name="OrderNotional", value="50", bound="10",
                reason="too large", at=order.as_of,
            )
        )  # fmt: skip


def add_candles(settings: DeskSettings, symbol: str, closes: tuple[float, ...]) -> None:
    begin = to_ms(START)
    rows = [(begin + 60_000 * i, c, c, c, c, 1.0) for i, c in enumerate(closes)]
    CandleStore(settings.candles).append(
        "paper", symbol, "1m", candles_from_rows(rows), as_of=START + timedelta(hours=1)
    )
