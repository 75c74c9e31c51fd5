"""The flow of a sweep: by this machine's cores, or by Dask if it is run with its task runner.

    from prefect_dask import DaskTaskRunner
    from flows.sweeps import sweep_parameters

    on_dask = sweep_parameters.with_options(task_runner=DaskTaskRunner(address="tcp://host:8786"))
    on_dask("coinbase_BTC-USD_1h.csv", "weighted", {"fast_window": [5, 10, 20]}, folder="sweeps")

A runner without an address makes a cluster of this machine's own, for as long as the flow runs.
"""

from __future__ import annotations

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.context import FlowRunContext
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tradelib.candles.files import read_candle_file
from tradelib.research.backtest import DEFAULT_CASH, DEFAULT_FEE
from tradelib.research.sweep import SweepResult, sweep
from tradelib.strategy.registry import strategy as known_strategy

BEST = 10


@flow(name="sweep_parameters")
def sweep_parameters(
    candle_file: str,
    strategy: str,
    space: dict[str, list],
    decision_space: dict[str, list] | None = None,
    samples: int | None = None,
    seed: int = 0,
    fee: float = DEFAULT_FEE,
    cash: float = DEFAULT_CASH,
    folder: str | None = None,
) -> SweepResult:
    """Sweep a strategy, by its name, over a candle file; what is given is as for `sweep`.

    The best by Sharpe ratio are kept on Prefect's page of the run, the whole table in `folder`.
    """
    candles = read_candle_file(candle_file)
    found = sweep(
        candles.frame,
        candles.timeframe,
        known_strategy(strategy),
        space,
        decision_space,
        samples=samples,
        seed=seed,
        fee=fee,
        cash=cash,
        folder=folder,
        cluster=_cluster(),
        progress=False,
    )
    told = (
        f"{strategy} on {candles.symbol} {candles.timeframe}: {len(found.frame):,} of "
        f"{found.total:,} combinations, {found.skipped:,} skipped, {len(found.failures):,} failed"
    )
    get_run_logger().info(told)
    best = found.best(count=BEST).drop(columns="error")
    table = best.astype(object).where(best.notna(), None).reset_index().to_dict("records")
    create_table_artifact(table, key="best-of-sweep", description=told)
    return found


def _cluster() -> TaskRunner | None:
    """The task runner that the flow was started with, unless it stands for this machine's cores."""
    context = FlowRunContext.get()
    runner = context.task_runner if context else None
    return None if isinstance(runner, ThreadPoolTaskRunner) else runner
