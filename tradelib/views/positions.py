"""Positions as tables: purchases, profits, what is nobody's, and what pauses new entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import select

from tradelib.settings import ProtectionSettings
from tradelib.trading import tables
from tradelib.trading.accounts import Equity
from tradelib.trading.ledger import Ledger
from tradelib.trading.positions import (
    UNASSIGNED,
    AccountPositions,
    AssetShare,
    Position,
    PositionStatus,
    Tranche,
    account_positions,
    load_tranches,
)
from tradelib.trading.profits import Profit, compute_profits
from tradelib.trading.protections import ActiveProtection, active_protections
from tradelib.views.cells import Cell, amount, moment, money, price, prose, word
from tradelib.views.html import Html, banner, table
from tradelib.views.links import load_pages, short_id

NOBODY = "nobody"
_TONES = {
    PositionStatus.OPEN: "gain",
    PositionStatus.BUILDING: "gain",
    PositionStatus.REDUCING: "warn",
    PositionStatus.CLOSED: "muted",
}


@dataclass(frozen=True)
class AccountView:
    """One venue's positions with the newest word on what things are worth there.

    prices: by symbol, quote currency per unit of base. equity: None before a reconciliation.
    """

    account: AccountPositions
    prices: Mapping[str, Decimal]
    equity: Equity | None

    @property
    def venue(self) -> str:
        return self.account.venue


def load_account_view(
    ledger: Ledger, venue: str, equity: Equity | None, closes: Mapping[str, Decimal]
) -> AccountView:
    """closes: the newest stored closes by symbol; they go before what the reconciliation saw."""
    seen = {} if equity is None else equity.prices
    prices = {symbol: Decimal(str(told)) for symbol, told in seen.items()}
    return AccountView(account_positions(ledger, venue), {**prices, **closes}, equity)


def status_cell(status: PositionStatus) -> Cell:
    return word(status.lower(), _TONES[status])


def tranches_table(ledger: Ledger, views: Sequence[AccountView], limit: int) -> Html:
    """Each venue's newest purchases, those that are sold included."""
    columns = (
        "bot", "symbol", "entered (UTC)", "amount (base)", "cost (quote)", "average entry",
        "left (base)", "realised P&L", "unrealised P&L", "status", "order",
    )  # fmt: skip
    shown = [(v, load_tranches(ledger, venue=v.venue, limit=limit)) for v in views]
    pages = _entry_pages(ledger, [tranche.entry for _, found in shown for tranche in found])
    rows = (_tranche_row(tranche, view, pages) for view, found in shown for tranche in found)
    none = "Purchases show here as orders fill: each with what it cost and what it has earned."
    return table("tranches", columns, rows, empty=none)


def _entry_pages(ledger: Ledger, entries: Sequence[str]) -> dict[str, str]:
    """URL of the page that sent each entry order, where there is one."""
    orders = tables.orders.c
    query = select(orders.client_id, orders.run).where(orders.client_id.in_(entries))
    runs = {row["client_id"]: row["run"] for row in ledger.mappings(query)}
    pages = load_pages(ledger, runs.values())
    return {entry: pages[run] for entry, run in runs.items() if run in pages}


def _tranche_row(tranche: Tranche, view: AccountView, pages: dict[str, str]) -> list[Cell]:
    quote, last = tranche.symbol.split("/")[1], view.prices.get(tranche.symbol)
    unrealised = None if last is None else tranche.unrealised(last)
    return [
        _owner(tranche.bot),
        word(tranche.symbol),
        moment(tranche.opened_at),
        amount(tranche.amount),
        money(tranche.cost, quote),
        price(tranche.average_entry),
        amount(tranche.left),
        money(tranche.realised, quote, signed=True),
        money(unrealised if tranche.left else Decimal(0), quote, signed=True),
        _tranche_status(tranche, view.equity),
        short_id(tranche.entry, pages),
    ]


def _tranche_status(tranche: Tranche, equity: Equity | None) -> Cell:
    if tranche.closed(equity.equity if equity else Decimal(0)):
        return word("sold", "muted")
    return word("held", "gain") if tranche.exited_at is None else word("part sold", "warn")


