"""`desk strategies` and `desk promote`, as they are typed."""

import json

import pytest

from tests.cli.test_bad_input import assert_refused
from tests.desks import desk_command, paper_desk
from tests.strategy.sources import REVERSAL
from tradelib.research.samples import random_candles
from tradelib.strategy.allocations import target_strategy_names
from tradelib.strategy.own import Source, save_source
from tradelib.strategy.registry import strategy_names


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    with paper_desk(tmp_path_factory.mktemp("desk")) as opened:
        home = opened.settings.home
        save_source(home / "strategies", Source("idea", REVERSAL))
        (home / "strategies" / "broken.py").write_text("def score(:\n")
        (home / "strategies" / "weighted.py").write_text(REVERSAL)
        random_candles(900, seed=3, timeframe="1m").to_csv(home / "walk_BTC-USDT_1m.csv")
        yield opened


def command(desk, *words):
    return desk_command(*words, home=desk.settings.home)


def promote(desk, *words):
    fixed = ["promote", "idea", "--symbol", "BTC/USDT"]
    return command(desk, *fixed, *words)


def test_strategies_are_listed_with_hash_needs_parameters_and_faults(desk):
    told = json.loads(command(desk, "strategies", "--json").stdout)
    ships = [row["name"] for row in told if not row["own"]]
    assert ships == [*strategy_names(), *target_strategy_names()]
    own = {row["name"]: row for row in told if row["own"]}
    idea = own["idea"]
    assert idea["hash"] == Source("idea", REVERSAL).reference.partition("@")[2]
    assert (idea["parameters"], idea["warm_up"], idea["history"]) == ({"window": 20}, 19, 20)
    assert "does not compile: line 1" in own["broken"]["error"]
    assert "already" in own["weighted"]["error"]
    table = command(desk, "strategies").stdout
    assert idea["hash"] in table
    assert "does not compile" in table


def test_a_bot_is_shown_with_what_it_trades_and_that_it_was_not_promoted(desk):
    done = command(desk, "bots", "show", desk.bot.name)
    assert "rsi_window=14" in done.stdout
    assert "was not promoted" in done.stdout
    told = json.loads(command(desk, "bots", "show", desk.bot.name, "--json").stdout)
    assert (told["bot"]["name"], told["promotion"]) == (desk.bot.name, None)
    assert_refused(command(desk, "bots", "show", "btc-weigted"), "did you mean 'btc-weighted'")


def test_candles_come_from_a_file_or_from_the_desks_own_store(desk):
    assert_refused(promote(desk, "--bot", "one"), "--candles, or a --timeframe")
    asked = ("--bot", "one", "--timeframe", "1m", "--hold-out", "0.4")
    assert_refused(promote(desk, *asked), "no candles of BTC/USDT 1m at paper")
    desk.fetch(history=600)
    done = promote(desk, *asked, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["bot"], told["candles"]["file"]) == ("one", "paper-store")
    assert told["checks"]["out_of_sample"]["kind"] == "hold-out"


def test_a_refusal_shows_what_was_found_and_ends_in_one_sentence(desk):
    file = desk.settings.home / "walk_BTC-USDT_1m.csv"
    done = promote(desk, "--bot", "two", "--candles", file)
    assert_refused(done, "no out-of-sample result", "say in writing")
    assert done.returncode == 2
    assert "no bias found" in done.stdout
    assert_refused(promote(desk, "--bot", "two", "--candles", file, "--tried", "window"), "5,10,20")
    assert_refused(
        promote(desk, "--bot", "two", "--candles", file, "--tried", "window=many"),
        "window = 'many' was never tried",
    )
    assert_refused(command(desk, "bots", "add", "x", "--symbol", "BTC/USDT", "--strategy",
                           "broken"), "does not compile: line 1")  # fmt: skip
