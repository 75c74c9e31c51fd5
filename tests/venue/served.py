"""A small HTTP server for one exchange's dialect, and the faults of the way to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as it came. target: path and query."""

    method: str
    target: str
    body: bytes
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path


Answer = tuple[int, Any]


class Exchange(Protocol):
    def answer(self, asked: Asked) -> Answer:
        """HTTP status and what to write as JSON, or text as it is."""


@dataclass
class Served:
    """An exchange under its address.

    lose_next: so many requests from now on reach it, and their answers do not come back.
    next_answer: is given to the next request, which does not reach it.
    """

    exchange: Exchange
    url: str = ""
    lose_next: int = 0
    next_answer: Answer | None = None
    asked: list[Asked] = field(default_factory=list)

    def answer(self, asked: Asked) -> Answer | None:
        """None where the answer is lost."""
        self.asked.append(asked)
        if self.next_answer:
            given, self.next_answer = self.next_answer, None
            return given
        given = self.exchange.answer(asked)
        lost, self.lose_next = self.lose_next > 0, max(self.lose_next - 1, 0)
        return None if lost else given


@dataclass(frozen=True)
class Relay:
    """Another server of the exchange's own dialect, passed on to."""

    url: str

    def answer(self, asked: Asked) -> Answer:
        at = urlsplit(self.url)
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=10)
        headers = {name: text for name, text in asked.headers.items() if name.lower() != "host"}
        connection.request(asked.method, asked.target, asked.body or None, headers)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, text


def _handler(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # An answer leaves at once, and not when the next one fills a packet.
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            given = served.answer(Asked(self.command, self.path, body, dict(self.headers)))
            if given is None:
                self.close_connection = True
                return
            text = given[1] if isinstance(given[1], str) else json.dumps(given[1])
            self.send_response(given[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serve(exchange: Exchange) -> Iterator[Served]:
    """The exchange's server, in a thread, for as long as the block lasts."""
    served = Served(exchange)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
