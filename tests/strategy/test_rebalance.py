"""The rebalancing step: when weights are brought back to their targets, and how far."""

import numpy as np
import pytest

from tradelib.errors import InvalidInput
from tradelib.strategy.decision import NEVER_MS
from tradelib.strategy.rebalance import (
    COOLING_DOWN,
    NO_CASH,
    NO_EQUITY,
    NO_PRICE,
    REBALANCING,
    TOO_SMALL,
    WARMING_UP,
    WITHIN_BAND,
    RebalanceParams,
    rebalance,
    rebalance_reason,
)

HOUR = 3_600_000
RULES = RebalanceParams(band=0.05, smallest_step=0.02, interval_minutes=60, cash_reserve=0.1)


def decide(held, weights, *, cash=None, equity=1000.0, prices=None, time=HOUR, last=NEVER_MS,
           rules=RULES):  # fmt: skip
    """The step for positions worth `held` quote each, at a price of 10."""
    prices = np.full(len(held), 10.0) if prices is None else np.array(prices)
    cash = equity - sum(held) if cash is None else cash
    return rebalance(
        np.array(held) / 10.0, prices, np.array(weights), equity, cash, time, last, rules.step()
    )


def test_from_cash_every_symbol_is_bought_to_its_target():
    actions, fractions, reason = decide([0.0, 0.0], [0.5, 0.3])
    assert (actions.tolist(), reason) == ([1, 1], REBALANCING)
    assert fractions.tolist() == pytest.approx([0.5, 0.3])


def test_within_the_band_nothing_happens_and_beyond_it_all_is_brought_back():
    assert decide([450.0, 330.0], [0.4, 0.3])[2] == WITHIN_BAND
    actions, fractions, reason = decide([460.0, 270.0], [0.4, 0.3])
    assert (actions.tolist(), reason) == ([-1, 1], REBALANCING)
    assert fractions.tolist() == pytest.approx([60 / 460, 0.03])


def test_a_step_that_is_not_worth_its_fee_is_left_out():
    actions, _, _ = decide([460.0, 290.0], [0.4, 0.3])
    assert actions.tolist() == [-1, 0]
    tight = RULES.changed(band=0.0)
    assert decide([410.0, 290.0], [0.4, 0.3], rules=tight)[2] == TOO_SMALL


def test_a_symbol_without_a_target_is_sold_whole_even_within_the_band():
    actions, fractions, _ = decide([30.0, 500.0], [0.0, 0.5])
    assert (actions.tolist(), fractions.tolist()) == ([-1, 0], [1.0, 0.0])
    assert decide([10.0, 500.0], [0.0, 0.5])[2] == WITHIN_BAND
    # What is worth less than a step is no order even when others are.
    assert decide([10.0, 600.0], [0.0, 0.5])[0].tolist() == [0, -1]


def test_the_interval_is_waited_for():
    assert decide([0.0, 0.0], [0.5, 0.3], time=HOUR, last=1)[2] == COOLING_DOWN
    assert decide([0.0, 0.0], [0.5, 0.3], time=HOUR, last=0)[2] == REBALANCING


def test_purchases_share_what_cash_and_sales_give_beyond_the_reserve():
    actions, fractions, _ = decide([600.0, 0.0, 0.0], [0.2, 0.4, 0.4], cash=100.0)
    assert actions.tolist() == [-1, 1, 1]
    # 100 of cash and 400 of sales, less the reserve of 100.
    assert fractions[1:].tolist() == pytest.approx([0.2, 0.2])


def test_without_cash_nothing_is_bought_and_never_with_a_loan():
    actions, fractions, reason = decide([0.0, 0.0], [0.5, 0.3], cash=50.0)
    assert (actions.tolist(), fractions.tolist(), reason) == ([0, 0], [0.0, 0.0], NO_CASH)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights": [np.nan, np.nan]}, WARMING_UP),
        ({"prices": [10.0, 0.0]}, NO_PRICE),
        ({"prices": [10.0, np.inf]}, NO_PRICE),
        ({"prices": [np.nan, 10.0]}, NO_PRICE),
        ({"equity": 0.0, "cash": 0.0}, NO_EQUITY),
    ],
)
def test_what_cannot_be_judged_is_left_alone(changes, reason):
    actions, fractions, found = decide(**{"held": [0.0, 0.0], "weights": [0.5, 0.3]} | changes)
    assert (found, actions.any(), fractions.any()) == (reason, False, False)


def test_purchases_never_exceed_what_there_is():
    random = np.random.default_rng(7)
    seen = set()
    for _ in range(2000):
        count = random.integers(2, 6)
        held = random.random(count) * 300 * (random.random(count) > 0.3)
        weights = random.dirichlet(np.ones(count + 1))[:count] * (random.random(count) > 0.3)
        cash = random.random() * 500
        equity = held.sum() + cash
        actions, fractions, reason = decide(list(held), list(weights), cash=cash, equity=equity)
        seen.add(reason)
        sold = (held * fractions)[actions < 0].sum()
        bought = (fractions * equity)[actions > 0].sum()
        assert bought <= max(cash + sold - 0.1 * equity, 0.0) + 1e-9
        assert (fractions[actions < 0] <= 1.0).all()
        assert (fractions[actions > 0] >= 0.02).all()
        after = held * (1 - fractions * (actions < 0)) + equity * fractions * (actions > 0)
        assert (np.abs(after - weights * equity) <= np.abs(held - weights * equity) + 1e-9).all()
    assert {REBALANCING, WITHIN_BAND} == seen


def test_every_reason_has_words_and_an_unknown_one_is_refused():
    assert len({rebalance_reason(code) for code in range(8)}) == 8
    with pytest.raises(InvalidInput, match="no reason 8"):
        rebalance_reason(8)
