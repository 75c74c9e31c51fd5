"""The verdict: the books against the exchange's own record, never through the desk's reading.

Every rule is a function over both sides that answers what breaks it; none may.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tradelib.clock import from_ms
from tradelib.torture.acts import VENUE
from tradelib.torture.player import Done, Script
from tradelib.trading.accounts import load_balances
from tradelib.trading.decisions import Action, Decision
from tradelib.trading.discrepancies import FOREIGN_ORDER
from tradelib.trading.execution import MAX_ATTEMPTS
from tradelib.trading.incidents import Incident, load_incidents
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import (
    ZERO,
    Fill,
    Order,
    OrderStatus,
    Side,
    client_order_id,
    load_fills,
    load_orders,
)
from tradelib.trading.positions import (
    AccountPositions,
    Position,
    account_positions,
    compute_position,
    load_positions,
)

DUPLICATE = "duplicate"
LOST = "lost"
UNRESOLVED = "unresolved"
BALANCE = "balance difference"
CRASHED = "crashed"
INCIDENT = "open incident"
UNANSWERED = "unanswered decision"
KINDS = (DUPLICATE, LOST, UNRESOLVED, BALANCE, CRASHED, INCIDENT, UNANSWERED)

_OURS = "nd-"
_STATUSES = {"NEW": "OPEN", "EXPIRED_IN_MATCH": "EXPIRED"}
_RESTING = ("OPEN", "PARTIALLY_FILLED")
_MOST_LEGS = 40


@dataclass(frozen=True)
class Violation:
    """One broken rule. kind: one of KINDS."""

    kind: str
    text: str


@dataclass(frozen=True)
class VenueOrder:
    """An order as the exchange has it. status: in the desk's words."""

    symbol: str
    venue_order_id: str
    client_id: str
    status: str
    filled: Decimal

    @property
    def is_ours(self) -> bool:
        return self.client_id.startswith(_OURS)


@dataclass(frozen=True)
class Record:
    """The exchange's own record. trades: as the fills they ought to be, without their client ids;
    balances: totals by asset."""

    orders: tuple[VenueOrder, ...]
    trades: tuple[Fill, ...]
    balances: Mapping[str, Decimal]

    @property
    def client_ids(self) -> dict[tuple[str, str], str]:
        """The client ids of our orders, by symbol and the exchange's id."""
        return {(o.symbol, o.venue_order_id): o.client_id for o in self.orders if o.is_ours}


@dataclass(frozen=True)
class Books:
    """The ledger at the end."""

    orders: Mapping[str, Order]
    fills: Mapping[tuple[str, str], Fill]
    balances: Mapping[str, Decimal]
    incidents: tuple[Incident, ...]
    positions: tuple[Position, ...]
    account: AccountPositions


def load_books(ledger: Ledger) -> Books:
    return Books(
        orders={order.client_id: order for order in load_orders(ledger)},
        fills={(fill.symbol, fill.trade_id): fill for fill in load_fills(ledger)},
        balances={b.asset: b.booked for b in load_balances(ledger, VENUE) if b.booked},
        incidents=tuple(load_incidents(ledger, open_only=True)),
        positions=tuple(load_positions(ledger)),
        account=account_positions(ledger, VENUE),
    )


def read_record(said: Mapping[str, Any], symbols: Iterable[str]) -> Record:
    """The record command's answer. symbols: as the desk writes them."""
    names = {symbol.replace("/", ""): symbol for symbol in symbols}
    totals = {
        asset: Decimal(each["free"]) + Decimal(each["locked"])
        for asset, each in said["balances"].items()
    }
    return Record(
        orders=tuple(_order(row, names) for row in said["orders"]),
        trades=tuple(_trade(row, names) for row in said["trades"]),
        balances={asset: total for asset, total in totals.items() if total},
    )


def _order(row: Mapping[str, Any], names: Mapping[str, str]) -> VenueOrder:
    status, filled = _STATUSES.get(row["status"], row["status"]), Decimal(row["executedQty"])
    return VenueOrder(
        names[row["symbol"]],
        str(row["orderId"]),
        row["clientOrderId"],
        "PARTIALLY_FILLED" if status == "OPEN" and filled else status,
        filled,
    )


