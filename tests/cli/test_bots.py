"""`desk bots`: what is changed, what is refused, and what stays of a bot that is gone."""

import json
from dataclasses import replace

import pytest

from tests.cli.test_bad_input import assert_refused
from tests.desks import PaperDesk, desk_command, paper_desk
from tradelib.trading import bots
from tradelib.trading.bots import Bot, BotStatus, add_bot, change_bot, load_bot, load_bots
from tradelib.trading.decisions import Action
from tradelib.trading.orders import load_fills, load_orders
from tradelib.trading.positions import load_position
from tradelib.venue import OrderType, Venue


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    with paper_desk(tmp_path_factory.mktemp("desk")) as opened:
        opened.reconcile()
        opened.fetch()
        yield opened


@pytest.fixture
def bot(desk: PaperDesk) -> Bot:
    """A bot of its own, stopped."""
    name = f"calm-{len(load_bots(desk.ledger))}"
    add_bot(desk.ledger, replace(desk.bot, name=name, status=BotStatus.STOPPED, stops={}))
    return load_bot(desk.ledger, name)


def command(desk: PaperDesk, *words: object):
    return desk_command("bots", *words, home=desk.settings.home)


@pytest.mark.parametrize("value", ["0.0005", "0.00001", "0", "-1", "0.21", "3"])
def test_a_trailing_stop_at_a_distance_that_no_venue_takes_is_refused(desk, bot, value):
    done = command(desk, "edit", bot.name, "--stops", f"trailing={value}")
    assert_refused(done, "0.001 to 0.2")
    assert load_bot(desk.ledger, bot.name) == bot


@pytest.mark.parametrize("value", ["0.001", "0.2"])
def test_a_trailing_stop_within_the_range_is_taken(desk, bot, value):
    assert command(desk, "edit", bot.name, "--stops", f"trailing={value}").returncode == 0
    assert load_bot(desk.ledger, bot.name).stops == {"trailing": float(value)}


def limit_venue(monkeypatch, lacking: OrderType | None) -> None:
    """A venue without one type of order, or without brackets."""
    real = Venue.supports

    def supports(self, kind, symbol=None):
        return kind is not lacking and real(self, kind, symbol)

    if lacking is None:
        made = Venue.__init__

        def init(self, *args, **more):
            made(self, *args, **more)
            self.supports_brackets = False

        monkeypatch.setattr(Venue, "__init__", init)
    monkeypatch.setattr(Venue, "supports", supports)


@pytest.mark.parametrize(
    ("lacking", "stops", "said"),
    [
        (OrderType.STOP_LOSS, {"loss": 0.05}, "stop_loss"),
        (OrderType.TRAILING_STOP, {"trailing": 0.05}, "trailing_stop"),
        (None, {"loss": 0.05, "profit": 0.1}, "choose loss or profit"),
    ],
)
def test_stops_that_the_venue_does_not_take_are_refused(
    desk, bot, monkeypatch, lacking, stops, said
):
    limit_venue(monkeypatch, lacking)
    asked = [word for name, at in stops.items() for word in ("--stops", f"{name}={at}")]
    assert_refused(command(desk, "edit", bot.name, *asked), said)
    assert load_bot(desk.ledger, bot.name).stops == {}
    assert_refused(command(desk, "add", "late", "--symbol", "BTC/USDT", *asked), said)
    change_bot(desk.ledger, bot.name, lambda known: replace(known, stops=stops))
    assert_refused(command(desk, "start", bot.name), said)
    assert load_bot(desk.ledger, bot.name).status == BotStatus.STOPPED


def test_stops_are_changed_while_no_desk_runs(desk, bot):
    file = desk.settings.home / "desk.toml"
    before = file.read_text()
    file.write_text(before.replace(f'"{desk.paper.url}"', '"service:paper"'))
    try:
        done = command(desk, "edit", bot.name, "--stops", "loss=0.05")
    finally:
        file.write_text(before)
    assert done.returncode == 0, done.stderr
    assert load_bot(desk.ledger, bot.name).stops == {"loss": 0.05}


def test_an_edit_does_not_start_a_bot_that_was_stopped_meanwhile(desk, bot, monkeypatch):
    change_bot(desk.ledger, bot.name, lambda known: replace(known, status=BotStatus.RUNNING))
    real, calls = bots.load_bot, []

    def stop_after(ledger, name):
        found = real(ledger, name)
        calls.append(name)
        change_bot(ledger, name, lambda known: replace(known, status=BotStatus.STOPPED))
        return found

    monkeypatch.setattr(bots, "load_bot", stop_after)
    done = command(desk, "edit", bot.name, "--stops", "loss=0.05")
    monkeypatch.undo()
    assert (done.returncode, calls) == (0, [bot.name])
    after = load_bot(desk.ledger, bot.name)
    assert (after.status, after.stops) == (BotStatus.STOPPED, {"loss": 0.05})


def test_a_bot_that_runs_or_holds_or_waits_is_not_removed(tmp_path):
    with paper_desk(tmp_path / "desk") as desk:
        name = desk.bot.name
        desk.reconcile()
        assert_refused(command(desk, "remove", name), "stop it first")
        desk.trade(Action.BUY)
        assert command(desk, "stop", name).returncode == 0
        assert_refused(command(desk, "remove", name), "desk sell BTC/USDT all --bot")
        held = load_position(desk.ledger, name, "BTC/USDT").amount
        price = int(desk.ccxt().fetch_ticker("BTC/USDT")["bid"] * 1.4)
        amount = desk.venue().fetch_instrument("BTC/USDT").round_amount(held)
        done = desk_command(
            "sell", "BTC/USDT", amount, "--bot", name, "--limit", price,
            "--confirm", f"sell {amount.normalize():f} BTC/USDT", home=desk.settings.home,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert_refused(command(desk, "remove", name), "is not settled")
        assert name in {known.name for known in load_bots(desk.ledger)}
        assert_refused(command(desk, "remove", "nobody"), "nobody")


def test_what_a_bot_did_stays_when_it_is_gone(tmp_path):
    with paper_desk(tmp_path / "desk") as desk:
        desk.reconcile()
        name = desk.bot.name
        desk.trade(Action.BUY)
        desk.trade(Action.SELL, "1")
        desk.reconcile()
        orders, fills = load_orders(desk.ledger), load_fills(desk.ledger)
        assert command(desk, "stop", name).returncode == 0
        done = command(desk, "remove", name)
        assert done.returncode == 0, done.stderr
        assert name not in {known.name for known in load_bots(desk.ledger)}
        assert (load_orders(desk.ledger), load_fills(desk.ledger)) == (orders, fills)
        for record in (orders[0].client_id, orders[0].decision):
            done = desk_command("show", record, "--json", home=desk.settings.home)
            assert json.loads(done.stdout)["decision"]["bot"] == name
        for words in ("status", "positions", "orders", "bots list"):
            assert desk_command(*words.split(), home=desk.settings.home).returncode == 0
        assert desk.reconcile().agrees
