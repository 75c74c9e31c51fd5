"""The portfolio: what the desk owns, what it has earned, and what it did last."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import ipywidgets as widgets
import plotly.graph_objects as go
from sqlalchemy import func, select

from tradelib.candles.store import CandleStore
from tradelib.clock import utc_now
from tradelib.settings import DeskSettings, LimitSettings, load_settings
from tradelib.trading import tables
from tradelib.trading.accounts import Equity, equity_at_day_start, newest_equity
from tradelib.trading.bots import Bot, load_bots
from tradelib.trading.decisions import Decision
from tradelib.trading.ledger import Ledger, open_ledger, rows
from tradelib.trading.orders import ZERO, Order, load_fills, load_orders
from tradelib.trading.positions import Position, PositionStatus, load_position
from tradelib.trading.promotions import load_promoted
from tradelib.trading.runs import load_run
from tradelib.views.accounts import balances_table
from tradelib.views.cells import Cell, amount, money, percent, price, word
from tradelib.views.charts import CurvePoint, equity_traces
from tradelib.views.dashboard import Dashboard, live_figure
from tradelib.views.halt import halt_banner
from tradelib.views.html import Html, banner, cards, empty, heading, table
from tradelib.views.links import promotion_url
from tradelib.views.orders import decisions_table, fills_table, orders_table
from tradelib.views.positions import (
    AccountView,
    load_account_view,
    load_protections,
    profits_table,
    protection_banners,
    protections_table,
    shares_table,
    status_cell,
    tranches_table,
)
from tradelib.views.theme import themed
from tradelib.views.version import ledger_version

RECENT = 20
CURVE_POINTS = 1000
OLD_AFTER = timedelta(minutes=5)


@dataclass(frozen=True)
class Holding:
    """A bot's position in one symbol, with the newest stored close of that, None without candles,
    and its account's worth, None before the first reconciliation."""

    bot: Bot
    position: Position
    close: Decimal | None
    equity: Decimal | None = None

    @property
    def value(self) -> Decimal | None:
        """Quote currency that the position is worth at the close."""
        return None if self.close is None else self.position.amount * self.close

    @property
    def unrealised(self) -> Decimal | None:
        return None if self.close is None else self.position.unrealised(self.close)

    @property
    def status(self) -> PositionStatus:
        return self.position.status(self.close, self.equity, entries=self.bot.entries)


@dataclass(frozen=True)
class Worth:
    """An account at its newest reconciliation, in its quote currency.

    reconciled_at: by the wall clock, None where no run says so. unrealised: None while something
    is held whose price is not known.
    """

    newest: Equity
    reconciled_at: datetime | None
    at_day_start: Decimal | None
    realised: Decimal
    unrealised: Decimal | None

    @property
    def today(self) -> Decimal | None:
        return None if self.at_day_start is None else self.newest.equity - self.at_day_start

    @property
    def today_share(self) -> Decimal | None:
        if self.today is None or not self.at_day_start:
            return None
        return self.today / self.at_day_start

    @property
    def is_old(self) -> bool:
        """Whether reconciliation, which runs twice a minute, has not been for a while."""
        return self.reconciled_at is not None and utc_now() - self.reconciled_at > OLD_AFTER


def load_holdings(ledger: Ledger, store: CandleStore) -> list[Holding]:
    """The positions of every bot, by name, one for each symbol that it trades."""
    worth = {venue: _newest_equity(ledger, venue) for venue in load_venues(ledger)}
    return [
        _holding(ledger, store, bot, symbol, worth.get(bot.venue))
        for bot in load_bots(ledger)
        for symbol in bot.traded
    ]


def _holding(
    ledger: Ledger, store: CandleStore, bot: Bot, symbol: str, worth: Equity | None
) -> Holding:
    position = load_position(ledger, bot.name, symbol, bot.venue)
    return Holding(bot, position, newest_close(store, bot, symbol), worth.equity if worth else None)


def load_account_views(ledger: Ledger, holdings: Sequence[Holding]) -> list[AccountView]:
    """Every venue whose books are open, with the newest prices known there."""
    found = []
    for venue in load_venues(ledger):
        mine = [holding for holding in holdings if holding.bot.venue == venue]
        closes = {h.position.symbol: h.close for h in mine if h.close is not None}
        found.append(load_account_view(ledger, venue, _newest_equity(ledger, venue), closes))
    return found


def newest_close(store: CandleStore, bot: Bot, symbol: str) -> Decimal | None:
    """The newest stored close of one of the bot's symbols, in quote currency."""
    candles = store.load(bot.venue, symbol, bot.timeframe, limit=1)
    return Decimal(str(float(candles["close"].iloc[-1]))) if len(candles) else None


def load_worth(ledger: Ledger, holdings: Sequence[Holding]) -> list[Worth]:
    """Every account that has been reconciled, by venue."""
    return [
        _worth(ledger, newest, [h for h in holdings if h.bot.venue == venue])
        for venue in load_venues(ledger)
        if (newest := _newest_equity(ledger, venue))
    ]


