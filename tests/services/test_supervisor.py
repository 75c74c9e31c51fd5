"""The supervisor with real children: small HTTP servers and short Python programs."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tradelib.errors import DeskError, InvalidInput, RefusedError, RetryableError, StorageFailed
from tradelib.services import logs
from tradelib.services.addresses import find_service, load_services, service_url
from tradelib.services.service import FileProbe, HttpProbe, Service
from tradelib.services.supervisor import State, Supervisor
from tradelib.settings import DeskSettings

WEB = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}")


@pytest.fixture
def settings(home: Path) -> DeskSettings:
    return DeskSettings(home=home)


def web(name: str = "web", port: int | None = None, **fields: object) -> Service:
    """A real web server; without a port, on one that was free a moment ago."""
    return Service(name=name, command=WEB, port=port or free_port(), ready=HttpProbe("/"), **fields)


def program(name: str, code: str, ready: FileProbe | HttpProbe, **fields: object) -> Service:
    return Service(name=name, command=(sys.executable, "-c", code), ready=ready, **fields)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_services_are_told_where_the_others_are(settings: DeskSettings, home: Path) -> None:
    told = home / "told"
    code = f"import os, time; open({str(told)!r}, 'w').write(os.environ['WEB']); time.sleep(60)"
    reader = program("reader", code, FileProbe(told), needs=("web",), env={"WEB": "{web.url}/x"})
    with Supervisor(settings, [web(), reader]):
        assert told.read_text() == f"{service_url(settings, 'service:web')}/x"


def test_a_busy_port_is_replaced(settings: DeskSettings) -> None:
    with listener() as busy, Supervisor(settings, [web(port=busy)]) as desk:
        url = desk.running["web"].url
        assert url != f"http://127.0.0.1:{busy}"
        assert urllib.request.urlopen(url, timeout=5).status == 200


def test_a_port_taken_between_choice_and_start_is_replaced(
    settings: DeskSettings, home: Path
) -> None:
    # The first start finds its port taken: the thief listens before the server binds.
    thief = home / "thief.py"
    thief.write_text(
        "import pathlib, socket, subprocess, sys, os\n"
        "mark, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])\n"
        "if not mark.exists():\n"
        "    mark.touch()\n"
        '    code = \'import socket,sys,time\\ns=socket.create_server(("127.0.0.1",'
        "int(sys.argv[1])))\\nprint(1,flush=True)\\ntime.sleep(30)'\n"
        "    thief = subprocess.Popen([sys.executable, '-c', code, str(port)],"
        " stdout=subprocess.PIPE)\n"
        "    thief.stdout.readline()\n"
        "    sys.exit('Address already in use')\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'http.server',"
        " '--bind', '127.0.0.1', str(port)])\n"
    )
    service = Service(
        name="web",
        command=(sys.executable, str(thief), str(home / "stolen"), "{port}"),
        port=free_port(),
        ready=HttpProbe("/"),
    )
    with Supervisor(settings, [service]) as desk:
        assert (home / "stolen").exists()
        assert desk.running["web"].url != f"http://127.0.0.1:{service.port}"


@pytest.mark.parametrize(
    "said",
    [
        "OSError: [Errno 98] Address already in use",
        "[Voila] CRITICAL | ERROR: the server could not be started because no available port "
        "could be found.",
        "ERROR | uvicorn.error - [Errno 98] error while attempting to bind on address "
        "('127.0.0.1', 4200): address already in use\nTraceback (most recent call last):\n"
        + '  File "service.py", line 1, in run\n' * 1_000
        + "asyncio.exceptions.CancelledError",
    ],
    ids=["socket", "voila", "prefect and what it says after"],
)
def test_a_port_that_was_taken_for_a_moment_is_tried_again(
    settings: DeskSettings, home: Path, said: str
) -> None:
    server = home / "server.py"
    server.write_text(
        "import os, pathlib, sys\n"
        "mark = pathlib.Path(sys.argv[1])\n"
        "if not mark.exists():\n"
        "    mark.touch()\n"
        f"    sys.exit({said!r})\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'http.server',"
        " '--bind', '127.0.0.1', sys.argv[2]])\n"
    )
    service = Service(
        name="web",
        command=(sys.executable, str(server), str(home / "tried"), "{port}"),
        port=free_port(),
        ready=HttpProbe("/"),
    )
    with Supervisor(settings, [service]) as desk:
        assert (home / "tried").exists()
        assert desk.running["web"].alive


def test_a_child_that_exits_early_is_told_in_one_sentence(settings: DeskSettings) -> None:
    code = "import sys; print('reading its settings'); sys.exit('no such table: runs')"
    with (
        pytest.raises(DeskError) as caught,
        Supervisor(settings, [web(), program("broken", code, HttpProbe("/"), port=free_port())]),
    ):
        pass
    log = settings.logs / "broken.log"
    assert str(caught.value) == (
        f"Service broken stopped with exit code 1 before it was ready; "
        f'log {log}, its last line: "no such table: runs".'
    )
    assert not settings.services_file.exists()


def test_a_child_that_never_gets_ready_is_ended(settings: DeskSettings, home: Path) -> None:
    slow = program("slow", "import time; time.sleep(60)", FileProbe(home / "x"), ready_within=0.3)
    with pytest.raises(DeskError, match=r"slow was not ready after 0\.3 seconds.*wrote nothing"):
        Supervisor(settings, [slow]).__enter__()


def test_a_command_that_does_not_exist_is_told(settings: DeskSettings) -> None:
    missing = Service("missing", ("no-such-program",), HttpProbe("/"), port=free_port())
    with pytest.raises(DeskError, match="no-such-program: No such file"):
        Supervisor(settings, [missing]).__enter__()


def test_a_child_that_ignores_sigterm_is_killed_with_its_stray_grandchild(
    settings: DeskSettings, home: Path
) -> None:
    ready = home / "grandchild"
    # As a kernel does, the grandchild lives in a session of its own; its parent is gone.
    grandchild = f"import os,time; open({str(ready)!r},'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"subprocess.Popen([sys.executable, '-c', {grandchild!r}], start_new_session=True)\n"
        "time.sleep(60)"
    )
    stubborn = program("stubborn", code, FileProbe(ready))
    with Supervisor(settings, [stubborn], grace=0.3) as desk:
        pid = desk.running["stubborn"].pid
        wait_until(ready.read_text)
    assert gone(pid)
    assert gone(int(ready.read_text()))


def test_services_end_in_reverse_order(settings: DeskSettings) -> None:
    heard: list[tuple[str, State]] = []
    services = [web("first"), web("second", needs=("first",))]
    with Supervisor(settings, services, lambda *news: heard.append(news)):
        pass
    assert heard == [
        ("first", State.WAITING),
        ("second", State.WAITING),
        ("first", State.STARTING),
        ("first", State.READY),
        ("second", State.STARTING),
        ("second", State.READY),
        ("second", State.STOPPING),
        ("second", State.STOPPED),
        ("first", State.STOPPING),
        ("first", State.STOPPED),
    ]


KEEPER = """
import sys, time
from pathlib import Path
from tradelib.services.service import FileProbe, HttpProbe, Service
from tradelib.services.supervisor import Supervisor
from tradelib.settings import DeskSettings

