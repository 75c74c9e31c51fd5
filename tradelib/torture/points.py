"""Effect points: the places between two effects of a process, where it may be killed or stopped.

Before a transaction, before and after its commit; before a request, when its reply has come but
is not read, and after that. At a point that was aimed at, the process signals itself: SIGKILL
ends it with no cleanup at all, SIGSTOP holds it until it is told to continue.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection

from tradelib.trading.ledger import Ledger

PHASES = ("begin", "commit", "committed", "request", "sent", "answered")
# Whoever stops here keeps the ledger from everyone else, as no sleeping process may in earnest
# for longer than the ledger's own patience.
HOLDS_THE_LEDGER = "commit"
_API = "/api/v3/"


@dataclass(frozen=True)
class Aim:
    """At which point of an act its process signals itself: the nth, or the nth at a place."""

    signal: int
    nth: int
    place: str | None = None

    def hits(self, place: str, passed: list[str]) -> bool:
        if self.signal == signal.SIGSTOP and place.split()[0] == HOLDS_THE_LEDGER:
            return False
        if self.place is not None:
            return place == self.place and passed.count(place) == self.nth
        return len(passed) >= self.nth


class Points:
    """Counts the points that this process passes. report: called before it signals itself."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self._aim: Aim | None = None
        self._report: Callable[[str], None] = lambda place: None

    def begin(self, aim: Aim | None, report: Callable[[str], None]) -> None:
        self.passed, self._aim, self._report = [], aim, report

    def meet(self, place: str) -> None:
        self.passed.append(place)
        aim = self._aim
        if aim is not None and aim.hits(place, self.passed):
            self._aim = None
            self._report(place)
            os.kill(os.getpid(), aim.signal)


def watch_ledger(ledger: Ledger, points: Points) -> None:
    """Points around each of the ledger's transactions, named by the function that makes it."""
    write = ledger.write

    @contextmanager
    def watched(caller: str) -> Iterator[Connection]:
        points.meet(f"begin {caller}")
        with write() as books:
            yield books
            points.meet(f"commit {caller}")
        points.meet(f"committed {caller}")

    ledger.write = lambda: watched(sys._getframe(1).f_code.co_name)  # type: ignore[method-assign]


def watch_requests(session: Any, points: Points) -> None:
    """Points around each request of a client's session (of `requests`, on its own `urllib3`)."""
    adapter = session.get_adapter("http://")
    send, pools = adapter.send, adapter.poolmanager

    def watched(request: Any, *others: Any, **options: Any) -> Any:
        place = _route(request.method, request.url)
        points.meet(f"request {place}")
        response = send(request, *others, **options)
        points.meet(f"answered {place}")
        return response

    adapter.send = watched
    pools.pool_classes_by_scheme = {"http": _pool(pools.pool_classes_by_scheme["http"], points)}


def _pool(usual: Any, points: Points) -> Any:
    class Line(usual.ConnectionCls):
        """Its point lies where the exchange has done its part and this process knows nothing."""

        _place = ""

        def request(self, method: str, url: str, *others: Any, **options: Any) -> None:
            self._place = _route(method, url)
            super().request(method, url, *others, **options)

        def getresponse(self) -> Any:
            select.select([self.sock], [], [], self.timeout)
            points.meet(f"sent {self._place}")
            return super().getresponse()

    class Pool(usual):
        ConnectionCls = Line

    return Pool


def _route(method: str, url: str) -> str:
    return f"{method} {urlsplit(url).path.removeprefix(_API)}"
