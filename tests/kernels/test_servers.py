"""Fork servers: how they are found, shared, replaced and ended, and when a kernel starts cold."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.kernels.kernels import KERNEL, add_kernelspec, kernel, sole_server
from tests.waiting import until
from tradelib.kernels import identity, servers
from tradelib.kernels.client import private_sockets
from tradelib.kernels.identity import FOLDER_ENV, OWNER_ENV, identity_for
from tradelib.kernels.servers import NoWarmKernel, load_servers, own_servers, warm_up
from tradelib.kernels.specs import find_kernel, load_identity

pytestmark = pytest.mark.usefixtures("own_sockets")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the provisioner warns of, whatever else has been done to the desk's loggers."""
    logger, lines = logging.getLogger("tradelib.kernels.provisioner"), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_simultaneous_first_starts_share_one_server() -> None:
    warm: list[bool] = []

    def start() -> None:
        with kernel() as one:
            warm.append(one.is_warm)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warm == [True] * 4
    assert sole_server().served == 4


def test_another_environment_at_start_is_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with kernel() as one:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("ORDINARY", "1")
        with kernel() as other:
            assert other.is_warm
            assert len(load_servers()) == 2
            assert one.run("import os; os.environ.get('OMP_NUM_THREADS')") == ""
            assert other.run("import os; os.environ['OMP_NUM_THREADS']") == "'1'"


def test_a_hash_seed_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "3")
    with kernel() as warm, kernel("python3") as cold:
        assert warm.is_warm
        assert warm.run("hash('a')") == cold.run("hash('a')")


def test_changed_code_is_never_run_and_living_kernels_go_on(data: Path, modules: Path) -> None:
    add_kernelspec(data, "changing")
    code = modules / "changing.py"
    code.write_text("value = 1")
    with kernel() as before:
        assert before.run("import changing; changing.value") == "1"
        old = sole_server().pid
        code.write_text("value = 22")
        with kernel() as after:
            assert after.is_warm
            assert after.run("import changing; changing.value") == "22"
            assert before.run("changing.value") == "1"
            assert sole_server().pid != old  # the old one takes no more connections
    assert psutil.wait_procs([psutil.Process(old)] if psutil.pid_exists(old) else [], 5)[1] == []


def test_a_killed_server_costs_one_retry(told: list[str]) -> None:
    with kernel():
        first = psutil.Process(sole_server().pid)
    first.kill()
    first.wait(5)
    with kernel() as one:
        assert one.is_warm
    assert sole_server().pid != first.pid
    assert told == []


def test_a_server_that_dies_while_it_is_asked_is_replaced(told: list[str]) -> None:
    """It is stopped, so that a kernel is asked of it; and killed before it can answer."""
    with kernel():
        first = psutil.Process(sole_server().pid)
    first.suspend()
    killer = threading.Timer(0.3, first.kill)
    killer.start()
    with kernel() as one:
        assert one.is_warm
    killer.join()
    assert sole_server().pid != first.pid
    assert told == []


def test_a_package_that_keeps_a_thread_means_cold_kernels_and_one_warning(
    data: Path, modules: Path, told: list[str]
) -> None:
    add_kernelspec(data, "threaded")
    (modules / "threaded.py").write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, name='kept', daemon=True).start()\n"
    )
    for _ in range(2):
        with kernel() as one:
            assert not one.is_warm
            assert one.run("6 * 7") == "42"
    assert len(told) == 1
    assert "keep threads: kept" in told[0]


def test_a_module_that_cannot_be_imported_is_left_out(data: Path, modules: Path) -> None:
    add_kernelspec(data, "numpy", "broken", "absent")
    (modules / "broken.py").write_text("1 / 0")
    with kernel() as one:
        assert one.is_warm
    assert sole_server().missing == ("broken", "absent")