home, port, stray = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
web = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}")
services = [
    Service("web", web, HttpProbe("/"), port=port),
    Service("family", (sys.executable, "-c", stray), FileProbe(home / "stray")),
]
with Supervisor(DeskSettings(home=home), services) as desk:
    print("up", flush=True)
    desk.watch()
"""


@pytest.fixture
def keeper(home: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A supervisor in another process, and the processes it stands for."""
    grandchild = (
        f"import os,time; open({str(home / 'stray')!r},'w').write(str(os.getpid()));time.sleep(99)"
    )
    stray = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {grandchild!r}], start_new_session=True)\n"
        "time.sleep(99)"
    )
    command = [sys.executable, "-c", KEEPER, str(home), str(free_port()), stray]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        wait_until((home / "stray").read_text)
        yield process, [one.pid for one in psutil.Process(process.pid).children(recursive=True)]
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_is_left_whatever_ends_the_desk(
    keeper: tuple[subprocess.Popen[str], list[int]], number: signal.Signals
) -> None:
    process, children = keeper
    assert len(children) == 4  # the web server, the family of two, the guard
    process.send_signal(number)
    process.wait(20)
    wait_until(lambda: all(gone(pid) for pid in children))


def test_after_a_killed_desk_others_learn_that_it_does_not_run(
    keeper: tuple[subprocess.Popen[str], list[int]], settings: DeskSettings
) -> None:
    process, children = keeper
    assert service_url(settings, "web").startswith("http://127.0.0.1:")
    process.kill()
    process.wait()
    assert settings.services_file.exists()
    with pytest.raises(RefusedError, match="not running; start it with `desk up`"):
        service_url(settings, "web")
    wait_until(lambda: all(gone(pid) for pid in children))
    with Supervisor(settings, [web()]):  # and the home is free again
        assert load_services(settings).keys() == {"web"}


