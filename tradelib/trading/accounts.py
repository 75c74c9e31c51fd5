"""Accounts: balances by the book and by the venue, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from decimal import Decimal, localcontext
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, select

from tradelib.errors import InvalidInput
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, find, first, insert, rows
from tradelib.trading.orders import EXACT, ZERO, Fill

if TYPE_CHECKING:
    # It reaches the venue's client, which costs half a second that no page needs to pay.
    from tradelib.venue import Venue

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Balance:
    """One asset of one account, in units of the asset.

    booked: by the ledger, what the account opened with and every fill since; free, used: the
    venue's word at as_of (market time). After reconciliation booked equals free + used.
    """

    venue: str
    asset: str
    booked: Decimal
    free: Decimal
    used: Decimal
    as_of: datetime

    @property
    def total(self) -> Decimal:
        return self.free + self.used


@dataclass(frozen=True)
class Equity:
    """The account's worth in its quote currency at one moment, with the prices used."""

    venue: str
    as_of: datetime
    quote: str
    equity: Decimal
    cash: Decimal
    prices: dict[str, Any]
    run: str | None


@dataclass(frozen=True)
class Account:
    """The books of one venue: the currency its worth is told in and the market time since when
    its trades are booked; what happened before is in the balances it opened with.

    identity: exchange and address that the books are of; account_id: the venue's own name of the
    account. None where they are not known: books from before, or a venue that tells none.
    """

    venue: str
    quote: str
    opened_at: datetime
    identity: str | None = None
    account_id: str | None = None


def load_account(ledger: Ledger, venue: str) -> Account | None:
    """The account's books, None before its first reconciliation."""
    with ledger.read() as books:
        return find_account(books, venue)


def find_account(books: Connection, venue: str) -> Account | None:
    return first(find(books, tables.accounts, Account, venue=venue))


def require_own_books(books: Connection, venue: Venue) -> None:
    """Refuse to mix two accounts in one venue's books, as when its address was changed from a
    test exchange to a real one."""
    account = find_account(books, venue.name)
    if account and account.identity and account.identity != venue.identity:
        raise InvalidInput(
            f"The books of venue {venue.name} are those of {account.identity}, but desk.toml now "
            f"points it to {venue.identity}; give the new account a name of its own there."
        )


def booked_balances(books: Connection, venue: str) -> list[Balance]:
    return sorted(find(books, tables.balances, Balance, venue=venue), key=attrgetter("asset"))


def load_balances(ledger: Ledger, venue: str) -> list[Balance]:
    with ledger.read() as books:
        return booked_balances(books, venue)


def book_fills(books: Connection, fills: Sequence[Fill]) -> None:
    """Add what new fills did to each asset to the booked balances, in the fills' transaction."""
    changes: dict[tuple[str, str], Decimal] = {}
    with localcontext(EXACT):
        for fill in fills:
            for asset, change in fill.asset_changes().items():
                key = (fill.venue, asset)
                changes[key] = changes.get(key, ZERO) + change
        for (venue, asset), change in changes.items():
            known = find_balance(books, venue, asset)
            known = known or Balance(venue, asset, ZERO, ZERO, ZERO, EPOCH)
            save_balance(books, replace(known, booked=known.booked + change))


def find_balance(books: Connection, venue: str, asset: str) -> Balance | None:
    return first(find(books, tables.balances, Balance, venue=venue, asset=asset))


def save_balance(books: Connection, balance: Balance) -> None:
    books.execute(
        tables.balances.delete().where(
            tables.balances.c.venue == balance.venue, tables.balances.c.asset == balance.asset
        )
    )
    insert(books, tables.balances, balance)


def compute_equity(
    totals: Mapping[str, Decimal], quote: str, prices: Mapping[str, Decimal]
) -> Decimal:
    """The worth of balances in `quote`; assets without a price in it count nothing.

    prices: by symbol ('BTC/USDT'), quote currency per unit of base.
    """
    worth = totals.get(quote, ZERO)
    for asset, total in totals.items():
        price = prices.get(f"{asset}/{quote}")
        if price is not None:
            worth += total * price
    return worth


def record_equity(books: Connection, value: Equity) -> None:
    """Record the account's worth; the newest word for a moment stands."""
    key = (tables.equity.c.venue == value.venue, tables.equity.c.as_of == value.as_of)
    books.execute(tables.equity.delete().where(*key))
    insert(books, tables.equity, value)


def newest_equity(books: Connection, venue: str, as_of: datetime | None = None) -> Equity | None:
    """The account's worth by its newest reconciliation, up to a market time if one is given."""
    query = select(tables.equity).where(tables.equity.c.venue == venue)
    if as_of:
        query = query.where(tables.equity.c.as_of <= as_of)
    return first(rows(books, query.order_by(tables.equity.c.as_of.desc()).limit(1), Equity))


def equity_at_day_start(books: Connection, venue: str, as_of: datetime) -> Decimal | None:
    """The last known worth before this UTC day began, else the first one of the day."""
    midnight = datetime.combine(as_of.date(), time(), tzinfo=as_of.tzinfo)
    for candidate in (_LAST_BEFORE, _FIRST_SINCE):
        found = first(rows(books, candidate, Equity, {"at_venue": venue, "moment": midnight}))
        if found:
            return found.equity
    return None


_AT_VENUE = select(tables.equity).where(tables.equity.c.venue == bindparam("at_venue")).limit(1)
_AS_OF, _MOMENT = tables.equity.c.as_of, bindparam("moment", type_=tables.equity.c.as_of.type)
_LAST_BEFORE = _AT_VENUE.where(_AS_OF < _MOMENT).order_by(_AS_OF.desc())
_FIRST_SINCE = _AT_VENUE.where(_AS_OF >= _MOMENT).order_by(_AS_OF)
