"""Positions are the sum of fills, purchase by purchase, in whatever order these are heard of."""

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradelib.trading.orders import ZERO, Fill, Side
from tradelib.trading.positions import (
    Position,
    PositionStatus,
    compare_positions,
    compute_position,
    compute_shares,
    is_dust,
)
from tradelib.trading.profits import Profit, compute_profit, compute_profits

START = datetime(2026, 1, 1, tzinfo=UTC)


def fill(number, side, amount, price, fee="0", fee_currency="USDT", order=None):
    amount, price = Decimal(amount), Decimal(price)
    return Fill(
        "paper", "BTC/USDT", str(number), order or f"nd-{number}", "7", Side(side), amount, price,
        amount * price, Decimal(fee), fee_currency, START + timedelta(minutes=number),
    )  # fmt: skip


def position(*fills):
    return compute_position("BTC/USDT", fills)


def test_purchases_and_a_sale_realise_what_the_docstring_says():
    held = position(
        fill(1, "buy", "2", "10", "0.002", "BTC"),
        fill(2, "buy", "1", "14", "0.014"),
        fill(3, "sell", "2.5", "12", "0.03"),
    )
    assert (held.amount, held.cost) == (Decimal("0.498"), Decimal("6.978972"))
    assert held.realised == Decimal("2.934972")
    first, second = held.tranches
    assert (first.left, first.cost_left, first.exited_at) == (0, 0, START + timedelta(minutes=3))
    assert (second.left, second.average_entry, second.price) == (
        Decimal("0.498"), Decimal("14.014"), 14,
    )  # fmt: skip
    assert first.realised + second.realised == held.realised


def test_a_full_sale_leaves_no_cost_behind():
    held = position(fill(1, "buy", "3", "7"), fill(2, "sell", "1", "8"), fill(3, "sell", "2", "9"))
    assert (held.amount, held.cost, held.realised) == (0, 0, Decimal(5))
    assert held.average_entry is None


def test_the_fills_of_one_order_are_one_purchase():
    held = position(
        fill(1, "buy", "1", "10", order="nd-a"),
        fill(2, "buy", "1", "20", order="nd-b"),
        fill(3, "buy", "3", "14", order="nd-a"),
    )
    assert [(t.entry, t.amount, t.price) for t in held.tranches] == [
        ("nd-a", 4, Decimal(13)),
        ("nd-b", 1, Decimal(20)),
    ]
    assert held.average_entry == Decimal("14.4")


def test_a_purchase_that_fills_on_after_its_sale_is_the_same_and_the_oldest():
    held = position(
        fill(1, "buy", "1", "10", order="nd-a"),
        fill(2, "buy", "1", "20", order="nd-b"),
        fill(3, "sell", "1", "30"),
        fill(4, "buy", "1", "12", order="nd-a"),
        fill(5, "sell", "1", "30"),
    )
    assert [(t.entry, t.amount, t.left) for t in held.tranches] == [("nd-a", 2, 0), ("nd-b", 1, 1)]
    assert held.realised == 38


def test_fees_in_a_third_currency_are_kept_apart_and_valued_at_their_price():
    held = position(fill(1, "buy", "1", "100", "0.01", "BNB"))
    assert held.other_fees == {"BNB": Decimal("0.01")}
    assert (held.amount, held.cost) == (1, 100)
    prices = {"BTC/USDT": Decimal(120), "BNB/USDT": Decimal(500)}
    profit = compute_profit(held, prices)
    assert (profit.unrealised, profit.fees_value, profit.total) == (20, 5, 15)
    without = compute_profit(held, {"BTC/USDT": Decimal(120)})
    assert (without.unrealised, without.fees_value, without.total) == (20, None, None)


def test_selling_coins_that_came_from_elsewhere_realises_only_what_was_held():
    held = position(fill(1, "buy", "1", "10"), fill(2, "sell", "4", "12"))
    assert (held.amount, held.realised) == (0, 2)
    assert (held.foreign_sold, held.foreign_proceeds) == (3, 36)


def test_dust_is_what_is_worth_next_to_nothing():
    assert is_dust(Decimal("4.9"), Decimal(10_000))
    assert not is_dust(Decimal(50), Decimal(10_000))


BUY, MORE = fill(1, "buy", "1", "100"), fill(2, "buy", "1", "100")
PART, REST = fill(3, "sell", "0.5", "100"), fill(4, "sell", "1.4999", "100")


@pytest.mark.parametrize(
    ("fills", "entries", "status"),
    [
        ([], 1, "CLOSED"),
        ([BUY], 1, "OPEN"),
        ([BUY], 2, "BUILDING"),
        ([BUY, MORE], 2, "OPEN"),
        ([BUY, MORE, PART], 3, "REDUCING"),
        ([BUY, MORE, PART, REST], 3, "CLOSED"),
        ([BUY, MORE, PART, REST, fill(5, "buy", "1", "100")], 2, "BUILDING"),
    ],
)
def test_a_status_tells_where_a_position_stands(fills, entries, status):
    held = position(*fills)
    assert held.status(Decimal(100), Decimal(10_000), entries=entries) == status


def test_without_a_price_nothing_held_counts_as_dust():
    held = position(BUY, MORE, PART, REST)
    assert held.status(None, Decimal(10_000)) == PositionStatus.REDUCING
    assert held.status(None, None) == PositionStatus.REDUCING
    assert position(BUY, fill(2, "sell", "1", "1")).status(None, None) == PositionStatus.CLOSED


