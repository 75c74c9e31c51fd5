"""Where the desk's services are, as `desk up` wrote it for everyone else on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil

from tradelib.errors import RefusedError, RetryableError, StorageFailed, unknown_name
from tradelib.settings import DeskSettings

_NOT_RUNNING = "The desk is not running; start it with `desk up`."


@dataclass(frozen=True)
class Running:
    """A service that is up.

    started_at: ISO 8601 in UTC. born: when the system says that process began, in seconds since
    1970, which tells it from a later process that got the same id.
    """

    name: str
    url: str
    pid: int
    born: float
    started_at: str
    link: str = ""
    token: str | None = field(default=None, repr=False)

    @property
    def page(self) -> str:
        """The URL that people open, with its token; empty when there is no page."""
        return self.address(self.link) if self.link else ""

    def address(self, path: str) -> str:
        """The URL of `path` on this service, with the token that lets a browser in."""
        url = f"{self.url}{quote(path, safe='/?=&')}"
        if self.token is None:
            return url
        return f"{url}{'&' if '?' in url else '?'}token={self.token}"

    @property
    def alive(self) -> bool:
        return is_alive(self.pid, self.born)


def is_alive(pid: int, born: float) -> bool:
    """Whether the process `pid` that began at `born` still runs."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - born) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def save_services(file: Path, services: Iterable[Running]) -> None:
    """Replace `file` at once, readable by its owner alone."""
    me = psutil.Process()
    content = {
        "desk": {"pid": me.pid, "born": me.create_time()},
        "services": {service.name: asdict(service) for service in services},
    }
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as text:
        json.dump(content, text, indent=2)
    fresh.replace(file)


def load_services(settings: DeskSettings) -> dict[str, Running]:
    """The services of the desk that runs on this home, by name.

    Raises RefusedError when none runs.
    """
    file = settings.services_file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        desk = content["desk"]
        services = {name: Running(**fields) for name, fields in content["services"].items()}
    except FileNotFoundError:
        raise RefusedError(_NOT_RUNNING) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StorageFailed(
            f"{file} cannot be read ({error}); stop the desk, delete the file, start again."
        ) from error
    if not is_alive(desk["pid"], desk["born"]):
        raise RefusedError(_NOT_RUNNING)
    return services


def find_service(settings: DeskSettings, name: str) -> Running:
    """The running service `name`.

    Raises RefusedError when the desk does not run, InvalidInput when it has no such service,
    RetryableError while the service is being restarted.
    """
    services = load_services(settings)
    if name not in services:
        raise unknown_name("service", name, services, "the running desk")
    if not services[name].alive:
        raise RetryableError(
            f"Service {name} is down and being restarted; "
            f"its log is {settings.logs / f'{name}.log'}."
        )
    return services[name]


def service_url(settings: DeskSettings, name: str) -> str:
    """The base URL of service `name`, which settings write as `service:NAME`."""
    return find_service(settings, name.removeprefix("service:")).url
