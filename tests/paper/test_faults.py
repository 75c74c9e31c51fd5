"""What goes wrong at a real exchange goes wrong here too, on demand, and is told afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ccxt
import pytest

from tests.paper.conftest import Start, trader
from tradelib.errors import InvalidInput
from tradelib.paper import PaperHandle

PAIR = "BTC/USDT"
START = 1_800_000_000_000


class Wall:
    """The wall's clock in ms, which a test moves by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def paper(start: Start, wall: Wall) -> PaperHandle:
    return start(wall=wall)


@pytest.fixture
def ann(paper: PaperHandle, wall: Wall) -> Iterator[ccxt.binance]:
    exchange = trader(paper)
    exchange.nonce = wall
    yield exchange
    exchange.close()


def play(paper: PaperHandle, *kinds: str | dict[str, Any], **options: int) -> None:
    """These faults, one after the other, at the next requests that they suit."""
    script = [{"kind": each} if isinstance(each, str) else each for each in kinds]
    paper.control("faults", script=script, options={"hold_ms": 20, **options})


def played(paper: PaperHandle) -> dict[str, int]:
    return paper.control("faults")["played"]


def record(paper: PaperHandle, account: str = "ann") -> dict[str, Any]:
    return paper.control("record", account=account)


def buy(exchange: ccxt.binance, name: str = "one", amount: float = 0.01) -> dict[str, Any]:
    return exchange.create_order(PAIR, "market", "buy", amount, None, {"clientOrderId": name})


def rest(exchange: ccxt.binance, name: str = "one", price: float = 90_000) -> dict[str, Any]:
    return exchange.create_order(PAIR, "limit", "buy", 0.01, price, {"clientOrderId": name})


def find(exchange: ccxt.binance, name: str = "one") -> dict[str, Any]:
    return exchange.fetch_order(None, PAIR, {"clientOrderId": name})


def until(condition: Callable[[], Any]) -> Any:
    """What a condition answers once it answers anything; the test's own time limit ends it."""
    while not (found := condition()):
        pass
    return found


# An answer that does not come.


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("accept_then_hang", ccxt.NetworkError),
        ("accept_then_timeout", ccxt.RequestTimeout),
        ("accept_then_5xx", (ccxt.ExchangeNotAvailable, ccxt.OperationFailed)),
    ],
)
def test_an_accepted_order_may_go_without_an_answer(
    paper: PaperHandle, ann: ccxt.binance, kind: str, error: type[Exception]
) -> None:
    play(paper, kind)
    with pytest.raises(error):
        buy(ann)
    assert find(ann)["status"] == "closed"
    assert played(paper) == {kind: 1}
    [told] = paper.control("faults")["log"]
    assert (told["route"], told["client_id"], told["took_effect"]) == ("POST order", "one", True)


@pytest.mark.parametrize("kind", ["hang_before", "refuse_5xx"])
def test_an_order_that_never_arrived_is_not_there(
    paper: PaperHandle, ann: ccxt.binance, kind: str
) -> None:
    play(paper, kind)
    with pytest.raises(ccxt.NetworkError):
        buy(ann)
    with pytest.raises(ccxt.OrderNotFound):
        find(ann)
    assert paper.control("faults")["log"][0]["took_effect"] is False


def test_a_late_order_takes_effect_after_its_client_gave_up(
    paper: PaperHandle, ann: ccxt.binance, wall: Wall
) -> None:
    play(paper, "late", late_ms=3000)
    with pytest.raises(ccxt.NetworkError):
        buy(ann)
    wall.now += 2999
    with pytest.raises(ccxt.OrderNotFound):
        find(ann)
    assert paper.control("faults")["pending"] == 1
    wall.now += 1
    assert find(ann)["status"] == "closed"
    told = paper.control("faults")
    assert (told["pending"], told["log"][0]["took_effect"]) == (0, True)


def test_a_late_order_arrives_though_nobody_asks(
    paper: PaperHandle, ann: ccxt.binance, wall: Wall
) -> None:
    play(paper, "late")
    with pytest.raises(ccxt.NetworkError):
        buy(ann)
    wall.now += 3000
    until(lambda: paper.exchange.engine.next_order > 1)


