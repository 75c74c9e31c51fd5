"""The venue client: one exchange account, Decimal in and out, in the desk's own words and errors.

The only module that makes ccxt exchanges. Verbs tell effects: `fetch_` reads over the network,
`submit_` and `cancel_` change something at the venue.
"""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import ccxt
import pandas as pd
import stamina

from tradelib.clock import from_ms, timeframe_ms, to_ms, utc_now
from tradelib.errors import InvalidInput, OrderRejected, ReadOnly, VenueUnavailable, unknown_name
from tradelib.scrubber import Scrubber
from tradelib.services.addresses import service_url
from tradelib.settings import SERVICE_PREFIX, CacheSettings, DeskSettings, VenueSettings
from tradelib.traffic.budget import Budget, account_name
from tradelib.traffic.cache import Entry, SharedCache, Terms
from tradelib.traffic.rates import Urgency, urgent
from tradelib.traffic.records import budget_file
from tradelib.venue.dialects import Dialect, Page, Row, dialect_of
from tradelib.venue.facts import (
    BracketRequest,
    Instrument,
    OrderRequest,
    OrderType,
    Quote,
    VenueBalance,
    VenueOrder,
    VenueStatus,
    VenueTrade,
)
from tradelib.venue.keys import Keys, load_keys
from tradelib.venue.metering import Answers, budgeted, budgeted_stream
from tradelib.venue.translate import translated

# Retries are told to whoever listens; without a listener Python would print them.
logging.getLogger("stamina").addHandler(logging.NullHandler())

# ccxt draws the nonces that it signs from the generator that a page may have seeded.
import_module("ccxt.base.exchange").random = random.SystemRandom()

READ_ATTEMPTS = 3
TRADE_PAGE = 500
CANDLE_PAGE = 1000
# How long a request may be under way where the venue does not bound it.
_UNBOUND_REQUESTS = timedelta(seconds=60)
# There, the client itself sends nothing that was committed longer ago.
_SEND_WITHIN = timedelta(seconds=10)
# Seconds that a committed order waits for the rate budget: its request is soon too old.
_ORDER_PATIENCE = 2.0
# A symbol that a shared list lacks, or tells not to be traded, is looked for in one no older.
_NEW_LISTING_SECONDS = 60.0
# Before the moment an order was sent, for clocks that differ, when looking for it in a list.
_SINCE_MARGIN = timedelta(minutes=5)
_UNPRICED = {kind.value for kind in OrderType if not kind.has_limit}
# Names of ccxt's methods, in both of its spellings.
_SENDS_ORDERS = re.compile(r"(create|edit|cancel)_?\w*order|withdraw$|transfer$", re.IGNORECASE)
_CANDLE_COLUMNS = ["open", "high", "low", "close", "volume"]


class Told(Protocol):
    """What a venue told a moment ago without being asked, as by a stream."""

    def told_time(self) -> datetime | None:
        """The venue's time; None where it must be asked."""

    def told_quotes(self, symbols: Collection[str]) -> dict[str, Quote]:
        """Those of the symbols that were quoted, each with its venue_time and got_at."""


