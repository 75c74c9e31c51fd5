"""Orders by hand, halts and reconciliation from a terminal."""

import json
from decimal import Decimal
from shutil import rmtree

import pytest
from sqlalchemy import delete

from tests.desks import PaperDesk, desk_command, load_equity, paper_desk
from tradelib.errors import StorageFailed
from tradelib.trading import tables
from tradelib.trading.decisions import Action
from tradelib.trading.halts import TradingState, active_halt, halt_trading, resume_trading
from tradelib.trading.incidents import load_incidents
from tradelib.trading.leaving import flatten_positions
from tradelib.trading.orders import Order, OrderStatus, Role, load_order, load_orders
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
    # A refusal that a test has played holds back the next one's orders for its ten seconds.
    rmtree(opened.settings.home / "run/budget", ignore_errors=True)
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
        (["buy", "BTC/USDT", "0.001", "--limit", "9", "--tif", "GTD"], "did you mean 'GTC'"),
        (["buy", "BTC/USDT", "0.001", "--tif", "IOC"], "give it --limit"),
        (["sell", "BTC/USDT", "0.001", "--stop", "9", "--tif", "IOC"], "give it --limit"),
        (["buy", "BTC/USDT", "0.001", "--limit", "9", "--post-only", "--tif", "IOC"], "--tif says"),
        (["buy", "BTC/USDT", "1e999999"], "at most 1000000000000000"),
        (["buy", "BTC/USDT", "1e-999999"], "18 decimals"),
        (["buy", "BTC/USDT", "0.0000000000000000001"], "18 decimals"),
        (["buy", "BTC/USDT", "9" * 5000], "at most 1000000000000000"),
        (["buy", "BTC/USDT", "0.001", "--limit", "1e999999"], "at most 1000000000000000"),
        (["sell", "BTC/USDT", "0.001", "--stop", "1e99"], "at most 1000000000000000"),
        (["sell", "BTC/USDT", "0.001", "--trailing", "1e15"], "0.001 to 0.2"),
        (["sell", "BTC/USDT", "0.001", "--trailing", "0.00001"], "0.001 to 0.2"),
        (["buy", "BTC/USDT", "0.001", "--limit", "0.0001"], "step of 0.01"),
        (["sell", "BTC/USDT", "0.001", "--stop", "0.0001"], "step of 0.01"),
        (["sell", "SOL/USDT", "all"], "holds no SOL"),
        (["sell", "SOL/USDT", "all", "--bot", "sol-weighted"], "holds no SOL"),
        (["sell", "BTCUSDT", "all"], "did you mean 'BTC/USDT'"),
        (["sell", "/", "all"], "Unknown symbol '/'"),
        (["sell", "", "all"], "Unknown symbol ''"),
        (["buy", "BTC/USDT", "all"], "`all` is for sales"),
        (["sell", "ETH/USDT", "0.1", "--bot", "btc-weighted"], "trades BTC/USDT"),
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


def quote(desk: PaperDesk) -> Decimal:
    return desk.venue().fetch_quotes(["BTC/USDT"])["BTC/USDT"].bid


def enter(desk: PaperDesk, amount: str, price: object, *more: object) -> str:
    """A purchase that rests at a price; its id."""
    run(
        desk, "buy", "BTC/USDT", amount, "--limit", price, "--post-only", *more,
        "--confirm", f"buy {amount} BTC/USDT",
    )  # fmt: skip
    return newest(desk).client_id


def status(desk: PaperDesk, client_id: str) -> OrderStatus:
    return load_order(desk.ledger, client_id).status


@pytest.mark.parametrize("why", ["halt", "limit"])
def test_an_order_is_not_cancelled_for_one_that_would_be_refused(desk, why):
    order, price = rest(desk), "60000"
    if why == "halt":
        halt_trading(desk.ledger, "look")
    else:
        price = "2000"  # of which the order is worth too little
    told = run(desk, "replace", order, "--limit", price, "--confirm", "buy 0.001 BTC/USDT", code=1)
    assert "halted" in told if why == "halt" else "allowed are" in told
    assert status(desk, order) == OrderStatus.OPEN


