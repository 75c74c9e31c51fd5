"""Positions are the sum of fills, whatever their number, fees and currencies."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tradelib.trading.orders import Fill, Side
from tradelib.trading.positions import compute_position, is_dust

START = datetime(2026, 1, 1, tzinfo=UTC)


def fill(number, side, amount, price, fee="0", fee_currency="USDT"):
    amount, price = Decimal(amount), Decimal(price)
    return Fill(
        "paper", "BTC/USDT", str(number), "nd-1", "7", Side(side), amount, price, amount * price,
        Decimal(fee), fee_currency, START + timedelta(minutes=number),
    )  # fmt: skip


def test_a_purchase_and_a_sale_realise_what_the_docstring_says():
    fills = [fill(1, "buy", "2", "10", "0.002", "BTC"), fill(2, "sell", "1", "12", "0.012")]
    position = compute_position("BTC/USDT", fills)
    assert position.amount == Decimal("0.998")
    assert position.realised == Decimal("11.988") - Decimal(20) / Decimal("1.998")


def test_a_full_sale_leaves_no_cost_behind():
    fills = [fill(1, "buy", "3", "7"), fill(2, "sell", "1", "8"), fill(3, "sell", "2", "9")]
    position = compute_position("BTC/USDT", fills)
    assert (position.amount, position.cost, position.realised) == (0, 0, Decimal(5))
    assert position.average_entry is None


def test_fees_in_a_third_currency_are_kept_apart():
    position = compute_position("BTC/USDT", [fill(1, "buy", "1", "10", "0.01", "BNB")])
    assert position.other_fees == {"BNB": Decimal("0.01")}
    assert (position.amount, position.cost) == (1, 10)


def test_selling_coins_that_came_from_elsewhere_realises_only_what_was_held():
    fills = [fill(1, "buy", "1", "10"), fill(2, "sell", "4", "12")]
    position = compute_position("BTC/USDT", fills)
    assert (position.amount, position.realised) == (0, 2)


def test_dust_is_what_is_worth_next_to_nothing():
    assert is_dust(Decimal("4.9"), Decimal(10_000))
    assert not is_dust(Decimal(50), Decimal(10_000))


amounts = st.decimals("0.00001", "100", places=5)
prices = st.decimals("0.01", "100000", places=2)


@given(st.lists(st.tuples(amounts, prices), min_size=1, max_size=12))
def test_selling_all_at_the_purchase_prices_neither_wins_nor_loses(legs):
    buys = [fill(n, "buy", amount, price) for n, (amount, price) in enumerate(legs)]
    total = sum((f.amount for f in buys), Decimal(0))
    spent = sum((f.cost for f in buys), Decimal(0))
    held = compute_position("BTC/USDT", buys)
    assert held.amount == total
    assert held.cost == spent
    assert abs(held.unrealised(spent / total)) < Decimal("1e-15") * spent


@given(st.lists(st.tuples(st.sampled_from(["buy", "sell"]), amounts, prices), max_size=20))
def test_a_position_is_never_negative(legs):
    fills = [fill(n, side, amount, price) for n, (side, amount, price) in enumerate(legs)]
    position = compute_position("BTC/USDT", fills)
    assert position.amount >= 0
    assert position.cost >= 0
