"""The matching engine: priority, partial fills, stops, lists. No sockets."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.paper.engines import (
    NO_MARKET,
    PAIR,
    locked,
    new_engine,
    place,
    rest,
    ticket,
    totals,
    walk,
)
from tradelib.paper.engine import Engine
from tradelib.paper.instruments import SATOSHI, Instrument
from tradelib.paper.liquidity import Shape
from tradelib.paper.orders import BUY, SELL, Order
from tradelib.paper.refusals import Refusal


def test_the_better_price_trades_first_and_at_one_price_the_older() -> None:
    engine = new_engine(shape=NO_MARKET)
    worse = rest(engine, "ann", SELL, "101.00", 1)
    older = rest(engine, "ann", SELL, "100.50", 1)
    newer = rest(engine, "ann", SELL, "100.50", 1)
    order, trades = place(engine, "bob", ticket(BUY, "MARKET", amount="1.5"))
    assert (older.status, newer.status, worse.status) == ("FILLED", "PARTIALLY_FILLED", "NEW")
    assert [(trade.price, trade.amount) for trade in trades] == [
        (Decimal("100.50"), 1),
        (Decimal("100.50"), Decimal("0.5")),
    ]
    assert order.filled_quote == Decimal("150.75")


def test_a_taker_gets_the_best_price_there_is_whoever_offers_it() -> None:
    engine = new_engine(shape=Shape(spread_bp=Decimal(100)))
    rest(engine, "ann", BUY, "99.60", 5)
    _, trades = place(engine, "bob", ticket(SELL, amount=6, price="99.00"))
    assert [(trade.price, trade.amount) for trade in trades] == [
        (Decimal("99.60"), 5),
        (Decimal("99.50"), 1),
    ]


def test_the_market_moving_through_a_limit_fills_it_at_its_price() -> None:
    engine = new_engine()
    order = rest(engine, "ann", BUY, "99.00", 10)
    walk(engine, "99.50")
    assert order.status == "NEW"
    walk(engine, "98.00")
    assert order.status == "FILLED"
    assert order.filled_quote == 990
    assert engine.balance("ann", "AAA").free == 1000 + 10 - Decimal("0.01")


def test_a_fill_is_bounded_by_the_volume_that_trades_at_or_beyond_the_price() -> None:
    engine = new_engine()
    order = rest(engine, "ann", BUY, "99.51", 1000)
    walk(engine, "99.01", volume=100)
    # 51 of the leg's 100 hundredths lie at 99.51 or below.
    assert order.filled == 51
    walk(engine, "98.01", volume=101)
    assert order.filled == 51 + 101


def test_volume_serves_the_better_price_before_the_worse() -> None:
    engine = new_engine()
    better = rest(engine, "ann", BUY, "99.50", 60)
    worse = rest(engine, "bob", BUY, "99.20", 60)
    walk(engine, "99.00", volume=101)
    assert better.filled == 51
    assert worse.filled == 0
    walk(engine, "98.00", volume=101)
    assert (better.filled, worse.filled) == (60, 60)


def test_a_touched_price_trades_little() -> None:
    engine = new_engine()
    order = rest(engine, "ann", SELL, "101.00", 100)
    walk(engine, "101.00", volume=101)
    assert order.filled == 1


@pytest.mark.parametrize(
    ("kind", "side", "stop", "calm", "beyond"),
    [
        ("STOP_LOSS", SELL, 95, 96, 94),
        ("STOP_LOSS", BUY, 105, 104, 106),
        ("TAKE_PROFIT", SELL, 105, 104, 106),
        ("TAKE_PROFIT", BUY, 95, 96, 94),
    ],
)
def test_a_stop_fires_when_the_price_reaches_it(
    kind: str, side: str, stop: int, calm: int, beyond: int
) -> None:
    engine = new_engine()
    order, _ = place(engine, "ann", ticket(side, kind, amount=1, stop=stop))
    walk(engine, calm)
    assert (order.status, order.working) == ("NEW", False)
    walk(engine, beyond)
    assert order.status == "FILLED"
    assert order.filled_quote == stop
    assert not engine.open


def test_a_stop_limit_rests_on_the_book_once_it_fired() -> None:
    engine = new_engine()
    order, _ = place(engine, "ann", ticket(SELL, "STOP_LOSS_LIMIT", amount=1, stop=95, price=97))
    walk(engine, 94)
    assert (order.status, order.working) == ("NEW", True)
    assert locked(engine, "ann", "AAA") == 1
    walk(engine, 98)
    assert order.status == "FILLED"
    assert order.filled_quote == 97


def test_a_trailing_stop_follows_the_best_price_and_fires_on_the_way_back() -> None:
    engine = new_engine()
    order, _ = place(engine, "ann", ticket(SELL, "STOP_LOSS", amount=1, trailing=500))
    walk(engine, 120, 115)
    assert order.status == "NEW"
    walk(engine, 113)
    assert order.status == "FILLED"
    assert order.filled_quote == 114


def test_a_trailing_stop_with_a_stop_price_waits_for_it() -> None:
    engine = new_engine()
    order, _ = place(engine, "ann", ticket(BUY, "TAKE_PROFIT", amount=1, stop=90, trailing=1000))
    walk(engine, 95, 99)
    assert order.extreme is None
    walk(engine, 89)
    assert order.extreme == 90
    walk(engine, 80)
    assert order.filled_quote == 81


def test_a_trailing_buy_follows_the_lowest_price() -> None:
    engine = new_engine()
    order, _ = place(engine, "ann", ticket(BUY, "STOP_LOSS", amount=1, trailing=1000))
    walk(engine, 80, 87)
    assert order.status == "NEW"
    walk(engine, 90)
    assert order.filled_quote == 88


def oco(engine: Engine, side: str = SELL, amount: int = 10) -> tuple[Order, Order]:
    """Sell above and below, or buy below and above, the price of 100."""
    limit, stop = ("105", "95") if side == SELL else ("95", "105")
    legs = (
        ticket(side, "LIMIT_MAKER", amount=amount, price=limit),
        ticket(side, "STOP_LOSS", amount=amount, stop=stop),
    )
    above, below = legs if side == SELL else legs[::-1]
    return engine.place_oco("ann", above, below, "pair", 0)[1]


def test_a_triggered_stop_expires_the_limit_leg() -> None:
    engine = new_engine()
    limit, stop = oco(engine)
    assert locked(engine, "ann", "AAA") == 10
    walk(engine, 94)
    assert (limit.status, stop.status) == ("EXPIRED", "FILLED")
    assert locked(engine, "ann", "AAA") == 0


def test_a_partly_filled_limit_leg_expires_the_stop_and_keeps_its_lock() -> None:
    engine = new_engine()
    limit, stop = oco(engine)
    walk(engine, 105, volume=501)
    assert (limit.status, limit.filled, stop.status) == ("PARTIALLY_FILLED", 1, "EXPIRED")
    assert locked(engine, "ann", "AAA") == 9
    engine.cancel(limit, 0)
    assert locked(engine, "ann", "AAA") == 0


def test_a_leg_that_its_own_account_would_hit_takes_the_other_with_it() -> None:
    engine = new_engine(shape=NO_MARKET)
    legs = oco(engine)
    order, _ = place(engine, "ann", ticket(BUY, amount=1, price=106))
    assert [leg.status for leg in legs] == ["EXPIRED_IN_MATCH"] * 2
    assert (locked(engine, "ann", "AAA"), list(engine.open)) == (0, [order.id])


def test_an_oco_to_buy_locks_what_its_dearer_leg_needs() -> None:
    engine = new_engine()
    stop, limit = oco(engine, BUY)
    assert locked(engine, "ann", "USDT") == 1050
    walk(engine, 94)
    assert (limit.status, stop.status) == ("FILLED", "EXPIRED")
    assert locked(engine, "ann", "USDT") == 0
    assert engine.balance("ann", "USDT").free == 100_000 - 950


def test_a_market_order_beyond_the_book_fills_what_there_is() -> None:
    engine = new_engine(volume=1)
    order, trades = place(engine, "ann", ticket(SELL, "MARKET", amount=500))
    assert order.status == "EXPIRED"
    assert 0 < order.filled == sum(trade.amount for trade in trades) < 500
    again, none = place(engine, "ann", ticket(SELL, "MARKET", amount=10))
    assert (again.status, none) == ("EXPIRED", ())


@pytest.mark.parametrize(("side", "price", "better"), [(BUY, "101.50", SELL), (SELL, "98.50", BUY)])
def test_the_market_stands_beyond_an_order_that_outbids_all_its_levels(side, price, better) -> None:
    """Filled in part, since the market's levels turned out not to be there, it rests alone."""
    engine = new_engine()
    order, trades = engine.place("ann", ticket(side, amount=5, price=price), 0, share=0.3)
    assert (order.status, len(trades)) == ("PARTIALLY_FILLED", 1)
    levels = engine.books[PAIR].depth(better, 500)
    assert len(levels) == 100
    assert levels[0][0] == order.ticket.price
    engine.cancel(order, 0)
    assert engine.books[PAIR].depth(better, 1)[0][0] == 100