class Venue:
    """One exchange account by name.

    trading: whether orders may be submitted and cancelled through this client.
    is_local: whether it is the desk's own exchange. identity: the exchange and where it points,
        without any key. request_lifetime: a request signed longer ago is refused by the venue
        itself; None where it cannot be bound. visibility_lag: an order that was sent and cannot
        be seen after so long was never accepted. dedupes_client_ids: whether a second request
        with a client id used before never makes a second order.
    trade_page: rows asked for at a time in histories. home: of the desk whose processes share the
        venue's rate budget and what it told them; None shares nothing. bulk:
        for long walks, which leave more of the budget to others and wait longer. told: gives the
        venue's time and quotes where it told them a moment ago; else it is asked.
    """

    def __init__(
        self,
        name: str,
        settings: VenueSettings,
        keys: Keys | None,
        *,
        trading: bool = False,
        is_local: bool = False,
        identity: str | None = None,
        home: Path | None = None,
        cache: CacheSettings | None = None,
        bulk: bool = False,
        told: Told | None = None,
    ) -> None:
        self.name = name
        self._told = told
        self.quote = settings.quote
        self.is_local = is_local
        self.trading = trading and os.environ.get("DESK_READ_ONLY") != "1"
        self.trade_page = TRADE_PAGE
        self._instruments: dict[str, Instrument] = {}
        self.identity = identity or venue_identity(name, settings)
        self._exchange = make_exchange(
            name, settings, keys, home=home, identity=self.identity, bulk=bulk
        )
        self._scrubber = Scrubber(keys.named(name) if keys else {})
        self._dialect = dialect_of(self._exchange)
        self._sharing = cache or CacheSettings()
        self._cache = SharedCache(home, self._sharing.url) if home else None
        self._answers = Answers(self._exchange) if home else None
        self._ask_markets = self._exchange.load_markets
        if self._cache is not None:
            self._exchange.load_markets = self._share_markets
        # By the wall clock: when the list of instruments was asked for, and until when it serves.
        self._listed_at = self._listed_until = 0.0
        self.request_lifetime = self._dialect.request_lifetime
        self.dedupes_client_ids = self._dialect.dedupes_client_ids
        self.supports_brackets = self._dialect.has_brackets
        self.visibility_lag = (
            (self.request_lifetime or _UNBOUND_REQUESTS)
            + timedelta(seconds=settings.timeout)
            + self._dialect.read_lag
        )

    def __repr__(self) -> str:
        return f"Venue({self.name!r}, {self._exchange.id!r}, trading={self.trading})"

    def supports(self, order_type: OrderType, symbol: str | None = None) -> bool:
        """Whether the venue takes such orders, of that symbol if one is named."""
        if symbol is not None:
            self.fetch_instrument(symbol)
        return self._dialect.supports(order_type, symbol)

    # Reads

    def fetch_time(self) -> datetime:
        """The venue's own clock: the time that decides which candles are closed."""
        if self._told is not None and (time := self._told.told_time()) is not None:
            return time
        return from_ms(self._read("tell its time", lambda: self._exchange.fetch_time()))

    def fetch_instruments(self) -> dict[str, Instrument]:
        """Every spot instrument, by symbol; asked by one of all processes, and anew once it is
        older than the desk's `cache.instrument_hours`."""
        if time.time() >= self._listed_until:
            self._forget_instruments()
        if not self._instruments:
            self._load_instruments()
            markets = self._exchange.markets
            spot = {symbol: market for symbol, market in markets.items() if market.get("spot")}
            self._instruments = {symbol: _instrument(market) for symbol, market in spot.items()}
        return self._instruments

    def fetch_instrument(self, symbol: str) -> Instrument:
        """One symbol's rules. Raises InvalidInput for one that the venue does not list."""
        found = self.fetch_instruments().get(symbol)
        is_old = time.time() - self._listed_at > _NEW_LISTING_SECONDS
        if is_old and not (found and found.active):
            # Listed, or traded again, since the list was asked for, maybe.
            self._forget_instruments()
            self._load_instruments(_NEW_LISTING_SECONDS)
            found = self.fetch_instruments().get(symbol)
        if found is None:
            raise unknown_name("symbol", symbol, self._instruments, f"venue {self.name}")
        return found

    def _forget_instruments(self) -> None:
        self._instruments, self._exchange.markets = {}, None

    def _load_instruments(self, longest: float | None = None) -> None:
        """Let ccxt know the venue's instruments, by a list no older than so many seconds."""
        self._read("list its instruments", lambda: self._share_markets(longest=longest))

    def _share_markets(
        self, reload: bool = False, params: Any = None, *, longest: float | None = None
    ) -> Any:
        """ccxt's own `load_markets`, which each of its methods calls first, but shared."""
        answers, markets = self._answers, self._exchange.markets
        if self._cache is None or answers is None or markets or reload:
            began = time.time()
            found = self._ask_markets(reload, params or {})
            if reload or not markets:
                self._note_list(began)
            return found

        def ask(_: list[str]) -> dict[str, Any]:
            with self._translated("list its instruments"):
                return {"": answers.note(self._ask_markets)}

        longest = longest or 3600 * self._sharing.max_instrument_hours
        terms = Terms(min(3600 * self._sharing.instrument_hours, longest), longest)
        # What an account may trade, and at which fee, is its own.
        group = f"{self.identity} {account_name(self._exchange.apiKey)}"
        told = self._cache.get("instruments", group, [""], ask, terms)[""]
        # Also where the venue was asked in vain, and an older list will do.
        if not self._exchange.markets:
            answers.repeat(told.value, self._ask_markets)
        self._note_list(told.got_at)
        return self._exchange.markets

    def _note_list(self, asked_at: float) -> None:
        """Until when a list serves that was asked for then. One that is old already, since the
        venue gives no other, is not asked for anew at every look."""
        fresh, longest = self._sharing.instrument_hours, self._sharing.max_instrument_hours
        until = max(asked_at + 3600 * fresh, time.time() + _NEW_LISTING_SECONDS)
        self._listed_at, self._listed_until = asked_at, min(until, asked_at + 3600 * longest)

    def fetch_ohlcv(self, symbol: str, timeframe: str, since: datetime, limit: int) -> pd.DataFrame:
        """Candles from `since`, at most `limit`, the forming one included as venues answer it.

        Index open_time (UTC, ms), float columns open, high, low, close, volume.
        """
        self.fetch_instrument(symbol)
        self.require_timeframe(timeframe)
        return parse_candles(
            self._read(
                f"give {timeframe} candles of {symbol}",
                lambda: self._exchange.fetch_ohlcv(symbol, timeframe, to_ms(since), limit),
            )
        )

    @property
    def candle_page(self) -> int:
        """Most candles that one request brings; 1,000 where ccxt does not know."""
        told = (self._exchange.features.get("spot") or {}).get("fetchOHLCV") or {}
        return told.get("limit") or CANDLE_PAGE

    def require_timeframe(self, timeframe: str) -> None:
        """Refuse a timeframe in which the venue has no candles."""
        timeframe_ms(timeframe)
        known = self._exchange.timeframes or {}
        if timeframe not in known:
            raise unknown_name("timeframe", timeframe, known, f"venue {self.name}")

    def fetch_quotes(
        self, symbols: Sequence[str], *, as_of: datetime | None = None
    ) -> dict[str, Quote]:
        """Best bid and ask of several symbols, in one request; without those that have none, as
        a delisted coin has.

        as_of: the venue's own time, asked for right before. With it, a quote will do that was
            told, or that another process was told, unless it is older, by the venue's time or by
            this machine's, than the desk's `cache.max_quote_seconds`; without, the venue is asked.
        """
        if not symbols:
            return {}
        for symbol in symbols:
            self.fetch_instrument(symbol)
        longest = self._sharing.max_quote_seconds
        if self._cache is None or as_of is None or longest <= 0:
            got_at = utc_now()
            told = self._ask_quotes(symbols)
            return {s: Quote(s, *map(Decimal, pair), as_of, got_at) for s, pair in told.items()}
        terms = Terms(min(self._sharing.quote_seconds, longest), longest, to_ms(as_of))
        heard = self._heard_quotes(symbols, terms)
        symbols = [symbol for symbol in symbols if symbol not in heard]
        if not symbols:
            return heard
        found = self._cache.get(
            "quotes", self.identity, symbols, self._ask_quotes, terms, together=True
        )
        if not all(map(terms.accept, found.values())):
            raise VenueUnavailable(
                f"Venue {self.name} took longer than {longest:g} s to quote {', '.join(symbols)}; "
                "no order is sized with prices so old."
            )
        quotes = (_shared_quote(symbol, found[symbol]) for symbol in symbols)
        return heard | {quote.symbol: quote for quote in quotes if quote}

    def _heard_quotes(self, symbols: Collection[str], terms: Terms) -> dict[str, Quote]:
        """Those that were told so lately that nobody would ask for them."""
        told = self._told.told_quotes(symbols) if self._told else {}
        return {s: quote for s, quote in told.items() if terms.is_fresh(_entry_of(quote))}

    def share_quotes(self, quotes: Iterable[Quote]) -> None:
        """Let all processes have what came without being asked for, as from a stream.

        Quotes without the venue's time are of use to nobody and left out.
        """
        if self._cache is None:
            return
        told: dict[tuple[float, int], dict[str, list[str]]] = {}
        for quote in quotes:
            if quote.venue_time is not None:
                moment = (quote.got_at or utc_now()).timestamp(), to_ms(quote.venue_time)
                pair = [format(quote.bid, "f"), format(quote.ask, "f")]
                told.setdefault(moment, {})[quote.symbol] = pair
        for (got_at, venue_ms), pairs in told.items():
            self._cache.put("quotes", self.identity, pairs, got_at=got_at, venue_ms=venue_ms)

    def _ask_quotes(self, symbols: Sequence[str]) -> dict[str, list[str]]:
        """Bid and ask by symbol, as text."""
        tickers = self._read(
            f"quote {', '.join(symbols)}",
            lambda: (
                self._exchange.fetch_bids_asks(list(symbols))
                if self._exchange.has.get("fetchBidsAsks")
                else self._exchange.fetch_tickers(list(symbols))
            ),
        )
        found = {symbol: tickers.get(symbol) or {} for symbol in symbols}
        pairs = {s: [_maybe(row.get(side)) for side in ("bid", "ask")] for s, row in found.items()}
        return {s: [format(price, "f") for price in pair] for s, pair in pairs.items() if all(pair)}

    def fetch_balances(self) -> dict[str, VenueBalance]:
        """Every asset the account holds any of."""
        answer = self._read(
            "tell its balances",
            lambda: self._exchange.fetch_balance(self._dialect.balance_params),
        )
        found = {}
        for asset, total in answer["total"].items():
            free, used = _money(answer["free"].get(asset)), _money(answer["used"].get(asset))
            if free or used or _money(total):
                found[asset] = VenueBalance(asset, free, used)
        return found

    def fetch_account_id(self) -> str | None:
        """The venue's own lasting name of the account; None where it tells none."""
        return self._read("name the account", self._dialect.fetch_account_id)

    def fetch_order(
        self,
        symbol: str,
        client_id: str,
        venue_order_id: str | None = None,
        since: datetime | None = None,
    ) -> VenueOrder:
        """One order, by the venue's id if known, else by ours.

        since: when it was sent at the earliest, in the venue's time; spares venues without a
            search by client id a walk through their whole history.
        Raises OrderUnknown when the venue has none.
        """
        self.fetch_instrument(symbol)
        start = since - _SINCE_MARGIN if since else None
        with urgent(Urgency.RECONCILE):  # what became of an order is never a luxury
            return self._read(
                f"find order {venue_order_id or client_id}",
                lambda: self._order(
                    self._dialect.fetch_order(symbol, client_id, venue_order_id, start)
                ),
            )

    def fetch_open_orders(self, symbols: Sequence[str]) -> list[VenueOrder]:
        found: list[VenueOrder] = []
        for symbol in symbols:
            found += self._read(
                f"list open orders of {symbol}",
                lambda symbol=symbol: list(
                    map(self._order, self._dialect.fetch_open_orders(symbol))
                ),
            )
        return found

    def iterate_orders(self, symbol: str, since: datetime | None) -> Iterator[list[VenueOrder]]:
        """The account's orders of a symbol, open and ended, in pages, oldest first.

        since: creation, in the venue's time; all when None.
        """
        pages = self._walk(
            f"list orders of {symbol}",
            lambda cursor: self._dialect.fetch_order_page(symbol, since, cursor, self.trade_page),
        )
        for page in self._oldest_first(pages):
            orders = [self._order(row) for row in page]
            kept = [order for order in orders if not (since and order.at and order.at < since)]
            if kept:
                yield kept

    def iterate_trades(
        self, symbol: str, last_trade_id: str | None, since: datetime | None
    ) -> Iterator[list[VenueTrade]]:
        """The account's executions after a trade id, in pages, oldest first.

        Those from `since` on when the id is None, all when both are. Where ids do not count up,
        executions of the known one's own millisecond come once more.
        """
        pages = self._walk(
            f"list trades of {symbol}",
            lambda cursor: self._dialect.fetch_trade_page(
                symbol, since, last_trade_id, cursor, self.trade_page
            ),
        )
        for page in self._oldest_first(pages, last_trade_id):
            trades = [trade for trade in parse_trades(page) if trade.trade_id != last_trade_id]
            kept = [t for t in trades if last_trade_id or not (since and t.at < since)]
            if kept:
                yield kept

    def fetch_trades_since(
        self, symbol: str, last_trade_id: str | None, opened_at: datetime | None = None
    ) -> list[VenueTrade]:
        """The account's executions after a trade id, else from `opened_at`, oldest first."""
        return list(chain.from_iterable(self.iterate_trades(symbol, last_trade_id, opened_at)))

    def _walk(self, action: str, fetch: Callable[[Any], Page]) -> Iterator[list[Row]]:
        page = Page([])
        self.fetch_instruments()
        while True:
            page = self._read(action, lambda cursor=page.next: fetch(cursor))
            yield page.rows
            if page.next is None:
                return

    def _oldest_first(
        self, pages: Iterator[list[Row]], known: str | None = None
    ) -> Iterator[list[Row]]:
        """Pages as they come, or turned round where a venue begins with the newest; those older
        than the known row are not asked for then."""
        if not self._dialect.newest_first:
            yield from pages
            return
        found = gather(pages, known)
        for start in range(0, len(found), self.trade_page):
            yield found[start : start + self.trade_page]

    def fetch_last_trade_id(self, symbol: str) -> str | None:
        """The id of the account's newest execution of a symbol, None without one."""
        self.fetch_instrument(symbol)
        newest = self._read(
            f"tell the last trade of {symbol}", lambda: self._dialect.fetch_last_trades(symbol)
        )
        return parse_trades(newest)[-1].trade_id if newest else None

    def fetch_order_trades(self, symbol: str, venue_order_id: str) -> list[VenueTrade]:
        """The executions of one order, oldest first."""
        self.fetch_instrument(symbol)
        page = self._read(
            f"list trades of order {venue_order_id}",
            lambda: self._dialect.fetch_order_trades(symbol, venue_order_id),
        )
        return parse_trades(page)

    # Effects

    def submit_order(self, request: OrderRequest) -> VenueOrder:
        """Send one order, once, and give the venue's answer.

        Raises OrderRejected or another RefusedError for a definite no, RateLimited and
        AuthenticationFailed likewise (the order does not exist), UnresolvedError otherwise.
        """
        self._require_trading()
        self._require_order(request)
        self._require_fresh(request.signed_at)
        with urgent(Urgency.ORDINARY, _ORDER_PATIENCE), self._sending(str(request)):
            return _completed(self._order(self._dialect.create_order(request)), request)

    def submit_bracket(self, request: BracketRequest) -> tuple[VenueOrder, VenueOrder]:
        """Send a target and a stop as one list, once; the answers in that order. Raises as
        submit_order does, and InvalidInput where the venue takes no such list."""
        self._require_trading()
        for leg in (request.target, request.stop):
            self._require_order(leg)
        self._require_fresh(request.signed_at)
        action = f"bracket {request.target}, {request.stop}"
        with urgent(Urgency.ORDINARY, _ORDER_PATIENCE), self._sending(action):
            rows = map(self._order, self._dialect.create_bracket(request))
            legs = {order.client_id: order for order in rows}
            return legs[request.target.client_id], legs[request.stop.client_id]

    def cancel_order(
        self, symbol: str, venue_order_id: str | None, client_id: str | None = None
    ) -> None:
        """Cancel one order, by the venue's id if known, else by ours; a leg of a bracket takes
        the other with it. Raises OrderUnknown when it is not open (any more).

        Some venues only promise to cancel: what became of the order is for fetch_order to tell.
        """
        self._require_trading()
        self.fetch_instrument(symbol)
        action = f"cancel order {venue_order_id or client_id}"
        with urgent(Urgency.CANCEL), self._sending(action):
            self._dialect.cancel_order(symbol, venue_order_id, client_id)

    def _sending(self, action: str) -> AbstractContextManager[None]:
        return self._translated(action, sends=True)

    def _translated(self, action: str, *, sends: bool = False) -> AbstractContextManager[None]:
        return translated(
            self.name, action, sends=sends, clearer=self._dialect.clearer, scrubber=self._scrubber
        )

    def _require_order(self, request: OrderRequest) -> None:
        """Refuse, before anything is on the wire, what the venue would take for something else:
        ccxt rounds amounts and prices without a word."""
        instrument = self.fetch_instrument(request.symbol)
        if not self.supports(request.type, request.symbol):
            raise InvalidInput(
                f"Venue {self.name} takes no {request.type} orders of {request.symbol}."
            )
        for what, given, step in (
            ("amount", request.amount, instrument.lot),
            ("limit_price", request.limit_price, instrument.tick),
            ("stop_price", request.stop_price, instrument.tick),
        ):
            if given is not None and given % step:
                raise InvalidInput(
                    f"The {what} {given:f} of {request.symbol} at venue {self.name} "
                    f"is no multiple of {step:f}; round it first."
                )

    def _require_fresh(self, signed_at: datetime | None) -> None:
        """Where the venue cannot, refuse what was held up since it was committed."""
        late = signed_at is not None and utc_now() - signed_at > _SEND_WITHIN
        if late and self.request_lifetime is None:
            raise OrderRejected(
                f"Not sent to venue {self.name}: more than {_SEND_WITHIN.seconds} s had passed "
                "since the order was committed."
            )

    def _order(self, row: Row) -> VenueOrder:
        return parse_order(self._dialect.tidy(row), self._dialect)

    @property
    def used_weight(self) -> int | None:
        """What this address has used of the venue's budget in the present minute, as its last
        answer told; None where it tells nothing."""
        headers = self._exchange.last_response_headers or {}
        told = {name.upper(): value for name, value in headers.items()}
        weight = told.get("X-MBX-USED-WEIGHT-1M")
        return int(weight) if weight else None

    def lend_instruments(self, exchange: Any) -> None:
        """Let another of ccxt's objects for the venue know its instruments without asking."""
        self.fetch_instruments()
        exchange.set_markets_from_exchange(self._exchange)

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
            with attempt, self._translated(action):
                return call()
        raise AssertionError("unreachable")