def test_an_order_is_replaced_with_the_share_that_it_holds_itself(desk):
    """The position may be 30% of equity: the order alone fits, and not twice."""
    price = int(quote(desk) * Decimal("0.6"))
    worth = load_equity(desk.ledger, "paper")[-1].equity * Decimal("0.2")
    amount = f"{(worth / price).quantize(Decimal('0.001')).normalize():f}"
    file = desk.settings.home / "desk.toml"
    before = file.read_text()
    file.write_text(before + "[limits.order_notional.USDT]\nmin = 10\nmax = 1000000\n")
    try:
        order = enter(desk, amount, price)
        told = run(
            desk, "replace", order, "--limit", price + 10, "--confirm", f"buy {amount} BTC/USDT"
        )
        assert "all allow it" in told
        assert newest(desk).status == OrderStatus.OPEN
        told = run(
            desk, "replace", newest(desk).client_id, "--limit", price * 1.6,
            "--confirm", f"buy {amount} BTC/USDT", code=1,
        )  # fmt: skip
        assert "of equity" in told
        assert newest(desk).status == OrderStatus.OPEN
    finally:
        file.write_text(before)


def test_a_bot_s_resting_entry_is_replaced(desk):
    order = enter(desk, "0.001", int(quote(desk) * Decimal("0.6")), "--bot", desk.bot.name)
    run(desk, "replace", order, "--limit", "60000", "--confirm", "buy 0.001 BTC/USDT")
    assert status(desk, order) == OrderStatus.CANCELED
    assert newest(desk).limit_price == 60_000


@pytest.fixture
def held(desk):
    """A bot with a position and stops; it is sold at the end."""
    name = desk.bot.name

    def protect(*stops: str) -> str:
        words = [word for stop in stops for word in ("--stops", stop)]
        run(desk, "bots", "edit", name, *words)
        run(desk, "buy", "BTC/USDT", "0.002", "--bot", name, "--confirm", "buy 0.002 BTC/USDT")
        return name

    yield protect
    resume_trading(desk.ledger)
    run(desk, "bots", "edit", name, "--stops", "loss=off", "--stops", "profit=off")
    run(desk, "halt", "the end", "--flatten")


def stops(desk: PaperDesk) -> list[Order]:
    return [
        order
        for order in load_orders(desk.ledger, bot=desk.bot.name, unsettled=True)
        if Role(order.role).protects
    ]


def test_a_purchase_for_a_bot_has_its_stop_at_once(desk, held):
    held("loss=0.05")
    (stop,) = stops(desk)
    assert (stop.status, stop.type) == (OrderStatus.OPEN, "stop_loss")
    assert stop.amount <= load_position(desk.ledger, desk.bot.name, "BTC/USDT").amount


def test_what_a_sale_for_a_bot_leaves_has_its_stop_at_once(desk, held):
    name = held("loss=0.05")
    run(desk, "sell", "BTC/USDT", "0.001", "--bot", name, "--confirm", "sell 0.001 BTC/USDT")
    (stop,) = stops(desk)
    left = load_position(desk.ledger, name, "BTC/USDT").amount
    assert stop.amount == desk.venue().fetch_instrument("BTC/USDT").round_amount(left)


def test_a_sale_for_a_bot_that_the_venue_rejects_leaves_its_stop(desk, held):
    name = held("loss=0.05")
    desk.paper.control("faults", script=[{"kind": "order_limit", "symbol": "BTC/USDT", "count": 1}])
    told = run(
        desk, "sell", "BTC/USDT", "0.001", "--bot", name,
        "--confirm", "sell 0.001 BTC/USDT", code=1,
    )  # fmt: skip
    desk.paper.control("faults", script=[])
    assert "REJECTED" in told
    assert [stop.status for stop in stops(desk)] == [OrderStatus.OPEN]


