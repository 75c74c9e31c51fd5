"""The decision step, told candle by candle, and the same bits in plain Python and compiled."""

import math
from functools import cache

import numba
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradelib.errors import InvalidInput
from tradelib.strategy import decision
from tradelib.strategy.decision import (
    COOL,
    FROZEN,
    HOT,
    NEVER_MS,
    WARM,
    DecisionParams,
    DecisionState,
    after_fill,
    decide,
    reason_text,
)

MINUTE = 60_000
START = 1_767_225_600_000
PARAMS = DecisionParams(buy_threshold=0.5, sell_threshold=-0.25, hot_from=0.25, warm_from=0.125)
AT_ONCE = PARAMS.changed(confirmation_minutes=0, cooldown_minutes=0)
GOOD = DecisionState().to_json()
HOLDING = DecisionState(amount=1.0, entry_price=100.0)


def at(minute, score, state=None, price=100.0, equity=1000.0, cash=1000.0, params=PARAMS):
    state = DecisionState() if state is None else state
    return decide(state, score, price, START + minute * MINUTE, equity, cash, params.step())


def told(taken):
    return (taken.action, reason_text(taken.reason))


def test_a_signal_trades_after_it_persisted_for_the_confirmation():
    state, first = at(0, 0.6)
    assert told(first) == (0, "signal not confirmed yet")
    state, second = at(4, 0.6, state)
    assert told(second) == (0, "signal not confirmed yet")
    state, third = at(5, 0.6, state)
    assert told(third) == (1, "confirmed buy signal")


def test_a_signal_confirms_at_the_first_close_past_the_confirmation():
    state, _ = at(0, 0.6)
    assert at(7, 0.6, state)[1].action == 1


@pytest.mark.parametrize("between", [0.0, -0.9, math.nan])
def test_a_signal_that_went_away_is_confirmed_afresh(between):
    state, _ = at(0, 0.6)
    state, _ = at(3, between, state)
    state, back = at(6, 0.6, state)
    assert back.action == 0
    assert at(11, 0.6, state)[1].action == 1


def test_without_confirmation_a_signal_trades_at_once():
    assert at(0, 0.6, params=AT_ONCE)[1].action == 1


def test_a_signal_is_on_at_its_very_threshold():
    assert at(0, 0.5, params=AT_ONCE)[1].action == 1
    assert at(0, math.nextafter(0.5, 0), params=AT_ONCE)[1].action == 0
    assert at(0, -0.25, HOLDING, params=AT_ONCE)[1].action == -1


def test_the_cooldown_holds_after_a_trade_and_not_a_moment_longer():
    params = PARAMS.changed(confirmation_minutes=0)
    state = after_fill(DecisionState(), 1, 1.0, 100.0, START)
    assert told(at(14, -0.9, state, params=params)[1]) == (0, "cooling down after the last trade")
    assert told(at(15, -0.9, state, params=params)[1]) == (-1, "confirmed sell signal")


@pytest.mark.parametrize(
    ("score", "temperature", "fraction"),
    [(0.5, COOL, 0.08), (0.625, WARM, 0.15), (0.75, HOT, 0.25), (1.0, HOT, 0.25)],
)
def test_the_distance_beyond_the_threshold_sets_temperature_and_size(score, temperature, fraction):
    taken = at(0, score, params=AT_ONCE)[1]
    assert (taken.temperature, taken.fraction) == (temperature, fraction)


def test_no_signal_is_frozen():
    assert at(0, 0.4)[1] == (0, 0.0, FROZEN, decision.NO_SIGNAL)


def test_a_buy_fills_the_position_up_to_its_size():
    state = DecisionState(amount=1.0, entry_price=100.0)
    taken = at(0, 1.0, state, params=AT_ONCE)[1]
    assert taken.fraction == pytest.approx(0.15)
    full = DecisionState(amount=2.4, entry_price=100.0)
    assert told(at(0, 1.0, full, params=AT_ONCE)[1]) == (0, "position is large enough")


