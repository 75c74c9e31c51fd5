"""The fast path does what the pages do, leaves the same records, and has its page afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tests.desks import PaperDesk, desk_command, paper_desk
from tests.replays import entry_file
from tradelib.errors import DeskError
from tradelib.notebooks.cycle import EXECUTE, FETCH, SIGNALS, execute_step, run_step, signal_step
from tradelib.notebooks.fast import IN_PROCESS, trade_at_once, write_page
from tradelib.notebooks.replay import Verdict, replay_run
from tradelib.trading.orders import load_orders
from tradelib.trading.runs import Outcome, Run, load_run, load_runs
from tradelib.traffic import spend_as
from tradelib.traffic.records import load_budgets


@pytest.fixture
def desk(home: Path, tmp_path: Path) -> Iterator[PaperDesk]:
    with paper_desk(home, files=[entry_file(tmp_path)]) as desk:
        desk.reconcile()
        desk.fetch()
        yield desk


def trade(desk: PaperDesk) -> list[Run]:
    """One fast decision on the newest candle; the runs it made."""
    venue = desk.venue()
    return list(
        trade_at_once(desk.settings, desk.ledger, desk.bot, venue.fetch_time(), lambda _name: venue)
    )


def trade_until_it_orders(desk: PaperDesk) -> tuple[Run, Run]:
    for _ in range(4):
        runs = trade(desk)
        if len(runs) == 2:
            return runs[0], runs[1]
        desk.step()
        desk.fetch()
    raise AssertionError("no bot of this market buys within four candles")


def test_it_leaves_what_the_pages_leave_and_comes_out_again_in_a_replay(desk: PaperDesk) -> None:
    runs = trade_until_it_orders(desk)
    assert [run.notebook for run in runs] == [SIGNALS, EXECUTE]
    assert {(run.outcome, run.kernel_kind) for run in runs} == {(Outcome.SUCCEEDED, IN_PROCESS)}
    (order,) = load_orders(desk.ledger)
    assert (order.status, order.run, order.decision) == (
        "FILLED", runs[1].id, runs[0].result["decision"],
    )  # fmt: skip
    assert runs[0].candles
    for run in runs:
        assert run.page is None
        assert replay_run(desk.settings, run).verdict is Verdict.SAME
        write_page(desk.settings, desk.ledger, run)
        paged = load_run(desk.ledger, run.id)
        page = nbformat.read(desk.settings.reports / paged.page, as_version=4)
        assert paged.timings
        assert paged.result == run.result
        assert not [o for c in page.cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert len(load_orders(desk.ledger)) == 1
    assert desk.reconcile().agrees


def test_what_it_asks_of_the_venue_is_told_under_its_run_and_bot(desk: PaperDesk) -> None:
    spend_as("feed")
    signal, execution = trade_until_it_orders(desk)
    home, bot = desk.settings.home, desk.bot.name
    spent = load_budgets(home, by_run=True).spent
    (order,) = [one for one in spent if one.endpoint == "POST order"]
    assert (order.kind, order.run, order.bot) == ("30_execute_orders", execution.id, bot)
    assert {one.run for one in spent if one.bot == bot} <= {signal.id, execution.id}
    assert {one.bot for one in spent if one.kind == "feed"} == {""}
    shown = desk_command("budget", home=home).stdout.splitlines()
    (line,) = [line for line in shown if "POST order" in line]
    assert bot in line


def test_the_notebooks_find_that_it_has_been_done(desk: PaperDesk) -> None:
    signal, _ = trade_until_it_orders(desk)
    step = signal_step(desk.bot, signal.as_of)
    again = run_step(desk.settings, desk.ledger, step, None)
    assert again.result["decision"] == signal.result["decision"]
    run_step(desk.settings, desk.ledger, execute_step(desk.bot, again), None)
    assert len(load_orders(desk.ledger)) == 1


def test_a_failure_is_a_failed_run_and_is_raised(desk: PaperDesk) -> None:
    def refuse(_name: str):
        raise DeskError("this venue is not to be had")

    venue = desk.venue()
    for _ in range(4):
        try:
            at = venue.fetch_time()
            runs = list(trade_at_once(desk.settings, desk.ledger, desk.bot, at, refuse))
        except DeskError:
            break
        assert len(runs) == 1
        desk.step()
        desk.fetch()
    newest = load_runs(desk.ledger, limit=1)[0]
    assert (newest.notebook, newest.outcome) == (EXECUTE, Outcome.FAILED)
    assert newest.reason == "DeskError: this venue is not to be had"
    assert load_orders(desk.ledger) == []


def test_only_what_acted_in_a_process_gets_its_page_afterwards(desk: PaperDesk) -> None:
    runs = desk.run_cycle()
    fetch = next(run for run in runs if run.notebook == FETCH)
    with pytest.raises(DeskError, match="did not act in a process"):
        write_page(desk.settings, desk.ledger, fetch)
