"""Kernelspecs: what is installed under a kernel's name."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from functools import cache

from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from tradelib.kernels.identity import IDLE, Identity, identity_for
from tradelib.kernels.servers import NoWarmKernel

log = logging.getLogger(__name__)
COLD_KERNEL = "python3"


def load_identity(kernel: str, environment: Mapping[str, str]) -> Identity:
    """The server that forks the kernels of that name in that environment.

    Raises NoWarmKernel for a kernelspec that is not there or names no packages.
    """
    try:
        told = KernelSpecManager().get_kernel_spec(kernel).metadata["kernel_provisioner"]["config"]
    except (NoSuchKernel, KeyError) as error:
        raise NoWarmKernel(f"no kernelspec {kernel!r} names packages to import") from error
    idle = float(told.get("idle", IDLE))  # as the provisioner reads it
    return identity_for(sys.executable, tuple(told.get("preload", ())), environment, idle)


@cache
def find_kernel(name: str) -> str:
    """`name`, or python3 with one warning where no such kernel is installed."""
    try:
        KernelSpecManager().get_kernel_spec(name)
    except NoSuchKernel:
        log.warning("kernel %s is not installed, so notebooks start cold; run `make setup`", name)
        return COLD_KERNEL
    return name
