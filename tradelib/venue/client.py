"""The venue client: one exchange account, Decimal in and out, in the desk's own words and errors.

The only module that makes ccxt exchanges. Verbs tell effects: `fetch_` reads over the network,
`submit_` and `cancel_` change something at the venue.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import ccxt
import pandas as pd
import stamina

from tradelib.clock import from_ms, timeframe_ms, to_ms
from tradelib.errors import InvalidInput, ReadOnly, VenueUnavailable, unknown_name
from tradelib.services.addresses import service_url
from tradelib.settings import SERVICE_PREFIX, DeskSettings, VenueSettings
from tradelib.venue.facts import (
    Instrument,
    Quote,
    VenueBalance,
    VenueOrder,
    VenueStatus,
    VenueTrade,
)
from tradelib.venue.keys import Keys, load_keys
from tradelib.venue.translate import translated

# Retries are told to whoever listens; without a listener Python would print them.
logging.getLogger("stamina").addHandler(logging.NullHandler())

READ_ATTEMPTS = 3
# A venue refuses requests signed longer ago (Binance's recvWindow is 10 s), and a process sends
# within a few seconds of recording; the rest is margin.
_LATE_REQUESTS = timedelta(seconds=20)
TRADE_PAGE = 500
_CANDLE_COLUMNS = ["open", "high", "low", "close", "volume"]


class Venue:
    """One exchange account by name.

    trading: whether orders may be submitted and cancelled through this client.
    is_local: whether it is the desk's own exchange. visibility_lag: how long an order that was
    sent may stay unseen; absence proves nothing before.
    """

    def __init__(
        self,
        name: str,
        settings: VenueSettings,
        keys: Keys | None,
        *,
        trading: bool = False,
        is_local: bool = False,
    ) -> None:
        self.name = name
        self.quote = settings.quote
        self.is_local = is_local
        self.visibility_lag = _LATE_REQUESTS + 2 * timedelta(seconds=settings.timeout)
        self.trading = trading and os.environ.get("DESK_READ_ONLY") != "1"
        self._exchange = make_exchange(name, settings, keys)

    def __repr__(self) -> str:
        return f"Venue({self.name!r}, {self._exchange.id!r}, trading={self.trading})"

    # Reads

    def fetch_time(self) -> datetime:
        """The venue's own clock: the time that decides which candles are closed."""
        return from_ms(self._read("tell its time", lambda: self._exchange.fetch_time()))

    def fetch_instruments(self) -> dict[str, Instrument]:
        """Every spot instrument, by symbol; asked once per client."""
        markets = self._read("list its instruments", lambda: self._exchange.load_markets())
        return {
            symbol: _instrument(market) for symbol, market in markets.items() if market.get("spot")
        }

    def fetch_instrument(self, symbol: str) -> Instrument:
        instruments = self.fetch_instruments()
        if symbol not in instruments:
            raise unknown_name("symbol", symbol, instruments, f"venue {self.name}")
        return instruments[symbol]

    def fetch_ohlcv(self, symbol: str, timeframe: str, since: datetime, limit: int) -> pd.DataFrame:
        """Candles from `since`, at most `limit`, the forming one included as venues answer it.

        Index open_time (UTC, ms), float columns open, high, low, close, volume.
        """
        self.fetch_instrument(symbol)
        self.require_timeframe(timeframe)
        rows = self._read(
            f"give {timeframe} candles of {symbol}",
            lambda: self._exchange.fetch_ohlcv(symbol, timeframe, to_ms(since), limit),
        )
        frame = pd.DataFrame(
            [[float(value) for value in row[1:6]] for row in rows],
            columns=_CANDLE_COLUMNS,
            index=pd.to_datetime([int(row[0]) for row in rows], unit="ms", utc=True).as_unit("ms"),
            dtype="float64",
        )
        return frame.rename_axis("open_time")

    def require_timeframe(self, timeframe: str) -> None:
        """Refuse a timeframe in which the venue has no candles."""
        timeframe_ms(timeframe)
        known = self._exchange.timeframes or {}
        if timeframe not in known:
            raise unknown_name("timeframe", timeframe, known, f"venue {self.name}")

    def fetch_quotes(self, symbols: Sequence[str]) -> dict[str, Quote]:
        """Best bid and ask of several symbols, in one request; without those that have none, as
        a delisted coin has."""
        if not symbols:
            return {}
        for symbol in symbols:
            self.fetch_instrument(symbol)
        tickers = self._read(
            f"quote {', '.join(symbols)}",
            lambda: (
                self._exchange.fetch_bids_asks(list(symbols))
                if self._exchange.has.get("fetchBidsAsks")
                else self._exchange.fetch_tickers(list(symbols))
            ),
        )
        quotes = (_quote(symbol, tickers.get(symbol)) for symbol in symbols)
        return {quote.symbol: quote for quote in quotes if quote}

    def fetch_balances(self) -> dict[str, VenueBalance]:
        """Every asset the account holds any of."""
        # Coinbase answers whole accounts only when asked for its third version.
        answer = self._read(
            "tell its balances",
            lambda: self._exchange.fetch_balance(
                {"v3": True} if self._exchange.id == "coinbase" else {}
            ),
        )
        found = {}
        for asset, total in answer["total"].items():
            free, used = _money(answer["free"].get(asset)), _money(answer["used"].get(asset))
            if free or used or _money(total):
                found[asset] = VenueBalance(asset, free, used)
        return found

    def fetch_order(
        self, symbol: str, client_id: str, venue_order_id: str | None = None
    ) -> VenueOrder:
        """One order, by the venue's id if known, else by ours; OrderUnknown if there is none."""
        params = {} if venue_order_id else {"clientOrderId": client_id}
        answer = self._read(
            f"find order {client_id}",
            lambda: self._exchange.fetch_order(venue_order_id or "", symbol, params),
        )
        return _venue_order(answer)

    def fetch_open_orders(self, symbols: Sequence[str]) -> list[VenueOrder]:
        answers: list[dict[str, Any]] = []
        for symbol in symbols:
            answers += self._read(
                f"list open orders of {symbol}",
                lambda symbol=symbol: self._exchange.fetch_open_orders(symbol),
            )
        return [_venue_order(answer) for answer in answers]

    def fetch_trades_since(
        self, symbol: str, last_trade_id: str | None, opened_at: datetime | None = None
    ) -> list[VenueTrade]:
        """The account's executions after a trade id (all when None), oldest first.

        Walks by id where ids count up, since paging by time loses trades of the same millisecond;
        elsewhere by time from `opened_at`, each page beginning where the last one ended.
        """
        if self._exchange.id == "binance":
            return self._walk_by_id(symbol, last_trade_id)
        return self._walk_by_time(symbol, opened_at)

    def _walk_by_id(self, symbol: str, last_trade_id: str | None) -> list[VenueTrade]:
        found: list[VenueTrade] = []
        next_id = int(last_trade_id) + 1 if last_trade_id else 0
        while True:
            page = self._fetch_trade_page(symbol, None, {"fromId": next_id})
            found += page
            if len(page) < TRADE_PAGE:
                return found
            next_id = int(found[-1].trade_id) + 1

    def _walk_by_time(self, symbol: str, since: datetime | None) -> list[VenueTrade]:
        found: dict[str, VenueTrade] = {}
        while True:
            page = self._fetch_trade_page(symbol, since, {})
            new = [trade for trade in page if trade.trade_id not in found]
            found |= {trade.trade_id: trade for trade in new}
            if not new or since is None:
                return list(found.values())
            since = new[-1].at

    def _fetch_trade_page(
        self, symbol: str, since: datetime | None, params: dict[str, Any]
    ) -> list[VenueTrade]:
        trades = self._read(
            f"list trades of {symbol}",
            lambda: self._exchange.fetch_my_trades(
                symbol, to_ms(since) if since else None, TRADE_PAGE, params
            ),
        )
        return _in_order(trades)

    def fetch_last_trade_id(self, symbol: str) -> str | None:
        """The id of the account's newest execution of a symbol, None without one."""
        newest = self._read(
            f"tell the last trade of {symbol}",
            lambda: self._exchange.fetch_my_trades(symbol, None, 1),
        )
        return _in_order(newest)[-1].trade_id if newest else None

    def fetch_order_trades(self, symbol: str, venue_order_id: str) -> list[VenueTrade]:
        """The executions of one order, oldest first."""
        page = self._read(
            f"list trades of order {venue_order_id}",
            lambda: self._exchange.fetch_order_trades(venue_order_id, symbol),
        )
        return _in_order(page)

    # Effects

    def submit_market_order(
        self, symbol: str, side: str, amount: Decimal, client_id: str
    ) -> VenueOrder:
        """Send one market order, once, and give the venue's answer.

        Raises OrderRejected or another RefusedError for a definite no, RateLimited and
        AuthenticationFailed likewise (the order does not exist), UnresolvedError otherwise.
        """
        self._require_trading()
        # Instruments are a read: ask for them before anything is on the wire.
        self.fetch_instrument(symbol)
        # Coinbase drops the unified name and wants its own.
        name = "client_order_id" if self._exchange.id == "coinbase" else "clientOrderId"
        with translated(self.name, f"{side} {amount:f} {symbol}", sends=True):
            answer = self._exchange.create_order(
                symbol, "market", side, format(amount, "f"), None, {name: client_id}
            )
        return _venue_order(answer)

    def cancel_order(self, symbol: str, venue_order_id: str) -> None:
        """Cancel one order; OrderUnknown when it is not open (any more)."""
        self._require_trading()
        with translated(self.name, f"cancel order {venue_order_id}", sends=True):
            self._exchange.cancel_order(venue_order_id, symbol)

    @property
    def used_weight(self) -> int | None:
        """What this address has used of the venue's budget in the present minute, as its last
        answer told; None where it tells nothing."""
        headers = self._exchange.last_response_headers or {}
        told = {name.upper(): value for name, value in headers.items()}
        weight = told.get("X-MBX-USED-WEIGHT-1M")
        return int(weight) if weight else None

    def close(self) -> None:
        self._exchange.session.close()

    def _require_trading(self) -> None:
        if not self.trading:
            raise ReadOnly(
                f"Venue {self.name} is open for reading only here; "
                "only a scheduled run places or cancels orders."
            )

    def _read(self, action: str, call: Any) -> Any:
        """A read, tried again while the venue gives no usable answer."""
        for attempt in stamina.retry_context(
            on=VenueUnavailable,
            attempts=READ_ATTEMPTS,
            wait_initial=0.2,
            wait_max=2.0,
            timeout=None,
        ):
            with attempt, translated(self.name, action):
                return call()
        raise AssertionError("unreachable")


