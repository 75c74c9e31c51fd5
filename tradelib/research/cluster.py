"""Chunks of a sweep folded by a Dask cluster, each once, wherever its workers are.

The work travels to each worker once, as bytes: candles, space and strategy. A strategy's own module
goes along with it; what that imports must be there already. A worker that has other code or
libraries is refused, for its rows would not be those of this process.
"""

from __future__ import annotations

import copyreg
import importlib
import inspect
import platform
import sys
import sysconfig
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tradelib.errors import InvalidInput, RetryableError
from tradelib.research.bench import COLUMN_BYTES, ColumnCache
from tradelib.research.code_version import engine_version, strategy_parts
from tradelib.strategy.base import Strategy

if TYPE_CHECKING:
    import distributed

    from tradelib.research.sweep import Chunk, Work

CONNECT_SECONDS = 10.0
WORKER_SECONDS = 60.0
"""How long a cluster may take to have its first worker."""


@contextmanager
def cluster_pool(
    work: Work, cluster: Any
) -> Iterator[tuple[Callable[[int], Future[Chunk]], Callable[[], int]]]:
    """A function that has a chunk folded by the cluster, and one that tells how many chunks it
    should be given at a time. At the end, what has not been folded is cancelled.

    cluster: a scheduler's address, a Dask client or cluster, or Prefect's `DaskTaskRunner`.
    """
    distributed = _library("distributed")
    with _connected(distributed, cluster) as client:
        told = f"The Dask cluster at {client.scheduler.address}"
        # Not scattered: what the scheduler has the recipe of, it makes again if its workers die.
        token = uuid.uuid4().hex
        parcel = client.submit(Parcel, *pack(work), key=f"sweep-work-{token}")
        pool = client.get_executor(pure=False)

        def submit(number: int) -> Future[Chunk]:
            return pool.submit(fold_chunk, parcel, number, key=(f"sweep-chunk-{token}", number))

        try:
            _await_worker(client, told)
            yield submit, lambda: 2 * max(1, sum(client.nthreads().values()))
        except (CancelledError, distributed.comm.CommClosedError) as error:
            raise RetryableError(
                f"{told} was lost; with a folder, the same call goes on from what is finished."
            ) from error
        except distributed.KilledWorker as error:
            raise InvalidInput(_killed(error, work, told)) from error
        finally:
            with suppress(Exception):  # of a cluster that is gone nothing can be cancelled
                pool.shutdown(wait=False)
                parcel.release()


class Parcel:
    """A sweep's work on its way to a worker, which unpacks it once for all chunks.

    Dask keeps it beside its other data, and drops it when the sweep has ended.
    """

    def __init__(self, packed: bytes, strategy: str, made_by: str) -> None:
        self._told = packed, strategy, made_by
        self._work: Work | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return Parcel, self._told

    def __sizeof__(self) -> int:
        return len(self._told[0])

    def work(self) -> Work:
        """The work itself."""
        with self._lock:
            self._work = self._work or unpack(*self._told)
            return self._work


def fold_chunk(parcel: Parcel, number: int) -> Chunk:
    """The chunk of that number; this is what a worker runs."""
    work = parcel.work()
    return work.run(work.numbered(number))


def pack(work: Work) -> tuple[bytes, str, str]:
    """What a `Parcel` is made of: the work as bytes, its strategy's name, what it was made by."""
    cloudpickle = _library("cloudpickle")
    strategy = work.bench.strategy
    own = [module for module in _modules(strategy) if not _is_installed(module)]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        packed = cloudpickle.dumps(work)
    except Exception as error:
        raise InvalidInput(
            f"Strategy {strategy.name!r} cannot be sent to a cluster: {error}. Let it hold plain "
            f"values and functions, or sweep without a cluster."
        ) from error
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)
    return packed, strategy.name, made_by()


def unpack(packed: bytes, strategy: str, made: str) -> Work:
    """The work of such bytes; InvalidInput where this process would fold it in another way."""
    if made != made_by():
        raise InvalidInput(
            f"A worker on {platform.node()} runs other code or libraries than the process that "
            f"sweeps; install the same Notedesk, numpy, pandas, numba and Python on both."
        )
    try:
        return _library("cloudpickle").loads(packed)
    except Exception as error:
        raise InvalidInput(
            f"A worker on {platform.node()} cannot load strategy {strategy!r} "
            f"({type(error).__name__}: {error}); install there what the strategy imports."
        ) from error


def made_by() -> str:
    """What rows and packed functions depend on: Python and the engine."""
    return f"Python {sys.version_info.major}.{sys.version_info.minor}, {engine_version()}"


def _modules(strategy: Strategy) -> set[ModuleType]:
    """The modules that hold a strategy's functions, as far as they are modules."""
    parts = [*strategy_parts(strategy), strategy.history]
    found = {getattr(inspect.unwrap(part), "__module__", None) for part in parts}
    return {sys.modules[name] for name in found if name in sys.modules}


def _is_installed(module: ModuleType) -> bool:
    """Whether a worker has the module too: it is a library's, or this package's."""
    name = module.__name__.partition(".")[0]
    file = getattr(module, "__file__", None)
    if name in (__name__.partition(".")[0], *sys.stdlib_module_names) or file is None:
        return name != "__main__" and (file is not None or name in sys.builtin_module_names)
    homes = (sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    return any(Path(file).is_relative_to(home) for home in homes)


# Columns stay where they were computed, and a lock cannot travel.
copyreg.pickle(ColumnCache, lambda _cache: (ColumnCache, (COLUMN_BYTES,)))


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidInput(
            f"A sweep on a cluster needs {name}; install Notedesk's extra 'dask' "
            f"(pip install 'notedesk[dask]')."
        ) from error


@contextmanager
def _connected(distributed: ModuleType, cluster: Any) -> Iterator[distributed.Client]:
    """A client of the cluster, closed afterwards if it was opened here."""
    with ExitStack() as stack:
        if _is_runner(cluster):
            with suppress(RuntimeError):  # a flow has started it, and will end it
                stack.enter_context(cluster)
            cluster = cluster.client
        if isinstance(cluster, distributed.Client):
            yield cluster
            return
        if not isinstance(cluster, str | distributed.deploy.Cluster):
            raise InvalidInput(
                f"A cluster is a scheduler's address, a Dask client or cluster, or Prefect's "
                f"DaskTaskRunner, and not a {type(cluster).__name__}."
            )
        yield stack.enter_context(_open(distributed, cluster))


def _is_runner(cluster: Any) -> bool:
    prefect_dask = sys.modules.get("prefect_dask")  # whoever has a runner has imported it
    return prefect_dask is not None and isinstance(cluster, prefect_dask.DaskTaskRunner)


def _open(distributed: ModuleType, cluster: Any) -> distributed.Client:
    try:
        return distributed.Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"No Dask scheduler answers at {cluster} ({error}); start one with `dask scheduler`, "
            f"or correct the address."
        ) from error


def _await_worker(client: distributed.Client, told: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError as error:
        raise RetryableError(
            f"{told} has had no worker for {WORKER_SECONDS:.0f} s; start one with `dask worker`."
        ) from error


def _killed(error: Any, work: Work, told: str) -> str:
    if not isinstance(error.task, tuple):
        return f"{told} could not take candles and strategy: {error}"
    first = error.task[1] * work.size
    last = min(first + work.size, len(work.space)) - 1
    return (
        f"{told} lost {error.allowed_failures + 1} workers, at last over the combinations "
        f"{first:,} to {last:,} or those beside them. Look for what ends a worker there: its "
        f"memory, or the strategy itself."
    )