def open_venue(
    settings: DeskSettings,
    name: str,
    *,
    trading: bool = False,
    bulk: bool = False,
    told: Told | None = None,
) -> Venue:
    """The venue of that name in desk.toml, with its keys unless they are not to be had. trading,
    bulk, told: see Venue."""
    resolved, keys = resolve_venue(settings, name)
    chosen = settings.venues[name]
    return Venue(
        name, resolved, keys, trading=trading, is_local=chosen.is_local,
        identity=venue_identity(name, chosen), home=settings.home, cache=settings.cache, bulk=bulk,
        told=told,
    )  # fmt: skip


def open_stream(settings: DeskSettings, name: str) -> Any:
    """ccxt.pro's object for the venue of that name in desk.toml, which watches over WebSockets;
    its methods are coroutines, and `await exchange.close()` ends them."""
    resolved, keys = resolve_venue(settings, name)
    identity = venue_identity(name, settings.venues[name])
    return make_stream_exchange(name, resolved, keys, home=settings.home, identity=identity)


def resolve_venue(settings: DeskSettings, name: str) -> tuple[VenueSettings, Keys | None]:
    """What desk.toml says of a venue, with the addresses of services in place of their names, and
    its keys if they are to be had."""
    if name not in settings.venues:
        raise unknown_name("venue", name, settings.venues, "desk.toml")
    chosen = settings.venues[name]
    urls = {which: _resolve(settings, getattr(chosen, which)) for which in ("rest_url", "ws_url")}
    return chosen.model_copy(update=urls), load_keys(chosen.keys, settings.home, name)


