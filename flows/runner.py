"""Prefect's runner, which starts only the runs that will work.

A process per run costs seconds of the processor before it can find out that it has nothing to do.
A machine that slept finds an hour of late runs, and Prefect would start each, the oldest first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.runner import Runner
from prefect.states import Completed

from tradelib.clock import utc_now

log = logging.getLogger("flows.runner")


class DeskRunner(Runner):
    """A runner that ends a scheduled run without a process for it when a newer one of the same
    deployment is due, or when its deployment gives way. Runs that a person asked for all start."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._busy: dict[UUID, Callable[[], bool]] = {}

    def give_way(self, deployment: UUID, busy: Callable[[], bool]) -> None:
        """Skip scheduled runs of a deployment whose time comes while `busy()`; none of them is
        started ahead of its time."""
        self._busy[deployment] = busy

    async def __aenter__(self) -> DeskRunner:
        await super().__aenter__()
        poller = self._scheduled_run_poller
        find_due = poller._get_scheduled_flow_runs

        async def find_those_to_start() -> list[FlowRun]:
            while overtaken := find_overtaken(due := await find_due()):
                await skip_runs(self._client, overtaken, "a newer run is due")
            giving_way = [run for run in due if run.auto_scheduled and self._gives_way(run)]
            await skip_runs(self._client, giving_way, "a cycle is at work")
            return [run for run in due if run not in giving_way and not self._is_early(run)]

        # Prefect has no other place for it: a deployment's concurrency limit lets the oldest run.
        poller._get_scheduled_flow_runs = find_those_to_start
        return self

    def _gives_way(self, run: FlowRun) -> bool:
        return (
            run.deployment_id in self._busy
            and not self._is_early(run)
            and self._busy[run.deployment_id]()
        )

    def _is_early(self, run: FlowRun) -> bool:
        """Whether a run that may have to give way is not due yet."""
        return run.deployment_id in self._busy and _due_at(run) > utc_now()


def find_overtaken(due: Sequence[FlowRun]) -> list[FlowRun]:
    """The runs of a schedule after which another of the same deployment is due too."""
    newest: dict[UUID | None, FlowRun] = {}
    scheduled = [run for run in due if run.auto_scheduled]
    for run in sorted(scheduled, key=_due_at):
        newest[run.deployment_id] = run
    return [run for run in scheduled if newest[run.deployment_id].id != run.id]


def _due_at(run: FlowRun) -> datetime:
    return run.next_scheduled_start_time or run.expected_start_time


async def skip_runs(client: PrefectClient, runs: Sequence[FlowRun], why: str) -> None:
    """End runs before they start; they stay in Prefect's record."""
    for run in runs:
        log.info("skipped run %s: %s", run.name, why)
        state = Completed(name="Skipped", message=why)
        await client.set_flow_run_state(run.id, state, force=True)