def test_a_purchase_sold_but_for_dust_is_closed_and_lives_no_more():
    held = position(BUY, fill(2, "sell", "0.9999", "100"), fill(3, "buy", "1", "100"))
    assert [t.closed(Decimal(10_000)) for t in held.tranches] == [True, False]
    living = held.living_tranches(Decimal(100), Decimal(10_000))
    assert [t.number for t in living] == [1]


def test_profits_of_different_quotes_are_never_added():
    usdt = position(BUY)
    btc = compute_position("ETH/BTC", [])
    told = compute_profits([usdt, usdt, btc], {"BTC/USDT": Decimal(110)}, by=lambda p: "all")
    assert told[("all", "USDT")].unrealised == 20
    assert told[("all", "BTC")] == Profit("BTC")
    with pytest.raises(AssertionError, match="cannot be added"):
        Profit("BTC") + Profit("USDT")


def test_profit_is_not_known_where_a_held_coin_has_no_price():
    profits = compute_profits([position(BUY), position()], {})
    assert profits[("BTC/USDT", "USDT")].unrealised is None


# Whatever happened, in whatever order it is heard of.

EXACT = Context(prec=200)
amounts = st.decimals("0.00001", "100", places=5)
prices = st.decimals("0.01", "100000", places=2)
fees = st.tuples(st.decimals("0", "0.00001", places=8), st.sampled_from(["BTC", "USDT", "BNB"]))
trades = st.lists(
    st.tuples(st.sampled_from(["buy", "sell"]), amounts, prices, fees, st.integers(0, 5)),
    max_size=20,
)


def made(trades):
    """Fills of up to six orders, two of each minute in the order of their ids; one order only
    buys or only sells."""
    return [
        fill(9 + number // 2, side, amount, price, fee, currency, order=f"nd-{side}-{order}")
        for number, (side, amount, price, (fee, currency), order) in enumerate(trades)
    ]


def numbered(fills):
    return [Fill(**{**vars(f), "trade_id": str(n + 95)}) for n, f in enumerate(fills)]


def sums(changes):
    total = {}
    with localcontext(EXACT):
        for one in changes:
            for asset, change in one.items():
                total[asset] = total.get(asset, ZERO) + change
    return {asset: change for asset, change in total.items() if change}


@given(trades, st.randoms(use_true_random=False))
def test_fills_shuffled_and_doubled_make_the_same_position(trades, random):
    fills = numbered(made(trades))
    heard = fills + [f for f in fills if random.random() < 0.5]
    random.shuffle(heard)
    assert position(*heard) == position(*fills)


@given(trades)
def test_not_a_digit_is_lost_between_fills_and_position(trades):
    fills = numbered(made(trades))
    held = position(*fills)
    assert sums([held.asset_changes()]) == sums(fill.asset_changes() for fill in fills)
    with localcontext(EXACT):
        assert sum((t.left for t in held.tranches), ZERO) == held.amount
        assert sum((t.cost_left for t in held.tranches), ZERO) == held.cost
        assert sum((t.realised for t in held.tranches), ZERO) == held.realised


@given(trades)
def test_a_position_and_its_purchases_are_never_negative(trades):
    held = position(*numbered(made(trades)))
    assert held.amount >= 0
    assert held.cost >= 0
    assert all(0 <= t.left <= t.amount and 0 <= t.cost_left <= t.cost for t in held.tranches)


@given(st.lists(amounts, min_size=1, max_size=8), st.decimals("0", "1", places=3))
def test_the_oldest_purchases_are_sold_first(bought, share):
    buys = [fill(n, "buy", amount, "10") for n, amount in enumerate(bought)]
    sold = sum(bought, ZERO) * share
    held = position(*buys, fill(99, "sell", sold, "10"))
    touched = [t.left != t.amount for t in held.tranches]
    assert touched == sorted(touched, reverse=True)
    assert sum(0 < t.left < t.amount for t in held.tranches) <= 1


@given(st.lists(st.tuples(amounts, prices), min_size=1, max_size=12))
def test_selling_all_at_the_purchase_prices_neither_wins_nor_loses(legs):
    buys = [fill(n, "buy", amount, price) for n, (amount, price) in enumerate(legs)]
    total = sum((f.amount for f in buys), ZERO)
    spent = sum((f.cost for f in buys), ZERO)
    held = position(*buys)
    assert held.amount == total
    assert held.cost == spent
    assert abs(held.unrealised(spent / total)) < Decimal("1e-15") * spent


# Bots against the account.


def owning(bot, amount, symbol="BTC/USDT"):
    return Position(symbol, amount=Decimal(amount), venue="paper", bot=bot)


def test_bots_that_own_more_than_the_account_holds_are_named():
    positions = [owning("a", "1"), owning("b", "0.5"), owning("c", "2", "ETH/USDT"), owning("", 9)]
    booked = {"BTC": Decimal("1.2"), "ETH": Decimal(2), "USDT": Decimal(5)}
    (found,) = compare_positions(positions, booked)
    assert (found.asset, found.bots, found.excess) == ("BTC", ("a", "b"), Decimal("0.3"))
    shares = {share.asset: share.unassigned for share in compute_shares(positions, booked)}
    assert shares == {"BTC": Decimal("-0.3"), "ETH": 0, "USDT": 5}


def test_an_account_that_owes_is_no_difference_of_its_bots():
    assert compare_positions([], {"USDT": Decimal(-1)}) == []


def test_a_difference_in_the_last_digit_is_one():
    (found,) = compare_positions(
        [owning("a", "1.00000000000000000000000000001")], {"BTC": Decimal(1)}
    )
    assert found.excess == Decimal("1E-29")
