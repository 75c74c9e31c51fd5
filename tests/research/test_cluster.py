"""A sweep on a Dask cluster of two processes: the same rows, whatever dies on the way."""

import importlib.util
import os
import platform
import signal
import socket
import sys
import threading
import time
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from tests.conftest import require
from tests.slopes import FAILING, SlopeParams, plain, slope
from tests.strategy.sources import FALLING, REVERSAL
from tradelib.errors import InvalidInput, RetryableError
from tradelib.research import cluster as module
from tradelib.research.samples import random_candles
from tradelib.research.sweep import sweep
from tradelib.strategy.base import Columns, Strategy
from tradelib.strategy.own import Source, make_strategy
from tradelib.strategy.registry import strategy

CANDLES = random_candles(600, seed=7)
WEIGHTED = strategy("weighted")
SPACE = {"fast_window": range(5, 60, 5), "slow_window": [30, 50]}
DECISIONS = {"buy_threshold": [0.1, 0.3], "confirmation_minutes": [0.0, 120.0]}


@pytest.fixture(scope="module")
def distributed():
    require(importlib.util.find_spec("prefect_dask"), "the extra dask is not installed")
    return importlib.import_module("distributed")


@pytest.fixture(scope="module")
def cluster(distributed):
    import dask.config

    size = {"n_workers": 2, "threads_per_worker": 1}
    # Two deaths instead of four: each new worker takes seconds to start.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(**size, dashboard_address=":0") as found,
    ):
        # A worker that has told its cluster that it runs may not be known to the scheduler yet.
        with distributed.Client(found, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield found


def weighted(**more):
    return sweep(CANDLES, "1h", WEIGHTED, SPACE, DECISIONS, progress=False, **more)


def quick(found, windows, **more):
    return sweep(CANDLES, "1h", found, {"window": windows}, progress=False, **more)


def wait_until(holds):
    deadline = time.monotonic() + 100
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_same(one, other):
    """To the last bit, and in everything else that a sweep tells."""
    pd.testing.assert_frame_equal(one.frame, other.frame, check_exact=True)
    numbers = [name for name in one.frame if one.frame[name].dtype == "float64"]
    bits = [result.frame[numbers].to_numpy().tobytes() for result in (one, other)]
    assert bits[0] == bits[1]
    told = [(result.total, result.skipped, result.first_skip) for result in (one, other)]
    assert told[0] == told[1]


def test_a_cluster_of_two_processes_gives_the_table_of_one(cluster, distributed):
    alone = weighted()
    assert (len(alone.frame), alone.skipped) == (56, 32)
    with distributed.Client(cluster, set_as_default=False) as client:
        assert len(client.nthreads()) == 2
        for given in (cluster, cluster.scheduler_address, client):
            assert_same(alone, weighted(cluster=given))


def test_both_processes_fold_and_keep_nothing_afterwards(cluster, distributed, tmp_path):
    def meeting(candles, params):
        (tmp_path / str(os.getpid())).touch()
        wait_until(lambda: len(os.listdir(tmp_path)) == 2)
        raise RuntimeError(f"met in {os.getpid()}")

    found = quick(plain(meeting), range(1, 101), cluster=cluster)
    pids = set(found.frame["error"].str.extract(r"met in (\d+)")[0])
    assert pids == set(os.listdir(tmp_path))
    assert len(pids - {str(os.getpid())}) == 2
    with distributed.Client(cluster, set_as_default=False) as client:
        wait_until(lambda: not any(client.has_what().values()))


def test_many_candles_travel_without_a_warning(cluster):
    import dask.config

    candles = random_candles(3_000, seed=7)
    with (
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "64 kiB"}),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        sweep(candles, "1h", plain(), {"window": [3]}, cluster=cluster, progress=False)


def test_columns_of_a_strategy_of_ones_own_travel_too(cluster):
    columns = Columns(
        {"change": lambda candles, window: candles["close"].pct_change(window) * 20},
        lambda change, full: np.minimum(np.maximum(change / full, -1.0), 1.0),
    )
    own = Strategy("own", SlopeParams, columns.compute, lambda p: p.window, len, columns)
    assert_same(quick(own, range(1, 40)), quick(own, range(1, 40), cluster=cluster))


@pytest.mark.parametrize("text", [REVERSAL, FALLING], ids=["pandas", "numba"])
def test_a_strategy_that_a_user_wrote_travels_as_its_text(cluster, text):
    own = make_strategy(Source("idea", text))
    assert_same(quick(own, range(2, 20)), quick(own, range(2, 20), cluster=cluster))


