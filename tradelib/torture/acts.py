"""What a process of a schedule does: the desk's own calls, and somebody else's trades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from pydantic import SecretStr

from tradelib.settings import LimitSettings, VenueSettings
from tradelib.torture.points import Points, watch_requests
from tradelib.torture.stage import KEY, SECRET
from tradelib.torture.wall import SharedWall
from tradelib.trading.bots import Bot
from tradelib.trading.decisions import Decision
from tradelib.trading.leaving import cancel_orders, flatten_positions
from tradelib.trading.ledger import Ledger
from tradelib.trading.manual import (
    ManualOrder,
    place_manual_order,
)
from tradelib.trading.orders import Order, Side
from tradelib.trading.upkeep import execute_and_protect, reconcile_venue
from tradelib.venue import OrderType, Venue
from tradelib.venue.client import make_exchange
from tradelib.venue.keys import Keys
from tradelib.venue.translate import translated

VENUE = "paper"
# So small that a few trades of somebody else make a second page.
TRADE_PAGE = 3
# Real seconds that a client waits for a reply that never comes.
_TIMEOUT = 0.4
# Wide enough that the campaign's orders are seldom refused by the desk itself.
LIMITS = LimitSettings(
    max_position_share="1", max_trades_per_day=1000, max_daily_loss_share="1", min_cash_share="0",
    protections={"max_drawdown": "1", "stop_streak": 0, "low_profit_after": 0},
    order_notional={"default": {"min": "5", "max": "1000000"}},
)  # fmt: skip


# Side, type, limit and stop prices as shares of the bid.
_Kind = tuple[Side, OrderType, Decimal | None, Decimal | None]
_BOT_ORDERS: tuple[_Kind, ...] = (
    (Side.BUY, OrderType.MARKET, None, None),
    (Side.SELL, OrderType.MARKET, None, None),
    (Side.BUY, OrderType.LIMIT, Decimal("0.995"), None),
    (Side.BUY, OrderType.LIMIT, Decimal("0.9"), None),
    (Side.BUY, OrderType.LIMIT, Decimal("1.01"), None),
)
_ACCOUNT_ORDERS: tuple[_Kind, ...] = (
    (Side.SELL, OrderType.STOP_LOSS, None, Decimal("0.99")),
    (Side.SELL, OrderType.LIMIT, Decimal("1.01"), Decimal("0.99")),
    (Side.SELL, OrderType.POST_ONLY, Decimal("1.005"), None),
)


@dataclass(frozen=True)
class Deed:
    """One act with all that it needs. url: of the venue; is_new: its client of the venue knows no
    instruments yet. choice: a number for what is random in it."""

    kind: str
    url: str
    run: str
    symbols: tuple[str, ...]
    bot: Bot | None = None
    decision: Decision | None = None
    is_new: bool = False
    choice: float = 0.0

    @property
    def person(self) -> str:
        """Who holds a lease where no run does."""
        return f"process of {self.run}"


@dataclass(frozen=True)
class Desk:
    """What the acts of a process use. stranger: somebody else's client of the account."""

    ledger: Ledger
    venue: Venue
    stranger: Any

    def do(self, deed: Deed) -> str:
        """Do it, and leave no connection behind; what came of it, in words."""
        listed = self.venue._exchange.markets
        if deed.is_new:
            self.venue._exchange.markets = None
        try:
            return getattr(self, f"_{deed.kind}")(deed)
        finally:
            self.venue._exchange.markets = listed
            self.venue.close()
            self.stranger.session.close()
            self.ledger.close()

    def _execute(self, deed: Deed) -> str:
        assert deed.bot is not None
        assert deed.decision is not None
        return execute_and_protect(
            self.ledger, self.venue, LIMITS, deed.bot, deed.decision, deed.run
        ).summary

    def _reconcile(self, deed: Deed) -> str:
        found = reconcile_venue(self.ledger, self.venue, deed.run)
        return ", ".join(f"{d.kind} {d.subject}: {d.repair or 'open'}" for d in found.discrepancies)

    def _manual(self, deed: Deed) -> str:
        wanted = self._draw_order(deed, Random(deed.choice))
        made = place_manual_order(self.ledger, self.venue, LIMITS, wanted, deed.person)
        return _told(made)

    def _draw_order(self, deed: Deed, rng: Random) -> ManualOrder:
        """A person's order: for a bot at the market or at a limit, else of any kind."""
        symbol = deed.bot.symbol if deed.bot else rng.choice(deed.symbols)
        bid = self.venue.fetch_quotes([symbol])[symbol].bid
        kinds = _BOT_ORDERS if deed.bot else (*_BOT_ORDERS, *_ACCOUNT_ORDERS)
        side, kind, limit, stop = rng.choice(kinds)
        return ManualOrder(
            symbol, side, Decimal("0.02"), kind,
            limit_price=limit and bid * limit, stop_price=stop and bid * stop,
            bot=deed.bot.name if deed.bot else None, is_bracket=bool(limit and stop),
        )  # fmt: skip

    def _cancel(self, deed: Deed) -> str:
        done = cancel_orders(self.ledger, self.venue, entries_only=deed.choice < 0.5)
        return _told(done)

    def _flatten(self, deed: Deed) -> str:
        left = flatten_positions(self.ledger, self.venue, LIMITS, deed.person)
        return _told([order for one in left for order in one.orders])

    def _foreign(self, deed: Deed) -> str:
        """Somebody else's orders on the same account: several at the market, or one that rests."""
        with translated("stranger", "trade", sends=True):
            return self._trade_foreign(deed.symbols[0], Random(deed.choice))

    def _trade_foreign(self, symbol: str, rng: Random) -> str:
        create = self.stranger.create_order
        if rng.random() < 0.25:
            bid = Decimal(self.stranger.fetch_bids_asks([symbol])[symbol]["bid"])
            create(symbol, "limit", "buy", "0.01", f"{bid * Decimal('0.9'):.2f}")
            return f"one order of {symbol} rests"
        count = rng.choice((1, 2, 4, 5, 8))
        for _ in range(count):
            create(symbol, "market", rng.choice(("buy", "buy", "sell")), "0.01")
        return f"{count} trades of {symbol}"


def _told(orders: Sequence[Order]) -> str:
    return ", ".join(f"{order.client_id} {order.type} {order.status}" for order in orders)


def open_desk(wall: SharedWall, points: Points, ledger: Ledger, url: str, listed: Any) -> Desk:
    """A desk whose venue is at `url`. listed: the venue's instruments, as it tells them."""
    settings = VenueSettings(rest_url=url, timeout=_TIMEOUT)
    keys = Keys(SecretStr(KEY), SecretStr(SECRET))
    venue = Venue(VENUE, settings, keys, trading=True, is_local=True, identity="torture")
    venue.trade_page = TRADE_PAGE
    stranger = make_exchange("stranger", settings, keys)
    for exchange in (venue._exchange, stranger):
        exchange.milliseconds = wall.read_ms
        asked, exchange.fetch = exchange.fetch, lambda *_, **__: listed
        exchange.load_markets()
        exchange.fetch = asked
    watch_requests(venue._exchange.session, points)
    return Desk(ledger, venue, stranger)