def test_a_system_without_pidfds_means_cold_kernels_and_one_warning(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setattr(servers.sys, "platform", "darwin")
    for _ in range(2):
        with kernel() as one:
            assert one.run("6 * 7") == "42"
    assert told == ["kernels start cold, which takes longer: this system has no pidfds"]
    assert load_servers() == []


def test_a_folder_that_others_can_enter_is_not_used(own_sockets: Path, told: list[str]) -> None:
    own_sockets.chmod(0o755)
    with kernel() as one:
        assert one.run("6 * 7") == "42"
    own_sockets.chmod(0o700)
    assert len(told) == 1
    assert "is not this user's alone" in told[0]


def test_a_folder_with_too_long_a_name_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setenv(FOLDER_ENV, str(tmp_path / ("long" * 25)))
    with kernel() as one:
        assert one.run("6 * 7") == "42"
    assert "too long a name" in told[0]


def test_the_socket_and_its_folder_are_the_users_alone(own_sockets: Path) -> None:
    with kernel():
        assert sole_server().path.stat().st_mode & 0o777 == 0o600
        assert own_sockets.stat().st_mode & 0o777 == 0o700


def test_a_server_shows_no_variable_of_whoever_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCHANGE_SECRET", "hunter2")
    with kernel() as one:
        assert one.run("import os; os.environ['EXCHANGE_SECRET']") == "'hunter2'"
        assert "EXCHANGE_SECRET" not in psutil.Process(sole_server().pid).environ()


def test_a_server_without_an_owner_ends_when_idle(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(OWNER_ENV, raising=False)
    add_kernelspec(data, "numpy", idle=0.5)
    with kernel() as one:
        assert one.is_warm
        server = psutil.Process(sole_server().pid)
    assert psutil.wait_procs([server], timeout=10)[1] == []
    assert load_servers() == []


OWNER = """
import os, sys
from tradelib.kernels.servers import own_servers, warm_up
from tradelib.kernels.specs import load_identity
with own_servers():
    warm_up(load_identity(sys.argv[1], os.environ))
    print("warm", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, None])
def test_a_server_ends_with_its_owner(
    monkeypatch: pytest.MonkeyPatch, end: signal.Signals | None
) -> None:
    monkeypatch.delenv(OWNER_ENV, raising=False)
    command = [sys.executable, "-c", OWNER, KERNEL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"warm\n"
        server = psutil.Process(sole_server().pid)
        if end:
            owner.send_signal(end)
        owner.stdin.close()
    assert psutil.wait_procs([server], timeout=5)[1] == []


def test_servers_that_belong_to_somebody_go_on_being_theirs() -> None:
    before = os.environ[OWNER_ENV]
    with own_servers():
        warm_up(load_identity(KERNEL, os.environ))
    assert sole_server().owner == before


def test_an_unknown_kernelspec_cannot_be_warmed_up() -> None:
    with pytest.raises(NoWarmKernel, match="no kernelspec 'absent' names packages"):
        load_identity("absent", os.environ)


def test_a_kernel_that_is_not_installed_is_replaced_by_a_cold_one() -> None:
    assert find_kernel(KERNEL) == KERNEL
    assert [find_kernel("absent") for _ in range(2)] == ["python3", "python3"]


def test_an_identity_is_the_same_for_the_same_start() -> None:
    start = {"PYTHONPATH": "/a", "ORDINARY": "1", "PYTHONUNBUFFERED": "1"}
    one = identity_for("python", ("numpy",), start, 1.0)
    assert one.environment == {"PYTHONPATH": "/a"}
    assert one.key == identity_for("python", ("numpy",), {**start, "ORDINARY": "2"}, 1.0).key
    for other in (
        identity_for("other", ("numpy",), start, 1.0),
        identity_for("python", ("pandas",), start, 1.0),
        identity_for("python", ("numpy",), {**start, OWNER_ENV: "1:2"}, 1.0),
    ):
        assert other.key != one.key


def test_an_owner_is_told_from_a_later_process_with_its_id() -> None:
    assert identity.is_owner(identity.this_process())
    assert not identity.is_owner(f"{os.getpid()}:1")
    assert not identity.is_owner("")


def anonymous_memory(process: psutil.Process) -> int:
    """Bytes that no file backs, whether or not forks share them."""
    memory = process.memory_info()
    return memory.rss - memory.shared


def test_a_hundred_kernels_leave_nothing_behind_in_the_server() -> None:
    def one_kernel() -> None:
        with kernel() as one:
            one.run("import numpy")

    for _ in range(5):
        one_kernel()
    server = psutil.Process(sole_server().pid)
    before = server.num_fds(), anonymous_memory(server)
    for _ in range(100):
        one_kernel()
    assert sole_server().served == 105
    assert sole_server().kernels == ()
    assert server.num_threads() == 1
    # Those of a spare may be there or not, and for a moment those of its start.
    until(lambda: server.num_fds() <= before[0] + 2)
    assert anonymous_memory(server) - before[1] < 2e6
    children = server.children(recursive=True)
    assert len(children) <= 1
    assert all(child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_a_folder_whose_name_has_too_many_bytes_is_not_used_for_sockets(tmp_path: Path) -> None:
    assert "ipc" not in str(private_sockets(tmp_path / ("ä" * 60)))
