"""Positions: what fills add up to, purchase by purchase, with what each has earned.

A position belongs to one bot (or to none) on one symbol of one venue. It is a fold over fills in
the order in which the venue made them; its stored sum is carried forward as fills are booked, and
folded afresh when one comes late. Sums are exact; where a cost or a sale's proceeds are divided,
the share is rounded to 18 decimals and what it leaves stays with the rest, so that all shares
together are the whole to the last digit.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, delete, func, select

from tradelib.trading import tables
from tradelib.trading.accounts import booked_balances
from tradelib.trading.ledger import Ledger, find_mappings, first, insert, rows
from tradelib.trading.orders import EXACT, ZERO, Fill, Side

_SHARE_STEP = Decimal("1E-18")
_DUST_SHARE = Decimal("0.0005")
_PAGE = 200  # purchases read at once
UNASSIGNED = ""
"""The bot of fills that no bot ordered."""


def is_dust(value: Decimal, equity: Decimal) -> bool:
    """Whether a holding's value, in the currency of `equity`, is only what lot sizes and fees in
    base currency leave behind after a full sale: at most 0.05% of equity."""
    return value <= _DUST_SHARE * equity


class PositionStatus(StrEnum):
    """CLOSED: nothing held but dust. BUILDING: more entries of its plan may come. OPEN: all that
    was wanted is held. REDUCING: the newest trade was a sale, and something is left."""

    CLOSED = "CLOSED"
    BUILDING = "BUILDING"
    OPEN = "OPEN"
    REDUCING = "REDUCING"


@dataclass(frozen=True)
class Tranche:
    """One purchase: the fills of one entry order, and what became of them.

    entry: the order's client id, the venue's order id where it is nobody's. bought, paid: base and
    quote currency before fees; amount, cost: base currency received and quote currency spent,
    after fees; left, cost_left: what of them is not sold. proceeds: quote currency from sales,
    after fees. exited_at: its newest sale.
    """

    venue: str
    bot: str
    symbol: str
    number: int
    entry: str
    opened_at: datetime
    bought: Decimal = ZERO
    paid: Decimal = ZERO
    amount: Decimal = ZERO
    cost: Decimal = ZERO
    left: Decimal = ZERO
    cost_left: Decimal = ZERO
    proceeds: Decimal = ZERO
    exited_at: datetime | None = None

    @property
    def price(self) -> Decimal:
        """The mean price it was bought at, in quote currency, before fees."""
        return self.paid / self.bought

    @property
    def average_entry(self) -> Decimal | None:
        """Quote paid per unit received, fees included."""
        return self.cost / self.amount if self.amount > 0 else None

    @property
    def realised(self) -> Decimal:
        """Profit in quote currency of what was sold of it, negative for a loss, after fees."""
        with localcontext(EXACT):
            return self.proceeds - (self.cost - self.cost_left)

    def unrealised(self, price: Decimal) -> Decimal:
        """Profit in quote currency if the rest were sold at `price`, before fees."""
        return self.left * price - self.cost_left

    def closed(self, equity: Decimal) -> bool:
        """Whether it was sold but for dust, at the mean price it was sold at."""
        if not self.left:
            return True
        sold = self.amount - self.left
        return sold > 0 and is_dust(self.left * self.proceeds / sold, equity)


@dataclass(frozen=True)
class Position:
    """What fills of one symbol add up to.

    amount: base currency held, after fees taken in it. cost: quote currency paid for what is
    held, fees in quote included. realised: profit in quote currency, negative for a loss, after
    fees in base and quote. other_fees: fees paid in third currencies, by currency. foreign_sold,
    foreign_proceeds: base currency sold beyond what was held, and the quote currency it brought;
    neither profit nor loss of this position. entries: purchases so far. tranches: the purchases,
    oldest first; of a stored position those that are not sold to the end.
    """

    symbol: str
    amount: Decimal = ZERO
    cost: Decimal = ZERO
    realised: Decimal = ZERO
    other_fees: dict[str, Decimal] = field(default_factory=dict)
    last_trade: datetime | None = None
    venue: str = ""
    bot: str = UNASSIGNED
    foreign_sold: Decimal = ZERO
    foreign_proceeds: Decimal = ZERO
    entries: int = 0
    last_side: Side | None = None
    last_trade_id: str = ""
    tranches: tuple[Tranche, ...] = ()

    @property
    def average_entry(self) -> Decimal | None:
        """Mean quote paid per unit held, None when flat."""
        return self.cost / self.amount if self.amount > 0 else None

    def unrealised(self, price: Decimal) -> Decimal:
        """Profit in quote currency if the position were sold at `price`, before fees."""
        return self.amount * price - self.cost

    def asset_changes(self) -> dict[str, Decimal]:
        """What its fills did to each asset of the account, positive when it came in: exactly the
        sum of `Fill.asset_changes`."""
        base, quote = self.symbol.split("/")
        with localcontext(EXACT):
            changes = {
                base: self.amount - self.foreign_sold,
                quote: self.realised - self.cost + self.foreign_proceeds,
            }
            for currency, fee in self.other_fees.items():
                changes[currency] = changes.get(currency, ZERO) - fee
        return changes

    def living_tranches(self, price: Decimal | None, equity: Decimal | None) -> list[Tranche]:
        """The purchases of which more than dust is left, valued at `price`; without price or
        equity nothing counts as dust."""
        if price is None or equity is None:
            return [tranche for tranche in self.tranches if tranche.left]
        return [t for t in self.tranches if t.left and not is_dust(t.left * price, equity)]

    def without_dust(self, price: Decimal, equity: Decimal) -> Position:
        """The position as a decision sees it: nothing where all that is held is dust at the
        price, and only purchases of which more than dust is left."""
        if is_dust(self.amount * price, equity):
            return Position(self.symbol, last_trade=self.last_trade)
        # A rest of an earlier position is no entry of this one.
        return replace(self, tranches=tuple(self.living_tranches(price, equity)))

    def status(
        self, price: Decimal | None, equity: Decimal | None, *, entries: int = 1
    ) -> PositionStatus:
        """Where the position stands at a price, both in quote currency. Without price or equity
        nothing held counts as dust.

        entries: how many purchases make it whole.
        """
        known = price is not None and equity is not None
        if not self.amount or (known and is_dust(self.amount * price, equity)):
            return PositionStatus.CLOSED
        if self.last_side == Side.SELL:
            return PositionStatus.REDUCING
        made = len(self.living_tranches(price, equity))
        return PositionStatus.BUILDING if made < entries else PositionStatus.OPEN


def compute_position(
    symbol: str, fills: Iterable[Fill], *, venue: str = "", bot: str = UNASSIGNED
) -> Position:
    """The position after fills, in whatever order they are given, each counted once; sales
    consume the oldest purchase first.

    Buys of 2 at 10 (fee 0.002 base) and of 1 at 14 (fee 0.014 quote) hold 2.998, which cost
    34.014. A sale of 2.5 at 12 (fee 0.03 quote) brings 29.97. It takes the first purchase whole,
    1.998 for 20, and 0.502 of the second for 0.502 * 14.014 = 7.035028, and so realises 29.97 -
    27.035028 = 2.934972; 0.498 is left, which cost 6.978972.
    """
    unique = {(fill.symbol, fill.trade_id): fill for fill in fills}
    fold = _Fold(Position(symbol, venue=venue, bot=bot))
    fold.add(sorted(unique.values(), key=trade_order))
    return fold.result()


def add_fills(position: Position, fills: Iterable[Fill]) -> Position:
    """A position with further fills, which came after all of its own."""
    fold = _Fold(position, position.tranches)
    fold.add(sorted(fills, key=trade_order))
    grown = fold.result()
    return replace(grown, tranches=tuple(tranche for tranche in grown.tranches if tranche.left))


def trade_order(fill: Fill) -> tuple[datetime, int, str]:
    """The order in which a venue made the fills of a symbol. Trade ids are numbers at most
    venues; of two numbers in text the longer is the greater."""
    return fill.at, len(fill.trade_id), fill.trade_id


class _Fold:
    """A position in the making: fills in trade order go in, the position and those of its
    purchases that they changed come out."""

    def __init__(self, position: Position, tranches: Iterable[Tranche] = ()) -> None:
        self.totals = {name: getattr(position, name) for name in _SUMS}
        self.position = position
        self.other_fees = dict(position.other_fees)
        self.entries = position.entries
        self.tranches = {tranche.number: tranche for tranche in tranches}
        self.numbers = {tranche.entry: tranche.number for tranche in tranches}
        self.open = [tranche.number for tranche in tranches if tranche.left > 0]
        heapq.heapify(self.open)
        self.changed: set[int] = set()
        self.newest: Fill | None = None

    def add(self, fills: Iterable[Fill]) -> None:
        with localcontext(EXACT):
            for fill in fills:
                self._add_one(fill)

    def result(self) -> Position:
        tranches = tuple(self.tranches[number] for number in sorted(self.tranches))
        changed = replace(
            self.position,
            **self.totals,
            other_fees=self.other_fees,
            entries=self.entries,
            tranches=tranches,
        )
        if self.newest is None:
            return changed
        last = self.newest
        return replace(
            changed, last_trade=last.at, last_trade_id=last.trade_id, last_side=Side(last.side)
        )

    def _add_one(self, fill: Fill) -> None:
        base, quote = fill.symbol.split("/")
        base_fee = fill.fee if fill.fee_currency == base else ZERO
        quote_fee = fill.fee if fill.fee_currency == quote else ZERO
        if fill.fee_currency not in (base, quote) and fill.fee:
            paid = self.other_fees.get(fill.fee_currency, ZERO)
            self.other_fees[fill.fee_currency] = paid + fill.fee
        if fill.side == Side.BUY:
            self._buy(fill, fill.amount - base_fee, fill.cost + quote_fee)
        else:
            self._sell(fill.amount + base_fee, fill.cost - quote_fee, fill.at)
        self.newest = fill

    def _buy(self, fill: Fill, received: Decimal, spent: Decimal) -> None:
        tranche = self._tranche(fill)
        if tranche.left <= 0 < tranche.left + received:
            heapq.heappush(self.open, tranche.number)
        self._keep(
            replace(
                tranche,
                bought=tranche.bought + fill.amount,
                paid=tranche.paid + fill.cost,
                amount=tranche.amount + received,
                cost=tranche.cost + spent,
                left=tranche.left + received,
                cost_left=tranche.cost_left + spent,
            )
        )
        self.totals["amount"] += received
        self.totals["cost"] += spent

    def _tranche(self, fill: Fill) -> Tranche:
        """The purchase that a fill belongs to, a new one for the first fill of its order."""
        entry = entry_of(fill)
        if entry not in self.numbers:
            self.numbers[entry], self.entries = self.entries, self.entries + 1
        number, mine = self.numbers[entry], self.position
        new = Tranche(mine.venue, mine.bot, mine.symbol, number, entry, fill.at)
        return self.tranches.get(number, new)

    def _sell(self, sold: Decimal, proceeds: Decimal, at: datetime) -> None:
        """Take what is sold from the oldest purchases; coins beyond them came from elsewhere."""
        while sold > 0 and self.open:
            tranche = self.tranches[self.open[0]]
            taken = min(sold, tranche.left)
            brought = _share(proceeds, taken, sold)
            cost = _share(tranche.cost_left, taken, tranche.left)
            self._take(tranche, taken, cost, brought, at)
            sold, proceeds = sold - taken, proceeds - brought
        self.totals["foreign_sold"] += sold
        self.totals["foreign_proceeds"] += proceeds

    def _take(
        self, tranche: Tranche, taken: Decimal, cost: Decimal, brought: Decimal, at: datetime
    ) -> None:
        if taken == tranche.left:
            heapq.heappop(self.open)
        self._keep(
            replace(
                tranche,
                left=tranche.left - taken,
                cost_left=tranche.cost_left - cost,
                proceeds=tranche.proceeds + brought,
                exited_at=at,
            )
        )
        self.totals["amount"] -= taken
        self.totals["cost"] -= cost
        self.totals["realised"] += brought - cost

    def _keep(self, tranche: Tranche) -> None:
        self.tranches[tranche.number] = tranche
        self.changed.add(tranche.number)


_SUMS = ("amount", "cost", "realised", "foreign_sold", "foreign_proceeds")


def _share(whole: Decimal, part: Decimal, of: Decimal) -> Decimal:
    """whole * part / of to 18 decimals; all of it, exactly, when part is all."""
    return whole if part == of else (whole * part / of).quantize(_SHARE_STEP)


def entry_of(fill: Fill) -> str:
    """What tells the purchases of a position apart: the order that made them."""
    return fill.client_id or f"venue:{fill.venue_order_id}"


# Stored positions.


def book_positions(books: Connection, fills: Sequence[Fill]) -> None:
    """Carry the stored positions forward by new fills, in the transaction that booked them."""
    for key, group in _by_position(books, fills).items():
        _book_position(books, key, sorted(group, key=trade_order))


_Key = tuple[str, str, str]  # venue, bot, symbol


def _by_position(books: Connection, fills: Sequence[Fill]) -> dict[_Key, list[Fill]]:
    bots = {client_id: _bot_of(books, client_id) for client_id in {f.client_id for f in fills}}
    groups: dict[_Key, list[Fill]] = {}
    for fill in fills:
        groups.setdefault((fill.venue, bots[fill.client_id], fill.symbol), []).append(fill)
    return groups


def _bot_of(books: Connection, client_id: str | None) -> str:
    owner = books.execute(_OWNER, {"order": client_id}).scalar() if client_id else None
    return owner or UNASSIGNED


_OWNER = select(tables.orders.c.bot).where(tables.orders.c.client_id == bindparam("order"))


def _book_position(books: Connection, key: _Key, fills: Sequence[Fill]) -> None:
    stored = _stored(books, key)
    if stored is None or _comes_before(fills[0], stored):
        refold_position(books, *key)
        return
    touched = _touched_tranches(books, key, fills)
    fold = _Fold(stored, touched)
    fold.add(fills)
    _delete_tranches(books, key, [tranche.number for tranche in touched])
    _save(books, key, fold.result(), fold.changed | {tranche.number for tranche in touched})


def _stored(books: Connection, key: _Key) -> Position | None:
    return first(_find_sums(books, **dict(zip(_KEY_NAMES, key, strict=True))))


def _comes_before(fill: Fill, position: Position) -> bool:
    newest = (position.last_trade, len(position.last_trade_id), position.last_trade_id)
    return trade_order(fill) <= newest


def _touched_tranches(books: Connection, key: _Key, fills: Sequence[Fill]) -> list[Tranche]:
    """The purchases that fills can change: those they belong to, and as many of the oldest open
    ones as their sales can take."""
    entries = {entry_of(fill) for fill in fills if fill.side == Side.BUY}
    mine = _OF_KEY.where(tables.tranches.c.entry.in_(entries))
    found = {tranche.number: tranche for tranche in rows(books, mine, Tranche, _named(key))}
    wanted = sum((-_base_change(fill) for fill in fills if fill.side == Side.SELL), ZERO)
    for tranche in _open_tranches(books, key) if wanted > 0 else ():
        wanted -= tranche.left
        found[tranche.number] = tranche
        if wanted <= 0:
            break
    return list(found.values())


def _delete_tranches(books: Connection, key: _Key, numbers: Sequence[int]) -> None:
    these = tables.tranches.c.number.in_(numbers)
    books.execute(_DELETE_TRANCHES.where(these), _named(key))


def _base_change(fill: Fill) -> Decimal:
    """Base currency that a fill brought, fees in it included; negative when it went out."""
    return fill.asset_changes()[fill.symbol.split("/")[0]]


def _open_tranches(books: Connection, key: _Key) -> Iterable[Tranche]:
    """What is not sold of the purchases, oldest first, read page by page: a sale needs few."""
    number = -1
    while True:
        page = rows(books, _OPEN_TRANCHES, Tranche, _named(key) | {"after": number})
        yield from page
        if len(page) < _PAGE:
            return
        number = page[-1].number


def _is(table: Any) -> Any:
    """Whether a row is of the key that the statement is given, by `_named`."""
    return and_(*(table.c[name] == bindparam(f"of_{name}") for name in _KEY_NAMES))


def _named(key: _Key) -> dict[str, Any]:
    return {f"of_{name}": value for name, value in zip(_KEY_NAMES, key, strict=True)}


_KEY_NAMES = ("venue", "bot", "symbol")
_OF_KEY = select(tables.tranches).where(_is(tables.tranches))
_OPEN_TRANCHES = (
    _OF_KEY.where(tables.tranches.c.is_open == 1, tables.tranches.c.number > bindparam("after"))
    .order_by(tables.tranches.c.number)
    .limit(_PAGE)
)
_DELETE_TRANCHES = delete(tables.tranches).where(_is(tables.tranches))
_DELETE_POSITION = delete(tables.positions).where(_is(tables.positions))


def refold_position(books: Connection, venue: str, bot: str, symbol: str) -> None:
    """Compute a stored position afresh from all of its fills."""
    key = (venue, bot, symbol)
    fills = rows(books, _select_position_fills(key), Fill)
    position = compute_position(symbol, fills, venue=venue, bot=bot)
    books.execute(_DELETE_TRANCHES, _named(key))
    _save(books, key, position, {tranche.number for tranche in position.tranches})


def refold_positions(books: Connection) -> None:
    """Compute every stored position afresh, as for a ledger from before there were any."""
    fills, bot = tables.fills, func.coalesce(tables.orders.c.bot, UNASSIGNED)
    owned = fills.outerjoin(tables.orders, tables.orders.c.client_id == fills.c.client_id)
    query = select(fills.c.venue, bot, fills.c.symbol).select_from(owned).distinct()
    books.execute(delete(tables.positions))
    for key in books.execute(query).all():
        refold_position(books, *key)


def _select_position_fills(key: _Key) -> Select[Any]:
    venue, bot, symbol = key
    fills, orders = tables.fills, tables.orders
    query = select(fills).where(fills.c.venue == venue, fills.c.symbol == symbol)
    query = query.outerjoin(orders, orders.c.client_id == fills.c.client_id)
    return query.where(func.coalesce(orders.c.bot, UNASSIGNED) == bot)


def _save(books: Connection, key: _Key, position: Position, changed: set[int]) -> None:
    """Store a position and those of its purchases that changed."""
    books.execute(_DELETE_POSITION, _named(key))
    if position.last_trade is None:
        return
    fees = {currency: format(fee, "f") for currency, fee in position.other_fees.items()}
    row = {name: value for name, value in vars(position).items() if name != "tranches"}
    insert(books, tables.positions, row | {"other_fees": fees})
    kept = [tranche for tranche in position.tranches if tranche.number in changed]
    if kept:
        books.execute(
            tables.tranches.insert(),
            [{**vars(tranche), "is_open": int(tranche.left > 0)} for tranche in kept],
        )


def find_positions(books: Connection, **which: str) -> list[Position]:
    """Stored positions, those whose columns equal `which` (venue, bot, symbol), with the
    purchases that are not sold to the end; never what the history holds."""
    return [_with_tranches(books, position) for position in _find_sums(books, **which)]


def _find_sums(books: Connection, **which: str) -> list[Position]:
    """The same without their purchases, of which fills of no bot may leave many open."""
    return [_position(row) for row in find_mappings(books, tables.positions, **which)]


def _with_tranches(books: Connection, position: Position) -> Position:
    key = (position.venue, position.bot, position.symbol)
    return replace(position, tranches=tuple(_open_tranches(books, key)))


def _position(row: Mapping[str, Any]) -> Position:
    fees = {currency: Decimal(fee) for currency, fee in row["other_fees"].items()}
    told = {one.name: row[one.name] for one in fields(Position) if one.name != "tranches"}
    return Position(**{**told, "other_fees": fees})


def bot_position(books: Connection, bot: str, symbol: str, venue: str | None = None) -> Position:
    """The bot's own position: the sum of the fills of its orders, those that a person placed for
    it included. venue: the one the bot trades at now, unless said."""
    if venue is None:
        venue = books.execute(_VENUE_NOW, {"bot": bot}).scalar()
    which = {"venue": venue} if venue else {}
    found = find_positions(books, bot=bot, symbol=symbol, **which)
    return first(found) or Position(symbol, venue=venue or "", bot=bot)


_VENUE_NOW = select(tables.bots.c.venue).where(tables.bots.c.name == bindparam("bot"))


def load_position(ledger: Ledger, bot: str, symbol: str, venue: str | None = None) -> Position:
    with ledger.read() as books:
        return bot_position(books, bot, symbol, venue)


def load_positions(ledger: Ledger, **which: str) -> list[Position]:
    """Every stored position, by venue, bot and symbol; chosen as `find_positions` does."""
    with ledger.read() as books:
        return find_positions(books, **which)


def load_tranches(
    ledger: Ledger,
    *,
    venue: str | None = None,
    bot: str | None = None,
    symbol: str | None = None,
    open_only: bool = False,
    limit: int | None = None,
) -> list[Tranche]:
    """Purchases, newest first; `open_only` those of which something is left."""
    table = tables.tranches
    query = select(table).order_by(table.c.opened_at.desc(), table.c.number.desc()).limit(limit)
    for column, value in ((table.c.venue, venue), (table.c.bot, bot), (table.c.symbol, symbol)):
        if value is not None:
            query = query.where(column == value)
    if open_only:
        query = query.where(table.c.is_open == 1)
    return ledger.rows(query, Tranche)


# Positions against the account.


@dataclass(frozen=True)
class PositionDifference:
    """Bots own more of an asset, by their fills, than the account holds by the book.

    assigned: the sum of the bots' positions, booked: the account's balance, in units of the asset.
    """

    asset: str
    assigned: Decimal
    booked: Decimal
    bots: tuple[str, ...]

    @property
    def excess(self) -> Decimal:
        """What the account lacks, positive."""
        with localcontext(EXACT):
            return self.assigned - self.booked


@dataclass(frozen=True)
class AssetShare:
    """How much of an asset is the bots', and how much is nobody's, in its own units.

    booked = assigned + unassigned; the rest is what the account opened with, what others bought
    and what bots spend. Negative, it is a difference.
    """

    asset: str
    booked: Decimal
    assigned: Decimal

    @property
    def unassigned(self) -> Decimal:
        with localcontext(EXACT):
            return self.booked - self.assigned


@dataclass(frozen=True)
class AccountPositions:
    """Each bot's virtual position at one venue (bot '' for fills of none), the rest that is
    nobody's, and whether both are what the account holds: they are when there is no difference.
    The positions come without their purchases."""

    venue: str
    positions: tuple[Position, ...]
    shares: tuple[AssetShare, ...]
    differences: tuple[PositionDifference, ...]


def account_positions(ledger: Ledger, venue: str) -> AccountPositions:
    """The account's positions by the book."""
    with ledger.read() as books:
        positions, booked = _account(books, venue)
    return AccountPositions(
        venue,
        tuple(positions),
        tuple(compute_shares(positions, booked)),
        tuple(compare_positions(positions, booked)),
    )


