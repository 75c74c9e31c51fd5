"""The real Voilà: what it shows, to whom, and what it leaves behind."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tradelib.errors import InvalidInput
from tradelib.kernels.servers import load_servers
from tradelib.services.addresses import Running
from tradelib.services.definitions import report_path, voila
from tradelib.services.supervisor import Supervisor
from tradelib.settings import DeskSettings

CELL = """
import os
print("sum:", 40 + 2, "home:", os.environ["DESK_HOME"], "key:", os.environ.get("BINANCE_KEY"))
print("kernel:", os.getpid(), "folder:", os.path.basename(os.getcwd()))
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> DeskSettings:
    # A hidden folder with a space, as `.desk` in a project may be.
    return make_desk(tmp_path_factory.mktemp("a desk") / ".desk")


def make_desk(home: Path) -> DeskSettings:
    settings = DeskSettings(home=home)
    page = settings.reports / "2026-01-01" / "run" / "page.ipynb"
    page.parent.mkdir(parents=True)
    cells = [nbformat.v4.new_code_cell(CELL)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), page)
    (page.parent / "chart.png").write_bytes(b"picture")
    (settings.home / "desk.toml").touch()
    return settings


@pytest.fixture(scope="module")
def server(settings: DeskSettings) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BINANCE_KEY", "not for pages")
        with Supervisor(settings, [voila(settings)]) as desk:
            yield desk.running["voila"]


def get(server: Running, path: str, token: str | None = None) -> tuple[int, str, dict[str, str]]:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    headers = {"Authorization": f"token {token}"} if token else {}
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace"), dict(answer.headers)


PAGE = "/voila/render/reports/2026-01-01/run/page.ipynb"


def test_a_page_without_the_token_leads_to_the_login(server: Running) -> None:
    for path in (PAGE, "/", "/voila/tree/reports", "/voila/api/contents/reports"):
        status, text, headers = get(server, path)
        assert status in (302, 403), path
        assert "sum:" not in text
        if status == 302:
            assert headers["Location"].startswith("/login")
    assert get(server, f"{PAGE}?token=wrong")[0] == 302


def test_a_page_with_the_token_is_rendered_without_code_and_its_kernel_can_be_reached(
    server: Running, settings: DeskSettings
) -> None:
    path = report_path(settings, settings.reports / "2026-01-01" / "run" / "page.ipynb")
    assert path == PAGE
    address = server.address(path)
    status, text, headers = get(server, address.removeprefix(server.url))

    assert status == 200
    assert "sum: 42" in text
    assert f"home: {settings.home}" in text
    assert "key: None" in text
    assert "folder: run" in text
    assert "import os" not in text

    kernel = json.loads(re.search(r'"kernelId": ("[^"]+")', text)[1])
    channels = f"{server.url.replace('http', 'ws')}/api/kernels/{kernel}/channels"
    with pytest.raises(InvalidStatus, match="403"):
        connect(channels, proxy=None)
    # The page itself comes back with a cookie, which is what a browser shows from then on.
    cookie = headers["Set-Cookie"].split(";")[0]
    with connect(channels, additional_headers={"Cookie": cookie}, proxy=None) as socket:
        header = {"msg_id": "1", "msg_type": "kernel_info_request", "session": "test"}
        request = {"channel": "shell", "header": header, "content": {}}
        socket.send(json.dumps({**request, "parent_header": {}, "metadata": {}}))
        for _ in range(10):
            reply = json.loads(socket.recv(timeout=20))
            if reply["msg_type"] == "kernel_info_reply":
                break
        assert reply["content"]["status"] == "ok"


def test_nothing_beside_dashboards_and_reports_is_served(server: Running) -> None:
    names = json.loads(get(server, "/voila/api/contents/", server.token)[1])["content"]
    assert {entry["name"] for entry in names} <= {"dashboards", "reports"}
    for path in ("/voila/files/reports/2026-01-01/run/chart.png", "/voila/files/../desk.toml"):
        assert get(server, path, server.token)[0] in (403, 404)
    for path in ("../page.ipynb", "%2e%2e/page.ipynb", "reports/../../page.ipynb"):
        assert get(server, f"/voila/render/{path}", server.token)[0] in (302, 400, 403, 404, 500)


def test_its_kernels_end_with_it(home: Path) -> None:
    settings = make_desk(home)
    with Supervisor(settings, [voila(settings)]) as desk:
        server = desk.running["voila"]
        pid = int(re.search(r"kernel: (\d+)", get(server, PAGE, server.token)[1])[1])
        kernel = psutil.Process(pid)
        assert pid in {one for forked in load_servers() for one in forked.kernels}
    assert psutil.wait_procs([kernel], timeout=5)[1] == []


def test_a_notebook_outside_the_reports_has_no_page(settings: DeskSettings) -> None:
    with pytest.raises(InvalidInput, match="is not in the reports folder"):
        report_path(settings, Path("elsewhere.ipynb"))
