"""The runner: a backlog collapses into its newest run, and nothing starts only to be skipped."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule

from tests.desks import PaperDesk
from tradelib.notebooks.cycle import FETCH
from tradelib.trading.runs import load_runs

MINUTE = timedelta(minutes=1)
BACKLOG = 30


async def make_backlog(client: PrefectClient, deployment: UUID, last: datetime) -> None:
    """Let Prefect schedule the runs of half an hour, as it had before the machine slept."""
    since = last - (BACKLOG - 1) * MINUTE
    asked = {
        "start_time": since.isoformat(),
        "end_time": (last + timedelta(seconds=1)).isoformat(),
        "min_runs": BACKLOG,
        "max_runs": BACKLOG,
    }
    reply = await client.request("POST", f"/deployments/{deployment}/schedule", json=asked)
    reply.raise_for_status()


async def runs_of(client: PrefectClient, deployment: UUID, until: datetime) -> list[FlowRun]:
    """A deployment's runs up to a time, by the time they were planned for."""
    chosen = FlowRunFilter.model_validate({"deployment_id": {"any_": [str(deployment)]}})
    found = await client.read_flow_runs(flow_run_filter=chosen, limit=200)
    early = [run for run in found if run.expected_start_time <= until]
    return sorted(early, key=lambda run: run.expected_start_time)


async def serve_once(
    home: Path, last: datetime, *, busy: bool = False, by_hand: bool = False
) -> list[FlowRun]:
    """What became of a backlog once the runner has looked for work."""
    from flows.runner import DeskRunner
    from flows.trading import trading_cycle

    async with get_client() as client:
        runner = DeskRunner(name="desk", limit=3)
        made = await runner.aadd_deployment(
            await trading_cycle.ato_deployment(
                uuid4().hex,
                parameters={"home": str(home), "interval": 60.0},
                schedule=IntervalSchedule(interval=MINUTE, anchor_date=last),
            )
        )
        await make_backlog(client, made, last)
        assert len(await runs_of(client, made, last)) == BACKLOG
        if by_hand:
            await client.create_flow_run_from_deployment(made)
        if busy:
            runner.give_way(made, lambda: True)
        await runner.start(run_once=True)
        return await runs_of(client, made, datetime.now(UTC))


def test_a_backlog_collapses_into_its_newest_run(desk: PaperDesk, prefect_api):
    last = datetime.now(UTC) - timedelta(seconds=5)
    *overtaken, newest = asyncio.run(serve_once(desk.settings.home, last))
    assert len(overtaken) == BACKLOG - 1
    assert {run.state.name for run in overtaken} == {"Skipped"}
    # No process was started for them.
    assert {run.run_count for run in overtaken} == {0}
    assert (newest.state.name, newest.state.message) == ("Completed", None)
    runs = load_runs(desk.ledger)
    assert len({run.cycle for run in runs}) == 1
    assert {run.as_of for run in runs if run.notebook == FETCH} == {desk.venue().fetch_time()}


def test_a_run_that_has_to_give_way_starts_no_process(desk: PaperDesk, prefect_api):
    last = datetime.now(UTC) - timedelta(seconds=5)
    runs = asyncio.run(serve_once(desk.settings.home, last, busy=True))
    assert [run.state.name for run in runs] == ["Skipped"] * BACKLOG
    assert runs[-1].state.message == "a cycle is at work"
    assert {run.run_count for run in runs} == {0}
    assert load_runs(desk.ledger) == []


def test_a_run_that_a_person_asked_for_is_not_skipped(desk: PaperDesk, prefect_api):
    last = datetime.now(UTC) - timedelta(seconds=5)
    runs = asyncio.run(serve_once(desk.settings.home, last, busy=True, by_hand=True))
    (asked,) = [run for run in runs if not run.auto_scheduled]
    assert asked.run_count == 1
