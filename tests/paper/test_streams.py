"""An unmodified ccxt.pro watches the paper exchange, and sees what REST tells."""

from __future__ import annotations

import asyncio
from typing import Any

import ccxt
import ccxt.pro
import pytest

from tests.paper.conftest import BOB, Start, trader
from tests.paper.streams import PAIR, begin, run, watch_until, watcher
from tradelib.paper import PaperHandle

HOUR = {"candles": 1, "timeframe": "1h"}


def same(watched: dict[str, Any], fetched: dict[str, Any], *names: str) -> bool:
    return {name: watched[name] for name in names} == {name: fetched[name] for name in names}


# The market.


@pytest.mark.parametrize("name", ["miniTicker", "ticker"])
def test_a_watched_ticker_is_the_fetched_one(
    paper: PaperHandle, ann: ccxt.binance, name: str
) -> None:
    async def watch() -> None:
        async with watcher(paper) as exchange:
            known = ["last", "open", "high", "low", "baseVolume", "quoteVolume", "symbol"]
            if name == "ticker":
                known += ["bid", "ask", "bidVolume", "askVolume", "change", "percentage", "vwap"]
            for _ in range(3):
                seen = await exchange.watch_ticker(PAIR, {"name": name})
                assert same(seen, ann.fetch_ticker(PAIR), *known)
                paper.control("step", **HOUR)

    run(watch())


@pytest.mark.parametrize("symbols", [None, [PAIR, "ETH/USDT"]])
def test_many_tickers_are_watched_at_once(
    paper: PaperHandle, ann: ccxt.binance, symbols: list[str] | None
) -> None:
    async def watch() -> None:
        async with watcher(paper) as exchange:
            seen: dict[str, Any] = {}
            while len(seen) < len(symbols or ann.symbols):
                seen |= await exchange.watch_tickers(symbols)
            fetched = ann.fetch_tickers()
            assert all(same(seen[each], fetched[each], "last", "baseVolume") for each in seen)

    run(watch())


def test_best_bid_and_ask_are_told_as_they_move(paper: PaperHandle, ann: ccxt.binance) -> None:
    async def watch() -> None:
        async with watcher(paper) as exchange:
            bids = set()
            for _ in range(4):
                seen = (await exchange.watch_bids_asks([PAIR]))[PAIR]
                fetched = ann.fetch_bids_asks([PAIR])[PAIR]
                assert same(seen, fetched, "bid", "ask", "bidVolume", "askVolume")
                bids.add(seen["bid"])
                paper.control("step", **HOUR)
            assert len(bids) > 1

    run(watch())


def test_every_public_trade_is_told_once(paper: PaperHandle, ann: ccxt.binance) -> None:
    async def watch() -> list[dict[str, Any]]:
        async with watcher(paper, newUpdates=False) as exchange:
            seen = await begin(paper, "btcusdt@trade", exchange.watch_trades(PAIR))
            paper.control("step", candles=100)
            await seen
            while len(exchange.trades[PAIR]) < 400:
                await exchange.watch_trades(PAIR)
            return list(exchange.trades[PAIR])

    seen = run(watch())
    fetched = ann.fetch_trades(PAIR, limit=400)
    assert [each["id"] for each in seen] == [each["id"] for each in fetched]
    assert all(
        same(one, other, "price", "amount", "side", "timestamp")
        for one, other in zip(seen, fetched, strict=True)
    )


