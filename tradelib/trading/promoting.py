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
from pathlib import Path
from typing import Any

from tradelib.candles.files import CandleFile
from tradelib.candles.schema import candles_hash
from tradelib.clock import utc_now
from tradelib.errors import InvalidInput
from tradelib.research.backtest import DEFAULT_FEE
from tradelib.research.code_version import code_version
from tradelib.research.examination import Examination, examine
from tradelib.scrubber import Look, desk_scrubber
from tradelib.settings import DeskSettings
from tradelib.strategy.allocations import target_strategy_names
from tradelib.strategy.own import Source, load_source
from tradelib.strategy.registry import find_source, remember_frozen, require_free
from tradelib.trading import tables
from tradelib.trading.bots import Bot, insert_bot, new_bot, require_new, require_venue
from tradelib.trading.ledger import Ledger, insert
from tradelib.trading.promotions import Promotion
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
        _require_open(settings, source.text, f"The text of strategy {source.name!r}")
        remember_frozen(source.reference, source.text)
    _require_open(settings, overrule, "What overrules the checks")
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


def _find_source(name: str) -> Source | None:
    if name in target_strategy_names():
        raise InvalidInput(
            f"Strategy {name!r} holds several symbols, and an examination trades one; add it with "
            f"`desk bots add NAME --strategy {name} --symbols …`."
        )
    source = load_source(Path(name)) if name.endswith(".py") else find_source(name)
    if source is not None:
        require_free(source.name)
    return source


def _require_open(settings: DeskSettings, text: str, what: str) -> None:
    """Refuse a text with a secret: the ledger keeps it for all to read."""
    scrubber = desk_scrubber(settings)
    found = scrubber.find(text)
    if found is None and scrubber.scrub(text, Look.SOURCE) != text:
        found = "what has the name of a secret and looks like one"
    if found:
        raise InvalidInput(
            f"{what} holds {found}; it would be kept for all to read, so take it out."
        )


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
