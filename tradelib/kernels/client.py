"""A kernel's client and manager that do not wait for longer than the kernel takes."""

from __future__ import annotations

import os
import secrets
from asyncio import Future
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from time import monotonic
from typing import Any

import zmq
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from traitlets import DottedObjectName, default
from traitlets.config import Config

# Seconds after which a kernel that does not answer, or does not publish to us yet, is asked again.
_ANSWER = 1.0
_PUBLISHED = 0.1
# A socket's path has 107 bytes, some of which the kernel's five channels need.
_LONGEST_SOCKET_NAME = 100


def private_sockets(folder: Path) -> Config:
    """Settings with which a kernel is talked to over sockets in `folder` that only their owner can
    open, under a name of their own: by default all kernels that start at once would share one.

    Where the folder's name is too long for a socket, over loopback, on ports that another process
    may take before the kernel does.
    """
    config = Config()
    name = folder / secrets.token_hex(4)
    if os.name == "posix" and len(os.fsencode(name)) <= _LONGEST_SOCKET_NAME:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        config.KernelManager.transport = "ipc"
        config.KernelManager.ip = str(name)
    return config


class QuickKernelManager(AsyncKernelManager):  # type: ignore[misc]
    """Jupyter's manager pauses for 10 ms after each start and end, for its own tests' sake."""

    client_class = DottedObjectName("tradelib.kernels.client.QuickKernelClient", config=True)

    @default("client_factory")
    def _make_client_factory(self) -> type[AsyncKernelClient]:
        return QuickKernelClient

    async def start_kernel(self, **launch: Any) -> None:
        await self._without_pause(AsyncKernelManager.start_kernel, launch)

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        await self._without_pause(
            AsyncKernelManager.shutdown_kernel, {"now": now, "restart": restart}
        )

    async def _without_pause(self, paused: Any, arguments: dict[str, Any]) -> None:
        self._ready = Future()
        try:
            await paused.__wrapped__(self, **arguments)
        except Exception as error:
            self._ready.set_exception(error)
            self._ready.exception()  # seen, so that asyncio does not tell it again
            raise
        self._ready.set_result(None)


class QuickKernelClient(AsyncKernelClient):  # type: ignore[misc]
    """Jupyter's client waits 200 ms of silence, so that its subscription is sure to be there. This
    one takes what proves it: the status that its own question has made the kernel publish."""

    def _create_connected_socket(self, channel: str, identity: bytes | None = None) -> zmq.Socket:
        # A kernel that is still binding its sockets is tried again after 10 ms, not after 100.
        self.context.setsockopt(zmq.RECONNECT_IVL, 10)
        return super()._create_connected_socket(channel, identity=identity)

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Return when the kernel answers and its messages reach us.

        timeout: seconds; None waits as long as the kernel lives. Raises RuntimeError.
        """
        deadline = monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            asked = self.kernel_info()
            reply = await _find(self.shell_channel, asked, "kernel_info_reply", _ANSWER)
            if reply and await _find(self.iopub_channel, asked, "status", _PUBLISHED, _is_idle):
                self._handle_kernel_info_reply(reply)
                return
            await self._check(deadline)

    async def _check(self, deadline: float) -> None:
        if not await self.is_alive():
            raise RuntimeError("Kernel died before replying to kernel_info")
        if monotonic() > deadline:
            raise RuntimeError("Kernel didn't respond in time")


async def _find(
    channel: Any,
    asked: str,
    kind: str,
    patience: float,
    fits: Callable[[dict[str, Any]], bool] = lambda _: True,
) -> dict[str, Any] | None:
    """The message of `kind` that answers question `asked`; others are dropped on the way."""
    until = monotonic() + patience
    while (left := until - monotonic()) > 0:
        try:
            message: dict[str, Any] = await channel.get_msg(timeout=left)
        except Empty:
            return None
        ours = message["parent_header"].get("msg_id") == asked and message["msg_type"] == kind
        if ours and fits(message):
            return message
    return None


def _is_idle(message: dict[str, Any]) -> bool:
    return bool(message["content"]["execution_state"] == "idle")
