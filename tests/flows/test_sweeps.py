"""The flow of a sweep: the same table by threads and by Prefect's Dask runner."""

import importlib.util
import json

import pandas as pd
import pytest

from tests.conftest import require
from tradelib.errors import InvalidInput
from tradelib.research.samples import random_candles
from tradelib.research.sweep import sweep
from tradelib.strategy.registry import strategy

CANDLES = random_candles(400, seed=7)
SPACE = {"fast_window": [5, 10, 20], "slow_window": [15, 30]}


@pytest.fixture
def candle_file(tmp_path):
    path = tmp_path / "paper_ETH-USDT_1h.csv"
    CANDLES.to_csv(path)
    return str(path)


def test_a_flow_on_dask_gives_the_table_that_threads_give(prefect_api, candle_file, tmp_path):
    require(importlib.util.find_spec("prefect_dask"), "the extra dask is not installed")
    from prefect_dask import DaskTaskRunner

    from flows.sweeps import sweep_parameters

    size = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    on_dask = sweep_parameters.with_options(task_runner=DaskTaskRunner(cluster_kwargs=size))
    frames = [
        run(candle_file, "weighted", SPACE, {"buy_threshold": [0.1, 0.3]}, folder=str(folder)).frame
        for run, folder in ((sweep_parameters, tmp_path / "here"), (on_dask, tmp_path / "there"))
    ]
    alone = sweep(
        CANDLES, "1h", strategy("weighted"), SPACE, {"buy_threshold": [0.1, 0.3]}, progress=False
    ).frame
    for frame in frames:
        pd.testing.assert_frame_equal(frame, alone, check_exact=True)
    here, there = (
        sorted(str(path.relative_to(tmp_path / name)) for path in tmp_path.glob(f"{name}/*/*"))
        for name in ("here", "there")
    )
    assert here == there != []


def test_the_best_stand_on_the_page_of_the_run(prefect_api, candle_file):
    from prefect.artifacts import Artifact

    from flows.sweeps import sweep_parameters

    found = sweep_parameters(candle_file, "momentum", {"window": [5, 10, 390]})
    kept = Artifact.get("best-of-sweep")
    assert kept.description.startswith("momentum on ETH/USDT 1h: 3 of 3 combinations, 0 skipped")
    best = found.best()["window"].tolist()
    assert len(best) >= 2
    assert [row["window"] for row in json.loads(kept.data)] == best


def test_a_task_runner_that_is_no_cluster_is_refused(prefect_api, candle_file):
    from prefect.task_runners import ProcessPoolTaskRunner

    from flows.sweeps import sweep_parameters

    other = sweep_parameters.with_options(task_runner=ProcessPoolTaskRunner())
    with pytest.raises(InvalidInput, match="and not a ProcessPoolTaskRunner"):
        other(candle_file, "weighted", SPACE)
