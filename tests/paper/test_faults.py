"""What goes wrong at a real exchange goes wrong here too, on demand, and is told afterwards."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ccxt
import pytest

from tests.paper.conftest import Start, trader
from tradelib.errors import InvalidInput
from tradelib.paper import PaperHandle, mild_plan, read_plan
from tradelib.paper.faults import EXCHANGE, Dice, Seen

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


def test_a_late_order_is_judged_by_when_it_was_due(
    paper: PaperHandle, ann: ccxt.binance, wall: Wall
) -> None:
    play(paper, "late", late_ms=3000)
    with pytest.raises(ccxt.NetworkError):
        buy(ann)
    wall.now += 3_600_000
    assert paper.control("faults")["log"][0]["took_effect"] is True


def test_a_market_clock_that_stands_excuses_no_late_order(
    paper: PaperHandle, ann: ccxt.binance, wall: Wall
) -> None:
    wall.now = paper.exchange.now
    play(paper, {"kind": "late", "count": 2}, late_ms=10_001)
    with pytest.raises(ccxt.NetworkError):
        buy(ann)
    wall.now += 10_001
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


def test_fills_of_the_markets_own_making_lag_in_the_trades_too(
    paper: PaperHandle, ann: ccxt.binance, wall: Wall
) -> None:
    last = ann.fetch_ticker(PAIR)["last"]
    rest(ann, price=round(last * 0.9999, 2))
    play(paper, {"kind": "trades_lag", "on": "MARKET fill"})
    for _ in range(60):
        paper.control("step")
    assert find(ann)["status"] == "closed"
    assert ann.fetch_my_trades(PAIR) == []
    wall.now += 500
    assert len(ann.fetch_my_trades(PAIR)) > 0
    assert paper.control("faults")["routes"] == {"trades_lag": {"MARKET fill": 1}}


def test_a_lag_hides_nothing_from_another_account(
    paper: PaperHandle, ann: ccxt.binance, bob: ccxt.binance, wall: Wall
) -> None:
    bob.nonce = wall
    play(paper, {"kind": "read_lag", "account": "ann", "count": 2})
    rest(bob)
    rest(ann)
    assert len(bob.fetch_open_orders(PAIR)) == 1
    assert ann.fetch_open_orders(PAIR) == []


def test_a_refused_write_leaves_nothing_to_lag(paper: PaperHandle, ann: ccxt.binance) -> None:
    play(paper, "read_lag")
    with pytest.raises(ccxt.InsufficientFunds):
        buy(ann, amount=500)
    rest(ann, "two")
    assert find(ann, "two")["status"] == "open"
    assert played(paper) == {}


# What the market does meanwhile.


def test_an_order_may_be_filled_just_before_its_cancel(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    order = rest(ann)
    play(paper, "cancel_fill_race")
    with pytest.raises(ccxt.OrderNotFound, match="-2011"):
        ann.cancel_order(order["id"], PAIR)
    found = find(ann)
    assert (found["status"], found["filled"], found["average"]) == ("closed", 0.01, 90_000)
    assert ann.fetch_balance()["USDT"] == {"free": 99_100, "used": 0, "total": 99_100}


@pytest.mark.parametrize(
    ("kind", "stop"),
    [
        ("market", {"stopLossPrice": 80_000}),
        ("limit", {"stopLossPrice": 80_000}),
        ("market", {"trailingPercent": 5, "stopLossOrTakeProfit": "stopLoss"}),
        ("market", {"stopLossOrTakeProfit": "stopLoss", "trailingPercent": 5, "stopPrice": 80_000}),
    ],
)
def test_a_stop_may_fire_just_before_its_cancel(
    paper: PaperHandle, ann: ccxt.binance, kind: str, stop: dict[str, Any]
) -> None:
    price = 150_000 if kind == "limit" else None
    order = ann.create_order(PAIR, kind, "sell", 0.01, price, stop)
    play(paper, "cancel_fill_race")
    with pytest.raises(ccxt.OrderNotFound, match="-2011"):
        ann.cancel_order(order["id"], PAIR)
    found = ann.fetch_order(order["id"], PAIR)
    last = ann.fetch_ticker(PAIR)["last"]
    assert found["info"]["status"] == "FILLED"
    assert found["average"] == pytest.approx(price or last, rel=0.001)


def test_a_leg_of_a_list_may_be_filled_just_before_its_cancel(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    last = ann.fetch_ticker(PAIR)["last"]
    pair = ann.private_post_orderlist_oco(
        {
            "symbol": "BTCUSDT", "side": "SELL", "quantity": "0.5",
            "aboveType": "LIMIT_MAKER", "abovePrice": f"{last * 1.2:.2f}",
            "belowType": "STOP_LOSS", "belowStopPrice": f"{last * 0.8:.2f}",
        }
    )  # fmt: skip
    play(paper, "cancel_fill_race")
    with pytest.raises(ccxt.OrderNotFound, match="-2011"):
        ann.private_delete_orderlist({"symbol": "BTCUSDT", "orderListId": pair["orderListId"]})
    statuses = {each["type"]: each["status"] for each in record(paper)["orders"]}
    assert statuses == {"LIMIT_MAKER": "FILLED", "STOP_LOSS": "EXPIRED"}
    assert ann.fetch_balance()["BTC"]["used"] == 0


def test_one_of_all_orders_may_be_filled_just_before_their_cancel(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    for name in ("one", "two", "three"):
        rest(ann, name)
    play(paper, "cancel_fill_race")
    ann.cancel_all_orders(PAIR)
    statuses = sorted(each["status"] for each in record(paper)["orders"])
    assert statuses == ["CANCELED", "CANCELED", "FILLED"]


def test_a_halted_order_cannot_race(paper: PaperHandle, ann: ccxt.binance) -> None:
    order = rest(ann)
    paper.control("halt", symbol=PAIR)
    play(paper, "cancel_fill_race")
    ann.cancel_order(order["id"], PAIR)
    assert find(ann)["status"] == "canceled"
    assert played(paper) == {}


def test_a_thin_market_fills_a_part_and_the_rest_expires(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    play(paper, "partial")
    order = buy(ann, amount=0.5)
    assert 0 < order["filled"] < 0.5
    assert order["info"]["status"] == "EXPIRED"
    assert played(paper) == {"partial": 1}
    assert buy(ann, "two", amount=0.5)["filled"] == 0.5


def test_a_thin_market_leaves_the_rest_of_a_limit_order_on_the_book(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    last = ann.fetch_ticker(PAIR)["last"]
    play(paper, "partial")
    order = ann.create_order(PAIR, "limit", "buy", 0.5, last * 1.001)
    assert order["info"]["status"] == "PARTIALLY_FILLED"
    assert [each["id"] for each in ann.fetch_open_orders(PAIR)] == [order["id"]]
    ann.cancel_order(order["id"], PAIR)
    assert ann.fetch_balance()["USDT"]["used"] == 0


def test_a_thin_market_spends_less_of_an_order_by_cost(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    play(paper, "partial")
    order = ann.create_order(PAIR, "market", "buy", 1, None, {"cost": 5000})
    assert 0 < order["cost"] < 4999
    assert order["info"]["status"] == "EXPIRED"


# Times when nothing goes.


def test_maintenance_refuses_everything_until_it_ends(
    paper: PaperHandle, ann: ccxt.binance, wall: Wall
) -> None:
    play(paper, "maintenance", maintenance_ms=100)
    for _ in range(2):
        with pytest.raises(ccxt.ExchangeNotAvailable, match="503"):
            ann.fetch_ticker(PAIR)
    wall.now += 100
    assert ann.fetch_ticker(PAIR)["last"] > 0
    assert played(paper) == {"maintenance": 1}


def test_a_rate_limit_tells_when_to_come_back(paper: PaperHandle, ann: ccxt.binance) -> None:
    play(paper, "rate_limit", retry_after_ms=2500)
    with pytest.raises(ccxt.DDoSProtection, match=r"429.*-1003"):
        ann.fetch_balance()
    assert ann.last_response_headers["Retry-After"] == "3"
    assert ann.fetch_balance()["BTC"]["total"] == 2


def test_each_ban_is_longer(paper: PaperHandle, ann: ccxt.binance, wall: Wall) -> None:
    play(paper, "ban", "ban", ban_ms=1000)
    for length in (1000, 2000):
        with pytest.raises(ccxt.DDoSProtection, match="418"):
            ann.fetch_balance()
        wall.now += length - 1
        with pytest.raises(ccxt.DDoSProtection, match="418"):
            ann.fetch_balance()
        wall.now += 1
    assert ann.fetch_balance()["BTC"]["total"] == 2


def test_too_many_orders_is_a_no(paper: PaperHandle, ann: ccxt.binance) -> None:
    play(paper, "order_limit")
    with pytest.raises(ccxt.DDoSProtection, match="-1015"):
        buy(ann)
    assert record(paper)["orders"] == []


@pytest.mark.parametrize(
    ("skew", "told"), [(20_000, "outside of the recvWindow"), (-20_000, "ahead of the server")]
)
def test_a_skewed_clock_refuses_what_was_signed_in_time(
    paper: PaperHandle, ann: ccxt.binance, skew: int, told: str
) -> None:
    play(paper, "skew", skew_ms=skew)
    with pytest.raises(ccxt.InvalidNonce, match=told):
        buy(ann)
    assert buy(ann)["status"] == "closed"


def test_a_symbol_is_halted_for_a_while(paper: PaperHandle, ann: ccxt.binance, wall: Wall) -> None:
    play(paper, "halt_symbol", halt_ms=100)
    for _ in range(2):
        with pytest.raises(ccxt.MarketClosed):
            buy(ann)
    assert ann.load_markets(True)[PAIR]["active"] is False
    assert ann.create_order("ETH/USDT", "market", "buy", 0.1)["status"] == "closed"
    wall.now += 100
    assert buy(ann)["status"] == "closed"


def test_a_symbol_is_halted_for_some_requests(paper: PaperHandle, ann: ccxt.binance) -> None:
    play(paper, "halt_symbol", halt_requests=2)
    for _ in range(2):
        with pytest.raises(ccxt.MarketClosed):
            buy(ann)
    assert buy(ann)["status"] == "closed"


def test_faults_of_both_sorts_meet_one_request(
    paper: PaperHandle, ann: ccxt.binance, wall: Wall
) -> None:
    play(paper, "partial", "read_lag", "accept_then_timeout")
    with pytest.raises(ccxt.RequestTimeout):
        buy(ann, amount=0.5)
    with pytest.raises(ccxt.OrderNotFound):
        find(ann)
    wall.now += 500
    assert find(ann)["info"]["status"] == "EXPIRED"
    assert played(paper) == {"partial": 1, "read_lag": 1, "accept_then_timeout": 1}


def test_a_held_connection_does_not_hold_the_exchange(start: Start, wall: Wall) -> None:
    paper = start(wall=wall)
    exchange = trader(paper)
    exchange.timeout = 100
    play(paper, "hang_before", hold_ms=3_600_000)
    with pytest.raises(ccxt.RequestTimeout):
        exchange.fetch_ticker(PAIR)
    assert exchange.fetch_ticker(PAIR)["last"] > 0


def test_a_fault_may_meet_what_no_account_signed(paper: PaperHandle) -> None:
    play(paper, {"kind": "late", "on": "POST order"}, "refuse_5xx")
    request = urllib.request.Request(f"{paper.url}/api/v3/order", b"symbol=BTCUSDT&symbol=X")
    with pytest.raises(OSError, match="closed connection"):
        urllib.request.urlopen(request)
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(f"{paper.url}/api/v3/ping")


# Plans.


def outcome(exchange: ccxt.binance, number: int) -> str:
    try:
        return buy(exchange, f"order-{number}", 0.001 * (1 + number % 5))["status"]
    except ccxt.BaseError as error:
        return type(error).__name__


RATES = {
    "accept_then_5xx": 0.2, "accept_then_timeout": 0.2, "hang_before": 0.1, "partial": 0.5,
    "rate_limit": 0.1,
}  # fmt: skip


def test_the_same_seed_and_requests_give_the_same_faults(start: Start, tmp_path: Path) -> None:
    def run(name: str, seed: int) -> tuple[list[str], list[dict[str, Any]]]:
        paper = start(home=tmp_path / name, wall=lambda: START)
        exchange = trader(paper)
        exchange.nonce = lambda: START
        paper.control("faults", seed=seed, rates=RATES, options={"hold_ms": 1})
        outcomes = [outcome(exchange, number) for number in range(30)]
        return outcomes, paper.control("faults")["log"]

    first = run("first", 3)
    assert first == run("second", 3)
    assert first != run("third", 4)
    assert {each["kind"] for each in first[1]} == set(RATES)


def test_another_rate_leaves_the_other_draws_alone() -> None:
    def drawn(rates: dict[str, float]) -> list[bool]:
        dice = Dice(read_plan({"seed": 1, "rates": rates}))
        throws = [dice.throw(Seen("POST order")) for _ in range(200)]
        return [any(each.kind == "read_lag" for each in found) for found in throws]

    assert drawn({"read_lag": 0.3}) == drawn({"partial": 0.5, "read_lag": 0.3})


def test_a_script_comes_at_the_requests_it_names(paper: PaperHandle, ann: ccxt.binance) -> None:
    play(
        paper,
        {"kind": "accept_then_timeout", "nth": 2, "count": 2, "symbol": "BTC/USDT"},
        {"kind": "refuse_5xx", "on": ["GET account"]},
    )
    assert ann.create_order("ETH/USDT", "market", "buy", 0.1)["status"] == "closed"
    assert [outcome(ann, number) for number in range(4)] == [
        "closed", "RequestTimeout", "RequestTimeout", "closed",
    ]  # fmt: skip
    with pytest.raises(ccxt.ExchangeNotAvailable):
        ann.fetch_balance()


def test_scripted_faults_that_meet_come_one_after_the_other(
    paper: PaperHandle, ann: ccxt.binance
) -> None:
    play(paper, "accept_then_timeout", "refuse_5xx")
    assert [outcome(ann, number) for number in range(3)] == [
        "RequestTimeout", "ExchangeNotAvailable", "closed",
    ]  # fmt: skip


def test_an_empty_plan_ends_all_that_lasts(paper: PaperHandle, ann: ccxt.binance) -> None:
    play(paper, {"kind": "halt_symbol", "on": "POST order"})
    with pytest.raises(ccxt.MarketClosed):
        buy(ann)
    play(paper, "maintenance")
    with pytest.raises(ccxt.ExchangeNotAvailable):
        buy(ann)
    assert paper.control("faults", rates={})["rules"] == 0
    assert buy(ann)["status"] == "closed"


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"rates": {"acept_then_hang": 0.1}}, "'acept_then_hang'; did you mean 'accept_then_hang'"),
        ({"script": [{"kind": "lat"}]}, "'lat'; did you mean 'late'"),
        ({"script": [{"nth": 1}]}, "names its kind"),
        ({"script": [{"kind": "late", "nth": 0}]}, "nth is a whole number of 1 or more, not 0"),
        ({"script": [{"kind": "late", "on": "POST orders"}]}, "did you mean 'POST order'"),
        ({"rates": {"late": 1.5}}, "The rate of 'late' is a number from 0 to 1, not 1.5"),
        ({"rates": {"late": True}}, "a number from 0 to 1"),
        ({"rate": {"late": 1}}, "did you mean 'rates'"),
        ({"rates": {"late": 1}, "options": {"late": 5}}, "did you mean 'late_ms'"),
        ({"rates": {"late": 1}, "options": {"late_ms": -5}}, "late_ms is a whole number of 0"),
        ({"rates": {"late": 1}, "options": {"late_ms": "5"}}, "not '5'"),
        ({"rates": {"late": {"rate": 1, "symbol": 5}}}, "The symbol of a fault is text, not 5"),
        ({"seed": "x", "rates": {}}, "seed is a whole number, not 'x'"),
    ],
)
def test_a_bad_plan_is_one_sentence_and_changes_nothing(
    paper: PaperHandle, plan: dict[str, Any], told: str
) -> None:
    play(paper, "late")
    with pytest.raises(InvalidInput, match=re.escape(told)):
        paper.control("faults", **plan)
    assert paper.control("faults")["rules"] == 1


def test_a_mild_mix_holds_a_little_of_everything(start: Start) -> None:
    paper = start(faults=mild_plan(1))
    told = paper.control("faults")
    assert (told["seed"], told["rules"]) == (1, len(EXCHANGE.kinds))
    assert all(0 < rule.rate <= 0.1 for rule in mild_plan(1).rules)


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
