"""Bots: a strategy with parameters on one symbol of one venue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator
from sqlalchemy import select

from tradelib.clock import timeframe_ms, utc_now
from tradelib.errors import InvalidInput, unknown_name
from tradelib.strategy.base import Strategy
from tradelib.strategy.decision import DecisionParams
from tradelib.strategy.params import Params
from tradelib.strategy.registry import strategy
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, as_row, first, insert, rows

_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,39}$")


class StopParams(Params):
    """What rests at the venue while a bot holds a position, as fractions of its average entry."""

    loss: float | None = Field(None, gt=0, lt=1, description="sell all so far below the entry")
    profit: float | None = Field(None, gt=0, le=10, description="sell all so far above the entry")
    trailing: float | None = Field(
        None, gt=0, le=0.2, description="sell all so far below the best price since"
    )

    @model_validator(mode="after")
    def _one_way_down(self) -> StopParams:
        if self.trailing is not None and (self.loss is not None or self.profit is not None):
            raise InvalidInput(
                "A trailing stop stands alone; give either trailing, or loss and profit."
            )
        return self


class BotStatus(StrEnum):
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


@dataclass(frozen=True)
class Bot:
    """parameters: the strategy's own; decision: thresholds, confirmation, sizing, stop; stops:
    what rests at the venue to protect a position, see `tradelib.trading.stops`."""

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

    @property
    def base(self) -> str:
        return self.symbol.split("/")[0]

    @property
    def quote(self) -> str:
        return self.symbol.split("/")[1]

    @property
    def config(self) -> dict[str, Any]:
        """What its decisions depend on, as plain values: kept with each run."""
        names = ("venue", "symbol", "timeframe", "strategy", "parameters", "decision")
        return {name: getattr(self, name) for name in names}

    @property
    def rules(self) -> Strategy:
        """The strategy itself."""
        return strategy(self.strategy)

    @property
    def strategy_params(self) -> Params:
        return self.rules.params(**self.parameters)

    @property
    def decision_params(self) -> DecisionParams:
        return DecisionParams(**self.decision)

    @property
    def stop_params(self) -> StopParams:
        return StopParams(**self.stops)


def new_bot(
    name: str,
    venue: str,
    symbol: str,
    timeframe: str,
    strategy_name: str,
    parameters: dict[str, Any] | None = None,
    decision: dict[str, Any] | None = None,
    stops: dict[str, Any] | None = None,
    *,
    status: BotStatus = BotStatus.STOPPED,
) -> Bot:
    """A checked bot, stopped; raises InvalidInput naming what is not acceptable."""
    if not _NAME.match(name):
        raise InvalidInput(
            f"Bot name {name!r} is not acceptable; use up to 40 of a-z, 0-9, - and _."
        )
    if symbol.count("/") != 1:
        raise InvalidInput(f"Symbol {symbol!r} of bot {name} is not a pair; write it as BTC/USDT.")
    timeframe_ms(timeframe)
    chosen = strategy(strategy_name)
    now = utc_now()
    return Bot(
        name=name,
        venue=venue,
        symbol=symbol,
        timeframe=timeframe,
        strategy=strategy_name,
        parameters=chosen.params(**(parameters or {})).model_dump(mode="json"),
        decision=DecisionParams(**(decision or {})).model_dump(mode="json"),
        stops=StopParams(**(stops or {})).model_dump(mode="json", exclude_none=True),
        status=status,
        created_at=now,
        updated_at=now,
    )


def add_bot(ledger: Ledger, bot: Bot) -> None:
    """Record a new bot; refuses a name that is taken."""
    with ledger.write() as books:
        if rows(books, select(tables.bots).where(tables.bots.c.name == bot.name), Bot):
            raise InvalidInput(
                f"A bot named {bot.name!r} exists already; choose another name or edit it."
            )
        insert(books, tables.bots, bot)


def update_bot(ledger: Ledger, bot: Bot) -> None:
    """Record a changed bot under its name."""
    changed = as_row(replace(bot, updated_at=utc_now()))
    with ledger.write() as books:
        books.execute(tables.bots.update().where(tables.bots.c.name == bot.name).values(**changed))


def load_bots(ledger: Ledger, *, running_only: bool = False) -> list[Bot]:
    query = select(tables.bots).order_by(tables.bots.c.name)
    if running_only:
        query = query.where(tables.bots.c.status == BotStatus.RUNNING)
    return ledger.rows(query, Bot)


def load_bot(ledger: Ledger, name: str) -> Bot:
    """The bot by that name; raises InvalidInput with the nearest name."""
    found = first(ledger.rows(select(tables.bots).where(tables.bots.c.name == name), Bot))
    if found is None:
        raise unknown_name("bot", name, [bot.name for bot in load_bots(ledger)])
    return found


def symbols_of(bots: Sequence[Bot], venue: str) -> list[str]:
    return sorted({bot.symbol for bot in bots if bot.venue == venue})
