"""Promotions as the ledger keeps them: what was found of a strategy when it came onto the desk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select

from tradelib.trading import tables
from tradelib.trading.bots import Bot
from tradelib.trading.ledger import Ledger, first


@dataclass(frozen=True)
class Promotion:
    """A promotion as it is kept.

    source: the frozen source's reference, None for a strategy that ships. code: hash of the code
    that the strategy ran on. config: the bot's configuration then. candles: symbol, timeframe,
    first and last time, number and hash. checks: the examination. overruled: why it was promoted
    all the same, None where nothing spoke against it.
    """

    id: str
    bot: str
    strategy: str
    source: str | None
    code: str
    config: dict[str, Any]
    candles: dict[str, Any]
    checks: dict[str, Any] = field(repr=False)
    overruled: str | None
    promoted_by: str
    promoted_at: datetime

    @property
    def summary(self) -> dict[str, str]:
        """What was found, in a line each."""
        candles = self.candles
        return {
            "Strategy": self.strategy,
            "Promoted": f"{self.promoted_at:%Y-%m-%d %H:%M:%S} UTC by {self.promoted_by}",
            "Candles": f"{candles['candles']:,} of {candles['symbol']} {candles['timeframe']}, "
            f"{candles['from']} to {candles['to']}, {candles['hash'][:16]}",
            **summarise(self.checks),
            **({"Overruled": self.overruled} if self.overruled else {}),
            "Code": self.code[:16],
        }


def load_promotions(ledger: Ledger, *, limit: int | None = None) -> list[Promotion]:
    """Promotions, newest first."""
    query = select(tables.promotions).order_by(tables.promotions.c.promoted_at.desc())
    return ledger.rows(query.limit(limit), Promotion)


def load_promotion(ledger: Ledger, identity: str) -> Promotion | None:
    """The promotion of that id, None where there is none."""
    query = select(tables.promotions).where(tables.promotions.c.id == identity)
    return first(ledger.rows(query, Promotion))


def load_promoted(ledger: Ledger) -> set[tuple[str, str]]:
    """Bot and strategy of every promotion."""
    found = tables.promotions.c
    return {
        (row["bot"], row["strategy"]) for row in ledger.mappings(select(found.bot, found.strategy))
    }


def find_promotion(ledger: Ledger, bot: Bot) -> Promotion | None:
    """The promotion that put a bot on the desk; None for one that was added otherwise."""
    found = tables.promotions
    query = select(found).where(found.c.bot == bot.name, found.c.promoted_at >= bot.created_at)
    return first(ledger.rows(query.order_by(found.c.promoted_at.desc()).limit(1), Promotion))


def changes_since(promotion: Promotion, bot: Bot) -> list[str]:
    """What of the bot is no longer as it was examined, as `fast: 10 → 12`."""
    now, lines = bot.config | {"stops": bot.stops}, []
    for part, was in promotion.config.items():
        before, after = was, now.get(part)
        if not isinstance(before, dict) or not isinstance(after, dict):
            before, after = {part: before}, {part: after}
        lines += [
            f"{name}: {before.get(name)} → {after.get(name)}"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
    return lines


def summarise(checks: Mapping[str, Any]) -> dict[str, str]:
    """An examination in a line for each of its parts."""
    bias, inside, outside = (checks[part] for part in ("bias", "in_sample", "out_of_sample"))
    luck = checks["luck"]
    told = {
        "Bias": bias["verdict"] if bias else "not checked",
        "In sample": _told_growth(inside) if inside else "none",
        "Out of sample": f"{outside['kind']}: {_told_growth(outside)}" if outside else "none",
        "Trials": _told_luck(luck) if luck else "one, chosen without a search as far as is known",
        "Against it": "; ".join(checks["refusals"]),
        "Beside": "; ".join(checks["notes"]),
    }
    return {name: text for name, text in told.items() if text}


def _told_growth(part: Mapping[str, Any]) -> str:
    return (
        f"{part['total_return']:+.2%} in {part['candles']:,} candles and {part['trades']:.0f} "
        f"trades, holding {part['market_return']:+.2%}"
    )


def _told_luck(luck: Mapping[str, Any]) -> str:
    return (
        f"{luck['trials']}, deflated Sharpe ratio {luck['deflated_sharpe']:.3f}, probability of "
        f"overfitting {luck['overfitting']:.0%}"
    )
