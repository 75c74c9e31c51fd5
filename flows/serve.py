"""Serves the flows with their schedules: `python -m flows.serve`, started by `desk up`.

DESK_HOME names the desk, DESK_CYCLE_SECONDS the time between cycles, DESK_CYCLE_ANCHOR a moment
at which one starts, DESK_READY_FILE a file to make once the schedules are in Prefect.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from functools import partial

from prefect.client.schemas.schedules import IntervalSchedule

from flows.ready import announce_ready
from flows.runner import DeskRunner
from flows.trading import (
    check_parity,
    cycle_at_work,
    halt_trading,
    prune_pages,
    reconcile_orders,
    trading_cycle,
)
from tradelib.clock import parse_time
from tradelib.logs import configure_logging
from tradelib.settings import DeskSettings, load_settings

RECONCILE_SECONDS = 30
PRUNE_SECONDS = 3_600
DAY_SECONDS = 86_400
# After midnight, once the last candles of the day before have closed and settled.
PARITY_ANCHOR = datetime(1970, 1, 1, 0, 20, 40, tzinfo=UTC)
# Flows that begin, end or wait for a person, beside those whose slow bots each hold a kernel.
MORE_RUNS = 3
# Prefect starts a run's process up to 10 s before its time; asked this often, never after it.
POLL_SECONDS = 5


def main() -> None:
    settings = load_settings()
    configure_logging(settings)
    cycle_seconds = float(os.environ.get("DESK_CYCLE_SECONDS", "60"))
    anchor = parse_time(os.environ.get("DESK_CYCLE_ANCHOR", "1970-01-01T00:00:02Z"))
    asyncio.run(_serve(settings, cycle_seconds, anchor))


async def _serve(settings: DeskSettings, cycle_seconds: float, anchor: datetime) -> None:
    runner = DeskRunner(name="desk", limit=settings.kernels + MORE_RUNS, query_seconds=POLL_SECONDS)
    parameters = {"home": str(settings.home)}
    await runner.aadd_deployment(
        await trading_cycle.ato_deployment(
            "desk",
            parameters={**parameters, "interval": cycle_seconds},
            schedule=_every(cycle_seconds, anchor),
            description="Fetch, decide, execute and reconcile for every running bot.",
        )
    )
    reconciling = await runner.aadd_deployment(
        await reconcile_orders.ato_deployment(
            "desk",
            parameters={**parameters, "interval": RECONCILE_SECONDS},
            schedule=_every(RECONCILE_SECONDS, anchor + timedelta(seconds=RECONCILE_SECONDS / 2)),
            description="Make the books equal to the venues.",
        )
    )
    runner.give_way(reconciling, partial(cycle_at_work, settings))
    await runner.aadd_deployment(
        await prune_pages.ato_deployment(
            "desk",
            parameters=parameters,
            schedule=_every(PRUNE_SECONDS, anchor + timedelta(seconds=PRUNE_SECONDS / 2)),
            description="Remove old pages, but none that an order still leads to.",
        )
    )
    await runner.aadd_deployment(
        await check_parity.ato_deployment(
            "desk",
            parameters=parameters,
            schedule=_every(DAY_SECONDS, PARITY_ANCHOR),
            description="Hold what every bot did yesterday against its backtest.",
        )
    )
    await runner.aadd_deployment(
        await halt_trading.ato_deployment(
            "desk",
            parameters={**parameters, "reason": "halted from Prefect's page"},
            description="Stop every new order until `desk resume`.",
        )
    )
    announce_ready()
    await runner.start()


def _every(seconds: float, anchor: datetime) -> IntervalSchedule:
    return IntervalSchedule(interval=timedelta(seconds=seconds), anchor_date=anchor.astimezone(UTC))


if __name__ == "__main__":
    main()
