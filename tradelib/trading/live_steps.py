"""What a bot did, candle by candle, as the ledger tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from tradelib.trading import tables
from tradelib.trading.deciding import DecisionInputs
from tradelib.trading.decisions import Decision, ScoreRecord
from tradelib.trading.ledger import Ledger, rows
from tradelib.trading.orders import Fill, Order
from tradelib.trading.risk import Refusal


@dataclass(frozen=True)
class LiveStep:
    """What the ledger knows of one candle's close: the decision with all that it was made from,
    and its order. as_of: market time of the cycle; config: the bot's, as it was; candles: how many
    the strategy saw."""

    decision: Decision
    score: ScoreRecord | None
    inputs: DecisionInputs | None
    config: dict[str, Any]
    as_of: datetime | None
    candles: int
    order: Order | None = None
    refusals: tuple[Refusal, ...] = ()
    fills: tuple[Fill, ...] = ()

    @property
    def close(self) -> datetime:
        return self.decision.candle_close

    @property
    def looked(self) -> bool:
        """Whether the strategy was asked: not where nothing could be bought or sold."""
        return self.decision.price is not None


def load_live(
    ledger: Ledger, bot: str, since: datetime | None = None, until: datetime | None = None
) -> list[LiveStep]:
    """A bot's steps by the ledger, oldest first: those decided from `since` to before `until`, by
    the wall clock, and the one before them, whose order may have filled since."""
    with ledger.read() as books:
        found = _find_decisions(books, bot, since, until)
        if not found:
            return []
        span = found[0].candle_close, found[-1].candle_close
        scores = {s.candle_close: s for s in rows(books, _scores(bot, *span), ScoreRecord)}
        orders = _orders_by_decision(rows(books, _orders(bot, *span), Order))
        refusals = _grouped(rows(books, _refusals(bot, *span), _Refused), "client_id")
        fills = _grouped(rows(books, _fills(bot, *span), Fill), "client_id")
        runs = {row["id"]: row for row in books.execute(_runs(bot, *span)).mappings()}
    return [
        _live_step(one, scores.get(one.candle_close), runs.get(one.run), orders.get(one.id, []),
                   refusals, fills)
        for one in found
    ]  # fmt: skip


def _find_decisions(
    books: Connection, bot: str, since: datetime | None, until: datetime | None
) -> list[Decision]:
    decisions = tables.decisions
    mine = select(decisions).where(decisions.c.bot == bot)
    query = mine.where(decisions.c.decided_at >= since) if since else mine
    query = query.where(decisions.c.decided_at < until) if until else query
    found = rows(books, query.order_by(decisions.c.candle_close), Decision)
    if not (found and since):
        return found
    earlier = mine.where(decisions.c.candle_close < found[0].candle_close)
    newest = earlier.order_by(decisions.c.candle_close.desc()).limit(1)
    return rows(books, newest, Decision) + found


@dataclass(frozen=True)
class _Refused:
    client_id: str
    limit_name: str
    value: str
    bound: str
    reason: str


def _live_step(
    decision: Decision,
    score: ScoreRecord | None,
    run: Mapping[str, Any] | None,
    attempts: Sequence[Order],
    refusals: Mapping[str, list[_Refused]],
    fills: Mapping[str, list[Fill]],
) -> LiveStep:
    told = (run["result"] if run else None) or {}
    inputs = told.get("inputs")
    order = attempts[-1] if attempts else None
    why = refusals.get(order.client_id, []) if order else []
    return LiveStep(
        decision=decision,
        score=score,
        inputs=DecisionInputs.from_json(inputs) if inputs else None,
        config=told.get("config") or {},
        as_of=run["as_of"] if run else None,
        candles=told.get("candles") or 0,
        order=order,
        refusals=tuple(Refusal(r.limit_name, r.value, r.bound, r.reason) for r in why),
        fills=tuple(fill for one in attempts for fill in fills.get(one.client_id, [])),
    )


def _within(bot: str, first: datetime, last: datetime) -> list[Any]:
    decisions = tables.decisions.c
    return [decisions.bot == bot, decisions.candle_close >= first, decisions.candle_close <= last]


def _scores(bot: str, first: datetime, last: datetime) -> Any:
    scores = tables.scores
    close = scores.c.candle_close
    return select(scores).where(scores.c.bot == bot, close >= first, close <= last)


def _runs(bot: str, first: datetime, last: datetime) -> Any:
    runs = tables.runs
    query = select(runs.c.id, runs.c.as_of, runs.c.result)
    joined = query.join(tables.decisions, tables.decisions.c.run == runs.c.id)
    return joined.where(*_within(bot, first, last))


def _orders(bot: str, first: datetime, last: datetime) -> Any:
    orders = tables.orders
    query = select(orders).join(tables.decisions, tables.decisions.c.id == orders.c.decision)
    return query.where(*_within(bot, first, last), orders.c.leg == 0).order_by(orders.c.attempt)


def _refusals(bot: str, first: datetime, last: datetime) -> Any:
    refusals, orders = tables.refusals, tables.orders
    query = select(refusals).join(orders, orders.c.client_id == refusals.c.client_id)
    query = query.join(tables.decisions, tables.decisions.c.id == orders.c.decision)
    return query.where(*_within(bot, first, last))


def _fills(bot: str, first: datetime, last: datetime) -> Any:
    fills, orders = tables.fills, tables.orders
    query = select(fills).join(orders, orders.c.client_id == fills.c.client_id)
    query = query.join(tables.decisions, tables.decisions.c.id == orders.c.decision)
    return query.where(*_within(bot, first, last), orders.c.leg == 0).order_by(fills.c.at)


def _orders_by_decision(found: Iterable[Order]) -> dict[str, list[Order]]:
    orders: dict[str, list[Order]] = {}
    for order in found:
        orders.setdefault(order.decision or "", []).append(order)
    return orders


def _grouped(found: Iterable[Any], name: str) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for one in found:
        groups.setdefault(getattr(one, name), []).append(one)
    return groups