def position_differences(books: Connection, venue: str) -> list[PositionDifference]:
    """Assets of which the venue's bots own more than its account holds by the book."""
    return compare_positions(*_account(books, venue))


def _account(books: Connection, venue: str) -> tuple[list[Position], dict[str, Decimal]]:
    booked = {balance.asset: balance.booked for balance in booked_balances(books, venue)}
    return _find_sums(books, venue=venue), booked


def compute_shares(
    positions: Iterable[Position], booked: Mapping[str, Decimal]
) -> list[AssetShare]:
    """Who owns each booked asset, by name; fills of no bot are nobody's."""
    owned: dict[str, Decimal] = {}
    with localcontext(EXACT):
        for position in positions:
            if position.bot != UNASSIGNED:
                asset = position.symbol.split("/")[0]
                owned[asset] = owned.get(asset, ZERO) + position.amount
    assets = sorted({*booked, *owned})
    return [AssetShare(a, booked.get(a, ZERO), owned.get(a, ZERO)) for a in assets]


def compare_positions(
    positions: Sequence[Position], booked: Mapping[str, Decimal]
) -> list[PositionDifference]:
    """Assets of which bots own more than is booked, exact, to the last digit.

    Two bots with 1 and 0.5 BTC against 1.2 BTC booked differ by 0.3: somebody sold their coins.
    """
    return [
        PositionDifference(share.asset, share.assigned, share.booked, _owners(positions, share))
        for share in compute_shares(positions, booked)
        if share.assigned > 0 and share.unassigned < 0
    ]


def _owners(positions: Iterable[Position], share: AssetShare) -> tuple[str, ...]:
    mine = (p for p in positions if p.bot != UNASSIGNED and p.amount)
    return tuple(sorted({p.bot for p in mine if p.symbol.split("/")[0] == share.asset}))