def venue_identity(name: str, settings: VenueSettings) -> str:
    """The exchange and where its requests go: 'binance service:paper', 'binance api.binance.com'.

    An address without its path, its query and whatever else may hold a key.
    """
    url = settings.rest_url
    if url and url.startswith(SERVICE_PREFIX):
        return f"{settings.exchange} {url}"
    if url is None:
        exchange = _exchange_class(name, settings)()
        url = exchange.implode_hostname(_first_url(exchange.urls["api"]))
    return f"{settings.exchange} {urlsplit(url).netloc.rpartition('@')[2]}"


def _first_url(urls: Any) -> str:
    """The address of private requests in ccxt's tree of them, or of what it has."""
    while isinstance(urls, dict):
        urls = urls.get("private") or urls.get("rest") or next(iter(urls.values()))
    return str(urls)


def _resolve(settings: DeskSettings, url: str | None) -> str | None:
    if url and url.startswith(SERVICE_PREFIX):
        return service_url(settings, url.removeprefix(SERVICE_PREFIX))
    return url


def _exchange_class(name: str, settings: VenueSettings, source: Any = ccxt) -> Any:
    if settings.exchange not in source.exchanges:
        raise unknown_name("exchange", settings.exchange, source.exchanges, f"venue {name}")
    return getattr(source, settings.exchange)