def test_an_order_that_protects_is_not_replaced(desk, held):
    held("profit=0.1")
    (target,) = stops(desk)
    told = run(desk, "replace", target.client_id, "--limit", "200000", code=2)
    assert "bots edit" in told
    assert status(desk, target.client_id) == OrderStatus.OPEN


HANGS = [{"kind": "hang_before", "on": "DELETE order", "hold_ms": 50, "count": 9}]


@pytest.mark.parametrize(
    "words", [("cancel", "all"), ("cancel", "ORDER"), ("halt", "storm", "--cancel-orders")]
)
def test_an_order_that_could_not_be_cancelled_is_named_and_fails_the_command(desk, words):
    order = rest(desk)
    desk.paper.control("faults", script=HANGS)
    told = run(desk, *(order if word == "ORDER" else word for word in words), code=1)
    desk.paper.control("faults", script=[])
    assert f"order {order} at paper is still OPEN" in told


def test_a_halt_that_cancels_leaves_stops_which_nothing_could_replace(desk, held):
    held("loss=0.05")
    entry = rest(desk)
    told = run(desk, "halt", "storm", "--cancel-orders")
    assert entry in told
    assert status(desk, entry) == OrderStatus.CANCELED
    assert [stop.status for stop in stops(desk)] == [OrderStatus.OPEN]


def test_flattening_is_halted_throughout(desk, held, monkeypatch):
    from tradelib.trading import leaving

    held("loss=0.05")
    entry, seen = rest(desk), []

    def look(ledger, *more):
        halt = active_halt(ledger)
        seen.append((halt.state, status(desk, entry), len(stops(desk))))
        return flatten_positions(ledger, *more)

    monkeypatch.setattr(leaving, "flatten_positions", look)
    run(desk, "halt", "storm", "--flatten")
    assert seen == [(TradingState.HALTED, OrderStatus.CANCELED, 1)]
    assert load_position(desk.ledger, desk.bot.name, "BTC/USDT").amount < Decimal("0.00002")
    assert load_orders(desk.ledger, unsettled=True) == []


def test_a_bot_that_could_not_be_sold_is_named_keeps_its_stop_and_fails_the_command(desk, held):
    name = held("loss=0.05")
    entry = rest(desk)
    desk.paper.control("faults", script=[{"kind": "order_limit", "symbol": "BTC/USDT", "count": 1}])
    told = run(desk, "halt", "storm", "--flatten", code=1)
    desk.paper.control("faults", script=[])
    assert f"bot {name} was not sold" in told
    assert status(desk, entry) == OrderStatus.CANCELED
    assert [stop.status for stop in stops(desk)] == [OrderStatus.OPEN]


def test_flattening_frees_coins_that_a_resting_sale_of_the_bot_locks(desk, held):
    name = held("loss=off")
    run(
        desk, "sell", "BTC/USDT", "0.001", "--bot", name, "--limit",
        int(quote(desk) * Decimal("1.4")), "--confirm", "sell 0.001 BTC/USDT",
    )  # fmt: skip
    run(desk, "halt", "storm", "--flatten")
    assert load_position(desk.ledger, name, "BTC/USDT").amount < Decimal("0.00002")


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
    run(desk, "buy", "BTC/USDT", "0.002", "--confirm", "buy 0.002 BTC/USDT")
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


def test_the_watch_goes_on_after_what_it_cannot_do(desk, monkeypatch):
    from tradelib.cli import trade

    looks = []

    def fail(settings, ledger):
        looks.append(settings)
        raise StorageFailed("The ledger cannot be used.") if len(looks) == 1 else ValueError("odd")

    def sleep(seconds):
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(trade, "accounts_in_use", fail)
    monkeypatch.setattr(trade.time, "sleep", sleep)
    run(desk, "watch", "--every", "1", code=130)
    assert len(looks) == 3
    assert "the watch over the venues failed" in run(desk, "watch", "--once", code=1)


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