def test_what_was_taken_beyond_such_an_order_is_gone() -> None:
    engine = new_engine(volume=10)
    order, _ = engine.place("ann", ticket(BUY, amount=5, price="100.50"), 0, share=0.3)
    (_, first), (second, standing) = engine.books[PAIR].depth(SELL, 2)
    place(engine, "bob", ticket(BUY, "MARKET", amount=first + 1))
    assert engine.books[PAIR].depth(SELL, 1) == [(second, standing - 1)]
    engine.cancel(order, 0)
    levels = engine.books[PAIR].depth(SELL, 500)
    assert (second, standing - 1) in levels
    assert second - Decimal("0.01") not in dict(levels)
    assert levels[0][0] < order.ticket.price


def test_levels_return_when_the_market_moves() -> None:
    engine = new_engine(volume=1)
    before = engine.books[PAIR].depth(BUY, 1)
    place(engine, "ann", ticket(SELL, "MARKET", amount=1))
    assert engine.books[PAIR].depth(BUY, 1) != before
    walk(engine, "100.01", "100.00", volume=0)
    assert engine.books[PAIR].depth(BUY, 1) == before


def test_a_fired_market_buy_spends_no_more_than_there_is() -> None:
    engine = new_engine()
    order, _ = place(engine, "ann", ticket(BUY, "STOP_LOSS", amount=990, stop="101"))
    rest(engine, "ann", BUY, "50.00", "0.2")
    walk(engine, 101)
    assert order.status == "EXPIRED"
    assert order.filled > 0
    assert engine.balance("ann", "USDT").free >= 0