def test_a_sweep_that_a_cluster_began_goes_on_in_threads_and_the_other_way_round(cluster, tmp_path):
    whole = weighted()
    on_dask = {"cluster": cluster}
    for name, first, then in (("began", on_dask, {}), ("went on", {}, on_dask)):
        folder = tmp_path / name
        weighted(folder=folder, **first)
        (kept,) = folder.iterdir()
        chunks = sorted(kept.iterdir())
        assert len(chunks) == 6
        left = {path: path.stat().st_mtime_ns for path in chunks[::2]}
        for path in chunks[1::2]:
            path.unlink()
        assert_same(whole, weighted(folder=folder, **then))
        assert {path: path.stat().st_mtime_ns for path in left} == left
        assert sorted(kept.iterdir()) == chunks


def test_a_module_beside_the_notebook_travels_too(cluster, tmp_path, monkeypatch):
    (tmp_path / "my_lines.py").write_text(
        "FULL = 20\n\ndef distance(close, window):\n    return close.pct_change(window) * FULL\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    lines = importlib.import_module("my_lines")
    monkeypatch.setitem(sys.modules, "my_lines", lines)  # and so away again afterwards

    def compute(candles, params):
        return pd.DataFrame({"score": lines.distance(candles["close"], params.window).clip(-1, 1)})

    found = quick(plain(compute), range(1, 20), cluster=cluster)
    assert_same(found, quick(plain(), range(1, 20)))
    assert found.failures.empty


@pytest.mark.parametrize(
    ("file", "installed"),
    [
        ("/elsewhere/ideas/my_lines.py", False),
        ("<strategy my_idea@3f2a9c0d12e4b567>", False),
        (__file__, False),
        (os.__file__, True),
        (np.__file__, True),
        (module.__file__, True),
        ("/elsewhere/.venv/lib/python3.12/site-packages/numpy/__init__.py", True),
    ],
)
def test_what_is_installed_stays_and_what_the_user_wrote_goes(file, installed):
    assert module.is_installed(Path(file)) is installed


def test_a_strategy_that_cannot_travel_is_refused_at_once(cluster):
    lock = threading.Lock()

    def compute(candles, params):
        with lock:
            return slope(candles, params)

    with pytest.raises(InvalidInput, match=r"'slope' cannot be sent to a cluster .cannot pickle"):
        quick(plain(compute), [3], cluster=cluster)


def test_a_worker_that_lacks_what_the_strategy_imports_says_so(cluster, monkeypatch):
    lib = ModuleType("only_here")
    lib.value = 3
    monkeypatch.setitem(sys.modules, "only_here", lib)

    def compute(candles, params):
        return slope(candles, params) * (lib.value / 3)

    with pytest.raises(InvalidInput, match=r"'slope' .*ModuleNotFoundError: No module .*only_here"):
        quick(plain(compute), [3], cluster=cluster)


def test_a_worker_with_other_code_is_refused(cluster, monkeypatch):
    monkeypatch.setattr(module, "engine_version", lambda: "of last week")
    with pytest.raises(InvalidInput, match=r"The worker tcp://.* runs other code or libraries"):
        quick(plain(), [3], cluster=cluster)


def test_a_worker_with_other_code_that_joins_later_is_refused_by_itself(cluster, monkeypatch):
    monkeypatch.setattr(module, "_check_workers", lambda client, told: None)
    monkeypatch.setattr(module, "engine_version", lambda: "of last week")
    with pytest.raises(InvalidInput, match=f"The worker {platform.node()} runs other code"):
        quick(plain(), [3], cluster=cluster)


def test_a_worker_without_the_desk_is_named_and_nobody_waits_for_it(distributed, tmp_path):
    bare = tmp_path / "bare.py"
    bare.write_text("import sys\nsys.modules['tradelib'] = None\n")
    size = {"n_workers": 1, "threads_per_worker": 1, "preload": [str(bare)]}
    with (
        distributed.LocalCluster(**size, dashboard_address=":0") as found,
        pytest.raises(InvalidInput, match=r"tcp://.* cannot run Notedesk .*No module named"),
    ):
        quick(plain(), [3], cluster=found)


@pytest.mark.parametrize(("compute", "told"), FAILING)
def test_what_fails_at_a_worker_has_its_reason_as_in_threads(cluster, compute, told):
    windows = [0, 3, 10, 900]
    found = quick(plain(compute), windows, cluster=cluster)
    assert_same(found, quick(plain(compute), windows))
    assert found.skipped == 1
    assert found.failures["error"].str.contains(told, regex=False).any()
    assert found.failures["error"].str.contains("needs 901 candles", regex=False).any()


@pytest.mark.parametrize(
    ("windows", "told"),
    [([], "window has no value"), ([0], "None of the 1"), ([700], "needs 701 candles")],
)
def test_a_sweep_in_vain_is_refused_as_in_threads(cluster, windows, told):
    with pytest.raises(InvalidInput, match=told):
        quick(plain(), windows, cluster=cluster)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"cluster": 8786}, "address, a Dask client or cluster, or .* and not a int"),
        ({"cluster": "nowhere"}, "No Dask scheduler answers at 'nowhere' .missing port"),
        ({"cluster": "tcp://127.0.0.1:8786", "workers": 3}, "has its own workers"),
    ],
)
def test_what_is_no_cluster_is_refused(distributed, asked, told):
    with pytest.raises(InvalidInput, match=told):
        quick(plain(), [3], **asked)


