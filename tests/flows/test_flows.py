"""The flows: what is skipped, what fails alone, and that a halt needs no notebook."""

import os
from datetime import UTC, datetime, timedelta

import pytest
from filelock import FileLock

from tests.desks import PaperDesk, paper_desk
from tradelib.logs import read_log
from tradelib.notebooks.cycle import EXECUTE, FETCH, RECONCILE, SIGNALS
from tradelib.trading import tables
from tradelib.trading.bots import load_bots
from tradelib.trading.halts import active_halt
from tradelib.trading.runs import Outcome, load_runs


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        yield desk


@pytest.fixture(scope="module")
def prefect_api(tmp_path_factory):
    """A Prefect API of the test's own, in this process."""
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


def test_a_cycle_that_finds_another_at_work_is_skipped(desk: PaperDesk):
    from flows.trading import reconcile_orders, trading_cycle

    lock = desk.settings.home / "run" / "cycle.lock"
    with FileLock(lock):
        for flow in (trading_cycle, reconcile_orders):
            state = flow.fn(str(desk.settings.home))
            assert (state.name, state.is_completed()) == ("Skipped", True)
    assert load_runs(desk.ledger) == []


def test_a_cycle_that_starts_late_is_skipped(desk: PaperDesk, monkeypatch):
    from flows.trading import trading_cycle

    planned = datetime.now(UTC) - timedelta(minutes=5)
    monkeypatch.setattr("prefect.runtime.flow_run.get_scheduled_start_time", lambda: planned)
    state = trading_cycle.fn(str(desk.settings.home))
    assert state.name == "Skipped"
    assert "s late" in state.message
    assert load_runs(desk.ledger) == []


def test_the_halt_flow_halts(desk: PaperDesk):
    from flows.trading import halt_trading

    halt_trading.fn(str(desk.settings.home), "from the page")
    assert active_halt(desk.ledger).reason == "from the page"


def test_one_bots_failure_is_told_and_stops_no_other_bot(desk: PaperDesk, prefect_api):
    from flows.trading import trading_cycle

    broken, *others = [bot.name for bot in load_bots(desk.ledger)]
    with desk.ledger.write() as books:
        books.execute(
            tables.bots.update()
            .where(tables.bots.c.name == broken)
            .values(parameters={"rsi_windw": 3})
        )
    desk.reconcile()
    state = trading_cycle(str(desk.settings.home), return_state=True)
    assert state.is_failed()
    assert "rsi_windw" in state.message
    runs = [run for run in load_runs(desk.ledger) if run.notebook != EXECUTE]
    outcomes = {(run.notebook, run.bot): run.outcome for run in runs}
    assert outcomes.pop((SIGNALS, broken)) == Outcome.FAILED
    assert set(outcomes) == {(FETCH, None), (RECONCILE, None), *((SIGNALS, n) for n in others)}
    assert set(outcomes.values()) == {Outcome.SUCCEEDED}
    errors = [e["message"] for e in read_log(desk.settings) if e["level"] == "ERROR"]
    assert any(broken in message and "rsi_windw" in message for message in errors)
    # A wrong parameter is not tried again.
    assert len(runs) == len(outcomes) + 1
