"""Warm kernels through Jupyter's other doors: JupyterLab's REST API, nbval, a notebook run."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from websockets.sync.client import connect

from tests.kernels.kernels import KERNEL, once_there, sole_server
from tradelib.kernels.servers import load_servers
from tradelib.services.addresses import Running
from tradelib.services.definitions import jupyter_lab
from tradelib.services.supervisor import Supervisor
from tradelib.settings import DeskSettings

pytestmark = pytest.mark.usefixtures("own_sockets")


@dataclass(frozen=True)
class Lab:
    """JupyterLab, as its page in a browser uses it."""

    server: Running

    def ask(self, method: str, path: str, content: object = None) -> object:
        request = urllib.request.Request(
            f"{self.server.url}/api/{path}",
            None if content is None else json.dumps(content).encode(),
            {"Authorization": f"token {self.server.token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def run(self, kernel: str, code: str) -> str:
        """What the code prints, or the name of its error."""
        address = f"{self.server.url.replace('http', 'ws')}/api/kernels/{kernel}/channels"
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "test"}
        headers = {"Authorization": f"token {self.server.token}"}
        with connect(address, additional_headers=headers, proxy=None) as socket:
            content = {"code": code, "silent": False}
            request = {"channel": "shell", "header": header, "content": content}
            socket.send(json.dumps({**request, "parent_header": {}, "metadata": {}}))
            while True:
                message = json.loads(socket.recv(timeout=60))
                if message["parent_header"].get("msg_id") != header["msg_id"]:
                    continue
                if message["msg_type"] == "stream":
                    return message["content"]["text"].strip()
                if message["msg_type"] == "error":
                    return message["content"]["ename"]


@pytest.fixture
def lab(home: Path, own_sockets: Path) -> Iterator[Lab]:
    settings = DeskSettings(home=home)
    with Supervisor(settings, [jupyter_lab(settings)]) as desk:
        yield Lab(desk.running["jupyter"])


def living() -> set[int]:
    return {pid for server in load_servers() for pid in server.kernels}


def test_jupyterlab_starts_interrupts_restarts_and_ends_warm_kernels(
    lab: Lab, tmp_path: Path
) -> None:
    names = lab.ask("GET", "kernelspecs")["kernelspecs"]
    assert {"python3", "notedesk-live", "notedesk-research"} <= names.keys()
    kernel = lab.ask("POST", "kernels", {"name": "python3"})["id"]
    pid = int(lab.run(kernel, "import os; print(os.getpid(), flush=True)"))
    assert pid in living()
    assert lab.run(kernel, "import sys; print('vectorbt' in sys.modules, flush=True)") == "True"

    begun = tmp_path / "begun"
    interrupter = once_there(begun, lambda: lab.ask("POST", f"kernels/{kernel}/interrupt"))
    sleep = f"import time; open({str(begun)!r}, 'w').close(); time.sleep(60)"
    assert lab.run(kernel, sleep) == "KeyboardInterrupt"
    interrupter.join()

    lab.ask("POST", f"kernels/{kernel}/restart")
    again = int(lab.run(kernel, "import os; print(os.getpid(), flush=True)"))
    assert again != pid
    assert living() == {again}
    lab.ask("DELETE", f"kernels/{kernel}")
    assert living() == set()


def test_nbval_runs_a_notebook_in_a_warm_kernel(tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("print(6 * 7)", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="42\n")]
    wrong = nbformat.v4.new_code_cell("print(6 * 9)", execution_count=2)
    wrong.outputs = cell.outputs
    page = tmp_path / "page.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell, wrong]), page)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval"]
    done = subprocess.run(
        [*command, f"--nbval-kernel-name={KERNEL}", str(page)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "1 failed, 1 passed" in done.stdout
    assert sole_server().served == 1
