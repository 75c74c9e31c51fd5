"""Real kernels of a kernelspec of the test's own, in a folder of sockets of its own."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tradelib.kernels.client import private_sockets
from tradelib.kernels.identity import FOLDER_ENV
from tradelib.kernels.servers import ServerStatus, load_servers

KERNEL = "warm-test"


@dataclass(frozen=True)
class Kernel:
    """A running kernel and its client."""

    manager: KernelManager
    client: BlockingKernelClient

    @property
    def pid(self) -> int:
        return self.manager.provisioner.pid

    @property
    def is_warm(self) -> bool:
        return self.pid in {pid for server in load_servers() for pid in server.kernels}

    def run(self, code: str, timeout: float = 60) -> str:
        """What the code prints or returns; its error is raised as an AssertionError."""
        told: list[str] = []

        def listen(message: dict) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                told.append(content["text"])
            told.append(content.get("data", {}).get("text/plain", ""))

        reply = self.client.execute_interactive(code, timeout=timeout, output_hook=listen)
        content = reply["content"]
        assert content["status"] == "ok", "\n".join(content.get("traceback", []))
        return "".join(told).strip()


@contextmanager
def kernel(name: str = KERNEL, **launch: object) -> Iterator[Kernel]:
    """A kernel for as long as the block lasts."""
    sockets = Path(os.environ[FOLDER_ENV]) / "k"
    manager = KernelManager(kernel_name=name, config=private_sockets(sockets))
    manager.start_kernel(**launch)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def add_kernelspec(data: Path, *preload: str, idle: float = 600, name: str = KERNEL) -> None:
    folder = data / "kernels" / name
    folder.mkdir(parents=True, exist_ok=True)
    config = {"preload": preload, "idle": idle}
    spec = {
        "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}",
                 "--HistoryManager.hist_file=:memory:"],
        "display_name": name, "language": "python",
        "metadata": {"supported_encryption": ["curve"], "kernel_provisioner":
                     {"provisioner_name": "warm-provisioner", "config": config}},
    }  # fmt: skip
    (folder / "kernel.json").write_text(json.dumps(spec))


@contextmanager
def sockets_folder() -> Iterator[Path]:
    """A folder for sockets, with a name that is short enough; its servers are ended."""
    with tempfile.TemporaryDirectory(prefix="wk", dir="/tmp") as name:
        before = os.environ.get(FOLDER_ENV)
        os.environ[FOLDER_ENV] = name
        try:
            yield Path(name)
        finally:
            end_all()
            os.environ.pop(FOLDER_ENV)
            if before is not None:
                os.environ[FOLDER_ENV] = before


def once_there(file: Path, act: Callable[[], object]) -> threading.Thread:
    """Do something as soon as a cell has made `file`, and so has begun."""

    def wait_and_act() -> None:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def end_all() -> None:
    servers = [psutil.Process(server.pid) for server in load_servers()]
    for server in servers:
        server.kill()
    psutil.wait_procs(servers, timeout=5)


def sole_server() -> ServerStatus:
    (server,) = load_servers()
    return server
