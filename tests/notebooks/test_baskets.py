"""A bot on several symbols, from the command that adds it to the replay of what it did."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from sqlalchemy import delete

from tests.cli.test_bad_input import assert_refused
from tests.desks import PaperDesk, desk_command, paper_desk
from tests.pages import execute_page
from tradelib.candles.store import CandleStore
from tradelib.notebooks import replay
from tradelib.notebooks.cycle import EXECUTE, FETCH, RECONCILE, SIGNALS
from tradelib.notebooks.fast import trade_at_once
from tradelib.notebooks.replay import Verdict, replay_run, replay_runs
from tradelib.settings import NOTEBOOKS
from tradelib.trading import tables
from tradelib.trading.bots import add_bot, load_bot, new_bot
from tradelib.trading.orders import OrderStatus, load_orders
from tradelib.trading.parity_check import check_bot
from tradelib.trading.runs import Outcome, Run, load_runs
from tradelib.views.portfolio import draw_portfolio

SYMBOLS = "BTC/USDT,ETH/USDT,SOL/USDT"


def command(desk: PaperDesk, *words: object):
    return desk_command(*words, home=desk.settings.home)


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaperDesk]:
    """A desk after two cycles of a single bot, which holds three symbols."""
    with paper_desk(tmp_path_factory.mktemp("desk")) as desk:
        desk.reconcile()
        with desk.ledger.write() as books:
            books.execute(delete(tables.bots))
        done = command(
            desk, "bots", "add", "basket", "--symbols", SYMBOLS, "--strategy",
            "inverse_volatility", "--param", "window=60", "--decision", "interval_minutes=30",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert command(desk, "bots", "start", "basket").returncode == 0
        desk.run_cycle()
        desk.step()
        desk.run_cycle()
        yield desk


def test_what_it_recorded_serves_the_check_of_a_bot_on_one_of_its_symbols(home: Path) -> None:
    symbols = SYMBOLS.split(",")
    with paper_desk(home) as desk:
        desk.reconcile()
        desk.fetch()
        single, venue = desk.bot, desk.venue()
        assert single.symbol == symbols[0]
        basket = new_bot(
            "basket", desk.market.venue, symbols[0], "1m", "equal_weight", symbols=symbols
        )
        add_bot(desk.ledger, basket)
        for bot in (basket, single):
            at = venue.fetch_time()
            list(trade_at_once(desk.settings, desk.ledger, bot, at, lambda _name: venue))
        found = check_bot(desk.ledger, CandleStore(desk.settings.candles), single.name)
    assert found.decisions == 1
    assert not [note for note in found.notes if "No order has recorded" in note]


def newest(desk: PaperDesk, notebook: str) -> Run:
    return next(run for run in load_runs(desk.ledger) if run.notebook == notebook)


def test_a_cycle_weighs_all_symbols_and_buys_each(traded: PaperDesk) -> None:
    runs = load_runs(traded.ledger)
    assert [run.notebook for run in reversed(runs)] == [
        FETCH, SIGNALS, EXECUTE, RECONCILE, FETCH, SIGNALS, RECONCILE,
    ]  # fmt: skip
    assert {run.outcome for run in runs} == {Outcome.SUCCEEDED}
    orders = load_orders(traded.ledger)
    assert sorted(order.symbol for order in orders) == SYMBOLS.split(",")
    assert {order.status for order in orders} == {OrderStatus.FILLED}
    assert newest(traded, RECONCILE).result["agrees"] is True


def test_every_run_comes_out_again(traded: PaperDesk) -> None:
    found = list(replay_runs(traded.settings, load_runs(traded.ledger)))
    assert [one.differences for one in found] == [()] * 7
    told = {(one.run.notebook, one.verdict) for one in found}
    assert told == {
        (FETCH, Verdict.TALKED),
        (SIGNALS, Verdict.SAME),
        (EXECUTE, Verdict.SAME),
        (RECONCILE, Verdict.TALKED),
    }


@pytest.mark.parametrize(
    ("notebook", "path"),
    [(SIGNALS, ("targets", 1, "weight")), (EXECUTE, ("2", "amount"))],
)
def test_what_a_run_did_not_compute_is_named(traded: PaperDesk, notebook, path) -> None:
    run = newest(traded, notebook)
    told = json.loads(json.dumps(run.result))
    part = told["computed"]
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = "1.5"
    found = replay_run(traded.settings, replace(run, result=told))
    (difference,) = found.differences
    assert difference.recorded == "1.5"
    for page in traded.settings.reports.rglob(replay.PAGE):
        page.unlink()


@pytest.mark.parametrize(
    ("notebook", "shown"),
    [
        (SIGNALS, ("ADJUST", "target weight")),
        (EXECUTE, ("3 of 3", "What happened to SOL/USDT")),
    ],
)
def test_a_page_opened_again_shows_the_weights(
    traded: PaperDesk, monkeypatch: pytest.MonkeyPatch, notebook, shown
) -> None:
    run = [run for run in load_runs(traded.ledger) if run.notebook == notebook][-1]
    page = nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", as_version=4)
    (parameters,) = [cell for cell in page.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = "\n".join(f"{name} = {value!r}" for name, value in run.parameters.items())
    parameters.source += f"\nrun = {run.id!r}"
    monkeypatch.setenv("DESK_HOME", str(traded.settings.home))
    text = str(execute_page(page))
    assert 'data-testid="weights"' in text
    for words in shown:
        assert words in text


def test_the_lists_name_all_symbols(traded: PaperDesk) -> None:
    listed = command(traded, "bots", "list").stdout
    assert "BTC/USDT, ETH/USDT, SOL/USDT" in listed
    held = json.loads(command(traded, "positions", "--json").stdout)
    assert [row["symbol"] for row in held] == SYMBOLS.split(",")
    assert all(float(row["amount"]) > 0 for row in held)


def test_the_portfolio_shows_each_symbol_and_the_decisions_of_all(traded: PaperDesk) -> None:
    sections = draw_portfolio(traded.ledger, CandleStore(traded.settings.candles))
    for symbol in SYMBOLS.split(","):
        assert symbol in sections["holdings"].text
        assert symbol in sections["orders"].text
    assert sections["decisions"].text.count("ADJUST") == 1
    assert "every weight is near its target" in sections["decisions"].text


def test_a_basket_is_edited_by_its_own_rules(traded: PaperDesk) -> None:
    done = command(traded, "bots", "edit", "basket", "--decision", "band=0.1")
    assert done.returncode == 0, done.stderr
    bot = load_bot(traded.ledger, "basket")
    assert (bot.rebalancing.band, bot.symbols) == (0.1, SYMBOLS.split(","))
    assert_refused(command(traded, "bots", "edit", "basket", "--stops", "loss=0.1"), "on one")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--symbols", "BTC/USDT"), "2 to 50 symbols"),
        (("--symbols", SYMBOLS, "--symbol", "BTC/USDT"), "either --symbol"),
        ((), "either --symbol"),
        (("--symbols", "BTC/USDT,XXX/USDT"), "XXX/USDT"),
    ],
)
def test_symbols_that_make_no_basket_are_refused(traded: PaperDesk, words, told) -> None:
    done = command(traded, "bots", "add", "odd", "--strategy", "equal_weight", *words)
    assert_refused(done, told)
