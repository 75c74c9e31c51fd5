"""Whose turn it is: nobody is always last, and who was left out comes first."""

from hypothesis import given
from hypothesis import strategies as st

from flows.turns import in_turn, load_turns, next_turns, save_turns
from tradelib.settings import load_settings
from tradelib.trading.bots import new_bot

NAMES = [f"b{number}" for number in range(7)]


def test_each_bot_is_first_once_before_one_is_again():
    order, firsts = NAMES, []
    for _ in NAMES:
        firsts.append(order[0])
        order = next_turns(order, set(order))
    assert firsts == NAMES
    assert order == NAMES


@given(st.permutations(NAMES), st.sets(st.sampled_from(NAMES)))
def test_who_was_left_out_comes_first_in_the_old_order_and_nobody_is_lost(order, had):
    after = next_turns(order, had)
    left = [name for name in order if name not in had]
    assert after[: len(left)] == left
    assert sorted(after) == sorted(NAMES)
    assert not had or after[-1] in had


def test_when_only_some_have_their_turn_each_time_all_of_them_have_it():
    order, had = NAMES, []
    for _ in range(7):
        had += order[:3]
        order = next_turns(order, set(order[:3]))
    assert {had.count(name) for name in NAMES} == {3}


def test_turns_are_kept_by_venue_and_new_bots_come_first(home):
    settings = load_settings(home)
    (home / "run").mkdir()
    assert load_turns(settings) == {}
    save_turns(settings, {"here": ["b", "a"]})
    save_turns(settings, {"there": ["c"]})
    assert load_turns(settings) == {"here": ["b", "a"], "there": ["c"]}
    bots = [new_bot(name, "here", "BTC/USDT", "1m", "momentum") for name in ("a", "b", "new")]
    assert [bot.name for bot in in_turn(bots, load_turns(settings)["here"])] == ["new", "b", "a"]


def test_turns_that_cannot_be_read_begin_anew(home):
    settings = load_settings(home)
    (home / "run").mkdir()
    for broken in ("{", "[]", '{"here": 3}'):
        (home / "run" / "turns.json").write_text(broken)
        assert load_turns(settings) == {}
        save_turns(settings, {"here": ["a"]})
        assert load_turns(settings) == {"here": ["a"]}
