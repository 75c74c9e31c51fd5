"""The nightly check: each bot that decided on the day has a page, and one's failure stops no
other."""

from dataclasses import replace
from datetime import timedelta

from tests.desks import PaperDesk
from tradelib.clock import utc_now
from tradelib.notebooks.cycle import PARITY
from tradelib.trading import tables
from tradelib.trading.bots import BotStatus, change_bot, load_bots
from tradelib.trading.runs import Outcome, load_runs


def test_every_bot_that_decided_on_the_day_is_checked(desk: PaperDesk, prefect_api):
    from flows.trading import check_parity

    first, second, idle = load_bots(desk.ledger)
    change_bot(desk.ledger, idle.name, lambda bot: replace(bot, status=BotStatus.STOPPED))
    desk.reconcile()
    desk.run_cycle()
    with desk.ledger.write() as books:
        mine = tables.decisions.c.bot == second.name
        books.execute(tables.decisions.update().where(mine).values(state={"odd": 1}))
    home, day = str(desk.settings.home), utc_now().date()
    state = check_parity(home, day.isoformat(), return_state=True)
    assert state.is_failed()
    assert "odd" in state.message
    runs = {run.bot: run for run in load_runs(desk.ledger, notebook=PARITY)}
    # The second is tried no more than once: the same record fails again.
    assert {name: run.outcome for name, run in runs.items()} == {
        first.name: Outcome.SUCCEEDED,
        second.name: Outcome.FAILED,
    }
    assert runs[first.name].result["decisions"] == 1
    assert runs[first.name].result["gaps"] == []


def test_by_itself_it_looks_at_yesterday(desk: PaperDesk, prefect_api):
    from flows.trading import check_parity

    state = check_parity(str(desk.settings.home), return_state=True)
    assert state.is_completed()
    assert state.message == f"0 bots of {utc_now().date() - timedelta(days=1)}"
