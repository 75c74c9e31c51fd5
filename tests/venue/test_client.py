"""The venue client speaks in Decimals and in the desk's own errors, and never shows a key."""

import asyncio
import os
import socket
import threading
from decimal import Decimal
from urllib.parse import urlsplit

import ccxt
import pytest

from tests.desks import PaperDesk, paper_desk
from tradelib.errors import (
    AuthenticationFailed,
    InsufficientFunds,
    InvalidInput,
    OrderRejected,
    OrderUnknown,
    RateLimited,
    ReadOnly,
    UnresolvedError,
    VenueUnavailable,
)
from tradelib.paper.config import RateLimits
from tradelib.settings import VenueSettings, load_settings
from tradelib.venue import (
    OrderRequest,
    OrderType,
    VenueStatus,
    load_keys,
    open_stream,
    open_venue,
    save_keys,
)
from tradelib.venue.client import Venue, make_exchange, make_stream_exchange
from tradelib.venue.translate import redact, translated


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        yield desk


@pytest.fixture
def silent_port():
    """A server that takes connections and answers nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        kept = []

        def accept():
            try:
                while True:
                    kept.append(listener.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in kept:
            connection.close()


def buy(venue: Venue, amount: Decimal, client_id: str):
    return venue.submit_order(OrderRequest("BTC/USDT", "buy", OrderType.MARKET, amount, client_id))


def test_instruments_carry_the_venues_rules_as_decimals(desk: PaperDesk):
    btc = desk.venue().fetch_instrument("BTC/USDT")
    assert (btc.tick, btc.lot, btc.min_notional) == (
        Decimal("0.01"),
        Decimal("0.00001"),
        Decimal("5"),
    )
    assert btc.round_amount(Decimal("0.123456789")) == Decimal("0.12345")
    assert btc.round_price(Decimal("100.006")) == Decimal("100.01")


def test_an_unknown_symbol_suggests_the_nearest(desk: PaperDesk):
    with pytest.raises(InvalidInput, match="did you mean 'BTC/USDT'"):
        desk.venue().fetch_instrument("BTC/USTD")


def test_an_unknown_venue_suggests_the_nearest(desk: PaperDesk):
    with pytest.raises(InvalidInput, match="did you mean 'paper'"):
        open_venue(desk.settings, "papr")


def test_the_last_candle_answered_is_the_forming_one(desk: PaperDesk):
    venue = desk.venue()
    now = venue.fetch_time()
    candles = venue.fetch_ohlcv("BTC/USDT", "1m", now.replace(year=now.year - 1), 3)
    assert list(candles.columns) == ["open", "high", "low", "close", "volume"]
    assert str(candles.index.dtype) == "datetime64[ms, UTC]"
    recent = venue.fetch_ohlcv("BTC/USDT", "1m", now, 3)
    assert recent.index[-1].to_pydatetime() == now


def test_an_order_can_be_found_again_by_its_client_id(desk: PaperDesk):
    venue = desk.venue()
    sent = buy(venue, Decimal("0.01"), "nd-test-1")
    found = venue.fetch_order("BTC/USDT", "nd-test-1")
    assert found.venue_order_id == sent.venue_order_id
    assert (found.status, found.filled) == (VenueStatus.FILLED, Decimal("0.01"))
    with pytest.raises(OrderUnknown):
        venue.fetch_order("BTC/USDT", "nd-test-2")


def test_trades_are_walked_by_id_and_none_is_lost_at_a_page_edge(desk: PaperDesk):
    venue = desk.venue()
    venue.trade_page = 3
    for number in range(7):
        buy(venue, Decimal("0.001"), f"nd-walk-{number}")
    ids = [trade.trade_id for trade in venue.fetch_trades_since("BTC/USDT", None)]
    assert len(ids) == len(set(ids)) >= 7
    assert [t.trade_id for t in venue.fetch_trades_since("BTC/USDT", ids[2])] == ids[3:]


def test_no_address_of_an_exchange_is_left_where_it_was():
    def leaves(tree):
        if isinstance(tree, dict):
            return [leaf for branch in tree.values() for leaf in leaves(branch)]
        return [tree]

    base = "http://127.0.0.1:9"
    for name in ("binance", "coinbase", "kraken", "gate", "mexc", "whitebit", "okx", "bybit"):
        exchange = make_exchange(name, VenueSettings(exchange=name, rest_url=base), None)
        assert {leaf[: len(base)] for leaf in leaves(exchange.urls["api"])} == {base}
        streams = make_stream_exchange(name, VenueSettings(exchange=name, rest_url=base), None)
        places = {urlsplit(leaf).netloc for leaf in leaves(streams.urls["api"])}
        assert places == {"127.0.0.1:9"}


def test_a_venue_is_watched_over_websockets_where_its_settings_point(desk: PaperDesk):
    async def watch():
        exchange = open_stream(desk.settings, "paper")
        try:
            for send in (exchange.create_order, exchange.createOrderWs, exchange.cancel_order):
                with pytest.raises(ReadOnly):
                    await send("BTC/USDT", "market", "buy", 0.01)
            return await exchange.watch_bids_asks(["BTC/USDT"])
        finally:
            await exchange.close()

    [watched] = asyncio.run(watch()).values()
    quote = desk.venue().fetch_quotes(["BTC/USDT"])["BTC/USDT"]
    assert (Decimal(watched["bid"]), Decimal(watched["ask"])) == (quote.bid, quote.ask)


def test_refusals_of_the_venue_are_definite(desk: PaperDesk):
    venue = desk.venue()
    with pytest.raises(InsufficientFunds):
        buy(venue, Decimal("5"), "nd-a")
    with pytest.raises(OrderRejected):
        buy(venue, Decimal("0.00001"), "nd-b")


def test_only_a_trading_client_sends_orders(desk: PaperDesk):
    with pytest.raises(ReadOnly):
        buy(desk.venue(trading=False), Decimal("0.01"), "nd-c")


def test_a_read_only_environment_beats_a_trading_client(desk: PaperDesk, monkeypatch):
    monkeypatch.setenv("DESK_READ_ONLY", "1")
    with pytest.raises(ReadOnly):
        buy(desk.venue(trading=True), Decimal("0.01"), "nd-d")


def test_a_wrong_key_is_named_and_not_shown(desk: PaperDesk):
    save_keys(desk.settings.home / "keys" / "paper.toml", "wrongkey12345", "wrongsecret12345")
    with pytest.raises(AuthenticationFailed, match="check the venue's keys") as caught:
        desk.venue().fetch_balances()
    assert "wrong" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_too_many_requests_are_told_as_such(home):
    with paper_desk(home, limits=RateLimits(weight=50, ban_after=2)) as desk:
        venue = desk.venue()
        for _ in range(50):
            venue.fetch_time()
        with pytest.raises(RateLimited, match="fewer requests"):
            venue.fetch_time()


def test_a_venue_that_answers_nothing_is_one_clear_sentence(home, silent_port):
    settings = VenueSettings(rest_url=f"http://127.0.0.1:{silent_port}", timeout=0.2)
    venue = Venue("dead", settings, None, trading=True)
    with pytest.raises(VenueUnavailable, match="Venue dead could not list its instruments"):
        venue.fetch_instruments()


def test_a_send_without_an_answer_is_unresolved(desk: PaperDesk, silent_port):
    venue = desk.venue()
    venue.fetch_instruments()
    venue._exchange.urls["api"]["private"] = f"http://127.0.0.1:{silent_port}/api/v3"
    venue._exchange.timeout = 200
    with pytest.raises(UnresolvedError, match="whether it took effect is not known"):
        buy(venue, Decimal("0.01"), "nd-e")


@pytest.mark.parametrize(
    ("raised", "when_sending"),
    [
        (ccxt.RequestTimeout, UnresolvedError),
        (ccxt.ExchangeNotAvailable, UnresolvedError),
        (ccxt.NetworkError, UnresolvedError),
        (ccxt.ExchangeError, UnresolvedError),
        (ccxt.InsufficientFunds, InsufficientFunds),
        (ccxt.InvalidOrder, OrderRejected),
        (ccxt.OrderNotFound, OrderUnknown),
        (ccxt.DDoSProtection, RateLimited),
        (ccxt.RateLimitExceeded, RateLimited),
        (ccxt.InvalidNonce, OrderRejected),
        (ccxt.AuthenticationError, AuthenticationFailed),
    ],
)
def test_only_a_definite_answer_to_a_send_is_not_unresolved(raised, when_sending):
    with pytest.raises(when_sending), translated("v", "send", sends=True):
        raise raised("said")


def test_signed_urls_are_redacted():
    text = (
        "binance GET https://x.test/api/v3/order?symbol=BTC&signature=abc123 {'apiKey': 'k3y'} "
        "X-MBX-APIKEY: topsecret"
    )
    shown = redact(text)
    for hidden in ("abc123", "k3y", "topsecret", "symbol=BTC"):
        assert hidden not in shown


def test_a_clients_repr_shows_no_key(desk: PaperDesk):
    keys = load_keys("keys/paper.toml", desk.settings.home, "paper")
    shown = f"{desk.venue()!r} {keys!r} {desk.settings!r}"
    assert keys.key.get_secret_value() not in shown
    assert keys.secret.get_secret_value() not in shown


def test_a_key_file_that_others_can_read_is_refused(home):
    save_keys(home / "k.toml", "a", "b")
    os.chmod(home / "k.toml", 0o644)
    with pytest.raises(AuthenticationFailed, match="chmod 600"):
        load_keys("k.toml", home, "v")


def test_keys_missing_from_the_environment_are_named(home):
    with pytest.raises(AuthenticationFailed, match="LIVE_KEY and LIVE_SECRET"):
        load_keys("env:LIVE", home, "v")


def test_a_key_file_that_is_rubbish_is_not_quoted(home):
    path = home / "k.toml"
    path.write_text("hunter2 = = =")
    path.chmod(0o600)
    with pytest.raises(AuthenticationFailed) as caught:
        load_keys("k.toml", home, "v")
    assert "hunter2" not in str(caught.value)


def test_a_misspelt_setting_is_named(home):
    (home / "desk.toml").write_text("[limits]\nmax_position_shre = 0.2\n")
    with pytest.raises(InvalidInput, match=r"limits.max_position_shre"):
        load_settings(home)
