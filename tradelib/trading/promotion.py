"""Promotion: a strategy comes onto the desk as a stopped bot, with its source, its parameters, the
candles it was examined on and what was found, all in one transaction.

The examination is run here and now: nobody hands its result in. A refusal can be overruled, in
writing, which is kept beside it. A promotion sends no order and starts no bot.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tradelib.candles.files import CandleFile
from tradelib.candles.schema import candles_hash
from tradelib.clock import utc_now
from tradelib.errors import InvalidInput
from tradelib.research.backtest import DEFAULT_FEE
from tradelib.research.code_version import code_version
from tradelib.research.examination import Examination, examine
from tradelib.settings import DeskSettings
from tradelib.strategy.own import Source, load_source
from tradelib.strategy.registry import find_source, remember_frozen, require_free
from tradelib.trading import tables
from tradelib.trading.bots import Bot, insert_bot, new_bot, require_new, require_venue
from tradelib.trading.ledger import Ledger, first, insert
from tradelib.trading.sources import freeze, require_whole

ADDS = ("bots", "promotions", "sources")
"""The tables that a promotion adds to."""


@dataclass(frozen=True)
class Proposal:
    """What is to be promoted, and on what it is examined.

    bot: the new bot's name. strategy: a name, or a file that ends in `.py`. sample: the candles.
    symbol, timeframe: what the bot shall trade; None: as the candles. parameters, decision, stops:
    the bot's. tried, hold_out, folds, fee: see `examine`.
    """

    bot: str
    strategy: str
    sample: CandleFile
    venue: str = "paper"
    symbol: str | None = None
    timeframe: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    decision: Mapping[str, Any] = field(default_factory=dict)
    stops: Mapping[str, Any] = field(default_factory=dict)
    tried: Mapping[str, Iterable[Any]] = field(default_factory=dict)
    hold_out: float | None = None
    folds: int = 5
    fee: float = DEFAULT_FEE


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


class NotPromoted(InvalidInput):
    """The examination speaks against a promotion. examination: what it found."""

    def __init__(self, examination: Examination) -> None:
        super().__init__(
            f"{examination.verdict} Mend it, or say in writing why it shall trade all the same "
            f"(overrule)."
        )
        self.examination = examination


def promote(
    settings: DeskSettings,
    ledger: Ledger,
    proposal: Proposal,
    *,
    overrule: str = "",
    progress: bool = True,
) -> Promotion:
    """Examine the strategy, freeze its source and add its bot, stopped.

    overrule: why it shall be promoted although the examination speaks against it. Raises
    NotPromoted where that is missing, InvalidInput for what no writing can overrule.
    """
    source = _find_source(proposal.strategy)
    if source is not None:
        require_whole(source)
        remember_frozen(source.reference, source.text)
    bot = _make_bot(proposal, source.reference if source else proposal.strategy)
    require_venue(settings, bot.venue, bot.symbol)
    require_new(ledger, bot.name)
    found = _examine(proposal, bot, progress=progress)
    if found.refusals and not overrule.strip():
        raise NotPromoted(found)
    now = utc_now()
    promotion = Promotion(
        id=f"p-{now:%Y%m%dT%H%M%S}-{bot.name}",
        bot=bot.name,
        strategy=bot.strategy,
        source=source.reference if source else None,
        code=code_version(bot.rules),
        config=bot.config | {"stops": bot.stops},
        candles=_identify(proposal.sample),
        checks=found.to_json(),
        overruled=overrule.strip() if found.refusals else None,
        promoted_by=f"{getpass.getuser()}@{socket.gethostname()}",
        promoted_at=now,
    )
    with ledger.write() as books:
        if source is not None:
            freeze(books, source)
        insert_bot(books, bot)
        insert(books, tables.promotions, promotion)
    return promotion


def load_promotions(ledger: Ledger, *, limit: int | None = None) -> list[Promotion]:
    """Promotions, newest first."""
    query = select(tables.promotions).order_by(tables.promotions.c.promoted_at.desc())
    return ledger.rows(query.limit(limit), Promotion)


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


def _find_source(name: str) -> Source | None:
    source = load_source(Path(name)) if name.endswith(".py") else find_source(name)
    if source is not None:
        require_free(source.name)
    return source


def _make_bot(proposal: Proposal, strategy: str) -> Bot:
    return new_bot(
        proposal.bot,
        proposal.venue,
        proposal.symbol or proposal.sample.symbol,
        proposal.timeframe or proposal.sample.timeframe,
        strategy,
        dict(proposal.parameters),
        dict(proposal.decision),
        dict(proposal.stops),
    )


def _examine(proposal: Proposal, bot: Bot, *, progress: bool) -> Examination:
    sample = proposal.sample
    found = examine(
        sample.frame,
        sample.timeframe,
        bot.rules,
        bot.strategy_params,
        bot.decision_params,
        tried=proposal.tried,
        hold_out=proposal.hold_out,
        folds=proposal.folds,
        fee=proposal.fee,
        progress=progress,
    )
    if bot.timeframe != sample.timeframe:
        why = f"it is to trade {bot.timeframe} candles and was examined on {sample.timeframe}"
        found = replace(found, refusals=(*found.refusals, why))
    if bot.symbol != sample.symbol:
        note = f"it is to trade {bot.symbol} and was examined on {sample.symbol}"
        found = replace(found, notes=(*found.notes, note))
    return found


def _identify(sample: CandleFile) -> dict[str, Any]:
    frame = sample.frame
    return {
        "file": sample.path.name,
        "symbol": sample.symbol,
        "timeframe": sample.timeframe,
        "candles": len(frame),
        "from": frame.index[0].isoformat(),
        "to": frame.index[-1].isoformat(),
        "hash": candles_hash(frame),
    }