def _trade(row: Mapping[str, Any], names: Mapping[str, str]) -> Fill:
    return Fill(
        venue=VENUE,
        symbol=names[row["symbol"]],
        trade_id=str(row["id"]),
        client_id=None,
        venue_order_id=str(row["orderId"]),
        side=Side.BUY if row["isBuyer"] else Side.SELL,
        amount=Decimal(row["qty"]),
        price=Decimal(row["price"]),
        cost=Decimal(row["quoteQty"]),
        fee=Decimal(row["commission"]),
        fee_currency=row["commissionAsset"],
        at=from_ms(row["time"]),
    )


def judge(script: Script, books: Books, record: Record) -> list[Violation]:
    """Everything that broke a rule."""
    return [
        *_doubled(script, record),
        *_outdated(script, books, record),
        *_lost_orders(books, record),
        *_lost_trades(books, record),
        *_unresolved(books, record),
        *_balances(books, record),
        *_positions(books),
        *_crashed(script.done),
        *_incidents(books, record),
        *_unanswered(script, books),
    ]


def _decisions(script: Script) -> list[Decision]:
    return [decision for made in script.decisions.values() for decision in made]


def _doubled(script: Script, record: Record) -> Iterator[Violation]:
    """More than one order at the exchange for one leg of a decision."""
    there = {order.client_id for order in record.orders}
    for decision in _decisions(script):
        for leg in range(_MOST_LEGS):
            ids = {client_order_id(decision.id, leg, n) for n in range(MAX_ATTEMPTS + 2)}
            found = sorted(ids & there)
            count = sum(order.client_id in ids for order in record.orders)
            if count > 1:
                yield Violation(DUPLICATE, f"leg {leg} of {decision.id} is {count} orders: {found}")


def _outdated(script: Script, books: Books, record: Record) -> Iterator[Violation]:
    """Orders that were put on the wire by whoever had been replaced, or after a newer decision."""
    there = {order.client_id for order in record.orders}
    sent = [order for order in books.orders.values() if order.client_id in there and order.bot]
    closes = {decision.id: decision.candle_close for decision in _decisions(script)}
    for order in sent:
        since = _replaced_at(script, order)
        if since is not None and order.sent_at is not None and order.sent_at > since:
            text = f"{order.client_id} was sent at {order.sent_at:%T.%f} under lease "
            yield Violation(
                DUPLICATE, f"{text}{order.lease_token} of {order.bot}, replaced at {since:%T.%f}"
            )
        newer = _newer_sent_before(order, sent, closes)
        if newer is not None:
            yield Violation(
                DUPLICATE, f"{order.client_id} was sent after {newer.client_id}, a newer decision"
            )


def _replaced_at(script: Script, order: Order) -> datetime | None:
    """When a newer lease than the order's was first seen."""
    return min(
        (at for bot, token, at in script.tokens
         if bot == order.bot and token > (order.lease_token or 0)),
        default=None,
    )  # fmt: skip


def _newer_sent_before(
    order: Order, sent: Sequence[Order], closes: Mapping[str, datetime]
) -> Order | None:
    if order.decision not in closes or order.sent_at is None or order.leg:
        return None
    for other in sent:
        is_newer = other.decision in closes and closes[other.decision] > closes[order.decision]
        is_rival = other.bot == order.bot and not other.leg and is_newer
        if is_rival and other.sent_at is not None and other.sent_at < order.sent_at:
            return other
    return None


def _lost_orders(books: Books, record: Record) -> Iterator[Violation]:
    for order in record.orders:
        if not order.is_ours:
            continue
        ours = books.orders.get(order.client_id)
        if ours is None:
            yield Violation(LOST, f"the ledger lacks {order.client_id}, {order.status}")
        elif (ours.status, ours.filled, ours.venue_order_id) != (
            order.status, order.filled, order.venue_order_id,
        ):  # fmt: skip
            told = f"{ours.status} {ours.filled:f}, {order.status} {order.filled:f} at the exchange"
            yield Violation(LOST, f"the ledger has {order.client_id} as {told}")


