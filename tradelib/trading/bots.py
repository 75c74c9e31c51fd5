"""Bots: a strategy with parameters on one symbol of one venue, or on several."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, model_validator
from sqlalchemy import Connection, select

from tradelib.clock import timeframe_ms, utc_now
from tradelib.errors import DeskError, InvalidInput, unknown_name
from tradelib.settings import DeskSettings
from tradelib.strategy.allocations import target_strategy, target_strategy_names
from tradelib.strategy.base import Strategy
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.params import Params
from tradelib.strategy.rebalance import RebalanceParams
from tradelib.strategy.registry import is_own, strategy
from tradelib.strategy.targets import TargetStrategy, require_symbols
from tradelib.trading import tables
from tradelib.trading.accounts import newest_equity
from tradelib.trading.leases import bot_lease, lease, require_lease
from tradelib.trading.ledger import Ledger, as_row, find, first, insert, rows, update
from tradelib.trading.orders import UNSETTLED
from tradelib.trading.positions import Position, find_positions, is_dust
from tradelib.trading.sources import is_frozen, provide_sources

_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,39}$")
# What a first fetch asks for, beyond what the hungriest strategy of the timeframe needs.
CHART_HISTORY = 500
# Distances at which venues follow a price: Binance takes 10 to 2000 hundredths of a percent.
TRAILING_RANGE = (0.001, 0.2)


class StopParams(Params):
    """What rests at the venue while a bot holds a position, as fractions of its average entry."""

    loss: float | None = Field(None, ge=0.001, lt=1, description="sell all so far below the entry")
    profit: float | None = Field(
        None, ge=0.001, le=10, description="sell all so far above the entry"
    )
    trailing: float | None = Field(None, description="sell all so far below the best price since")

    @model_validator(mode="after")
    def _one_way_down(self) -> StopParams:
        if self.trailing is not None and (self.loss is not None or self.profit is not None):
            raise InvalidInput(
                "A trailing stop stands alone; give either trailing, or loss and profit."
            )
        if self.trailing is not None:
            require_trailing(self.trailing)
        return self


class WakeParams(Params):
    """When a bot decides, beside the schedule's cycles: on each closed candle of its own, or once
    the price has moved by a fraction since it last did. What a venue does not stream, and what the
    feed missed, the schedule does."""

    on: Literal["schedule", "close", "price"] = "schedule"
    move: float | None = Field(None, ge=0.0001, le=1, description="move of the price that wakes it")
    fast: bool = Field(False, description="decide in the feed's process, and write the page after")

    @model_validator(mode="after")
    def _complete(self) -> WakeParams:
        if (self.on == "price") != (self.move is not None):
            raise InvalidInput(
                "A bot that wakes on price needs its move, and no other bot has one."
            )
        if self.fast and self.on == "schedule":
            raise InvalidInput(
                "A fast bot wakes on close or on price; the schedule runs notebooks."
            )
        return self


def require_trailing(distance: float | Decimal) -> None:
    """Refuse a distance, as a fraction of the price, at which no venue follows."""
    low, high = TRAILING_RANGE
    if not low <= distance <= high:
        raise InvalidInput(
            f"A trailing stop follows at {low} to {high} of the best price, not at {distance:g}."
        )


class BotStatus(StrEnum):
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


@dataclass(frozen=True)
class Bot:
    """parameters: the strategy's own; decision: thresholds, confirmation, sizing, stop; stops:
    what rests at the venue to protect a position, see `tradelib.trading.stops`; wake: when it
    decides, as `WakeParams` has it.

    symbols: of a bot that holds several, all of them: its strategy is a TargetStrategy and its
    decision a rebalancing; `symbol` is the first. Empty for a bot on one symbol.
    """

    name: str
    venue: str
    symbol: str
    timeframe: str
    strategy: str
    parameters: dict[str, Any]
    decision: dict[str, Any]
    status: BotStatus
    created_at: datetime
    updated_at: datetime
    stops: dict[str, Any] = field(default_factory=dict)
    wake: dict[str, Any] = field(default_factory=dict)
    symbols: list[str] = field(default_factory=list)

    @property
    def traded(self) -> tuple[str, ...]:
        """All that it trades."""
        return tuple(self.symbols) or (self.symbol,)

    @property
    def base(self) -> str:
        return self.symbol.split("/")[0]

    @property
    def quote(self) -> str:
        return self.symbol.split("/")[1]

    @property
    def config(self) -> dict[str, Any]:
        """What its decisions depend on, as plain values: kept with each run."""
        names = ["venue", "symbol", "timeframe", "strategy", "parameters", "decision"]
        if self.symbols:
            names.append("symbols")
        return {name: getattr(self, name) for name in names}

    @property
    def rules(self) -> Strategy:
        """The strategy itself, of a bot on one symbol."""
        return strategy(self.strategy)

    @property
    def target_rules(self) -> TargetStrategy:
        """The strategy itself, of a bot on several symbols."""
        return target_strategy(self.strategy)

    @property
    def strategy_params(self) -> Params:
        chosen = self.target_rules if self.symbols else self.rules
        return chosen.params(**self.parameters)

    @property
    def decision_params(self) -> DecisionParams:
        return DecisionParams(**self.decision)

    @property
    def rebalancing(self) -> RebalanceParams:
        """How a bot on several symbols decides."""
        return RebalanceParams(**self.decision)

    @property
    def entries(self) -> int:
        """How many entries make a position whole."""
        return 1 if self.symbols else self.decision_params.entries

    @property
    def history(self) -> int:
        """Candles of each symbol that it looks at to decide."""
        chosen = self.target_rules if self.symbols else self.rules
        return chosen.history(self.strategy_params) + self.reach

    @property
    def reach(self) -> int:
        """Candles before the present one that a confirmation looks back on."""
        if self.symbols:
            return 0
        minutes = self.decision_params.confirmation_minutes
        return int(minutes * 60_000) // timeframe_ms(self.timeframe)

    @property
    def stop_params(self) -> StopParams:
        return StopParams(**self.stops)

    @property
    def wake_params(self) -> WakeParams:
        return WakeParams(**self.wake)


def new_bot(
    name: str,
    venue: str,
    symbol: str,
    timeframe: str,
    strategy_name: str,
    parameters: dict[str, Any] | None = None,
    decision: dict[str, Any] | None = None,
    stops: dict[str, Any] | None = None,
    wake: dict[str, Any] | None = None,
    *,
    symbols: Sequence[str] = (),
    status: BotStatus = BotStatus.STOPPED,
) -> Bot:
    """A checked bot, stopped; raises InvalidInput naming what is not acceptable.

    symbols: all of a bot that holds several; `symbol` is then the first of them.
    """
    if not _NAME.match(name):
        raise InvalidInput(
            f"Bot name {name!r} is not acceptable; use up to 40 of a-z, 0-9, - and _."
        )
    if symbol.count("/") != 1:
        raise InvalidInput(f"Symbol {symbol!r} of bot {name} is not a pair; write it as BTC/USDT.")
    timeframe_ms(timeframe)
    if symbols:
        require_symbols(symbols)
    if symbols and stops:
        raise InvalidInput(
            f"Bot {name} holds several symbols; what rests at the venue protects a bot on one."
        )
    if not symbols and strategy_name in target_strategy_names():
        raise InvalidInput(
            f"Strategy {strategy_name!r} of bot {name} holds several symbols; name them all, as in "
            f"desk bots add {name} --strategy {strategy_name} --symbols BTC/USDT,ETH/USDT"
        )
    if is_own(strategy_name) and WakeParams(**(wake or {})).fast:
        raise InvalidInput(
            f"Bot {name} trades by a strategy of your own, which runs in a notebook, where it has "
            "limits of time and memory; leave --fast away."
        )
    chosen = target_strategy(strategy_name) if symbols else strategy(strategy_name)
    rules = RebalanceParams if symbols else DecisionParams
    now = utc_now()
    return Bot(
        name=name,
        venue=venue,
        symbol=symbol,
        timeframe=timeframe,
        strategy=chosen.name,
        parameters=chosen.params(**(parameters or {})).model_dump(mode="json"),
        decision=rules(**(decision or {})).model_dump(mode="json"),
        stops=StopParams(**(stops or {})).model_dump(mode="json", exclude_none=True),
        wake=WakeParams(**(wake or {})).model_dump(mode="json", exclude_defaults=True),
        symbols=list(symbols),
        status=status,
        created_at=now,
        updated_at=now,
    )


def add_bot(ledger: Ledger, bot: Bot) -> None:
    """Record a new bot; refuses a name that is taken, and a user's strategy that is not frozen."""
    with ledger.write() as books:
        insert_bot(books, bot)


