"""The desk's own use of warm kernels: run_notebook, `desk kernels`, the end with `desk up`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.desks import PaperDesk, desk_command, paper_desk
from tests.kernels.kernels import kernel, sole_server
from tests.replays import entry_file
from tradelib.kernels.identity import OWNER_ENV
from tradelib.kernels.servers import load_servers
from tradelib.settings import LIVE_KERNEL, PROJECT
from tradelib.trading.runs import Outcome

pytestmark = pytest.mark.usefixtures("own_sockets")


def told(home: Path) -> list[dict]:
    return json.loads(desk_command("kernels", "--json", home=home).stdout)


def test_no_server_is_told_in_a_sentence(home: Path) -> None:
    shown = desk_command("kernels", home=home)
    assert shown.stdout == "No fork server runs; the first kernel starts one.\n"
    assert told(home) == []


def test_servers_are_shown_with_their_kernels_memory_and_packages(home: Path) -> None:
    with kernel() as one:
        server, child = told(home)
        shown = desk_command("kernels", home=home).stdout
    assert (server["kind"], server["pid"], server["served"]) == ("server", sole_server().pid, 1)
    assert (child["kind"], child["pid"]) == ("kernel", one.pid)
    assert server["preload"] == ["numpy", "sqlite3"]
    assert server["owned"]
    assert server["memory"] > 1
    assert child["memory"] > 1
    assert "numpy, sqlite3" in shown
    assert str(one.pid) in shown


def test_a_cycle_runs_in_warm_kernels_that_name_themselves(home: Path) -> None:
    with paper_desk(home, files=[entry_file(home)]) as desk:
        runs = run_cycle_without_a_warning(desk)
    assert {run.outcome for run in runs} == {Outcome.SUCCEEDED}
    assert {run.kernel for run in runs} == {LIVE_KERNEL}
    assert sole_server().served == len(runs)
    assert sole_server().kernels == ()
    assert sole_server().missing == ()


def run_cycle_without_a_warning(desk: PaperDesk) -> list:
    runs = desk.run_cycle()
    log = desk.settings.logs / "desk.jsonl"
    assert not log.exists() or "start cold" not in log.read_text()
    return runs


def test_the_page_still_names_the_kernel_that_anybody_has(home: Path) -> None:
    with paper_desk(home, files=[entry_file(home)]) as desk:
        run = desk.run_cycle()[0]
        page = json.loads((desk.settings.reports / run.page).read_text())
    assert page["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_the_servers_of_a_desk_end_with_it(home: Path, end: signal.Signals) -> None:
    env = {**os.environ, OWNER_ENV: "", "DESK_HOME": str(home)}
    command = [sys.executable, "-m", "tradelib.cli", "up"]
    with subprocess.Popen(
        command, cwd=PROJECT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as desk:
        try:
            await_servers(desk, 2)
            servers = [psutil.Process(server.pid) for server in load_servers()]
            assert sum(server.served for server in load_servers()) >= 1
        finally:
            desk.send_signal(end)
            desk.stdout.read()
    assert psutil.wait_procs(servers, timeout=10)[1] == []
    assert load_servers() == []


def await_servers(desk: subprocess.Popen[bytes], count: int) -> None:
    """Until so many serve, and the first cycle has run in one of them."""
    deadline = time.monotonic() + 120
    while len(load_servers()) < count or not any(one.served for one in load_servers()):
        assert time.monotonic() < deadline, "the servers did not start in time"
        assert desk.poll() is None, "the desk ended early"
        time.sleep(0.1)