def test_a_scheduler_that_does_not_answer_is_named(distributed, monkeypatch):
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(
            InvalidInput, match=f"No Dask scheduler answers at '{address}' .none within 0.2 s"
        ):
            quick(plain(), [3], cluster=address)


def test_a_cluster_without_workers_is_named(distributed, monkeypatch):
    monkeypatch.setattr(module, "WORKER_SECONDS", 0.2)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        pytest.raises(RetryableError, match="has had no worker for 0 s"),
    ):
        quick(plain(), [3], cluster=empty)


def test_prefects_runner_is_a_cluster_before_it_is_started_and_afterwards(cluster):
    from prefect_dask import DaskTaskRunner

    alone = quick(plain(), range(1, 20))
    runner = DaskTaskRunner(address=cluster.scheduler_address)
    assert_same(alone, quick(plain(), range(1, 20), cluster=runner))
    with DaskTaskRunner(cluster=cluster) as runner:
        assert_same(alone, quick(plain(), range(1, 20), cluster=runner))
        assert runner.client.status == "running"


def test_a_cluster_that_goes_away_is_named_and_what_is_folded_stays(distributed, tmp_path):
    import dask.config

    kept, begun, gone = (tmp_path / name for name in ("kept", "begun", "gone"))

    def compute(candles, params):
        if params.window == 100:
            begun.touch()
            wait_until(gone.exists)
        return slope(candles, params)

    def leave():
        wait_until(lambda: begun.exists() and len(list(kept.glob("*/*.parquet"))) == 6)
        small.scheduler.loop.add_callback(small.scheduler.close)
        wait_until(lambda: small.scheduler.status.name == "closed")
        gone.touch()

    size = {"n_workers": 1, "threads_per_worker": 1, "processes": False}
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "3s"}),  # how long it is hoped for
        distributed.LocalCluster(**size, dashboard_address=":0") as small,
    ):
        leaving = threading.Thread(target=leave)
        leaving.start()
        with pytest.raises(RetryableError, match="was lost; with a folder, the same call goes on"):
            quick(plain(compute), range(1, 200), cluster=small, folder=kept)
        leaving.join()


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InvalidInput, match=r"needs distributed; install Notedesk's extra 'dask'"):
        quick(plain(), [3], cluster="tcp://127.0.0.1:8786")


def test_a_sweep_that_is_stopped_leaves_the_cluster_nothing_to_do(cluster, distributed, tmp_path):
    def waiting(candles, params):
        (tmp_path / str(params.window)).touch()
        wait_until(lambda: (tmp_path / "go").exists())
        return slope(candles, params)

    def interrupt():
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)  # one in each process
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    # The workers of pytest-xdist ignore what a Ctrl-C sends.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            quick(plain(waiting), range(1, 200), cluster=cluster)
    finally:
        signal.signal(signal.SIGINT, before)
    (tmp_path / "go").touch()
    with distributed.Client(cluster, set_as_default=False) as client:
        wait_until(lambda: not any(client.processing().values()))
        wait_until(lambda: not any(client.has_what().values()))
    assert len(list(tmp_path.iterdir())) < 2 * 16 + 3


def killing(folder, times):
    """A strategy whose first `times` scores of window 50 kill their process."""

    def compute(candles, params):
        if params.window == 50:
            deaths = len(list(folder.iterdir()))
            if deaths < times:
                (folder / f"{deaths}-{os.getpid()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return slope(candles, params)

    return compute


def test_chunks_of_a_worker_that_was_killed_are_folded_by_another(cluster, tmp_path):
    windows = range(1, 101)
    found = quick(plain(killing(tmp_path, 1)), windows, cluster=cluster)
    assert len(list(tmp_path.iterdir())) == 1
    assert_same(found, quick(plain(), windows))


def test_what_kills_one_worker_after_the_other_ends_the_sweep_with_its_place(cluster, tmp_path):
    kept, deaths = tmp_path / "kept", tmp_path / "deaths"
    deaths.mkdir()
    with pytest.raises(InvalidInput, match="lost 2 workers, at last over the combinations "):
        quick(plain(killing(deaths, 99)), range(1, 101), cluster=cluster, folder=kept)
    assert len(list(deaths.iterdir())) == 2
