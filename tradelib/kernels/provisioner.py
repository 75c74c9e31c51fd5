"""Where Jupyter asks for a kernel: a provisioner that a kernelspec names, so that everything that
starts kernels by name gets warm ones."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Float, List, Unicode

from tradelib.kernels.identity import IDLE, identity_for
from tradelib.kernels.process import WarmProcess
from tradelib.kernels.servers import NoWarmKernel, Request, start_kernel

log = logging.getLogger(__name__)
# Arguments of a launch that a fork can honour; with any other the kernel starts cold.
_HONOURED = {"env", "cwd", "stdout", "stderr", "extra_arguments", "kernel_id"}
# Seconds that a killed process may take to be gone.
_DEATH = 5.0

_warned: set[str] = set()


class WarmProvisioner(LocalProvisioner):  # type: ignore[misc]
    """A local kernel, forked from a server that has imported `preload`, else started cold.

    idle: seconds without a kernel after which a server that nobody owns ends.
    """

    preload = List(Unicode(), config=True)
    idle = Float(IDLE, config=True)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        try:
            request = _request(cmd, kwargs)
            identity = identity_for(cmd[0], tuple(self.preload), request.env, self.idle)
            # In a thread, for a first start takes seconds that a server's other pages need.
            self.process = await asyncio.to_thread(start_kernel, identity, request)
        except NoWarmKernel as error:
            _warn_once(str(error))
            return await super().launch_kernel(cmd, **kwargs)
        self.pid = self.pgid = self.process.pid  # it leads a session of its own
        self.cwd = request.cwd
        return self.connection_info

    async def wait(self) -> int | None:
        if self.process:
            await _ended(self.process)
        return await super().wait()

    async def kill(self, restart: bool = False) -> None:
        """Kill it and wait, so that the manager need not look again after 100 ms."""
        process = self.process
        await super().kill(restart)
        if process:
            try:
                await asyncio.wait_for(_ended(process), _DEATH)
            except TimeoutError:
                log.warning("kernel %d outlives its kill", process.pid)

    async def send_signal(self, signum: int) -> None:
        # Once it has ended, its group's id may be another's.
        if self.process and (signum == 0 or self.process.poll() is None):
            await super().send_signal(signum)


def _request(command: list[str], launch: dict[str, Any]) -> Request:
    """Raises NoWarmKernel for a launch that a fork cannot do as it is meant."""
    if command[1:3] != ["-m", "ipykernel_launcher"]:
        raise NoWarmKernel(f"{' '.join(command[:3])} is not how ipykernel starts")
    if strange := sorted(name for name in launch if name not in _HONOURED and launch[name]):
        raise NoWarmKernel(f"a launch with {', '.join(strange)} needs a process of its own")
    env = dict(launch.get("env") or os.environ)
    env["JPY_PARENT_PID"] = str(os.getpid())
    return Request(
        argv=tuple(command[3:]),
        env=env,
        cwd=os.path.abspath(launch.get("cwd") or os.getcwd()),
        out=_handle(launch.get("stdout"), 1),
        err=_handle(launch.get("stderr"), 2),
    )


def _handle(stream: Any, default: int) -> int:
    """The file descriptor that a launch's stdout or stderr stands for."""
    if stream is None:
        return default
    number = stream if isinstance(stream, int) else stream.fileno()
    if number < 0:  # subprocess.PIPE and its like
        raise NoWarmKernel("a launch that reads its kernel's output needs a process of its own")
    return int(number)


def _warn_once(reason: str) -> None:
    if reason not in _warned:
        _warned.add(reason)
        log.warning("kernels start cold, which takes longer: %s", reason)


async def _ended(process: Any) -> None:
    """Return when the process has ended; at once where that cannot be watched."""
    try:
        own = process.handle if isinstance(process, WarmProcess) else None
        handle = os.dup(own) if own is not None else os.pidfd_open(process.pid)
    except (OSError, AttributeError):
        return
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    try:
        loop.add_reader(handle, ended.set)
        await ended.wait()
    except NotImplementedError:
        return
    finally:
        loop.remove_reader(handle)
        os.close(handle)