def open_venue(settings: DeskSettings, name: str, *, trading: bool = False) -> Venue:
    """The venue of that name in desk.toml, with its keys unless they are not to be had."""
    if name not in settings.venues:
        raise unknown_name("venue", name, settings.venues, "desk.toml")
    chosen = settings.venues[name]
    resolved = chosen.model_copy(
        update={
            "rest_url": _resolve(settings, chosen.rest_url),
            "ws_url": _resolve(settings, chosen.ws_url),
        }
    )
    keys = load_keys(chosen.keys, settings.home, name)
    return Venue(name, resolved, keys, trading=trading, is_local=chosen.is_local)


def _resolve(settings: DeskSettings, url: str | None) -> str | None:
    if url and url.startswith(SERVICE_PREFIX):
        return service_url(settings, url.removeprefix(SERVICE_PREFIX))
    return url


def make_exchange(name: str, settings: VenueSettings, keys: Keys | None) -> ccxt.Exchange:
    """ccxt's object for a venue, pointed where the settings say; `name` is for messages."""
    if settings.exchange not in ccxt.exchanges:
        raise unknown_name("exchange", settings.exchange, ccxt.exchanges, f"venue {name}")
    kind = getattr(ccxt, settings.exchange)
    config: dict[str, Any] = {
        # Numbers stay text inside ccxt, so that no digit passes through a float.
        "number": str,
        "timeout": int(settings.timeout * 1000),
        "enableRateLimit": settings.rest_url is None,
        "options": {
            "fetchMarkets": {"types": ["spot"]},
            "fetchCurrencies": False,
            "fetchMargins": False,
            "fetchOpenOrders": {"warnWithoutSymbol": False},
            "warnOnFetchOpenOrdersWithoutSymbol": False,
        },
    }
    if keys:
        config |= {
            "apiKey": keys.key.get_secret_value(),
            "secret": keys.secret.get_secret_value(),
        }
    exchange = kind(config)
    if settings.rest_url:
        _redirect(exchange, settings.rest_url, settings.ws_url)
    return exchange