def make_exchange(
    name: str,
    settings: VenueSettings,
    keys: Keys | None,
    *,
    home: Path | None = None,
    identity: str | None = None,
    bulk: bool = False,
) -> ccxt.Exchange:
    """ccxt's object for a venue, pointed where the settings say; `name` is for messages.

    home: of the desk under whose rate budget it asks, as the exchange of that identity; bulk: see
    Venue.
    """
    exchange = _exchange_class(name, settings)(_exchange_config(settings, keys))
    exchange.fetch = _whole(exchange.fetch)
    if settings.rest_url:
        _redirect(exchange, settings.rest_url, settings.ws_url)
    if home is not None:
        dialect = dialect_of(exchange)
        budget = _open_budget(name, settings, exchange, home, identity, bulk=bulk)
        exchange.fetch2 = budgeted(exchange, dialect, budget)
    return exchange


def _open_budget(
    name: str, settings: VenueSettings, exchange: Any, home: Path, identity: str | None,
    *, bulk: bool = False,
) -> Budget:  # fmt: skip
    file = budget_file(home, identity or venue_identity(name, settings))
    pools, account = dialect_of(exchange).pools, account_name(exchange.apiKey)
    return Budget(file, name, pools, account, settings.patience, bulk=bulk)


def make_stream_exchange(
    name: str,
    settings: VenueSettings,
    keys: Keys | None,
    *,
    home: Path | None = None,
    identity: str | None = None,
) -> Any:
    """ccxt.pro's object for a venue, pointed where the settings say. It watches and sends no
    orders, for which there is `Venue`. home, identity: as for `make_exchange`, since it asks for
    order books and instruments too."""
    pro = import_module("ccxt.pro")  # takes seconds, and few need it
    exchange = _exchange_class(name, settings, pro)(_exchange_config(settings, keys))
    if settings.rest_url:
        _redirect(exchange, settings.rest_url, settings.ws_url)

    async def refuse(*_: Any, **__: Any) -> None:
        raise ReadOnly(f"What watches venue {name} sends no orders; a scheduled run does.")

    for method in filter(_SENDS_ORDERS.match, dir(exchange)):
        setattr(exchange, method, refuse)
    if home is not None:
        budget = _open_budget(name, settings, exchange, home, identity)
        exchange.fetch2 = budgeted_stream(exchange, dialect_of(exchange), budget)
    return exchange


