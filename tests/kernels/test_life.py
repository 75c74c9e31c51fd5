"""A warm kernel lives and dies as a cold one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from jupyter_client.asynchronous import AsyncKernelClient
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from tests.kernels.kernels import KERNEL, Kernel, add_kernelspec, kernel, once_there
from tests.pages import execute_page
from tradelib.kernels.client import QuickKernelClient, private_sockets
from tradelib.kernels.identity import FOLDER_ENV
from tradelib.kernels.process import UNKNOWN_EXIT


def ended(one: Kernel) -> int:
    """The kernel's exit code, once it has ended."""
    return one.manager.provisioner.process.wait(10)


def test_an_interrupt_ends_the_cell_and_not_the_kernel(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with kernel() as one:
        one.run("kept = 1")
        interrupter = once_there(begun, one.manager.interrupt_kernel)
        with pytest.raises(AssertionError, match="KeyboardInterrupt"):
            one.run(f"import time; open({str(begun)!r}, 'w').close(); time.sleep(60)")
        interrupter.join()
        assert one.run("kept") == "1"


def test_a_restart_forgets_everything_and_stays_warm() -> None:
    with kernel() as one:
        one.run("kept = 1")
        before = one.pid
        one.manager.restart_kernel(now=True)
        one.client.wait_for_ready(timeout=60)
        assert one.pid != before
        assert one.is_warm
        assert one.run("'kept' in globals()") == "False"


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os._exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("get_ipython().kernel.do_shutdown(False); exit()", 0),
    ],
)
def test_the_exit_code_is_told(end: str, code: int) -> None:
    with kernel() as one:
        one.client.execute(f"import os, signal; {end}")
        assert ended(one) == code


def test_a_kernel_that_is_asked_to_shut_down_runs_what_it_registered(tmp_path: Path) -> None:
    with kernel(cwd=str(tmp_path)) as one:
        one.run("import atexit; _ = atexit.register(lambda: open('left', 'w').close())")
        one.manager.request_shutdown()
        assert ended(one) == 0
    assert (tmp_path / "left").exists()


def test_a_kernel_without_a_server_goes_on_and_ends_with_its_client() -> None:
    with kernel() as one:
        parent = psutil.Process(one.pid).parent()
        parent.kill()
        parent.wait(5)
        assert one.run("6 * 7") == "42"
        one.client.execute("import os; os._exit(3)")
        assert ended(one) == UNKNOWN_EXIT


CLIENT = """
import sys
from jupyter_client.manager import KernelManager
manager = KernelManager(kernel_name=sys.argv[1])
manager.start_kernel()
print(manager.provisioner.pid, flush=True)
sys.stdin.read()
"""


def test_a_kernel_ends_with_whoever_asked_for_it_and_so_do_its_children() -> None:
    command = [sys.executable, "-c", CLIENT, KERNEL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        left = psutil.Process(int(client.stdout.readline()))
        client.kill()
        assert psutil.wait_procs([left], timeout=5)[1] == []


def test_a_kernel_that_dies_is_told_as_dead() -> None:
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; os._exit(1)")])
    with pytest.raises(DeadKernelError):
        execute_page(page, kernel=KERNEL)


def test_figures_appear_in_the_page(data: Path) -> None:
    add_kernelspec(data, "matplotlib.pyplot")
    cell = nbformat.v4.new_code_cell("import matplotlib.pyplot as p\n_ = p.plot([1, 2])")
    page = nbformat.v4.new_notebook(cells=[cell])
    execute_page(page, kernel=KERNEL)
    assert any("image/png" in output.get("data", {}) for output in cell.outputs)


PARALLEL = """
import numba, numpy
@numba.njit(parallel=True)
def total(values):
    found = 0.0
    for place in numba.prange(len(values)):
        found += values[place]
    return found
print(total(numpy.ones(100_000)), (numpy.ones((400, 400)) @ numpy.ones((400, 400)))[0, 0])
"""


def test_parallel_code_and_matrices_run(data: Path) -> None:
    add_kernelspec(data, "numba", "numpy.linalg")
    for _ in range(2):
        with kernel() as one:
            assert one.is_warm
            assert one.run(PARALLEL, timeout=120) == "100000.0 400.0"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_warm_kernel_starts_processes_of_its_own(method: str) -> None:
    with kernel() as one:
        told = one.run(
            "import math, multiprocessing\n"
            f"with multiprocessing.get_context({method!r}).Pool(2) as pool:\n"
            "    print(pool.map(math.factorial, range(4)))"
        )
    assert told == "[1, 1, 2, 6]"


def test_what_a_kernel_writes_outside_of_cells_goes_where_it_was_told(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log, kernel(stdout=log, stderr=log) as one:
        one.run("import sys; print('outside', file=sys.__stderr__)")
    assert "outside" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("name", [KERNEL, "python3"])
def test_the_quick_client_hears_the_first_cell_of_warm_and_cold_kernels(name: str) -> None:
    cell = nbformat.v4.new_code_cell("print('heard')")
    for _ in range(3):
        client = NotebookClient(
            nbformat.v4.new_notebook(cells=[cell]),
            kernel_name=name,
            config=private_sockets(Path(os.environ[FOLDER_ENV]) / "k"),
        )
        client.create_kernel_manager().client_factory = QuickKernelClient
        client.owns_km = True
        client.execute()
        assert isinstance(client.kc, AsyncKernelClient | None)
        assert cell.outputs[0].text == "heard\n"


def test_a_kernel_over_sockets_of_its_owner_leaves_none_behind(tmp_path: Path) -> None:
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name=KERNEL, transport="ipc", ip=str(tmp_path / "k"))
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    assert len(list(tmp_path.glob("k-*"))) == 5
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    assert list(tmp_path.glob("k-*")) == []
    assert os.path.exists(tmp_path)
