"""Chunks of a sweep folded by a Dask cluster, each once, wherever its workers are.

The work travels to each worker once, as bytes: candles, space and strategy. What the user wrote
goes along, in a notebook or in modules; what is installed must be there already. A worker that has
other code or libraries is refused, for its rows would not be those of this process.
"""

from __future__ import annotations

import asyncio
import copyreg
import importlib
import platform
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tradelib.errors import InvalidInput, RetryableError
from tradelib.research.bench import COLUMN_BYTES, ColumnCache
from tradelib.research.code_version import engine_version
from tradelib.strategy.own import is_installed

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
    distributed, dask = _library("distributed"), _library("dask")
    with _connected(distributed, cluster) as client:
        told = f"The Dask cluster at {client.scheduler.address}"
        _check_workers(client, told)
        token = uuid.uuid4().hex
        # Not scattered: what the scheduler has the recipe of, it makes again if its workers die.
        # Sent once, it need not be small, which Dask would warn of.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            parcel = client.submit(Parcel, *pack(work), key=f"sweep-work-{token}")
        pool = client.get_executor(pure=False)

        def submit(number: int) -> Future[Chunk]:
            return pool.submit(fold_chunk, parcel, number, key=(f"sweep-chunk-{token}", number))

        try:
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
    own = _own_modules()
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        packed = cloudpickle.dumps(work)
    except Exception as error:
        raise InvalidInput(
            f"Strategy {strategy.name!r} cannot be sent to a cluster ({error}); let it hold plain "
            f"values and functions, or sweep without a cluster."
        ) from error
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)
    return packed, strategy.name, made_by()


def unpack(packed: bytes, strategy: str, made: str) -> Work:
    """The work of such bytes; InvalidInput where this process would fold it in another way."""
    _refuse_other(made_by(), made, platform.node())
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


def _own_modules() -> list[ModuleType]:
    """The user's modules, which workers lack: neither installed nor this package's."""
    return [one for name, one in list(sys.modules.items()) if _is_own(name, one)]


def _is_own(name: str, module: ModuleType) -> bool:
    if not issubclass(type(module), ModuleType):  # isinstance believes what cffi pretends
        return False
    # Not by getattr: a module that loads itself when it is looked at shall sleep on.
    told = object.__getattribute__(module, "__dict__")
    if told.get("__name__") != name or name == "__main__":  # which is taken along anyway
        return False
    return told.get("__file__") is not None and not is_installed(Path(told["__file__"]))


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
        if isinstance(cluster, str):
            # In a thread, since a notebook's own has a loop that runs already.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, _reach(distributed, cluster)).result()
        return distributed.Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        why = str(error) or f"none within {CONNECT_SECONDS:g} s"
        raise InvalidInput(
            f"No Dask scheduler answers at {cluster!r} ({why}); start one with `dask scheduler`, "
            f"or correct the address, which is like tcp://host:8786."
        ) from error


async def _reach(distributed: ModuleType, address: str) -> None:
    """Whether something speaks Dask there: a client would wait for its first word for ever."""
    kind = distributed.Security().get_connection_args("scheduler")
    async with asyncio.timeout(CONNECT_SECONDS):
        comm = await distributed.comm.connect(address, timeout=CONNECT_SECONDS, **kind)
    await comm.close()


def _check_workers(client: distributed.Client, told: str) -> None:
    """Wait for a first worker, and refuse those that would not fold as this process does: one that
    lacks Notedesk could not even say so when it is sent some work."""
    wish = client.submit(int, pure=False)  # for which a cluster that adapts starts a worker
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError as error:
        raise RetryableError(
            f"{told} has had no worker for {WORKER_SECONDS:.0f} s; start one with `dask worker`."
        ) from error
    finally:
        wish.release()
    for address, made in client.run(made_by, on_error="return").items():
        if isinstance(made, BaseException):
            raise InvalidInput(
                f"The worker {address} cannot run Notedesk ({made}); install it there, with its "
                f"extra 'dask'."
            ) from made
        _refuse_other(made, made_by(), address)


def _refuse_other(one: str, other: str, worker: str) -> None:
    if one != other:
        raise InvalidInput(
            f"The worker {worker} runs other code or libraries than the process that sweeps; "
            f"install the same Notedesk, numpy, pandas, numba and Python on both."
        )


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
