"""A bot that missed candles decides as one that missed none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.trading.test_entry_plans import begin_run
from tradelib.candles.store import CandleStore
from tradelib.clock import utc_now
from tradelib.research.samples import random_candles
from tradelib.settings import LimitSettings, load_settings
from tradelib.strategy.registry import strategy_names
from tradelib.trading import deciding
from tradelib.trading.accounts import Balance, save_balance
from tradelib.trading.bots import Bot, new_bot
from tradelib.trading.deciding import score_bot
from tradelib.trading.decisions import Decision
from tradelib.trading.ledger import Ledger, open_ledger

COUNT, MISSED, REACH = 1_000, 7, 12
CANDLES = random_candles(COUNT, seed=11)
HOUR = timedelta(hours=1)


@pytest.fixture
def books(home: Path) -> Iterator[tuple[Ledger, CandleStore]]:
    settings = load_settings(home)
    ledger, store = open_ledger(settings, migrate=True), CandleStore(settings.candles)
    store.append("v", "A/USD", "1h", CANDLES, as_of=datetime(2040, 1, 1, tzinfo=UTC))
    cash = Decimal(10_000)
    with ledger.write() as connection:
        save_balance(connection, Balance("v", "USD", cash, cash, Decimal(0), utc_now()))
    begin_run(ledger, "run")
    yield ledger, store
    ledger.close()


def bot(name: str, strategy: str) -> Bot:
    """One that never gets to trade, for its signals are never confirmed."""
    decision = {
        "buy_threshold": 0.1,
        "sell_threshold": -0.1,
        "confirmation_minutes": REACH * 60,
    }
    return new_bot(name, "v", "A/USD", "1h", strategy, decision=decision)


def decide(books: tuple[Ledger, CandleStore], which: Bot, candle: int) -> Decision:
    close = CANDLES.index[candle].to_pydatetime() + HOUR
    return score_bot(*books, LimitSettings(), which, close, "run").record(books[0]).decision


@pytest.mark.parametrize("strategy", strategy_names())
def test_after_an_outage_the_state_is_what_it_would_have_been(books, strategy: str) -> None:
    always, sometimes = bot("always", strategy), bot("sometimes", strategy)
    seen = set()
    for candle in range(COUNT - 120, COUNT):
        without = decide(books, always, candle)
        if candle % (MISSED + 1) == 0:
            after = decide(books, sometimes, candle)
            if candle >= COUNT - 120 + REACH:
                assert after.state == without.state
                assert (after.action, after.reason) == (without.action, without.reason)
                seen.add(after.state["pending"])
    assert len(seen) > 1 or strategy == "buy_and_hold"


def test_a_gap_of_the_venues_is_no_outage(books) -> None:
    _, store = books
    torn = CANDLES.drop(CANDLES.index[COUNT - 40 : COUNT - 34])
    store.append("v", "B/USD", "1h", torn, as_of=datetime(2040, 1, 1, tzinfo=UTC))
    always, sometimes = (replace(bot(name, "momentum"), symbol="B/USD") for name in ("a", "s"))
    for candle in [*range(COUNT - 80, COUNT - 40), *range(COUNT - 34, COUNT)]:
        without = decide(books, always, candle)
        if candle % 3 == 0:
            after = decide(books, sometimes, candle)
            if candle >= COUNT - 80 + REACH:
                assert after.state == without.state


def test_after_a_very_long_outage_no_signal_stands_since_before_it(books, monkeypatch) -> None:
    monkeypatch.setattr(deciding, "LONGEST_OUTAGE", 0)
    known = set()
    for first in range(COUNT - 120, COUNT - 40):
        late = bot(f"late-{first}", "momentum")
        decide(books, late, first)
        state = decide(books, late, first + 3 * REACH).state
        oldest = CANDLES.index[first + 2 * REACH].to_pydatetime() + HOUR
        assert state["pending"] == 0 or state["pending_since_ms"] >= oldest.timestamp() * 1000
        known.add(state["pending"])
    assert len(known) > 1


@pytest.mark.parametrize("strategy", strategy_names())
def test_a_first_decision_knows_for_how_long_its_signal_has_stood(books, strategy: str) -> None:
    always = bot("always", strategy)
    for candle in range(COUNT - 60, COUNT):
        state = decide(books, always, candle).state
        fresh = decide(books, bot(f"fresh-{candle}", strategy), candle).state
        began = state["pending_since_ms"]
        reach = (CANDLES.index[candle].to_pydatetime() + HOUR - REACH * HOUR).timestamp() * 1000
        if candle >= COUNT - 60 + REACH and began > reach:
            assert fresh["pending_since_ms"] == began
