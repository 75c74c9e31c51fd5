"""Checking parity: a bot's steps, its candles and its venue's rules brought together, and what is
found kept as an incident."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select

from tradelib.candles.store import CandleStore
from tradelib.clock import timeframe_ms, to_ms
from tradelib.errors import InvalidInput
from tradelib.trading import tables
from tradelib.trading.bots import Bot, bot_as_it_was, load_bot
from tradelib.trading.deciding import LONGEST_OUTAGE
from tradelib.trading.incidents import LIVE_DIFFERS, close_incidents, open_incident
from tradelib.trading.ledger import Ledger
from tradelib.trading.live_steps import LiveStep, load_live
from tradelib.trading.orders import load_fills
from tradelib.trading.parity import Cause, Parity, compare
from tradelib.trading.sources import provide_sources
from tradelib.venue.facts import Instrument

EXECUTE = "live/30_execute_orders"
# Gaps that ought not to be there however little they cost: orders meet other prices every day.
_NEVER = (Cause.DATA, Cause.SIGNAL, Cause.TIMING)
_FINEST = Decimal("0.00000001")
SEVERAL = "It trades several symbols, and what it does is not held against a backtest."


def check_bot(
    ledger: Ledger,
    store: CandleStore,
    name: str,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    rules: Instrument | None = None,
) -> Parity:
    """Hold what a bot decided from `since` to before `until`, by the wall clock, against what its
    candles make expected. rules: its symbol's at the venue; None: as its orders recorded them."""
    live = load_live(ledger, name, since, until)
    with ledger.read() as books:
        provide_sources(books, {step.config["strategy"] for step in live if step.config})
    bot = _find_bot(ledger, name, live)
    if bot.symbols:
        return Parity(bot.name, bot.venue, bot.quote, notes=(SEVERAL,))
    known = rules or _recorded_rules(ledger, bot)
    found = compare(
        bot, live, _candles(store, bot, live), known or _finest(bot), load_fills(ledger, bot=name)
    )
    if known is None and live:
        told = "No order has recorded the venue's rules yet: any amount and no fee are assumed."
        return replace(found, notes=(*found.notes, told))
    return found


def _find_bot(ledger: Ledger, name: str, live: list[LiveStep]) -> Bot:
    """The bot, or what its steps say of one that is gone."""
    try:
        return load_bot(ledger, name)
    except InvalidInput:
        for step in reversed(live):
            if step.config:
                return bot_as_it_was(name, step.config, step.decision.decided_at)
        raise


def _candles(store: CandleStore, bot: Bot, live: list[LiveStep]):
    """The store's candles now, from the history before the first step to the one after the last."""
    if not live:
        return None
    length = timeframe_ms(bot.timeframe)
    rows = (to_ms(live[-1].close) - to_ms(live[0].close)) // length + 1
    history = max(bot.rules.history(bot.strategy_params), *(step.candles for step in live))
    candles = store.load(bot.venue, bot.symbol, bot.timeframe)
    last = candles.index.searchsorted(live[-1].close, side="right")
    return candles.iloc[max(last - rows - history - bot.reach - LONGEST_OUTAGE, 0) : last]


def _recorded_rules(ledger: Ledger, bot: Bot) -> Instrument | None:
    """The symbol's rules as the newest order of it was sized with."""
    from tradelib.trading.execution import OrderInputs  # it reaches the venue's client

    runs, bots = tables.runs.c, tables.bots.c
    same = select(bots.name).where(bots.venue == bot.venue, bots.symbol == bot.symbol)
    query = select(runs.result).where(runs.notebook == EXECUTE, runs.venue == bot.venue)
    query = query.where((runs.bot == bot.name) | runs.bot.in_(same), runs.result.is_not(None))
    for row in ledger.mappings(query.order_by(runs.started_at.desc()).limit(20)):
        told = row["result"].get("inputs") or {}
        # Of a bot on several symbols, one for each order.
        for order in [told] if "instrument" in told else told.values():
            rules = OrderInputs.from_json(order).instrument
            if rules.symbol == bot.symbol:
                return rules
    return None


def _finest(bot: Bot) -> Instrument:
    return Instrument(bot.symbol, bot.base, bot.quote, _FINEST, _FINEST)


def keep_incident(ledger: Ledger, found: Parity, tolerance: Decimal) -> bool:
    """Open an incident where a check found what ought not to be, or close it; whether it is open.

    tolerance: what the account may have less or more than the backtest, as a share of its worth.
    """
    costs = found.costs()
    is_wrong = any(cause in costs for cause in _NEVER)
    is_wrong |= abs(found.difference) > tolerance * abs(found.equity)
    with ledger.write() as books:
        if not is_wrong:
            told = "a later check found it agreeing"
            close_incidents(books, LIVE_DIFFERS, found.venue, told, found.bot)
            return False
        counts = ", ".join(f"{number} {cause}" for cause, (number, _) in costs.items())
        evidence = {
            "live": f"{found.equity:f} {found.quote}",
            "backtest": f"{found.backtest:f} {found.quote}",
            "gaps": counts or "none",
        }
        open_incident(books, LIVE_DIFFERS, found.venue, found.bot, evidence)
    return True