def test_a_buy_spends_no_more_than_the_cash():
    assert at(0, 1.0, cash=100.0, params=AT_ONCE)[1].fraction == 0.1
    assert told(at(0, 1.0, cash=10.0, params=AT_ONCE)[1]) == (0, "no cash left")
    assert told(at(0, 1.0, equity=0.0, cash=0.0, params=AT_ONCE)[1]) == (0, "no cash left")


def test_a_sell_gives_up_the_whole_position():
    assert at(0, -0.3, HOLDING, params=AT_ONCE)[1][:2] == (-1, 1.0)
    assert told(at(0, -0.3, params=AT_ONCE)[1]) == (0, "nothing to sell")


@pytest.mark.parametrize("score", [1.0, 0.0, math.nan])
def test_a_stop_waits_for_neither_confirmation_nor_cooldown_nor_score(score):
    state = HOLDING._replace(last_trade_ms=START)
    stopped, taken = at(1, score, state, price=90.0)
    assert told(taken) == (-1, "stop loss")
    assert taken.fraction == 1.0
    assert (stopped.pending, stopped.pending_since_ms) == (0, NEVER_MS)
    assert at(1, score, state, price=90.01)[1].action == 0


def test_a_stop_of_the_whole_price_never_stops():
    assert at(0, 0.0, HOLDING, price=1e-9, params=PARAMS.changed(stop_loss=1))[1].action == 0


def test_a_score_that_warms_up_holds():
    assert told(at(0, math.nan)[1]) == (0, "warming up")


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf])
def test_a_price_that_is_none_holds(price):
    assert told(at(0, 1.0, HOLDING, price=price, params=AT_ONCE)[1]) == (0, "no usable price")


def test_fills_keep_amount_mean_entry_and_time():
    state = after_fill(DecisionState(), 1, 1.0, 100.0, START)
    state = after_fill(state, 1, 3.0, 200.0, START + 1)
    assert (state.amount, state.entry_price, state.last_trade_ms) == (4.0, 175.0, START + 1)
    state = after_fill(state, -1, 1.0, 300.0, START + 2)
    assert (state.amount, state.entry_price) == (3.0, 175.0)
    state = after_fill(state, -1, 3.0, 300.0, START + 3)
    assert (state.amount, state.entry_price, state.last_trade_ms) == (0.0, 0.0, START + 3)


def test_parameters_that_contradict_each_other_are_refused():
    with pytest.raises(InvalidInput, match="warm_from"):
        DecisionParams(warm_from=0.5)
    with pytest.raises(InvalidInput, match="Sizes"):
        DecisionParams(cool_size=0.5)
    with pytest.raises(InvalidInput, match="did you mean 'stop_loss'"):
        DecisionParams(stoploss=0.5)


def test_every_reason_has_words():
    assert len({reason_text(code) for code in range(14)}) == 14
    with pytest.raises(InvalidInput):
        reason_text(14)


# Entry plans.

SIZE = 0.24


def plan(entry_plan, **values):
    return AT_ONCE.changed(
        cool_size=SIZE, warm_size=SIZE, hot_size=SIZE, entry_plan=entry_plan,
        **{"tranches": 3, "tranche_spacing": 0.02, **values},
    )  # fmt: skip


def entries(params, *prices):
    """The fraction of equity bought at each price, 0 where nothing is; fills at the price."""
    state, fractions, cash = DecisionState(), [], 1000.0
    for minute, price in enumerate(prices):
        equity = cash + state.amount * price
        state, taken = at(minute, 1.0, state, price, equity, cash, params)
        fractions.append(round(taken.fraction, 12))
        if taken.action > 0:
            amount = taken.fraction * equity / price
            cash -= amount * price
            state = after_fill(state, 1, amount, price, START + minute * MINUTE)
    return fractions


