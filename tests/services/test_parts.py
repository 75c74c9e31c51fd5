"""The small parts: ports, logs, the environment of a child, the definitions."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tradelib.errors import StorageFailed
from tradelib.services import logs
from tradelib.services.definitions import dashboard_path, desk_services
from tradelib.services.environment import environment_for_child
from tradelib.services.ports import choose_port, is_free, listens
from tradelib.services.service import fill
from tradelib.settings import DeskSettings


def test_a_free_port_is_kept_and_a_taken_one_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = server.getsockname()[1]
        assert not is_free(busy)
        other = choose_port(busy)
        assert other != busy
        assert choose_port(other) == other
        assert choose_port(other, taken={other}) != other


def test_a_strangers_port_is_told_from_ones_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens(os.getpid(), port)
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
            assert not listens(stranger.pid, port)
        assert not listens(stranger.pid, port)  # and it has ended


def test_placeholders_are_filled_and_other_braces_kept() -> None:
    text = fill("{port} {url} {a.url}/api {b.url} {x}", 7, {"a": "http://127.0.0.1:1"})
    assert text == "7 http://127.0.0.1:7 http://127.0.0.1:1/api {b.url} {x}"


def test_a_large_log_is_moved_aside_and_the_oldest_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 3)
    file = tmp_path / "logs" / "web.log"
    for start in range(6):
        with logs.open_log(file) as log:
            log.write(f"start {start}\n".encode())
    kept = {path.name: path.read_text() for path in file.parent.iterdir()}
    assert kept == {
        "web.log": "start 5\n",
        "web.log.1": "start 4\n",
        "web.log.2": "start 3\n",
        "web.log.3": "start 2\n",
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_last_line_shows_no_colours_boxes_or_tokens(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("old\n\x1b[31mUse http://x/?token=abc&y=1 now\x1b[0m\n╰────╯\n\n")
    assert logs.last_line(file) == "Use http://x/?token=…&y=1 now"
    assert logs.last_line(file, since=file.stat().st_size) == ""


def test_children_inherit_no_secrets() -> None:
    base = {
        "BINANCE_KEY": "1",
        "my_secret": "2",
        "GH_TOKEN": "3",
        "PGPASSWORD": "4",
        "HOME": "/h",
        "PREFECT_API_KEY": "5",
        "NO_PROXY": "intranet",
    }
    env = environment_for_child(base=base)
    assert env.keys() == {"HOME", "PATH", "PYTHONUNBUFFERED", "NO_PROXY", "no_proxy"}
    assert env["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert "PREFECT_API_KEY" in environment_for_child(("PREFECT_",), base)
    assert base.keys() <= environment_for_child(("",), base).keys()


def test_only_the_flows_see_the_keys(home: Path) -> None:
    services = desk_services(DeskSettings(home=home), "paper", home / "paper")
    assert [service.name for service in services if "" in service.keeps] == ["flows", "feed"]


def test_the_flows_wait_for_the_market_whatever_its_name(home: Path) -> None:
    services = desk_services(DeskSettings(home=home), "replay", home / "replay")
    assert {service.name for service in services} >= {"replay", "flows"}
    assert services[-1].needs == ("prefect", "replay")


def test_left_out_services_are_needed_by_nobody(home: Path) -> None:
    services = desk_services(
        DeskSettings(home=home), "paper", home / "paper", without=["paper", "jupyter"]
    )
    assert [service.name for service in services] == ["prefect", "voila", "flows", "feed"]
    assert services[-1].needs == ("prefect",)


def test_tokens_are_new_each_time_and_on_no_command_line(home: Path) -> None:
    one, two = (desk_services(DeskSettings(home=home), "paper", home / "paper") for _ in range(2))
    for before, after in zip(one, two, strict=True):
        if before.token:
            assert before.token != after.token
            assert not any(before.token in part for part in before.command)
            assert before.token not in repr(before)


def test_pages_are_links_that_follow_a_moved_home(home: Path, tmp_path: Path) -> None:
    settings = DeskSettings(home=home)
    desk_services(settings, "paper", home / "paper")
    moved = DeskSettings(home=home.rename(tmp_path / "moved"))
    desk_services(moved, "paper", moved.home / "paper")
    assert (moved.home / "voila" / "reports").readlink() == moved.reports
    assert dashboard_path("portfolio") == "/voila/render/dashboards/portfolio.ipynb"


def test_a_home_that_cannot_hold_the_pages_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match=r"cannot be written .*--home"):
        desk_services(DeskSettings(home=tmp_path / "file"), "paper", tmp_path / "paper")