def _lost_trades(books: Books, record: Record) -> Iterator[Violation]:
    owners = record.client_ids
    for trade in record.trades:
        owner = owners.get((trade.symbol, trade.venue_order_id))
        booked = books.fills.get((trade.symbol, trade.trade_id))
        if booked is None:
            yield Violation(LOST, f"the fills lack trade {trade.trade_id} of {trade.symbol}")
        elif _facts(booked) != (*_facts(trade)[:-1], owner):
            yield Violation(LOST, f"trade {trade.trade_id} is booked as {_facts(booked)}, {owner}")
    there = {(trade.symbol, trade.trade_id) for trade in record.trades}
    for symbol, number in books.fills.keys() - there:
        yield Violation(LOST, f"fill {number} of {symbol} is not at the exchange")


def _facts(fill: Fill) -> tuple[object, ...]:
    return (
        str(fill.side), fill.amount, fill.price, fill.cost, fill.fee, fill.fee_currency, fill.at,
        fill.client_id,
    )  # fmt: skip


def _unresolved(books: Books, record: Record) -> Iterator[Violation]:
    resting = {order.client_id for order in record.orders if order.status in _RESTING}
    for order in books.orders.values():
        rests = order.client_id in resting and order.status in _RESTING
        if not OrderStatus(order.status).final and not rests:
            yield Violation(UNRESOLVED, f"{order.client_id} is {order.status}")
        if not order.fills_complete:
            yield Violation(UNRESOLVED, f"{order.client_id} lacks fills")


def _balances(books: Books, record: Record) -> Iterator[Violation]:
    for asset in sorted({*books.balances, *record.balances}):
        booked, actual = books.balances.get(asset, ZERO), record.balances.get(asset, ZERO)
        if booked != actual:
            yield Violation(BALANCE, f"{asset}: {booked:f} booked, {actual:f} at the exchange")


def _positions(books: Books) -> Iterator[Violation]:
    """Stored positions are what their fills add up to, and together what the account holds."""
    groups: dict[tuple[str, str], list[Fill]] = defaultdict(list)
    for fill in books.fills.values():
        owner = books.orders.get(fill.client_id or "")
        groups[(owner.bot or "") if owner else "", fill.symbol].append(fill)
    stored = {(one.bot, one.symbol): one for one in books.positions}
    for key in sorted({*groups, *stored}):
        bot, symbol = key
        folded = compute_position(symbol, groups[key], venue=VENUE, bot=bot)
        if key not in stored or _sums(stored[key]) != _sums(folded):
            yield Violation(BALANCE, f"the position of {bot or 'nobody'} in {symbol} is stale")
    for difference in books.account.differences:
        yield Violation(BALANCE, f"bots own more {difference.asset} than there is: {difference}")


def _sums(position: Position) -> tuple[object, ...]:
    open_tranches = tuple(tranche for tranche in position.tranches if tranche.left > 0)
    return (
        position.amount, position.cost, position.realised, position.other_fees,
        position.foreign_sold, position.foreign_proceeds, position.entries, open_tranches,
    )  # fmt: skip


def _crashed(done: Iterable[Done]) -> Iterator[Violation]:
    for one in done:
        if one.ended.how in ("crashed", "hung"):
            last = one.ended.text.strip().splitlines()[-1:] or [""]
            yield Violation(CRASHED, f"{one.act.kind} {one.ended.how}: {last[0]}")


def _incidents(books: Books, record: Record) -> Iterator[Violation]:
    """Somebody else's order that rests is named for as long as it does."""
    foreign = {o.venue_order_id for o in record.orders if o.status in _RESTING and not o.is_ours}
    for incident in books.incidents:
        if incident.kind == FOREIGN_ORDER and incident.subject in foreign:
            continue
        told = f"{incident.kind} {incident.subject}: {incident.evidence}"
        yield Violation(INCIDENT, told)


def _unanswered(script: Script, books: Books) -> Iterator[Violation]:
    """Decisions whose execution came to its end and left nothing behind."""
    answered = {order.decision for order in books.orders.values()}
    executed = {one.decision for one in script.done
                if one.act.kind == "execute" and one.ended.how == "done"}  # fmt: skip
    for decision in _decisions(script):
        is_open = decision.action != Action.HOLD and decision.id in executed
        if is_open and decision.id not in answered:
            yield Violation(UNANSWERED, f"{decision.id} was executed and has no order")