def _worth(ledger: Ledger, newest: Equity, holdings: Sequence[Holding]) -> Worth:
    # Profits in another quote currency are told in the table of profits, never added to these.
    holdings = [holding for holding in holdings if holding.bot.quote == newest.quote]
    profits = [holding.unrealised for holding in holdings if holding.position.amount]
    with ledger.read() as books:
        at_day_start = equity_at_day_start(books, newest.venue, newest.as_of)
    return Worth(
        newest=newest,
        reconciled_at=load_run(ledger, newest.run).ended_at if newest.run else None,
        at_day_start=at_day_start,
        realised=sum((holding.position.realised for holding in holdings), ZERO),
        unrealised=None if None in profits else sum(profits, ZERO),
    )


def load_venues(ledger: Ledger) -> list[str]:
    """The venues whose books are open."""
    accounts = tables.accounts
    query = select(accounts.c.venue).order_by(accounts.c.venue)
    return [row["venue"] for row in ledger.mappings(query)]


def load_curve(ledger: Ledger, venue: str, days: float) -> list[CurvePoint]:
    """The account's worth over its last `days`, thinned to what a chart can show; the newest
    point is always there."""
    newest = _newest_equity(ledger, venue)
    if newest is None:
        return []
    points = tables.equity
    shown = (points.c.venue == venue, points.c.as_of >= newest.as_of - timedelta(days=days))
    age = (func.row_number().over(order_by=points.c.as_of.desc()) - 1).label("age")
    numbered = select(points.c.as_of, points.c.quote, points.c.equity, age).where(*shown).subquery()
    with ledger.read() as books:
        stored = books.execute(select(func.count()).where(*shown)).scalar_one()
        step = stored // CURVE_POINTS + 1
        thinned = select(numbered).where(numbered.c.age % step == 0).order_by(numbered.c.as_of)
        return rows(books, thinned, CurvePoint)


def _newest_equity(ledger: Ledger, venue: str) -> Equity | None:
    with ledger.read() as books:
        return newest_equity(books, venue)


class PortfolioPage:
    """The portfolio on a page that keeps itself current."""

    def __init__(self, settings: DeskSettings, seconds: float, days: float) -> None:
        self.settings, self.days = settings, days
        self.store = CandleStore(settings.candles)
        self.ledger: Ledger | None = None
        self.figure = go.FigureWidget()
        self.curve = widgets.VBox([])
        self.dashboard = Dashboard(
            self.version,
            self.draw,
            layout=("halt", "worth", "curve", self.curve, "holdings", "profits", "tranches",
                    "shares", "protections", "balances", "decisions", "orders", "fills"),
            seconds=seconds,
            name="portfolio",
        )  # fmt: skip

    def version(self) -> object:
        """Beside the ledger the minute, in which books grow old."""
        if self.ledger is None:
            self.ledger = open_ledger(self.settings, read_only=True)
        return ledger_version(self.ledger), f"{utc_now():%H:%M}"

    def draw(self) -> Mapping[str, Html]:
        assert self.ledger is not None  # version() comes first and opens it
        curves = {v: load_curve(self.ledger, v, self.days) for v in load_venues(self.ledger)}
        self._draw_curves(curves)
        limits = self.settings.limits
        return draw_portfolio(self.ledger, self.store, limits) | {
            "curve": _curve_heading(curves, self.days)
        }

    def _draw_curves(self, curves: Mapping[str, Sequence[CurvePoint]]) -> None:
        """Move the lines that are there, so that a person's zoom stays; a line more, as when a
        second venue trades, makes a new chart."""
        traces = equity_traces(curves)
        if len(traces) != len(self.figure.data):
            self.figure = live_figure(_equity_figure(traces))
            self.curve.children = [self.figure]
            return
        with self.figure.batch_update():
            for trace, line in zip(traces, self.figure.data, strict=True):
                line.update(x=trace.x, y=trace.y, name=trace.name, mode=trace.mode)


def open_portfolio(refresh_seconds: float = 5.0, days: float = 7.0) -> widgets.Widget:
    """The portfolio of the desk that DESK_HOME names; `days` of its equity curve."""
    return PortfolioPage(load_settings(), refresh_seconds, days).dashboard.widget


