"""Keeps the desk's services: starts them side by side, restarts what dies, ends all with it."""

from __future__ import annotations

import re
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path

import psutil

from tradelib.clock import format_time, utc_now
from tradelib.errors import DeskError, InvalidInput
from tradelib.services import processes
from tradelib.services.addresses import Running, save_services
from tradelib.services.claim import claim_home
from tradelib.services.environment import environment_for_child
from tradelib.services.logs import find_line, last_line, open_log, trim_log
from tradelib.services.ports import choose_port, is_free, listens
from tradelib.services.service import FileProbe, Service, fill, url_of
from tradelib.settings import DeskSettings

POLL = 0.05  # seconds between two looks at the children while they start
WATCH = 0.5  # seconds between two looks once they are up
STEADY = 60.0  # seconds up, after which earlier deaths are forgiven
PORT_ATTEMPTS = 3
# What servers say of a port that they cannot have.
_PORT_TAKEN = re.compile(
    r"(?i)address already in use|no available port|port \d+ .*(in use|be used)"
)

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class State(StrEnum):
    """What a service is doing."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DIED = "died"
    STOPPING = "stopping"
    STOPPED = "stopped"


Progress = Callable[[str, State], None]


class _Child:
    """A service and the process that stands for it now."""

    def __init__(self, service: Service, log: Path, mark: str) -> None:
        self.service, self.log, self.mark = service, log, mark
        self.state = State.WAITING
        self.process: subprocess.Popen[bytes] | None = None
        self.port = service.port
        self.not_before = self.launched = self.ready_at = 0.0
        self.log_start = self.deaths = self.port_losses = 0
        self.running: Running | None = None
        self.failure = ""

    @property
    def exit_code(self) -> int | None:
        return self.process.poll() if self.process else None

    def is_ready(self) -> bool:
        probe = self.service.ready
        if isinstance(probe, FileProbe):
            return probe.file.exists()
        # Somebody else's server on the same port could answer as well.
        return probe.answers(self.port) and listens(self.process.pid, self.port)

    def lost_its_port(self) -> bool:
        """Whether the child ended because somebody else had its port, perhaps for a moment."""
        if self.port is None:
            return False
        # A server may say much more after it, of how it ended.
        return not is_free(self.port) or bool(find_line(self.log, _PORT_TAKEN, self.log_start))

    def explain(self, what: str) -> str:
        """One sentence on a failure: the service, what happened, its log and its last line."""
        said = last_line(self.log, self.log_start)
        words = f'its last line: "{said}"' if said else "it wrote nothing"
        return f"Service {self.service.name} {what}; log {self.log}, {words}."


class Supervisor:
    """Runs services for as long as the `with` block lasts; use it from the main thread.

    Entering returns when all are ready, or raises DeskError with everything stopped again.
    SIGTERM and SIGHUP end the block as Ctrl-C does; `watch` ends it where a library that ran
    meanwhile has swallowed the signal. `progress(name, state)` hears each change.
    claimed: whether the caller holds the home already, by `claim_home`.

        with Supervisor(settings, desk_services(settings, …), progress=print) as desk:
            desk.watch()
    """

    def __init__(
        self,
        settings: DeskSettings,
        services: Sequence[Service],
        progress: Progress | None = None,
        *,
        claimed: bool = False,
        restart_delays: Sequence[float] = (1, 2, 5, 10, 30),
        grace: float = 10.0,
    ) -> None:
        self._settings, self._claimed = settings, claimed
        self._progress = progress or (lambda name, state: None)
        self._delays = restart_delays
        self._grace = grace
        self._mark = secrets.token_hex(8)
        self._children = {
            service.name: _Child(
                service, settings.logs / f"{service.name}.log", f"{self._mark}/{service.name}"
            )
            for service in services
        }
        self._started: list[_Child] = []
        self._end: BaseException | None = None  # what a signal asked for
        _check_needs(services)

    @property
    def running(self) -> dict[str, Running]:
        """The services that are ready now, by name."""
        ready = (one for one in self._children.values() if one.state is State.READY)
        return {child.service.name: child.running for child in ready}

    def failure(self, name: str) -> str:
        """Why service `name` was last found dead, in a sentence; empty when it never was."""
        return self._children[name].failure

    def __enter__(self) -> Supervisor:
        with ExitStack() as stack:
            if not self._claimed:
                stack.enter_context(claim_home(self._settings))
            stack.enter_context(self._signals_end_the_block())
            stack.callback(self._settings.services_file.unlink, missing_ok=True)
            stack.enter_context(processes.Guard(self._mark))
            stack.callback(self._stop)
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def watch(self, stop: threading.Event | None = None) -> None:
        """Restart services that die, with growing delays, until `stop` is set or Ctrl-C."""
        stop = stop or threading.Event()
        while not stop.is_set():
            if self._end:
                raise self._end
            self.check()
            busy = any(child.state is State.STARTING for child in self._children.values())
            stop.wait(POLL if busy else min(WATCH, *self._delays))

    def check(self) -> None:
        """One look at every service and its log; `watch` repeats it."""
        for child in self._children.values():
            if trim_log(child.log):
                child.log_start = 0
            try:
                self._advance(child)
            except DeskError as error:
                self._plan_restart(child, str(error))

    def _start(self) -> None:
        self._save()
        for child in self._children.values():
            self._progress(child.service.name, State.WAITING)
        while any(child.state is not State.READY for child in self._children.values()):
            for child in self._children.values():
                self._advance(child)
            time.sleep(POLL)

    def _advance(self, child: _Child) -> None:
        """Take a service one step further; raises DeskError when it failed."""
        match child.state:
            case State.WAITING | State.DIED:
                if time.monotonic() >= child.not_before and self._needs_are_ready(child):
                    self._launch(child)
            case State.STARTING:
                self._await_ready(child)
            case State.READY:
                if child.exit_code is not None:
                    raise DeskError(child.explain(f"stopped {_how(child.exit_code)}"))
                if time.monotonic() - child.ready_at > STEADY:
                    child.deaths = 0

    def _needs_are_ready(self, child: _Child) -> bool:
        return all(self._children[name].state is State.READY for name in child.service.needs)

    def _launch(self, child: _Child) -> None:
        service = child.service
        if child.port is not None:
            others = {other.port for other in self._children.values() if other is not child}
            child.port = choose_port(child.port, others)
        if isinstance(service.ready, FileProbe):
            service.ready.file.unlink(missing_ok=True)
        urls = {name: running.url for name, running in self.running.items()}
        with open_log(child.log) as log:
            child.log_start = child.log.stat().st_size
            child.process = processes.start(
                [fill(part, child.port, urls) for part in service.command],
                mark=child.mark,
                env=environment_for_child(service.keeps)
                | {key: fill(text, child.port, urls) for key, text in service.env.items()},
                folder=service.folder,
                log=log,
            )
        child.launched = time.monotonic()
        self._started = [*(one for one in self._started if one is not child), child]
        self._enter(child, State.STARTING)

    def _await_ready(self, child: _Child) -> None:
        if child.exit_code is not None:
            if child.lost_its_port() and child.port_losses < PORT_ATTEMPTS:
                child.port_losses += 1
                self._enter(child, State.WAITING)
                return
            raise DeskError(child.explain(f"stopped {_how(child.exit_code)} before it was ready"))
        if child.is_ready():
            self._welcome(child)
        elif time.monotonic() - child.launched > child.service.ready_within:
            raise DeskError(
                child.explain(f"was not ready after {child.service.ready_within:g} seconds")
            )

    def _welcome(self, child: _Child) -> None:
        service, before = child.service, child.running
        child.running = Running(
            name=service.name,
            url=url_of(child.port) if child.port is not None else "",
            pid=child.process.pid,
            born=psutil.Process(child.process.pid).create_time(),
            started_at=format_time(utc_now()),
            link=service.link,
            token=service.token,
        )
        child.ready_at = time.monotonic()
        child.port_losses = 0
        self._save()
        self._enter(child, State.READY)
        if before and before.url != child.running.url:
            self._restart_those_that_need(service.name)

    def _restart_those_that_need(self, name: str) -> None:
        """They were told an address that is no longer true."""
        for child in self._children.values():
            if name in child.service.needs and child.state in (State.STARTING, State.READY):
                processes.end(child.process, child.mark, self._grace)
                self._enter(child, State.WAITING)

    def _plan_restart(self, child: _Child, failure: str) -> None:
        child.failure = failure
        if child.process:
            processes.end(child.process, child.mark, self._grace)
        delay = self._delays[min(child.deaths, len(self._delays) - 1)]
        child.deaths += 1
        child.not_before = time.monotonic() + delay
        self._enter(child, State.DIED)

    @contextmanager
    def _signals_end_the_block(self) -> Iterator[None]:
        """Turn signals into exceptions, which unwind the block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._raise_end) for number in _ENDINGS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _raise_end(self, number: int, _: object) -> None:
        if number != signal.SIGINT:
            for ignored in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(ignored, signal.SIG_IGN)  # one is enough; stopping goes on to its end
        self._end = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        raise self._end

    def _stop(self) -> None:
        for child in reversed(self._started):
            self._enter(child, State.STOPPING)
            processes.end(child.process, child.mark, self._grace)
            self._enter(child, State.STOPPED)

    def _save(self) -> None:
        # Those that are being restarted stay in, so that others learn just that.
        known = [child.running for child in self._children.values() if child.running]
        save_services(self._settings.services_file, known)

    def _enter(self, child: _Child, state: State) -> None:
        child.state = state
        self._progress(child.service.name, state)


def _how(exit_code: int) -> str:
    if exit_code >= 0:
        return f"with exit code {exit_code}"
    return f"by signal {-exit_code} ({signal.strsignal(-exit_code)})"


def _check_needs(services: Sequence[Service]) -> None:
    """Every service needs only services listed before it, so that no two wait on each other."""
    known: set[str] = set()
    for service in services:
        if missing := set(service.needs) - known:
            raise InvalidInput(
                f"Service {service.name} needs {', '.join(sorted(missing))}, "
                f"which must be listed before it."
            )
        known.add(service.name)