def test_candles_are_told_as_they_form_and_as_they_close(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    async def watch() -> list[list[float]]:
        async with watcher(paper, newUpdates=False) as exchange:
            [forming] = await exchange.watch_ohlcv(PAIR, "1h")
            assert forming == ann.fetch_ohlcv(PAIR, "1h", limit=1)[0]
            paper.control("step", candles=90)
            paper.control("step", candles=3, timeframe="1h")
            return await watch_until(
                lambda: exchange.watch_ohlcv(PAIR, "1h"), lambda seen: len(seen) == 5
            )

    assert run(watch()) == ann.fetch_ohlcv(PAIR, "1h", limit=5)


def test_the_watched_book_is_the_fetched_one_whatever_happens(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    """Steps, resting orders, fills and cancels each change it; each update follows the last."""
    resting: list[str] = []

    def rest() -> None:
        resting.append(ann.create_order(PAIR, "limit", "buy", 0.01, 90_000)["id"])

    deeds = [
        rest,
        lambda: ann.create_order(PAIR, "market", "sell", 0.9),
        lambda: ann.create_order(PAIR, "market", "buy", 0.2),
        lambda: paper.control("step", **HOUR),
        rest,
        lambda: ann.cancel_order(resting[0], PAIR),
        lambda: paper.control("step", candles=3),
        lambda: ann.cancel_all_orders(PAIR),
    ]

    async def watch() -> None:
        async with watcher(paper) as exchange:
            book = await exchange.watch_order_book(PAIR)
            for do in deeds:
                do()
                fetched = ann.fetch_order_book(PAIR, 1000)
                assert fetched["nonce"] > book["nonce"]
                book = await watch_until(
                    lambda: exchange.watch_order_book(PAIR),
                    lambda seen, until=fetched["nonce"]: seen["nonce"] >= until,
                )
                assert same(book, fetched, "nonce", "bids", "asks")

    run(watch())


def test_streams_tell_of_the_present(start: Start) -> None:
    """A market that runs with the wall's clock: each second brings a ticker, though nobody asks."""
    paper = start(speed=1)

    async def watch() -> None:
        async with watcher(paper) as exchange:
            first, *_, last = [await exchange.watch_ticker(PAIR) for _ in range(3)]
            assert first["timestamp"] + 1000 <= last["timestamp"] <= paper.exchange.now
            waiting = await begin(paper, "account ann", exchange.watch_orders(PAIR))
            sent = await exchange.create_order(PAIR, "market", "buy", 0.01)
            assert (await waiting)[-1]["id"] == sent["id"]

    run(watch())


def test_streams_tell_of_a_market_that_runs_fast(start: Start) -> None:
    """Ten hours a second: what is told has no gap and ends where the market is."""
    paper = start(speed=36_000)

    async def watch() -> None:
        async with watcher(paper, newUpdates=False) as exchange:
            candles = await watch_until(
                lambda: exchange.watch_ohlcv(PAIR, "1h"), lambda seen: len(seen) > 8
            )
            times = [each[0] for each in candles]
            assert times == list(range(times[0], times[-1] + 1, 3_600_000))
            closed = await exchange.fetch_ohlcv(PAIR, "1h", times[0], len(times) - 1)
            assert [list(each) for each in candles[:-1]] == closed
            await begin(paper, "btcusdt@trade", exchange.watch_trades(PAIR))
            trades = await watch_until(
                lambda: exchange.watch_trades(PAIR), lambda seen: len(seen) > 100
            )
            ids = [int(each["id"]) for each in trades]
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            book = await exchange.watch_order_book(PAIR)
            for _ in range(5):
                before, book = book["nonce"], await exchange.watch_order_book(PAIR)
                assert book["nonce"] > before
                assert book["bids"][0][0] < book["asks"][0][0]

    run(watch())


# The account.


def test_an_order_is_watched_from_its_beginning_to_its_end(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    def place(name: str, **params: Any) -> dict[str, Any]:
        params["clientOrderId"] = name
        return ann.create_order(PAIR, "limit", "buy", 0.5, 100_000, params)

    def refuse() -> None:
        with pytest.raises(ccxt.InsufficientFunds):
            ann.create_order(PAIR, "limit", "buy", 50, 100_000, {"clientOrderId": "too-large"})

    steps = [
        (lambda: place("rests"), ("rests", "open")),
        (lambda: ann.cancel_all_orders(PAIR), ("rests", "canceled")),
        (lambda: place("expires", timeInForce="IOC"), ("expires", "expired")),
        (refuse, ("too-large", "rejected")),
    ]

    async def watch() -> None:
        async with watcher(paper, newUpdates=False) as exchange:
            for do, expected in steps:
                waiting = await begin(paper, "account ann", exchange.watch_orders(PAIR))
                do()
                seen = await waiting
                while (seen[-1]["clientOrderId"], seen[-1]["status"]) != expected:
                    seen = await exchange.watch_orders(PAIR)

    run(watch())


def test_an_order_that_the_market_meets_is_watched_fill_by_fill(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    async def watch() -> None:
        async with watcher(paper, newUpdates=False) as exchange:
            waiting = await begin(paper, "account ann", exchange.watch_orders(PAIR))
            price = round(ann.fetch_ticker(PAIR)["last"] * 0.995, 2)
            sent = ann.create_order(PAIR, "limit", "buy", 0.9, price)
            [watched] = await waiting
            while watched["status"] == "open":
                paper.control("step", candles=1)
                fetched = ann.fetch_order(sent["id"], PAIR)
                if fetched["filled"] > watched["filled"]:
                    [watched] = await watch_until(
                        lambda: exchange.watch_orders(PAIR),
                        lambda seen, until=fetched["filled"]: seen[0]["filled"] == until,
                    )
            assert same(watched, fetched, "status", "filled", "cost", "average", "amount", "price")
            assert watched["status"] == "closed"

    run(watch())


def test_watched_trades_and_balances_are_the_fetched_ones(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    async def watch() -> None:
        async with watcher(paper, newUpdates=False) as exchange:
            trades = await begin(paper, "account ann", exchange.watch_my_trades(PAIR))
            balance = asyncio.ensure_future(exchange.watch_balance())
            await asyncio.sleep(0)
            ann.create_order(PAIR, "market", "sell", 1.9)  # several levels, several trades
            ann.create_order(PAIR, "market", "buy", 0.1)
            await trades
            fetched = ann.fetch_my_trades(PAIR)
            assert len(fetched) > 2
            seen = list(exchange.myTrades)
            if len(seen) < len(fetched):
                seen = await watch_until(
                    lambda: exchange.watch_my_trades(PAIR),
                    lambda found: len(found) == len(fetched),
                )
            names = "id", "order", "price", "amount", "side", "fee", "takerOrMaker", "timestamp"
            assert all(same(*pair, *names) for pair in zip(seen, fetched, strict=True))
            await balance
            held = ann.fetch_balance()
            while not same(exchange.balance["spot"], held, "BTC", "USDT"):
                await exchange.watch_balance()

    run(watch())


def test_a_deposit_and_a_withdrawal_are_watched(paper: PaperHandle, ann: ccxt.binance) -> None:
    async def watch() -> None:
        async with watcher(paper) as exchange:
            waiting = await begin(paper, "account ann", exchange.watch_balance())
            paper.control("transfer", account="ann", asset="USDT", amount="50.5")
            await waiting
            balance = await watch_until(
                exchange.watch_balance, lambda seen: "total" in seen["USDT"]
            )
            assert balance["USDT"]["total"] == ann.fetch_balance()["USDT"]["total"] == 100_050.5

    run(watch())


def test_an_account_hears_of_itself_alone(paper: PaperHandle, ann: ccxt.binance) -> None:
    bob = trader(paper, BOB)

    async def watch() -> list[Any]:
        async with watcher(paper) as exchange:
            waiting = await begin(paper, "account ann", exchange.watch_orders(PAIR))
            bob.create_order(PAIR, "market", "buy", 0.2)
            ann.create_order(PAIR, "market", "buy", 0.1)
            return await waiting

    [seen] = run(watch())
    assert seen["amount"] == 0.1