def _redirect(exchange: ccxt.Exchange, rest_url: str, ws_url: str | None) -> None:
    """Point every section of the exchange's API at one base, so that nothing else is reached."""
    base = rest_url.rstrip("/")
    exchange.urls["api"] = _moved(exchange.urls["api"], base, (ws_url or base).rstrip("/"))
    if exchange.id == "binance":
        # ccxt picks its table of spot errors by the URL's prefix, which is another now.
        tables = exchange.exceptions
        tables["exact"] = {**tables["exact"], **tables["spot"]["exact"]}


def _moved(urls: Any, base: str, socket: str) -> Any:
    """The same tree of URLs, each with its path under another base."""
    if isinstance(urls, dict):
        return {name: _moved(url, base, socket) for name, url in urls.items()}
    scheme, _, rest = str(urls).partition("://")
    path = rest.partition("/")[2]
    return f"{socket if scheme.startswith('ws') else base}/{path}".rstrip("/")


def _money(value: Any) -> Decimal:
    return Decimal(str(value)) if value not in (None, "") else Decimal(0)


def _maybe(value: Any) -> Decimal | None:
    return None if value in (None, "") else Decimal(str(value))


def _instrument(market: dict[str, Any]) -> Instrument:
    limits, precision = market["limits"], market["precision"]
    return Instrument(
        symbol=market["symbol"],
        base=market["base"],
        quote=market["quote"],
        tick=_maybe(precision.get("price")) or Decimal("0.00000001"),
        lot=_maybe(precision.get("amount")) or Decimal("0.00000001"),
        min_amount=_maybe((limits.get("amount") or {}).get("min")),
        max_amount=_maybe((limits.get("amount") or {}).get("max")),
        min_notional=_maybe((limits.get("cost") or {}).get("min")),
        active=market.get("active") is not False,
    )