def _exchange_config(settings: VenueSettings, keys: Keys | None) -> dict[str, Any]:
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
            # A market that is played may have a time of its own, which moves in steps.
            "adjustForTimeDifference": settings.rest_url is None,
        },
    }
    if keys:
        config |= {
            "apiKey": keys.key.get_secret_value(),
            "secret": keys.secret.get_secret_value(),
        }
    return config


def _whole(fetch: Callable[..., Any]) -> Callable[..., Any]:
    """ccxt's request, whose answer is never empty: a connection cut within a reply's head leaves
    a good status without a body, which ccxt's parsers take for a venue that has nothing."""

    def fetch_whole(*request: Any, **more: Any) -> Any:
        answer = fetch(*request, **more)
        if not isinstance(answer, dict | list):
            raise ccxt.BadResponse("the answer was cut off, or is no JSON")
        return answer

    return fetch_whole


def _redirect(exchange: ccxt.Exchange, rest_url: str, ws_url: str | None) -> None:
    """Point every section of the exchange's API at one base, so that nothing else is reached."""
    base = rest_url.rstrip("/")
    scheme, _, place = (ws_url or base).rstrip("/").partition("://")
    socket = f"{_SOCKET_SCHEMES.get(scheme, scheme)}://{place}"
    exchange.urls["api"] = _moved(exchange.urls["api"], base, socket)
    dialect_of(exchange).mend_addresses()
    tables = exchange.exceptions
    if "spot" in tables:
        # ccxt picks Binance's table of spot errors by the URL's prefix, which is another now.
        tables["exact"] = {**tables["exact"], **tables["spot"]["exact"]}


