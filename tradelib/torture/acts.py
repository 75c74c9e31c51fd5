"""What a process of a schedule does: the desk's own calls, and somebody else's trades."""

from __future__ import annotations

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
from tradelib.trading.execution import execute_decision
from tradelib.trading.ledger import Ledger
from tradelib.trading.reconciliation import reconcile
from tradelib.venue import Venue
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
    order_notional={"default": {"min": "5", "max": "1000000"}},
)  # fmt: skip


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
        return execute_decision(
            self.ledger, self.venue, LIMITS, deed.bot, deed.decision, deed.run
        ).summary

    def _reconcile(self, deed: Deed) -> str:
        found = reconcile(self.ledger, self.venue, deed.symbols, run=deed.run)
        return ", ".join(f"{d.kind} {d.subject}: {d.repair or 'open'}" for d in found.discrepancies)

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
