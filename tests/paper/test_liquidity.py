"""The market's book: whole counts that are the shape's shares of price and volume."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tradelib.paper.instruments import Instrument
from tradelib.paper.liquidity import Liquidity, Shape, from_counts, mix, to_counts
from tradelib.paper.orders import BUY, SELL

TICKS = st.sampled_from(["0.01", "0.5", "0.00000001", "3"])
LOTS = st.sampled_from(["0.00000001", "0.001", "1", "0.25"])
SHARES = st.decimals(0, 2, places=4)
COUNT = Decimal("0.00000001")


def book(tick, lot, ticks, volume, spread, gap, top, growth, salt):
    instrument = Instrument("AAA", "USD", Decimal(tick), Decimal(lot))
    shape = Shape(spread, gap, top, growth, levels=30)
    return Liquidity(instrument, shape, ticks * Decimal(tick), volume, salt)


@given(
    tick=TICKS,
    lot=LOTS,
    ticks=st.integers(1, 10**6),
    volume=st.decimals(0, 10**6, places=8),
    spread=st.decimals(0, 500, places=3),
    gap=st.decimals(0, 90, places=4),
    top=SHARES,
    growth=SHARES,
    salt=st.integers(0, 2**64 - 1),
)
def test_levels_are_the_shapes_shares_in_whole_ticks_and_lots(
    tick, lot, ticks, volume, spread, gap, top, growth, salt
):
    market = book(tick, lot, ticks, volume, spread, gap, top, growth, salt)
    tick, lot = market.instrument.tick, market.instrument.step
    with localcontext(prec=60):
        half = market.price * spread / 20_000
        for side, edge, rounding in (
            (BUY, market.price - half, ROUND_FLOOR),
            (SELL, market.price + half, ROUND_CEILING),
        ):
            levels = list(market.levels(side))
            best = (edge / tick).to_integral_value(rounding) * tick
            assert levels[0][0] == max(best, tick)
            step = max(market.instrument.round_price(market.price * gap / 10_000), tick)
            assert all(abs(b - a) == step for (a, _), (b, _) in pairwise(levels))
            for rank, (price, amount) in enumerate(levels):
                assert price > 0
                noise = Decimal(mix(salt ^ (rank * 2 + (side == BUY))) >> 44) / (1 << 20)
                size = volume * top * (1 + growth * rank) * (noise + Decimal("0.5"))
                assert amount % lot == 0
                # Each product is cut to a whole count, and then made larger by the next.
                lowest = size - (Decimal("1.5") * (1 + rank * growth) + 3) * COUNT - lot
                assert max(lowest, lot) <= amount <= max(size, lot)


@given(st.integers(0, 2**62))
def test_counts_and_decimals_are_the_same(count):
    assert to_counts(from_counts(count)) == count