_SOCKET_SCHEMES = {"http": "ws", "https": "wss"}


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
        maker_fee=_maybe(market.get("maker")),
        taker_fee=_maybe(market.get("taker")),
    )


def parse_candles(rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """ccxt's rows of candles as a candle frame."""
    frame = pd.DataFrame(
        [[float(value) for value in row[1:6]] for row in rows],
        columns=_CANDLE_COLUMNS,
        index=pd.to_datetime([int(row[0]) for row in rows], unit="ms", utc=True).as_unit("ms"),
        dtype="float64",
    )
    return frame.rename_axis("open_time")


def parse_quote(symbol: str, ticker: Row | None) -> Quote | None:
    """ccxt's ticker as best bid and ask; None without both."""
    bid, ask = (_maybe((ticker or {}).get(side)) for side in ("bid", "ask"))
    return Quote(symbol, bid, ask) if bid and ask else None


def _entry_of(quote: Quote) -> Entry:
    """A quote that was told, as one that would have been asked for then."""
    at = quote.got_at.timestamp() if quote.got_at else 0.0
    return Entry(None, at, to_ms(quote.venue_time) if quote.venue_time else None, at)


def _shared_quote(symbol: str, told: Entry) -> Quote | None:
    if told.value is None:
        return None
    bid, ask = map(Decimal, told.value)
    at = from_ms(told.venue_ms) if told.venue_ms is not None else None
    return Quote(symbol, bid, ask, at, datetime.fromtimestamp(told.got_at, UTC))


def parse_order(row: Row, dialect: Dialect) -> VenueOrder:
    """ccxt's row of an order, tidied by the dialect."""
    if not row.get("id"):
        raise ccxt.BadResponse("an order came without an id")
    filled, created = _maybe(row.get("filled")), dialect.created_ms(row)
    kind = str(dialect.order_type(row))
    return VenueOrder(
        venue_order_id=str(row["id"]),
        client_id=dialect.client_id(row),
        symbol=row.get("symbol") or "",
        side=row.get("side") or "",
        type=kind,
        status=_status(dialect.status(row), filled),
        amount=_maybe(row.get("amount")),
        filled=filled,
        cost=_maybe(row.get("cost")),
        # ccxt writes the average price where an order has no limit.
        limit_price=None if kind in _UNPRICED else _maybe(row.get("price")) or None,
        stop_price=_stop_price(row),
        list_id=dialect.list_id(row),
        at=from_ms(created) if created else None,
        trades=tuple(parse_trades(dialect.told_trades(row))),
    )


def _completed(answer: VenueOrder, request: OrderRequest) -> VenueOrder:
    """The answer to a new order, with what was asked for where the venue repeats nothing; one
    that tells no status tells no exact type either."""
    is_bare = answer.status is VenueStatus.UNKNOWN
    return replace(
        answer,
        type=request.type.value if is_bare else answer.type,
        client_id=answer.client_id or request.client_id,
        symbol=answer.symbol or request.symbol,
        side=answer.side or request.side,
        amount=answer.amount if answer.amount is not None else request.amount,
        limit_price=answer.limit_price or request.limit_price,
        stop_price=answer.stop_price or request.stop_price,
    )


def _status(said: VenueStatus, filled: Decimal | None) -> VenueStatus:
    return VenueStatus.PARTIALLY_FILLED if said is VenueStatus.OPEN and filled else said


def _stop_price(row: Row) -> Decimal | None:
    told = (row.get(name) for name in ("stopLossPrice", "takeProfitPrice", "triggerPrice"))
    return next((price for price in map(_maybe, told) if price), None)


def gather(pages: Iterator[list[Row]], known: str | None) -> list[Row]:
    """Rows of pages that go back in time, each once, oldest first.

    Rows that come meanwhile push others to the next page: those are told twice, and the later
    word holds.
    """
    found: dict[str, Row] = {}
    for page in pages:
        found |= {row["id"]: row for row in page}
        if known in found and any(row["timestamp"] < found[known]["timestamp"] for row in page):
            break
    # Turned round first, so that those of one millisecond are in the venue's order too.
    rows = sorted(reversed(found.values()), key=lambda row: row["timestamp"] or 0)
    since = found[known]["timestamp"] if known in found else 0
    return [row for row in rows if (row["timestamp"] or 0) >= since]


def parse_trades(trades: Sequence[Row]) -> list[VenueTrade]:
    """ccxt's rows of executions, oldest first; of a millisecond, ids that are numbers count up."""
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
