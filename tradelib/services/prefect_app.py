"""Prefect's server for this machine alone, for `uvicorn --factory`.

Prefect asks nobody who they are, and what it is asked to do can trade. Listening on loopback does
not keep a browser's other pages out: one may point a name of its own at 127.0.0.1, or send what
needs no leave, such as an empty POST or a websocket.
"""

from __future__ import annotations

from prefect.server.api.server import create_app
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")


class OwnPagesOnly:
    """Refuses what a browser sends for a page of another origin; programs name no origin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = PlainTextResponse("Not for pages of another origin", 403)
        await (answer if _is_foreign(scope) else self._app)(scope, receive, send)


def _is_foreign(scope: Scope) -> bool:
    if scope["type"] not in ("http", "websocket"):
        return False
    headers = Headers(scope=scope)
    return headers.get("origin") not in (None, f"http://{headers.get('host')}")


def make_app() -> ASGIApp:
    """Prefect's API, pages and schedules, behind both refusals."""
    return TrustedHostMiddleware(OwnPagesOnly(create_app(final=True)), HOSTS)
