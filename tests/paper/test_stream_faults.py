"""What goes wrong on a real exchange's streams goes wrong here too, and a client sees it."""

from __future__ import annotations

from typing import Any

import ccxt
import pytest

from tests.paper.conftest import BOB, Start
from tests.paper.streams import PAIR, begin, listening, run, signed_in, watch_until, watcher
from tests.paper.test_stream_dialect import closing
from tradelib.errors import InvalidInput
from tradelib.paper import PaperHandle, read_plan
from tradelib.paper.faults import EXCHANGE, MESSAGES, Dice, Seen

REPORT = "STREAM executionReport"


def play(paper: PaperHandle, kind: str, on: str, **more: Any) -> None:
    paper.control("faults", script=[{"kind": kind, "on": on, **more}])


def played(paper: PaperHandle) -> list[tuple[str, str]]:
    return [(each["kind"], each["route"]) for each in paper.control("faults")["log"]]


def buy(exchange: ccxt.binance, name: str = "one") -> dict[str, Any]:
    return exchange.create_order(PAIR, "market", "buy", 0.01, None, {"clientOrderId": name})


def told(paper: PaperHandle, ann: ccxt.binance, kind: str, count: int, **options: Any) -> list[str]:
    """The reports of three orders, NEW and TRADE each, of which the second meets a fault."""
    play(paper, kind, REPORT, nth=2, **options)
    with signed_in(paper) as listener:
        for name in ("a", "b", "c"):
            buy(ann, name)
        seen: list[str] = []
        while len(seen) < count:
            event = listener.event()
            if event["e"] == "executionReport":
                seen.append(f"{event['c']} {event['x']}")
    assert played(paper) == [(kind, REPORT)]
    return seen


# What comes over the wire.


def test_a_dropped_message_never_comes(paper: PaperHandle, ann: ccxt.binance) -> None:
    seen = told(paper, ann, "stream_drop", 5)
    assert seen == ["a NEW", "b NEW", "b TRADE", "c NEW", "c TRADE"]


def test_a_doubled_message_comes_twice(paper: PaperHandle, ann: ccxt.binance) -> None:
    seen = told(paper, ann, "stream_double", 7)
    assert seen == ["a NEW", "a TRADE", "a TRADE", "b NEW", "b TRADE", "c NEW", "c TRADE"]


