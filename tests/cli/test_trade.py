"""Orders by hand, halts and reconciliation from a terminal."""

import json
from decimal import Decimal

import pytest
from sqlalchemy import delete

from tests.desks import PaperDesk, desk_command, paper_desk
from tradelib.trading import tables
from tradelib.trading.decisions import Action
from tradelib.trading.halts import TradingState, active_halt, halt_trading, resume_trading
from tradelib.trading.incidents import load_incidents
from tradelib.trading.orders import OrderStatus, load_orders
from tradelib.trading.positions import load_position


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with paper_desk(tmp_path_factory.mktemp("desk")) as desk:
        desk.reconcile()
        yield desk


@pytest.fixture
def desk(opened):
    """The desk with no order of its own at rest and nothing halted."""
    yield opened
    resume_trading(opened.ledger)
    run(opened, "cancel", "all", "--venue", "paper")


def run(desk: PaperDesk, *arguments: object, code: int = 0) -> str:
    done = desk_command(*arguments, home=desk.settings.home)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def newest(desk: PaperDesk):
    return load_orders(desk.ledger, limit=1)[0]


def test_a_purchase_shows_its_preview_and_is_placed_once_it_is_typed(desk):
    told = run(desk, "buy", "BTC/USDT", "0.001", "--confirm", "buy 0.001 BTC/USDT")
    for word in ("bid / ask", "notional", "fee, about", "all allow it", "FILLED"):
        assert word in told
    assert newest(desk).status == OrderStatus.FILLED


def test_nothing_is_placed_without_the_typed_phrase(desk):
    before = len(load_orders(desk.ledger))
    told = run(desk, "buy", "BTC/USDT", "0.001", code=2)
    assert '--confirm "buy 0.001 BTC/USDT"' in told
    told = run(desk, "buy", "BTC/USDT", "0.001", "--confirm", "buy 0.1 BTC/USDT", code=2)
    assert "nothing was placed" in told
    assert len(load_orders(desk.ledger)) == before


def test_what_the_limits_refuse_is_told_before_anything_is_typed(desk):
    told = run(desk, "buy", "BTC/USDT", "3", code=1)
    assert "refuse it" in told
    assert "allowed are" in told


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["buy", "BTC/USDT", "nan"], "not a number above 0"),
        (["buy", "BTC/USDT", "0.001", "--limit", "-5"], "not a number above 0"),
        (["buy", "BTX/USDT", "0.001"], "did you mean 'BTC/USDT'"),
        (["buy", "BTC/USDT", "0.001", "--post-only"], "give it --limit"),
        (
            ["sell", "BTC/USDT", "0.001", "--stop", "1", "--trailing", "0.1"],
            "do not make one order",
        ),
        (["buy", "BTC/USDT", "0.001", "--limit", "9", "--tif", "GTD"], "time in force"),
        (["buy", "BTC/USDT", "0.001", "--venue", "papr"], "did you mean 'paper'"),
        (["sell", "BTC/USDT", "0.001", "--bot", "nobody"], "nobody"),
        (["cancel", "nd-nothing"], "no order"),
        (["replace", "nd-nothing", "--limit", "5"], "no order"),
    ],
)
def test_a_wrong_order_is_one_sentence(desk, words, sentence):
    told = run(desk, *words, code=2)
    assert sentence in told
    assert "Traceback" not in told


def rest(desk: PaperDesk) -> str:
    """A purchase that rests far below the market."""
    price = int(desk.ccxt().fetch_ticker("BTC/USDT")["bid"] * 0.6)
    run(
        desk, "buy", "BTC/USDT", "0.001", "--limit", price, "--post-only",
        "--confirm", "buy 0.001 BTC/USDT",
    )  # fmt: skip
    order = newest(desk)
    assert order.status == OrderStatus.OPEN
    return order.client_id


