"""The real Prefect server, as the desk starts it: whom it answers."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tradelib.services.addresses import Running
from tradelib.services.definitions import prefect_server
from tradelib.services.supervisor import Supervisor
from tradelib.settings import DeskSettings

PAUSE = "/api/deployments/00000000-0000-0000-0000-000000000000/pause_deployment"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = DeskSettings(home=tmp_path_factory.mktemp("desk"))
    with Supervisor(settings, [prefect_server(settings)]) as desk:
        yield desk.running["prefect"]


def ask(server: Running, method: str, path: str, **headers: str) -> tuple[int, str]:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


def test_a_name_that_was_pointed_at_this_machine_gets_no_answer(server: Running) -> None:
    port = urlsplit(server.url).port
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}"):
        assert ask(server, "GET", "/api/health", Host=host)[0] == 400, host
        assert ask(server, "GET", "/dashboard", Host=host)[0] == 400, host
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert ask(server, "GET", "/api/health", Host=host) == (200, "true"), host


def test_a_page_of_another_origin_can_neither_ask_nor_command(server: Running) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        assert ask(server, "POST", PAUSE, Origin=origin)[0] == 403, origin
        assert ask(server, "GET", "/api/health", Origin=origin)[0] == 403, origin
    assert ask(server, "POST", PAUSE, Origin=server.url)[0] == 404


def test_events_flow_to_prefects_own_pages_and_programs_alone(server: Running) -> None:
    stream = f"{server.url.replace('http', 'ws')}/api/events/in"
    for refused in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        with pytest.raises(InvalidStatus, match=r"HTTP 40[03]"):
            connect(stream, additional_headers=refused, proxy=None)
    for origin in (None, server.url):
        with connect(stream, origin=origin, proxy=None) as socket:
            socket.ping().wait(10)


def test_the_page_that_people_open_is_served(server: Running) -> None:
    status, text = ask(server, "GET", urlsplit(server.page).path, Accept="text/html")
    assert status == 200
    assert "<title>Prefect" in text
    assert f"{server.url}/api" in ask(server, "GET", "/ui-settings")[1]