def _quote(symbol: str, ticker: dict[str, Any] | None) -> Quote | None:
    bid, ask = (_maybe((ticker or {}).get(side)) for side in ("bid", "ask"))
    return Quote(symbol, bid, ask) if bid and ask else None


def _venue_order(answer: dict[str, Any]) -> VenueOrder:
    amount, filled = _maybe(answer.get("amount")), _maybe(answer.get("filled"))
    return VenueOrder(
        venue_order_id=str(answer["id"]),
        client_id=answer.get("clientOrderId"),
        symbol=answer.get("symbol") or "",
        side=answer.get("side") or "",
        type=answer.get("type") or "",
        status=_status(answer.get("status"), filled),
        amount=amount,
        filled=filled,
        cost=_maybe(answer.get("cost")),
    )


def _status(said: str | None, filled: Decimal | None) -> VenueStatus:
    if said == "open":
        return VenueStatus.PARTIALLY_FILLED if filled else VenueStatus.OPEN
    return {
        "closed": VenueStatus.FILLED,
        "canceled": VenueStatus.CANCELED,
        "expired": VenueStatus.EXPIRED,
        "rejected": VenueStatus.REJECTED,
    }.get(said or "", VenueStatus.UNKNOWN)


def _in_order(trades: list[dict[str, Any]]) -> list[VenueTrade]:
    """Oldest first; of one millisecond, ids that are numbers count up."""
    found = [_venue_trade(trade) for trade in trades]
    return sorted(found, key=lambda t: (t.at, len(t.trade_id), t.trade_id))


def _venue_trade(trade: dict[str, Any]) -> VenueTrade:
    fee = trade.get("fee") or {}
    symbol = trade["symbol"]
    amount, price = _money(trade["amount"]), _money(trade["price"])
    if not trade.get("id"):
        raise InvalidInput(f"A trade of {symbol} came without an id and cannot be booked.")
    return VenueTrade(
        trade_id=str(trade["id"]),
        venue_order_id=str(trade["order"]),
        symbol=symbol,
        side=trade["side"],
        amount=amount,
        price=price,
        cost=_maybe(trade.get("cost")) or amount * price,
        fee=_money(fee.get("cost")),
        fee_currency=fee.get("currency") or symbol.split("/")[1],
        at=from_ms(trade["timestamp"]),
    )