def profits_table(views: Sequence[AccountView]) -> Html:
    """What each bot, each symbol and each account has earned, fees in."""
    columns = (
        "of", "name", "venue", "quote", "realised P&L", "unrealised P&L",
        "fees in other currencies", "total P&L",
    )  # fmt: skip
    rows = (row for view in views for row in _profit_rows(view))
    none = "Profits show here after the first trade: by bot, by symbol and by account."
    return table("profits", columns, rows, empty=none)


def _profit_rows(view: AccountView) -> Iterable[list[Cell]]:
    groups = {
        "bot": lambda position: position.bot or NOBODY,
        "symbol": lambda position: position.symbol,
        "account": lambda position: position.venue,
    }
    for of, name_of in groups.items():
        profits = compute_profits(view.account.positions, view.prices, by=name_of)
        for (name, _), profit in sorted(profits.items()):
            yield _profit_row(of, name, view.venue, profit)


def _profit_row(of: str, name: str, venue: str, profit: Profit) -> list[Cell]:
    quote = profit.quote
    fees = {currency: fee for currency, fee in profit.other_fees.items() if fee}
    told = ", ".join(f"{fee:f} {currency}" for currency, fee in sorted(fees.items()))
    return [
        word(of),
        word(name, "muted" if name == NOBODY else ""),
        word(venue),
        word(quote),
        money(profit.realised, quote, signed=True),
        money(profit.unrealised, quote, signed=True),
        word(told or None),
        money(profit.total, quote, signed=True),
    ]


def shares_table(views: Sequence[AccountView]) -> Html:
    """Of each asset that bots trade, how much is theirs and how much is nobody's."""
    columns = ("venue", "asset", "booked", "bots'", "nobody's", "bots")
    rows = (
        _share_row(view, share)
        for view in views
        for share in view.account.shares
        if share.assigned or share.asset in _traded(view)
    )
    none = "What bots own of the account, and what is nobody's, shows here after the first trade."
    return table("shares", columns, rows, empty=none)


def _traded(view: AccountView) -> set[str]:
    return {position.symbol.split("/")[0] for position in view.account.positions}


def _share_row(view: AccountView, share: AssetShare) -> list[Cell]:
    rest = amount(share.unassigned)
    tone = "loss" if share.assigned > 0 and share.unassigned < 0 else ""
    return [
        word(view.venue),
        word(share.asset),
        amount(share.booked),
        amount(share.assigned),
        Cell(rest.text, rest.value, tone, number=True),
        word(", ".join(_owners(view.account.positions, share.asset)) or None),
    ]


def _owners(positions: Iterable[Position], asset: str) -> list[str]:
    mine = (p for p in positions if p.bot != UNASSIGNED and p.amount)
    return sorted({p.bot for p in mine if p.symbol.split("/")[0] == asset})


def load_protections(
    ledger: Ledger, views: Sequence[AccountView], settings: ProtectionSettings
) -> list[ActiveProtection]:
    """The pauses in force at each account's newest reconciliation."""
    return [
        found
        for view in views
        if view.equity
        for found in active_protections(ledger, view.venue, view.equity.as_of, settings)
    ]


def protection_banners(found: Sequence[ActiveProtection]) -> Html:
    """A line for each pause in force; nothing where there is none."""
    lines = (banner(f"Entries wait. {one.reason}.", "warn", name="pause") for one in found)
    return sum(lines, Html(""))


def protections_table(found: Sequence[ActiveProtection]) -> Html:
    columns = ("protection", "venue", "bot", "symbol", "struck (UTC)", "until (UTC)", "reason")
    none = "None: nothing but the limits holds an entry back."
    return table("protections", columns, map(_protection_row, found), empty=none)


def _protection_row(one: ActiveProtection) -> list[Cell]:
    return [
        word(one.name, "warn"),
        word(one.venue),
        word(one.bot or "all"),
        word(one.symbol or "all"),
        moment(one.struck_at),
        moment(one.until),
        prose(one.reason),
    ]


def _owner(bot: str) -> Cell:
    return word(bot) if bot else word(NOBODY, "muted")
