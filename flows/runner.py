"""Prefect's runner, which starts of several runs of a flow that are due only the newest.

A machine that slept finds an hour of runs that are late, and Prefect would start a process for each
of them, the oldest first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.runner import Runner
from prefect.states import Completed

log = logging.getLogger("flows.runner")


class NewestRunner(Runner):
    """A runner that skips a scheduled run when a newer one of the same deployment is due, without a
    process for it. Runs that a person asked for all start."""

    async def __aenter__(self) -> NewestRunner:
        await super().__aenter__()
        poller = self._scheduled_run_poller
        find_due = poller._get_scheduled_flow_runs

        async def find_newest() -> list[FlowRun]:
            while overtaken := find_overtaken(due := await find_due()):
                await skip_runs(self._client, overtaken)
            return due

        # Prefect has no other place for it: a deployment's concurrency limit lets the oldest run.
        poller._get_scheduled_flow_runs = find_newest
        return self


def find_overtaken(due: Sequence[FlowRun]) -> list[FlowRun]:
    """The runs of a schedule after which another of the same deployment is due too."""
    newest: dict[UUID | None, FlowRun] = {}
    scheduled = [run for run in due if run.auto_scheduled and run.next_scheduled_start_time]
    for run in sorted(scheduled, key=_due_at):
        newest[run.deployment_id] = run
    return [run for run in scheduled if newest[run.deployment_id].id != run.id]


def _due_at(run: FlowRun) -> Any:
    return run.next_scheduled_start_time


async def skip_runs(client: PrefectClient, runs: Sequence[FlowRun]) -> None:
    """End runs before they start; they stay in Prefect's record."""
    log.warning("skipped %d runs that newer ones have overtaken", len(runs))
    for run in runs:
        state = Completed(name="Skipped", message="a newer run is due")
        await client.set_flow_run_state(run.id, state, force=True)