def draw_portfolio(
    ledger: Ledger, store: CandleStore, limits: LimitSettings | None = None
) -> dict[str, Html]:
    """The portfolio's sections, but for the curve."""
    limits = limits or LimitSettings()
    holdings = load_holdings(ledger, store)
    accounts = load_account_views(ledger, holdings)
    pauses = load_protections(ledger, accounts, limits.protections)
    orders = load_orders(ledger, limit=RECENT)
    return {
        "halt": halt_banner(ledger) + protection_banners(pauses),
        "worth": _worth_cards(load_worth(ledger, holdings)),
        "protections": heading("Protections", "entries wait for these; exits never do")
        + protections_table(pauses),
        "holdings": _holdings_section(ledger, holdings),
        "profits": heading("Profits", "fees included, in the quote currency")
        + profits_table(accounts),
        "tranches": heading(
            "Purchases", f"the newest {RECENT} of each account; the oldest sells first"
        )
        + tranches_table(ledger, accounts, RECENT),
        "shares": heading("Who owns what", "of each asset that was traded, in its own units")
        + shares_table(accounts),
        "balances": heading("Balances", "in units of the asset")
        + balances_table(ledger, load_venues(ledger)),
        "decisions": heading("Decisions", f"the newest {RECENT}")
        + decisions_table(
            ledger,
            _newest_decisions(ledger),
            name="decisions",
            empty="Decisions show here once a bot runs: one at each candle's close.",
        ),
        "orders": heading("Orders", f"the newest {RECENT}")
        + orders_table(
            ledger, orders, name="orders", empty="Orders show here once a bot decides to trade."
        ),
        "fills": _fills_section(ledger),
    }


def _worth_cards(accounts: Sequence[Worth]) -> Html:
    if not accounts:
        told = "Equity, cash and profit show here after the first reconciliation, a minute or so "
        return empty(f"{told}after `desk up`.", name="worth")
    return sum((_account_cards(worth) for worth in accounts), Html(""))


def _account_cards(worth: Worth) -> Html:
    newest, quote = worth.newest, worth.newest.quote
    figures = {
        f"Equity ({quote})": money(newest.equity, quote),
        f"Cash ({quote})": money(newest.cash, quote),
        f"Today ({quote})": money(worth.today, quote, signed=True),
        "Today (%)": percent(worth.today_share),
        f"Realised P&L ({quote})": money(worth.realised, quote, signed=True),
        f"Unrealised P&L ({quote})": money(worth.unrealised, quote, signed=True),
    }
    told = f"market time {newest.as_of:%Y-%m-%d %H:%M:%S} UTC; "
    title = heading(f"Account {newest.venue}", f"{told}P&L of its bots in {quote}, fees included")
    return title + _age_warning(worth) + cards(figures, name=newest.venue)


def _age_warning(worth: Worth) -> Html:
    if not worth.is_old:
        return Html("")
    told = f"These books were reconciled last at {worth.reconciled_at:%Y-%m-%d %H:%M:%S} UTC"
    return banner(f"{told}; the venue may know more. Is the desk up?", "warn", name="old-books")


def _curve_heading(curves: Mapping[str, Sequence[CurvePoint]], days: float) -> Html:
    title = heading("Equity", f"the last {days:g} days, one point per reconciliation")
    if any(curves.values()):
        return title
    return title + empty("The curve begins with the first reconciliation.", name="curve")


def _holdings_section(ledger: Ledger, holdings: Sequence[Holding]) -> Html:
    columns = (
        "bot", "status", "symbol", "amount (base)", "average entry", "newest close",
        "value (quote)", "unrealised P&L (quote)", "realised P&L (quote)", "position",
    )  # fmt: skip
    promoted = load_promoted(ledger)
    positions = table(
        "positions",
        columns,
        (_holding_row(holding, promoted) for holding in holdings),
        empty="Each bot's position shows here; add a bot with `desk bots add`.",
    )
    return heading("Positions by bot", "priced at the newest stored close") + positions


def _holding_row(holding: Holding, promoted: Collection[tuple[str, str]]) -> list[Cell]:
    bot, position = holding.bot, holding.position
    evidence = promotion_url(bot.name) if (bot.name, bot.strategy) in promoted else ""
    return [
        word(bot.name, href=evidence, title=bot.strategy),
        word(bot.status.lower(), "" if bot.status == "RUNNING" else "muted"),
        word(position.symbol),
        amount(position.amount),
        price(position.average_entry),
        price(holding.close),
        money(holding.value, bot.quote),
        money(holding.unrealised, bot.quote, signed=True),
        money(position.realised, bot.quote, signed=True),
        status_cell(holding.status),
    ]


def _fills_section(ledger: Ledger) -> Html:
    fills = load_fills(ledger, limit=RECENT)[::-1]
    query = select(tables.orders).where(
        tables.orders.c.client_id.in_({fill.client_id for fill in fills if fill.client_id})
    )
    title = heading("Fills", f"the newest {RECENT}, each with its order and decision")
    none = "Fills show here as the venue tells of them."
    return title + fills_table(
        ledger, fills, ledger.rows(query, Order), name="fills", empty=none
    )  # fmt: skip


def _newest_decisions(ledger: Ledger) -> list[Decision]:
    query = select(tables.decisions).order_by(tables.decisions.c.decided_at.desc()).limit(RECENT)
    return ledger.rows(query, Decision)


def _equity_figure(traces: Sequence[go.Scatter]) -> go.Figure:
    figure = themed(go.Figure(traces), 320, margin={"l": 80, "r": 20, "t": 30, "b": 36})
    figure.update_yaxes(title="equity", tickformat=",.2f")
    return figure.update_xaxes(title="market time (UTC)")