def test_a_stale_message_comes_again_after_newer_ones(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    # Between the reports of an order and those of the next stand the balances.
    seen = told(paper, ann, "stream_stale", 7, stale_messages=3)
    assert seen == ["a NEW", "a TRADE", "b NEW", "b TRADE", "a TRADE", "c NEW", "c TRADE"]


def test_a_disordered_message_comes_after_the_next(paper: PaperHandle, ann: ccxt.binance) -> None:
    play(paper, "stream_disorder", REPORT)
    with signed_in(paper) as listener:
        buy(ann)
        assert [listener.event().get("x") for _ in range(3)] == ["TRADE", "NEW", None]


def test_a_disordered_message_that_nothing_follows_comes_late(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    play(paper, "stream_disorder", "STREAM outboundAccountPosition", disorder_ms=50)
    with signed_in(paper) as listener:
        buy(ann)
        assert [listener.event()["e"] for _ in range(3)][-1] == "outboundAccountPosition"


def test_a_delay_holds_all_that_follows_and_loses_nothing(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    play(paper, "stream_delay", REPORT, nth=2, delay_ms=300)
    with signed_in(paper) as listener:
        buy(ann, "a")
        buy(ann, "b")
        assert listener.event()["x"] == "NEW"
        with pytest.raises(TimeoutError):
            listener.socket.recv(timeout=0)
        rest = [listener.event() for _ in range(5)]
        assert [each.get("c") for each in rest] == ["a", None, "b", "b", None]
        assert played(paper) == [("stream_delay", REPORT)]


def test_a_disconnect_comes_without_a_word_after_what_was_sent(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    play(paper, "stream_disconnect", REPORT, nth=2)
    with signed_in(paper) as listener:
        buy(ann)
        assert listener.event()["x"] == "NEW"
        assert closing(listener) == (1006, "")
    with signed_in(paper) as listener:
        buy(ann, "two")
        assert listener.event()["c"] == "two"


def test_a_terminated_stream_says_so_and_its_connection_stays(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    play(paper, "stream_terminate", REPORT, nth=2)
    with signed_in(paper) as listener:
        buy(ann)
        assert listener.event()["x"] == "NEW"
        assert listener.get()["event"] == {
            "e": "eventStreamTerminated", "E": paper.exchange.now,
        }  # fmt: skip
        buy(ann, "unheard")
        assert listener.ask("ping")["result"] == {}
        assert listener.sign_in()["result"] == {"subscriptionId": 1}
        buy(ann, "heard")
        assert listener.event()["c"] == "heard"


def test_in_silence_the_connection_lives_and_nothing_comes(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    play(paper, "stream_silence", REPORT, silence_messages=4)
    with signed_in(paper) as listener:
        buy(ann, "a")
        buy(ann, "b")
        assert listener.socket.ping().wait(10)
        assert (listener.event()["x"], played(paper)) == ("TRADE", [("stream_silence", REPORT)])


def test_silence_is_over_in_time_or_with_its_plan(start: Start) -> None:
    now = [1_800_000_000_000]
    paper = start(wall=lambda: now[0])
    with listening(paper, "/ws/btcusdt@trade") as listener:
        last = []
        for silence, ending in ((5000, "time"), (5000, "plan")):
            play(paper, "stream_silence", "STREAM trade", silence_ms=silence)
            paper.control("step", candles=10)
            if ending == "time":
                now[0] += silence
            else:
                paper.control("faults", rates={})
            paper.control("step", candles=1)
            last.append([listener.get()["T"] for _ in range(4)][-1])
        assert last[1] - last[0] == 11 * 60_000


def test_a_refused_subscription_begins_nothing(paper: PaperHandle) -> None:
    play(paper, "stream_refuse", "STREAM SUBSCRIBE", symbol=PAIR)
    with listening(paper) as listener:
        listener.subscribe("ethusdt@trade")
        error = listener.ask("SUBSCRIBE", ["btcusdt@trade"])["error"]
        assert error == {"code": 2, "msg": "Invalid request: invalid stream"}
        assert paper.control("status")["streams"] == {"ethusdt@trade": 1}
        listener.subscribe("btcusdt@trade")
    play(paper, "stream_refuse", "STREAM userDataStream.subscribe.signature", account="ann")
    with listening(paper, "/ws-api/v3") as listener:
        assert listener.sign_in(BOB)["status"] == 200
        assert listener.sign_in()["status"] == 500
        assert listener.sign_in()["status"] == 200


def test_the_faults_of_one_listener_are_not_the_others(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    play(paper, "stream_drop", REPORT)
    with signed_in(paper) as first, signed_in(paper) as second:
        buy(ann)
        assert [first.event().get("x") for _ in range(2)] == ["TRADE", None]
        assert [second.event().get("x") for _ in range(3)] == ["NEW", "TRADE", None]


# What an unmodified ccxt.pro makes of it.


def test_ccxt_notices_a_gap_in_the_book_and_recovers(paper: PaperHandle, ann: ccxt.binance) -> None:
    async def watch() -> None:
        async with watcher(paper) as exchange:
            await exchange.watch_order_book(PAIR)
            play(paper, "stream_drop", "STREAM depth")
            paper.control("step", candles=1)
            paper.control("step", candles=1)
            with pytest.raises(ccxt.ChecksumError):
                await watch_until(lambda: exchange.watch_order_book(PAIR), lambda seen: False)
            book = await exchange.watch_order_book(PAIR)
            assert book["bids"] == ann.fetch_order_book(PAIR, 1000)["bids"]

    run(watch())


def test_ccxt_counts_a_doubled_fill_twice_in_its_order_and_once_in_its_trades(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    async def watch() -> None:
        async with watcher(paper, newUpdates=False) as exchange:
            play(paper, "stream_double", REPORT, nth=2)
            waiting = await begin(paper, "account ann", exchange.watch_balance())
            buy(ann)
            await waiting
            [order] = exchange.orders
            assert len(exchange.myTrades) == 1
            assert len(order["trades"]) == 2
            assert order["filled"] == 0.01

    run(watch())


def test_ccxt_takes_an_old_state_of_an_order_for_the_newest(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    async def watch() -> None:
        async with watcher(paper, newUpdates=False) as exchange:
            play(paper, "stream_disorder", REPORT)
            waiting = await begin(paper, "account ann", exchange.watch_balance())
            buy(ann)
            await waiting
            [order] = exchange.orders
            assert (order["status"], ann.fetch_order(order["id"], PAIR)["status"]) == (
                "open", "closed",
            )  # fmt: skip

    run(watch())


@pytest.mark.parametrize("on", ["STREAM kline", REPORT])
def test_ccxt_is_told_of_a_disconnect_and_watches_anew(
    paper: PaperHandle, ann: ccxt.binance, on: str
) -> None:
    async def watch() -> None:
        async with watcher(paper) as exchange:
            play(paper, "stream_disconnect", on)
            if on == REPORT:
                waiting = await begin(paper, "account ann", exchange.watch_orders())
                buy(ann)
                with pytest.raises(ccxt.NetworkError):
                    await waiting
                waiting = await begin(paper, "account ann", exchange.watch_orders())
                buy(ann, "two")
                assert (await waiting)[-1]["clientOrderId"] == "two"
            else:
                with pytest.raises(ccxt.NetworkError):
                    await exchange.watch_ohlcv(PAIR)
                assert len(await exchange.watch_ohlcv(PAIR)) == 1

    run(watch())


def test_ccxt_hears_no_more_of_a_terminated_stream_until_it_signs_in_again(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    async def watch() -> None:
        async with watcher(paper) as exchange:
            play(paper, "stream_terminate", REPORT)
            waiting = await begin(paper, "account ann", exchange.watch_orders())
            buy(ann)
            await watch_until(exchange.fetch_time, lambda _: "account ann" not in streams(paper))
            assert not waiting.done()
            again = await begin(paper, "account ann", exchange.watch_orders())
            buy(ann, "two")
            assert (await again)[-1]["clientOrderId"] == "two"

    run(watch())


def streams(paper: PaperHandle) -> dict[str, int]:
    return paper.control("status")["streams"]


def test_ccxt_tells_of_a_refused_subscription(paper: PaperHandle) -> None:
    async def watch() -> None:
        async with watcher(paper) as exchange:
            play(paper, "stream_refuse", "STREAM SUBSCRIBE")
            with pytest.raises(ccxt.ExchangeError, match="invalid stream"):
                await exchange.watch_trades(PAIR)
            play(paper, "stream_refuse", "STREAM userDataStream.subscribe.signature")
            with pytest.raises((ccxt.ExchangeError, KeyError)):  # ccxt stumbles over its own words
                await exchange.watch_orders()

    run(watch())


# Plans.


def test_seeded_faults_of_streams_come_again(start: Start) -> None:
    def record(paper: PaperHandle) -> list[tuple[Any, Any]]:
        kinds = "drop", "double", "stale", "disorder"
        paper.control("faults", seed=5, rates={f"stream_{kind}": 0.05 for kind in kinds})
        with listening(paper, "/stream?streams=btcusdt@trade/ethusdt@trade") as listener:
            paper.control("step", candles=100)
            listener.tell({"method": "LIST_SUBSCRIPTIONS"})
            seen = []
            while "stream" in (message := listener.get()):
                seen.append((message["stream"], message["data"]["t"]))
        assert set(paper.control("faults")["played"]) == {f"stream_{kind}" for kind in kinds}
        return seen

    one, other = (record(start(is_kept=False)) for _ in range(2))
    assert one == other
    assert len(set(one)) < len(one)


def test_other_faults_leave_streams_alone() -> None:
    requests = {kind: 1.0 for kind, each in EXCHANGE.kinds.items() if not each.is_stream}
    dice = Dice(read_plan({"rates": requests}))
    assert not any(dice.throw(Seen(route, "BTCUSDT", "ann")) for route in MESSAGES)


@pytest.mark.parametrize(
    ("kind", "on", "words"),
    [
        ("stream_drop", "STREAM executionReports", "did you mean 'STREAM executionReport'"),
        ("stream_drop", "POST order", "Unknown stream 'POST order'"),
        ("stream_terminate", "STREAM trade", "Unknown stream 'STREAM trade'"),
        ("accept_then_hang", "STREAM trade", "Unknown request 'STREAM trade'"),
    ],
)
def test_a_fault_meets_only_what_it_can(paper: PaperHandle, kind: str, on: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        play(paper, kind, on)
