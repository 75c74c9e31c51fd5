"""What a service is: a command, how to tell that it is ready, and where to find it."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class HttpProbe:
    """Ready when GET `path` on the service's port is answered with a status below 400."""

    path: str = "/"
    timeout: float = 2.0

    def answers(self, port: int) -> bool:
        # http.client reads no proxy settings: a probe of loopback must not leave the machine.
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=self.timeout)
        try:
            connection.request("GET", self.path)
            return connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclass(frozen=True)
class FileProbe:
    """Ready when the service has made `file`; a file left by an earlier start is removed first."""

    file: Path


@dataclass(frozen=True)
class Service:
    """One child process of the desk.

    command, env: `{port}` and `{url}` stand for the service's own port and URL, `{NAME.url}` for
        those of a service it needs.
    port: the preferred one on loopback, replaced by a free one when busy; None for a service
        that listens nowhere.
    keeps: prefixes of variables of the desk's environment that the service sees although they
        are named like secrets; "" stands for all.
    link: path of the page that people open, empty when there is none.
    token: what the page asks for, kept in services.json alone.
    needs: names of the services that must be ready before this one starts.
    ready_within: seconds from start to readiness.
    """

    name: str
    command: tuple[str, ...]
    ready: HttpProbe | FileProbe
    port: int | None = None
    link: str = ""
    token: str | None = field(default=None, repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    keeps: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    folder: Path | None = None
    ready_within: float = 60.0


def fill(text: str, port: int | None, urls: Mapping[str, str]) -> str:
    """`text` with `{port}`, `{url}` and `{NAME.url}` replaced; other braces stay as they are."""
    if port is not None:
        text = text.replace("{port}", str(port)).replace("{url}", url_of(port))
    for name, url in urls.items():
        text = text.replace(f"{{{name}.url}}", url)
    return text


def url_of(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"