def test_an_order_later_than_its_window_never_takes_effect(
    paper: PaperHandle, ann: ccxt.binance, wall: Wall
) -> None:
    play(paper, "late", late_ms=10_001)
    with pytest.raises(ccxt.NetworkError):
        buy(ann)
    wall.now += 60_000
    with pytest.raises(ccxt.OrderNotFound):
        find(ann)
    assert paper.control("faults")["log"][0]["took_effect"] is False


def test_a_late_order_stays_under_way_when_the_plan_ends(
    paper: PaperHandle, ann: ccxt.binance, wall: Wall
) -> None:
    play(paper, "late")
    with pytest.raises(ccxt.NetworkError):
        buy(ann)
    assert paper.control("faults", rates={})["pending"] == 1
    wall.now += 3000
    assert find(ann)["status"] == "closed"


# Reads that lag.


def test_reads_lag_a_write(paper: PaperHandle, ann: ccxt.binance, wall: Wall) -> None:
    before = ann.fetch_balance()["info"]["balances"]
    play(paper, "read_lag", lag_ms=500)
    rest(ann)
    wall.now += 499
    with pytest.raises(ccxt.OrderNotFound, match="-2013"):
        find(ann)
    assert ann.fetch_open_orders(PAIR) == ann.fetch_orders(PAIR) == []
    assert ann.fetch_balance()["info"]["balances"] == before
    assert len(record(paper)["orders"]) == 1
    wall.now += 1
    assert find(ann)["status"] == "open"
    assert len(ann.fetch_open_orders(PAIR)) == len(ann.fetch_orders(PAIR)) == 1
    assert ann.fetch_balance()["USDT"]["used"] == 900


def test_a_canceled_order_looks_open_while_reads_lag(
    paper: PaperHandle, ann: ccxt.binance, wall: Wall
) -> None:
    rest(ann)
    play(paper, "read_lag")
    ann.cancel_order(None, PAIR, {"origClientOrderId": "one"})
    assert find(ann)["status"] == "open"
    assert [each["status"] for each in ann.fetch_orders(PAIR)] == ["open"]
    wall.now += 500
    assert find(ann)["status"] == "canceled"


def test_each_write_lags_by_itself(paper: PaperHandle, ann: ccxt.binance, wall: Wall) -> None:
    play(paper, {"kind": "read_lag", "count": 2}, lag_ms=100)
    rest(ann, "one")
    wall.now += 50
    rest(ann, "two")
    assert ann.fetch_open_orders(PAIR) == []
    wall.now += 50
    assert [each["clientOrderId"] for each in ann.fetch_open_orders(PAIR)] == ["one"]
    wall.now += 50
    assert len(ann.fetch_open_orders(PAIR)) == 2


def test_trades_lag_the_orders_status(paper: PaperHandle, ann: ccxt.binance, wall: Wall) -> None:
    buy(ann, "zero")
    play(paper, "trades_lag", trades_lag_ms=300)
    buy(ann)
    assert find(ann)["filled"] == 0.01
    assert len(ann.fetch_my_trades(PAIR)) == 1
    wall.now += 300
    assert len(ann.fetch_my_trades(PAIR)) == 2


# The exchange's own record.


def test_the_record_is_exact_and_in_order(paper: PaperHandle, ann: ccxt.binance) -> None:
    buy(ann, "one")
    rest(ann, "two")
    found = record(paper)
    assert [(each["clientOrderId"], each["status"]) for each in found["orders"]] == [
        ("one", "FILLED"),
        ("two", "NEW"),
    ]
    assert [each["qty"] for each in found["trades"]] == ["0.01000000"]
    assert found["balances"]["BTC"] == {"free": "2.00999000", "locked": "0.00000000"}
    assert found["balances"]["USDT"]["locked"] == "900.00000000"


def test_an_unknown_account_has_no_record(paper: PaperHandle) -> None:
    with pytest.raises(InvalidInput, match="'anne'; did you mean 'ann'"):
        record(paper, "anne")