def insert_bot(books: Connection, bot: Bot) -> None:
    """As `add_bot`, within a transaction."""
    _require_new(books, bot.name)
    if is_own(bot.strategy) and not is_frozen(books, bot.strategy):
        name = bot.strategy.partition("@")[0]
        raise InvalidInput(
            f"Strategy {bot.strategy} is not on the desk yet; put it there, with its checks, by "
            f"`desk promote {name}`."
        )
    insert(books, tables.bots, bot)


def require_new(ledger: Ledger, name: str) -> None:
    """Refuse a bot's name that is taken."""
    with ledger.read() as books:
        _require_new(books, name)


def _require_new(books: Connection, name: str) -> None:
    if rows(books, select(tables.bots).where(tables.bots.c.name == name), Bot):
        raise InvalidInput(f"A bot named {name!r} exists already; choose another name or edit it.")


def require_venue(settings: DeskSettings, venue: str, symbol: str) -> None:
    """Refuse a venue that desk.toml lacks, and a symbol not quoted in the currency in which the
    venue's limits and worth are told."""
    if venue not in settings.venues:
        raise unknown_name("venue", venue, settings.venues, "desk.toml")
    quote = settings.venues[venue].quote
    if symbol.split("/")[1] != quote:
        raise InvalidInput(
            f"Venue {venue} counts in {quote}, but {symbol} is quoted in another currency; "
            f"choose a symbol in {quote} or name a second venue in desk.toml."
        )