@pytest.mark.parametrize(
    ("prevention", "maker", "taker"),
    [
        ("EXPIRE_MAKER", "EXPIRED_IN_MATCH", "NEW"),
        ("EXPIRE_TAKER", "NEW", "EXPIRED_IN_MATCH"),
        ("EXPIRE_BOTH", "EXPIRED_IN_MATCH", "EXPIRED_IN_MATCH"),
        ("NONE", "FILLED", "FILLED"),
    ],
)
def test_an_account_trades_with_itself_only_when_it_says_so(
    prevention: str, maker: str, taker: str
) -> None:
    engine = new_engine(shape=NO_MARKET)
    own = rest(engine, "ann", BUY, "98.50", 1)
    order, _ = place(engine, "ann", ticket(SELL, amount=1, price="98.50", prevention=prevention))
    assert (own.status, order.status) == (maker, taker)
    assert totals(engine) == totals(new_engine())


def test_post_only_refuses_to_take() -> None:
    engine = new_engine()
    with pytest.raises(Refusal, match="immediately match"):
        place(engine, "ann", ticket(BUY, "LIMIT_MAKER", amount=1, price=100))
    assert place(engine, "ann", ticket(BUY, "LIMIT_MAKER", amount=1, price="99.99"))[0].is_open


def test_a_refused_order_leaves_no_trace() -> None:
    engine = new_engine()
    engine.drain()
    for asked in (
        ticket(BUY, amount=5000, price=99),
        ticket(SELL, amount=1, price="99.001"),
        ticket(SELL, "MARKET", amount=1001),
    ):
        with pytest.raises(Refusal):
            place(engine, "ann", asked)
    assert not engine.drain()
    assert (engine.next_order, engine.next_trade) == (1, 1)


def test_prices_of_eight_decimals_lose_nothing() -> None:
    fine = Instrument("AAA", "USDT", SATOSHI, SATOSHI, min_notional=Decimal(0))
    engine = new_engine("0.00005333", shape=NO_MARKET, instrument=fine)
    price, amount = "0.00005333", "123.45678901"
    resting = rest(engine, "ann", BUY, price, amount)
    for part in ("0.00000001", "7.77777777", "100.12345678"):
        place(engine, "bob", ticket(SELL, amount=part, price=price))
        assert totals(engine) == totals(new_engine())
        assert locked(engine, "ann", "USDT") >= Decimal(price) * resting.remaining
    engine.cancel(resting, 0)
    assert locked(engine, "ann", "USDT") == 0
