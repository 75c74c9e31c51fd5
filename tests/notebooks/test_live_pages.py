"""The live notebooks, run for real: what they do when scheduled, and that they only look when
somebody opens them again."""

from dataclasses import replace

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from sqlalchemy import delete

from tests.desks import PaperDesk, paper_desk
from tests.pages import execute_page
from tests.replays import entry_file
from tradelib.errors import InvalidInput, ReadOnly, RunFailed
from tradelib.notebooks import open_desk
from tradelib.notebooks.cycle import EXECUTE, FETCH, RECONCILE, SIGNALS, Step, run_step
from tradelib.settings import NOTEBOOKS, load_settings
from tradelib.trading import tables
from tradelib.trading.bots import add_bot, load_bot, load_bots, update_bot
from tradelib.trading.chain import find_chain
from tradelib.trading.decisions import load_decision
from tradelib.trading.halts import halt_trading
from tradelib.trading.ledger import open_ledger
from tradelib.trading.orders import OrderStatus, load_fills, load_orders
from tradelib.trading.runs import Outcome, load_runs


@pytest.fixture(scope="module")
def traded(tmp_path_factory):
    """A desk after two cycles in which a bot bought; its exchange is gone."""
    home = tmp_path_factory.mktemp("desk")
    with paper_desk(home, files=[entry_file(home)]) as desk:
        desk.reconcile()
        desk.run_cycle()
        desk.step()
        desk.run_cycle()
        yield desk


def newest(desk: PaperDesk, notebook: str):
    return next(run for run in load_runs(desk.ledger) if run.notebook == notebook)


def test_two_cycles_fetch_decide_execute_and_reconcile(traded: PaperDesk):
    runs = [run.notebook for run in reversed(load_runs(traded.ledger))]
    assert runs == [FETCH, SIGNALS, RECONCILE, FETCH, SIGNALS, EXECUTE, RECONCILE]
    assert {run.outcome for run in load_runs(traded.ledger)} == {Outcome.SUCCEEDED}
    (order,) = load_orders(traded.ledger)
    assert order.status == OrderStatus.FILLED
    assert newest(traded, RECONCILE).result["agrees"] is True


def test_from_a_fill_the_chain_leads_to_the_page_that_decided(traded: PaperDesk):
    fill = load_fills(traded.ledger)[0]
    chain = find_chain(traded.ledger, f"{fill.venue}/{fill.symbol}/{fill.trade_id}")
    assert chain.order.client_id == fill.client_id
    assert chain.run.notebook == SIGNALS
    page = traded.settings.reports / chain.run.page
    assert chain.decision.id in page.read_text()
    for record in (chain.order.client_id, chain.decision.id, chain.run.id):
        assert find_chain(traded.ledger, record).run.id == chain.run.id


def test_an_opened_page_computes_the_score_that_was_recorded(traded: PaperDesk):
    run = newest(traded, SIGNALS)
    desk = open_desk(run.id, home=traded.settings.home)
    signal = desk.generate_signal("", "")
    assert float(signal.scores["score"].iloc[-1]) == run.result["score"]
    assert signal.to_json() == run.result
    assert signal.decision == load_decision(traded.ledger, run.result["decision"])


def test_a_later_edit_of_the_bot_does_not_change_what_a_page_shows(traded: PaperDesk):
    run = newest(traded, SIGNALS)
    before = load_bot(traded.ledger, run.bot)
    update_bot(traded.ledger, replace(before, parameters={**before.parameters, "rsi_window": 5}))
    try:
        signal = open_desk(run.id, home=traded.settings.home).generate_signal("", "")
    finally:
        update_bot(traded.ledger, before)
    assert float(signal.scores["score"].iloc[-1]) == run.result["score"]


def test_the_pages_of_a_bot_that_is_gone_show_what_they_showed(traded: PaperDesk):
    runs = newest(traded, SIGNALS), newest(traded, EXECUTE)
    bots = load_bots(traded.ledger)
    with traded.ledger.write() as books:
        books.execute(delete(tables.bots))
    try:
        signal, execution = (open_desk(run.id, home=traded.settings.home) for run in runs)
        assert signal.generate_signal("", "").to_json() == runs[0].result
        assert execution.execute_order("", "").to_json() == runs[1].result
        assert find_chain(traded.ledger, runs[1].id).decision.bot == runs[1].bot
    finally:
        for bot in bots:
            add_bot(traded.ledger, bot)


@pytest.mark.parametrize("notebook", [FETCH, SIGNALS, EXECUTE, RECONCILE])
def test_a_result_page_runs_again_without_writing_anything(traded: PaperDesk, notebook):
    run = newest(traded, notebook)
    requests = traded.paper.control("status")["requests"]
    page = nbformat.read(traded.settings.reports / run.page, as_version=4)
    execute_page(page, env={"DESK_HOME": str(traded.settings.home), "PATH": ""})
    assert [r.id for r in load_runs(traded.ledger)].count(run.id) == 1
    assert len(load_orders(traded.ledger)) == 1
    assert traded.paper.control("status")["requests"] == requests


def test_a_page_without_its_runs_token_cannot_write(traded: PaperDesk, monkeypatch):
    run = newest(traded, EXECUTE)
    desk = open_desk(run.id, home=traded.settings.home)
    assert not desk.live
    with pytest.raises(ReadOnly):
        halt_trading(desk.ledger, "from a page")


def test_a_run_that_has_ended_cannot_act_even_with_its_token(traded: PaperDesk, monkeypatch):
    run = newest(traded, EXECUTE)
    monkeypatch.setenv("DESK_RUN", run.id)
    monkeypatch.setenv("DESK_RUN_TOKEN", "guessed")
    with pytest.raises(ReadOnly, match="has ended or was started by another process"):
        open_desk(run.id, home=traded.settings.home)


def test_a_read_only_environment_closes_the_ledger_to_writers(traded: PaperDesk, monkeypatch):
    monkeypatch.setenv("DESK_READ_ONLY", "1")
    ledger = open_ledger(load_settings(traded.settings.home))
    with pytest.raises(ReadOnly):
        halt_trading(ledger, "from a page")


def test_a_page_without_anything_to_show_says_so_in_one_sentence(home):
    open_ledger(load_settings(home), migrate=True).close()
    page = nbformat.read(NOTEBOOKS / "live" / "40_reconcile_orders.ipynb", as_version=4)
    with pytest.raises(CellExecutionError, match="start the desk with `desk up`"):
        execute_page(page, env={"DESK_HOME": str(home), "PATH": ""})
    (error,) = [
        output
        for cell in page.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]
    assert error.ename == "InvalidInput"
    assert len(error.traceback) == 1


def test_a_failed_run_opened_again_tells_why_it_failed(home):
    settings = load_settings(home)
    ledger = open_ledger(settings, migrate=True)
    parameters = {
        "venue": "nowhere",
        "symbols": ["BTC/USD"],
        "timeframe": "1h",
        "as_of": "2026-01-01T00:00:00Z",
    }
    with pytest.raises(RunFailed) as failed:
        run_step(settings, ledger, Step(FETCH, parameters, "nowhere"), None)
    desk = open_desk(failed.value.run)
    with pytest.raises(InvalidInput, match=r"failed and has nothing to show: .*nowhere"):
        desk.fetch_candles("nowhere", [], "", "")