@pytest.mark.parametrize(
    ("entry_plan", "prices", "fractions"),
    [
        ("single", (100, 98, 96.04), [0.24, 0, 0]),
        ("equal", (100, 99, 98, 100, 96, 90), [0.08, 0, 0.08, 0, 0.08, 0]),
        ("pyramid_up", (100, 102, 98, 96, 90), [0.04, 0, 0.08, 0.12, 0]),
        ("pyramid_down", (100, 98, 102, 104.1, 110), [0.12, 0, 0.08, 0.035, 0]),
        ("adaptive", (100, 99, 103, 100), [0.08, 0, 0.12, 0.04]),
        ("adaptive", (100, 101, 94, 90), [0.08, 0, 0.16, 0]),
    ],
)
def test_a_plan_buys_its_parts_where_the_price_has_moved_its_way(entry_plan, prices, fractions):
    bought = entries(plan(entry_plan), *prices)
    assert bought == pytest.approx(fractions, abs=0.002)
    assert [f > 0 for f in bought] == [f > 0 for f in fractions]


def test_a_plan_says_why_it_waits_and_when_it_is_done():
    params = plan("equal", tranches=2)
    state = after_fill(DecisionState(), 1, 1.2, 100.0, START)
    told_of = told(at(1, 1.0, state, 99.0, params=params)[1])
    assert told_of == (0, "price has not moved far enough for the next entry")
    state = after_fill(state, 1, 1.2, 97.0, START)
    assert told(at(1, 1.0, state, 90.5, params=params)[1]) == (
        0, "all entries of the plan are made",
    )  # fmt: skip


def test_without_a_spacing_a_plan_asks_nothing_of_the_price():
    for entry_plan in decision.ENTRY_PLANS[1:]:
        bought = entries(plan(entry_plan, tranche_spacing=0), 100, 100, 100, 100)
        assert [f > 0 for f in bought] == [True, True, True, False]
        assert sum(bought) == pytest.approx(SIZE)


def test_every_entry_waits_for_the_cooldown():
    params = plan("equal", tranche_spacing=0).changed(cooldown_minutes=15)
    state = after_fill(DecisionState(), 1, 0.8, 100.0, START)
    assert told(at(14, 1.0, state, params=params)[1]) == (0, "cooling down after the last trade")
    assert at(15, 1.0, state, params=params)[1].action == 1


def test_a_part_is_no_smaller_than_the_smallest_step():
    params = plan("equal", tranches=50, tranche_spacing=0)
    bought = entries(params, *[100] * 20)
    assert {round(fraction, 9) for fraction in bought} == {0.02, 0.0}
    assert SIZE - 0.021 < sum(bought) <= SIZE


def test_a_sale_ends_the_plan_and_the_next_one_begins_anew():
    state = after_fill(DecisionState(), 1, 0.4, 100.0, START)
    state = after_fill(state, 1, 0.8, 98.0, START)
    assert (state.tranches, state.last_entry) == (2, 98.0)
    assert after_fill(state, -1, 0.2, 98.0, START).tranches == 2
    state = after_fill(state, -1, 1.2, 98.0, START)
    assert (state.tranches, state.last_entry) == (0, 0.0)
    assert at(1, 1.0, state, params=plan("pyramid_up"))[1].fraction == pytest.approx(0.04)


def test_a_bot_without_a_plan_has_one_entry():
    assert (PARAMS.entries, plan("equal").entries) == (1, 3)
    with pytest.raises(InvalidInput, match="entry_plan"):
        DecisionParams(entry_plan="martingale")