def test_a_dead_service_is_restarted_with_growing_delays(settings: DeskSettings) -> None:
    states: list[State] = []
    with Supervisor(
        settings, [web()], lambda name, state: states.append(state), restart_delays=(0.2, 0.6)
    ) as desk:
        first = desk.running["web"]
        pauses = []
        for _ in range(2):
            os.kill(desk.running["web"].pid, signal.SIGKILL)
            wait_until(lambda: not desk.check() and "web" not in desk.running)
            began = time.monotonic()
            with pytest.raises(RetryableError, match="web is down and being restarted"):
                find_service(settings, "web")
            wait_until(lambda: not desk.check() and "web" in desk.running)
            pauses.append(time.monotonic() - began)
        assert desk.running["web"].url == first.url
        assert desk.running["web"].pid != first.pid
        assert pauses[0] >= 0.2
        assert pauses[1] >= 0.6
        assert "web stopped by signal 9" in desk.failure("web")
    assert states.count(State.DIED) == 2


def test_a_log_that_grows_large_is_moved_aside_while_its_service_writes(
    settings: DeskSettings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 1000)
    full, more = home / "full", home / "more"
    code = (
        "import pathlib, time\n"
        "print('x' * 2000, flush=True)\n"
        f"pathlib.Path({str(full)!r}).touch()\n"
        f"while not pathlib.Path({str(more)!r}).exists(): time.sleep(0.01)\n"
        "print('the last words', flush=True)"
    )
    talker = program("talker", code, FileProbe(full))
    with Supervisor(settings, [talker], restart_delays=(60,)) as desk:
        log = settings.logs / "talker.log"
        desk.check()
        assert log.read_bytes() == b""
        assert log.with_name("talker.log.1").read_text() == "x" * 2000 + "\n"
        assert stat.S_IMODE(log.with_name("talker.log.1").stat().st_mode) == 0o600
        more.touch()
        wait_until(lambda: desk.check() or desk.failure("talker"))
        assert log.read_bytes() == b"the last words\n"
        assert 'its last line: "the last words"' in desk.failure("talker")


def test_the_guard_holds_no_keys(settings: DeskSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_SECRET", "not for the guard")
    with Supervisor(settings, []):
        (guard,) = (
            child
            for child in psutil.Process().children()
            if "tradelib.services.guard" in child.cmdline()
        )
        assert "BINANCE_SECRET" not in guard.environ()


def test_watch_returns_when_asked(settings: DeskSettings) -> None:
    stop = threading.Event()
    with Supervisor(settings, [web()]) as desk:
        timer = threading.Timer(0.2, stop.set)
        timer.start()
        desk.watch(stop)
        timer.join()


def test_addresses_are_for_the_owner_alone_and_gone_at_the_end(settings: DeskSettings) -> None:
    with Supervisor(settings, [web(token="t-o-k-e-n", link="/page")]) as desk:
        assert stat.S_IMODE(settings.services_file.stat().st_mode) == 0o600
        assert stat.S_IMODE((settings.logs / "web.log").stat().st_mode) == 0o600
        known = find_service(settings, "web")
        assert known == desk.running["web"]
        assert known.page == f"{known.url}/page?token=t-o-k-e-n"
        assert known.address("/a b.ipynb") == f"{known.url}/a%20b.ipynb?token=t-o-k-e-n"
        assert "t-o-k-e-n" not in repr(known)
        assert json.loads(settings.services_file.read_text())["services"]["web"]["pid"] == known.pid
        with pytest.raises(InvalidInput, match="did you mean 'web'"):
            service_url(settings, "wbe")
    assert not settings.services_file.exists()
    with pytest.raises(RefusedError, match="not running"):
        service_url(settings, "web")


def test_two_desks_never_share_a_home(settings: DeskSettings) -> None:
    with Supervisor(settings, [web()]):
        with pytest.raises(RefusedError, match="A desk is already running on"):
            Supervisor(settings, [web()]).__enter__()
        assert load_services(settings)


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    homes = [tmp_path / "file" / "desk"]
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        homes.append(tmp_path / "locked")
    for home in homes:
        with pytest.raises(StorageFailed, match=r"cannot be written .* choose another home"):
            Supervisor(DeskSettings(home=home), [web()]).__enter__()


def test_a_service_may_only_need_those_before_it(settings: DeskSettings) -> None:
    with pytest.raises(InvalidInput, match="first needs second, which must be listed before it"):
        Supervisor(settings, [web("first", needs=("second",)), web("second")])


@pytest.mark.parametrize(
    ("number", "end"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)],
)
def test_a_signal_that_a_library_has_swallowed_ends_the_desk_all_the_same(
    settings: DeskSettings, number: signal.Signals, end: type[BaseException]
) -> None:
    never = threading.Timer(20, lambda: stop.set())
    stop = threading.Event()
    with Supervisor(settings, [web()]) as desk:
        with suppress(BaseException):  # as Prefect does with what happens while a flow runs
            signal.raise_signal(number)
        never.start()
        try:
            with pytest.raises(end):
                desk.watch(stop)
        finally:
            never.cancel()
