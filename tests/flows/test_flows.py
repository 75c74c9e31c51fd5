"""The flows: what is skipped, what fails alone, and that a halt needs no notebook."""

from datetime import UTC, datetime, timedelta

import pytest
from filelock import FileLock

from tests.desks import PaperDesk
from tradelib.logs import read_log
from tradelib.notebooks.cycle import EXECUTE, FETCH, RECONCILE, SIGNALS
from tradelib.trading import tables
from tradelib.trading.bots import load_bots
from tradelib.trading.halts import active_halt
from tradelib.trading.runs import Outcome, load_runs


def test_a_cycle_that_finds_another_at_work_is_skipped(desk: PaperDesk):
    from flows.trading import reconcile_orders, trading_cycle

    with FileLock(desk.settings.home / "run" / "cycle.lock"):
        for flow in (trading_cycle, reconcile_orders):
            state = flow.fn(str(desk.settings.home))
            assert (state.name, state.is_completed()) == ("Skipped", True)
    assert load_runs(desk.ledger) == []


@pytest.mark.parametrize(
    ("late", "interval"), [(60, None), (61, 60), (3_601, 3_600)], ids=["by hand", "1m", "1h"]
)
def test_a_cycle_that_starts_when_the_next_is_due_is_skipped(
    desk: PaperDesk, monkeypatch, late, interval
):
    from flows.trading import trading_cycle

    plan_flow_run(monkeypatch, late)
    state = trading_cycle.fn(str(desk.settings.home), None, interval)
    assert state.name == "Skipped"
    assert "s late" in state.message
    assert load_runs(desk.ledger) == []


def test_an_hourly_cycle_that_starts_minutes_late_still_works(
    desk: PaperDesk, prefect_api, monkeypatch
):
    from flows.trading import trading_cycle

    plan_flow_run(monkeypatch, 600)
    state = trading_cycle(str(desk.settings.home), None, 3_600, return_state=True)
    assert state.is_completed(), state.message
    fetch, *_ = [run for run in load_runs(desk.ledger) if run.notebook == FETCH]
    # However late it starts, it looks at the newest candles.
    assert fetch.as_of == desk.venue().fetch_time()


def plan_flow_run(monkeypatch, seconds_ago: float) -> None:
    """Let Prefect say that the run was to start so long ago."""
    planned = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    monkeypatch.setattr("prefect.runtime.flow_run.get_scheduled_start_time", lambda: planned)


def test_a_cycle_whose_time_is_over_names_the_bots_that_come_first_next(
    desk: PaperDesk, prefect_api, monkeypatch
):
    from flows.trading import trading_cycle

    monkeypatch.setattr("flows.trading.HAND_OVER_SECONDS", 55)
    plan_flow_run(monkeypatch, 10)
    names = [bot.name for bot in load_bots(desk.ledger)]
    state = trading_cycle(str(desk.settings.home), None, 60, return_state=True)
    assert state.is_completed()
    assert ", ".join(names) in state.message
    assert {run.notebook for run in load_runs(desk.ledger)} == {RECONCILE}


def test_old_pages_go_and_those_that_orders_lead_to_stay(desk: PaperDesk, prefect_api):
    from flows.trading import prune_pages

    desk.run_cycle()
    file = desk.settings.home / "desk.toml"
    file.write_text(file.read_text() + "\n[retention]\npages = 1\n")
    state = prune_pages(str(desk.settings.home), return_state=True)
    gone = [run for run in load_runs(desk.ledger) if run.page_removed_at]
    assert state.message.startswith(f"{len(gone)} pages removed")
    assert {run.notebook for run in gone} == {FETCH}
    assert not any((desk.settings.reports / f"{r.started_at:%F}" / r.id).exists() for r in gone)


def test_a_bot_that_is_still_at_work_is_left_out_and_others_are_not(desk: PaperDesk, prefect_api):
    from flows.trading import trading_cycle

    busy, *others = [bot.name for bot in load_bots(desk.ledger)]
    desk.reconcile()
    file = desk.settings.home / "run" / "locks" / f"bot-{busy}.lock"
    file.parent.mkdir(parents=True)
    with FileLock(file):
        state = trading_cycle(str(desk.settings.home), return_state=True)
    assert state.is_completed(), state.message
    decided = {run.bot for run in load_runs(desk.ledger) if run.notebook == SIGNALS}
    assert decided == set(others)
    assert any(busy in e["message"] and "still at work" in e["message"] for e in
               read_log(desk.settings))  # fmt: skip


def test_each_bot_executes_right_after_its_own_signal_and_the_order_of_bots_changes(
    desk: PaperDesk, prefect_api
):
    from flows.trading import trading_cycle

    file = desk.settings.home / "desk.toml"
    file.write_text(f"kernels = 1\n{file.read_text()}")
    bots = load_bots(desk.ledger)
    lively = {"buy_threshold": 1e-6, "confirmation_minutes": 0, "smallest_step": 0.001}
    with desk.ledger.write() as books:
        for bot in bots:
            changed = {"strategy": "buy_and_hold", "parameters": {}}
            books.execute(
                tables.bots.update()
                .where(tables.bots.c.name == bot.name)
                .values(**changed, decision=bot.decision | lively)
            )
    desk.reconcile()
    ran = []
    for turn in ("c-0", "c-1"):
        state = trading_cycle(str(desk.settings.home), turn, return_state=True)
        assert state.is_completed(), state.message
        runs = sorted(load_runs(desk.ledger, cycle=turn), key=lambda run: run.started_at)
        ran.append([(run.notebook, run.bot) for run in runs])
        desk.step()
    a, b, c = (bot.name for bot in bots)
    bought = [(page, name) for name in (a, b, c) for page in (SIGNALS, EXECUTE)]
    assert ran[0] == [(FETCH, None), *bought, (RECONCILE, None)]
    signals = [name for page, name in ran[1] if page == SIGNALS]
    assert signals == [b, c, a]


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
