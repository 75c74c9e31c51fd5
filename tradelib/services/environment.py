"""What of this process's environment a child may see."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tradelib.scrubber import is_secret_name


def environment_for_child(
    keeps: tuple[str, ...] = (), base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """`base` (by default this process's environment) without variables named like secrets.

    keeps: prefixes of names that stay whatever they tell; "" keeps all.
    Python's own tools come first on the PATH, and no proxy stands between services on loopback.
    """
    base = os.environ if base is None else base
    env = {
        name: value
        for name, value in base.items()
        if not is_secret_name(name) or name.startswith(keeps)
    }
    env["PATH"] = os.pathsep.join(
        filter(None, [str(Path(sys.executable).parent), env.get("PATH", "")])
    )
    env["PYTHONUNBUFFERED"] = "1"
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [*filter(None, env.get(name, "").split(",")), "127.0.0.1", "localhost"]
        env[name] = ",".join(dict.fromkeys(hosts))
    return env