def change_bot(ledger: Ledger, name: str, change: Callable[[Bot], Bot]) -> Bot:
    """Record what `change` makes of a bot, read and written in one transaction: of two changes at
    once, neither takes the other back. Raises InvalidInput where there is no such bot."""
    with ledger.write() as books:
        bot = _find_bot(books, name)
        if bot is not None:
            changed = replace(change(bot), updated_at=utc_now())
            _write_changes(books, bot, changed)
            return changed
    raise _no_bot(ledger, name)


def _write_changes(books: Connection, before: Bot, after: Bot) -> None:
    was = as_row(before)
    changes = {name: value for name, value in as_row(after).items() if value != was[name]}
    update(books, tables.bots, changes, name=before.name)


def update_bot(ledger: Ledger, bot: Bot) -> None:
    """Record a bot as it is given, whatever it was."""
    change_bot(ledger, bot.name, lambda _: bot)


def remove_bot(ledger: Ledger, name: str, holder: str) -> None:
    """Take away a bot that is stopped, flat and has nothing on its way; what it decided, ordered
    and filled stays in the ledger. holder: the command that does it."""
    load_bot(ledger, name)
    with lease(ledger, bot_lease(name), holder) as held, ledger.write() as books:
        require_lease(books, held)
        bot = _find_bot(books, name)
        if bot is not None:
            _require_at_rest(books, bot)
            books.execute(tables.bots.delete().where(tables.bots.c.name == name))


def _require_at_rest(books: Connection, bot: Bot) -> None:
    if bot.status != BotStatus.STOPPED:
        raise InvalidInput(f"Bot {bot.name} runs; stop it first with: desk bots stop {bot.name}")
    live = _unsettled_orders(books, bot.name)
    if live:
        raise InvalidInput(
            f"Order {live[0]} of bot {bot.name} is not settled; cancel it or reconcile first."
        )
    for position in find_positions(books, bot=bot.name):
        if not is_flat(books, position):
            raise InvalidInput(
                f"Bot {bot.name} holds {position.amount:f} of {position.symbol}; "
                f"sell it first with: desk sell {position.symbol} all --bot {bot.name}"
            )


def _unsettled_orders(books: Connection, bot: str) -> list[str]:
    """The client ids of a bot's orders whose end or whose fills are not all in the ledger."""
    orders = tables.orders.c
    open_ended = orders.status.in_(UNSETTLED) | (orders.fills_complete == 0)
    return list(
        books.execute(select(orders.client_id).where(orders.bot == bot, open_ended)).scalars()
    )


def is_flat(books: Connection, position: Position) -> bool:
    """Whether nothing but dust is held, at the price of the newest reconciliation or, without
    one, at what it cost."""
    worth = newest_equity(books, position.venue)
    if not position.amount or worth is None:
        return not position.amount
    price = worth.prices.get(position.symbol)
    value = position.cost if price is None else position.amount * Decimal(price)
    return is_dust(value, worth.equity)


def load_bots(ledger: Ledger, *, running_only: bool = False) -> list[Bot]:
    query = select(tables.bots).order_by(tables.bots.c.name)
    if running_only:
        query = query.where(tables.bots.c.status == BotStatus.RUNNING)
    with ledger.read() as books:
        found = rows(books, query, Bot)
        provide_sources(books, (bot.strategy for bot in found))
    return found


def load_bot(ledger: Ledger, name: str) -> Bot:
    """The bot by that name; raises InvalidInput with the nearest name."""
    with ledger.read() as books:
        found = _find_bot(books, name)
    if found is None:
        raise _no_bot(ledger, name)
    return found


def _find_bot(books: Connection, name: str) -> Bot | None:
    found = first(find(books, tables.bots, Bot, name=name))
    if found:
        provide_sources(books, [found.strategy])
    return found


def _no_bot(ledger: Ledger, name: str) -> InvalidInput:
    return unknown_name("bot", name, [bot.name for bot in load_bots(ledger)])


def bot_as_it_was(name: str, config: dict[str, Any], at: datetime) -> Bot:
    """A bot as a run's record knows it, whatever has become of it since."""
    return Bot(name=name, status=BotStatus.STOPPED, created_at=at, updated_at=at, **config)


def symbols_of(bots: Sequence[Bot], venue: str) -> list[str]:
    return sorted({symbol for bot in bots if bot.venue == venue for symbol in bot.traded})


def candle_history(bots: Sequence[Bot], timeframe: str) -> int:
    """Candles of a timeframe to keep at least, for these bots' scores and for a chart."""
    needs = [CHART_HISTORY]
    for bot in bots:
        if bot.timeframe == timeframe:
            # A bot that cannot be understood fails on its own page, not on everybody's.
            with suppress(DeskError):
                needs.append(bot.history)
    return max(needs)