def test_a_resting_order_is_replaced_and_cancelled(desk):
    first = rest(desk)
    told = run(desk, "replace", first, "--limit", "50000", "--confirm", "buy 0.001 BTC/USDT")
    assert "CANCELED" in told
    second = newest(desk)
    assert (second.status, second.limit_price) == (OrderStatus.OPEN, 50_000)
    assert "CANCELED" in run(desk, "cancel", second.client_id)
    assert "No order of the desk's is open" in run(desk, "cancel", "all")


def test_a_bracket_is_one_command(desk):
    run(desk, "buy", "BTC/USDT", "0.001", "--confirm", "buy 0.001 BTC/USDT")
    run(
        desk, "sell", "BTC/USDT", "0.0005", "--stop", "50000", "--take-profit", "150000",
        "--confirm", "sell 0.0005 BTC/USDT",
    )  # fmt: skip
    assert {o["info"]["type"] for o in desk.ccxt().fetch_open_orders("BTC/USDT")} == {
        "LIMIT_MAKER", "STOP_LOSS",
    }  # fmt: skip


def test_a_halt_can_cancel_and_a_reducing_desk_only_sells(desk):
    rest(desk)
    told = run(desk, "halt", "storm", "--reduce-only", "--cancel-orders")
    assert "CANCELED" in told
    assert active_halt(desk.ledger).state == TradingState.REDUCING
    assert "REDUCING" in run(desk, "status")
    told = run(desk, "buy", "BTC/USDT", "0.001", "--confirm", "buy 0.001 BTC/USDT", code=1)
    assert "positions may only shrink" in told


def test_flattening_sells_every_bot_and_halts_even_a_halted_desk(desk):
    desk.trade(Action.BUY)
    halt_trading(desk.ledger, "look")
    told = run(desk, "halt", "enough", "--flatten")
    assert "FILLED" in told
    assert active_halt(desk.ledger).state == TradingState.HALTED
    assert load_position(desk.ledger, desk.bot.name, desk.bot.symbol).amount < Decimal("0.00002")


def test_reconcile_names_what_differs_and_fails_while_it_does(desk):
    assert "books and venue agree" in run(desk, "reconcile")
    theirs = desk.ccxt().create_order("ETH/USDT", "limit", "buy", 0.1, 1000)
    told = run(desk, "reconcile", code=1)
    assert "foreign order" in told
    desk.ccxt().cancel_order(theirs["id"], "ETH/USDT")
    assert json.loads(run(desk, "reconcile", "--json"))["agrees"]


def test_the_watch_cancels_entries_where_no_cycle_was_healthy_and_leaves_sales(desk):
    run(
        desk, "sell", "BTC/USDT", "0.001", "--stop", "50000", "--confirm", "sell 0.001 BTC/USDT",
    )  # fmt: skip
    stop, entry = newest(desk), rest(desk)
    assert entry in run(desk, "watch", "--once")
    states = {o.client_id: o.status for o in load_orders(desk.ledger)}
    assert (states[entry], states[stop.client_id]) == (OrderStatus.CANCELED, OrderStatus.OPEN)
    assert "no healthy cycle" in [i.kind for i in load_incidents(desk.ledger, open_only=True)]
    with desk.ledger.write() as books:
        books.execute(delete(tables.incidents))


def test_stops_of_a_bot_are_set_changed_and_taken_away(desk):
    name = desk.bot.name
    run(desk, "bots", "edit", name, "--stops", "loss=0.05", "--stops", "profit=0.1")
    assert desk.bot.stops == {"loss": 0.05, "profit": 0.1}
    run(desk, "bots", "edit", name, "--stops", "profit=off")
    assert desk.bot.stops == {"loss": 0.05}
    told = run(desk, "bots", "edit", name, "--stops", "trailing=0.02", code=2)
    assert "stands alone" in told
    run(desk, "bots", "edit", name, "--stops", "loss=off")
    assert desk.bot.stops == {}