@settings(max_examples=300)
@given(
    st.sampled_from(decision.ENTRY_PLANS[1:]), st.integers(1, 8), st.sampled_from([0.0, 0.01]),
    st.lists(st.floats(60, 140), min_size=1, max_size=20),
    st.sampled_from([0.5, 0.65, 1.0]),
)  # fmt: skip
def test_a_plans_entries_never_cost_more_than_the_temperatures_size(
    entry_plan, tranches, spacing, prices, score
):
    params = AT_ONCE.changed(
        entry_plan=entry_plan, tranches=tranches, tranche_spacing=spacing, stop_loss=1
    )
    size = {0.5: params.cool_size, 0.65: params.warm_size, 1.0: params.hot_size}[score]
    state, cash, equity = DecisionState(), 1000.0, 1000.0
    for minute, price in enumerate(prices):
        equity = cash + state.amount * price
        state, taken = at(minute, score, state, price, equity, cash, params)
        if taken.action > 0:
            spent = taken.fraction * equity
            cash -= spent
            state = after_fill(state, 1, spent / price, price, START + minute * MINUTE)
            assert 1000.0 - cash <= size * equity * (1 + 1e-9)
    assert state.tranches <= tranches


states = st.builds(
    DecisionState,
    st.sampled_from([-1, 0, 1]),
    st.integers(START - 30 * MINUTE, START) | st.just(NEVER_MS),
    st.integers(START - 30 * MINUTE, START) | st.just(NEVER_MS),
    st.just(0.0) | st.floats(1e-6, 20),
    st.just(0.0) | st.floats(50, 200),
    st.integers(0, 4),
    st.just(0.0) | st.floats(50, 200),
)
step_params = st.builds(
    plan, st.sampled_from(decision.ENTRY_PLANS), tranches=st.integers(1, 5),
    tranche_spacing=st.sampled_from([0.0, 0.02]),
) | st.just(PARAMS)  # fmt: skip
scores = st.floats(-1, 1) | st.sampled_from([math.nan, 0.5, -0.25, 0.75])
money = st.floats(0, 2000) | st.just(math.nan)
prices = st.floats(50, 200) | st.sampled_from([math.nan, 0.0])


@given(states)
def test_a_state_survives_json_exactly(state):
    assert DecisionState.from_json(state.to_json()) == state


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", "null", '{"pending": "x"}', GOOD[:-1], GOOD[:-1] + ', "more": 1}']
)
def test_text_that_is_no_state_is_refused(text):
    with pytest.raises(InvalidInput, match="cannot be read"):
        DecisionState.from_json(text)


@cache
def compiled():
    return numba.njit(decide), numba.njit(after_fill)


def bits(values):
    return [value.hex() if isinstance(value, float) else value for value in values]


@settings(deadline=None, max_examples=500)
@given(states, scores, prices, money, money, st.integers(0, 40), step_params)
def test_compiled_and_plain_steps_agree_to_the_bit(
    state, score, price, equity, cash, minute, params
):
    arguments = (state, score, price, START + minute * MINUTE, equity, cash, params.step())
    plain, fast = decide(*arguments), compiled()[0](*arguments)
    assert bits(plain[0]) == bits(fast[0])
    assert bits(plain[1]) == bits(fast[1])


@settings(deadline=None)
@given(states, st.sampled_from([1, -1]), st.floats(1e-6, 10), st.floats(50, 200))
def test_compiled_and_plain_fills_agree_to_the_bit(state, side, amount, price):
    arguments = (state, side, amount, price, START)
    assert bits(after_fill(*arguments)) == bits(compiled()[1](*arguments))


@settings(max_examples=300)
@given(
    states, scores, prices, st.floats(0, 2000), st.floats(0, 2000), st.integers(0, 40), step_params
)
def test_a_decision_never_spends_or_sells_what_is_not_there(
    state, score, price, equity, cash, minute, params
):
    taken = at(minute, score, state, price, equity, cash, params)[1]
    assert 0 <= taken.fraction <= 1
    assert (taken.action == 0) == (taken.fraction == 0)
    if taken.action == 1:
        assert taken.fraction * equity <= cash * (1 + 1e-12)
        assert taken.temperature != FROZEN
    if taken.action == -1:
        assert state.amount > 0


@given(states, scores, st.floats(50, 200), st.integers(0, 40))
def test_asking_twice_about_one_candle_changes_nothing(state, score, price, minute):
    once, taken = at(minute, score, state, price)
    assert at(minute, score, once, price) == (once, taken)
