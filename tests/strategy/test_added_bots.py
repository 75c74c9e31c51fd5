"""A bot that is added by the command scores live what its strategy says of all candles."""

import math

import pytest

from tests.desks import desk_command, paper_desk
from tradelib.strategy.registry import strategy_names
from tradelib.trading.bots import load_bots
from tradelib.trading.deciding import load_scores


def test_every_strategys_bot_scores_from_its_history_alone(tmp_path):
    with paper_desk(tmp_path) as desk:
        symbol = desk.bot.symbol
        for name in strategy_names():
            added = desk_command(
                "bots", "add", f"one-{name}", "--symbol", symbol, "--venue", desk.market.venue,
                "--timeframe", desk.market.timeframe, "--strategy", name, home=tmp_path,
            )  # fmt: skip
            assert added.returncode == 0, added.stderr
        store, now = desk.fetch(history=1200), desk.venue().fetch_time()
        whole = store.load(desk.market.venue, symbol, desk.market.timeframe, as_of=now)
        assert len(whole) >= 1200
        bots = {bot.strategy: bot for bot in load_bots(desk.ledger) if bot.name.startswith("one-")}
        assert sorted(bots) == strategy_names()
        for bot in bots.values():
            candles, scores = load_scores(store, bot, now)
            assert len(candles) == bot.rules.history(bot.strategy_params)
            last = scores["score"].iloc[-1]
            assert not math.isnan(last)
            expected = bot.rules.score(whole, bot.strategy_params)["score"].iloc[-1]
            assert last == pytest.approx(expected, abs=1e-11)
