"""A worker: one process that plays schedules one after the other, on a stage and a ledger of its
own, and says of each what came of it."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stamina

from tradelib.clock import set_clock
from tradelib.errors import InvalidInput
from tradelib.paper.fees import FeeAsset
from tradelib.torture.acts import Deed, Desk, open_desk
from tradelib.torture.player import Player, Script
from tradelib.torture.points import Aim, Points, watch_ledger
from tradelib.torture.processes import Ended, Process, Processes
from tradelib.torture.schedule import SYMBOLS, draw_schedule
from tradelib.torture.stage import Stage, open_stage
from tradelib.torture.verdict import Violation, judge, load_books, read_record
from tradelib.torture.wall import SharedWall
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger
from tradelib.venue.client import READ_ATTEMPTS

_MOST_PASSES = 3
_REHEARSED = 1
_DATABASE = "torture"
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Result:
    """What came of one schedule.

    passes: quiet reconciliations until the books agreed with the exchange. signals: kills and
    sleeps by point; faults: by kind; acts: by kind and end. orders: ours, at the exchange.
    """

    seed: int
    violations: tuple[Violation, ...]
    passes: int
    orders: int
    trades: int
    attempts: int
    signals: Mapping[str, int]
    faults: Mapping[str, int]
    acts: Mapping[str, int]
    seconds: float
    events: tuple[str, ...] = field(default=(), repr=False)
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass
class Worker:
    """What lasts from schedule to schedule."""

    wall: SharedWall
    stage: Stage
    ledger: Ledger
    processes: Processes
    renew_ledger: Callable[[], None]

    async def play(self, seed: int, focus: str = "") -> Result:
        """One schedule from its seed to the verdict."""
        schedule, began = draw_schedule(seed, focus), time.perf_counter()
        self.wall.reset()
        self.renew_ledger()
        fee_asset = FeeAsset(schedule.fee_asset, price=600) if schedule.fee_asset else None
        self.stage.raise_curtain(1 + seed % 3, fee_asset)
        try:
            player = Player(schedule, self.wall, self.ledger, self.stage, self.processes)
            script = await player.play()
            faults = player.calm_down()
            passes, found = await self._settle(player)
            return self._tell(seed, script, found, passes, faults, time.perf_counter() - began)
        finally:
            self.processes.end_sleepers()
            self.ledger.close()
            self.stage.lower_curtain()

    def copy_ledger(self, to: Path) -> None:
        """The ledger as the last schedule left it; one on a server is left there."""
        file = self.ledger.engine.url.database
        if self.ledger.engine.dialect.name == "sqlite" and file:
            self.ledger.close()
            shutil.copyfile(file, to)

    async def _settle(self, player: Player) -> tuple[int, list[Violation]]:
        """Reconcile until nothing differs, a few times at most."""
        for number in range(1, _MOST_PASSES + 1):
            await player.reconcile()
            record = read_record(self.stage.record(), SYMBOLS)
            found = judge(player.script, load_books(self.ledger), record)
            if not found or number == _MOST_PASSES:
                return number, found
        raise AssertionError("unreachable")

    def _tell(
        self, seed: int, script: Script, found: list[Violation], passes: int,
        faults: Mapping[str, int], seconds: float,
    ) -> Result:  # fmt: skip
        record = self.stage.record()
        ours = [row for row in record["orders"] if row["clientOrderId"].startswith("nd-")]
        signals = Counter(
            f"{'kill' if one.ended.how == 'killed' else 'sleep'} {one.act.kind} {one.ended.place}"
            for one in script.done
            if one.ended.place
        )
        return Result(
            seed=seed,
            violations=tuple(found),
            passes=passes,
            orders=len(ours),
            trades=len(record["trades"]),
            attempts=len(load_books(self.ledger).orders),
            signals=signals,
            faults=faults,
            acts=Counter(f"{one.act.kind} {one.ended.how} {one.ended.error}".strip()
                         for one in script.done),
            seconds=seconds,
            events=tuple(script.events),
            record=record if found else {},
        )  # fmt: skip


@asynccontextmanager
async def open_worker(ledger_url: str | None = None) -> AsyncIterator[Worker]:
    """A worker in the running loop. ledger_url: a database that it may empty; else a file."""
    wall, points = SharedWall(), Points()
    # Nothing waits in virtual time: retries follow at once, as many as usual.
    stamina.set_testing(True, attempts=READ_ATTEMPTS, cap=True)
    logging.disable()
    set_clock(wall.read)
    async with AsyncExitStack() as stack:
        stack.callback(set_clock, None)
        stack.callback(logging.disable, logging.NOTSET)
        stack.callback(stamina.set_testing, False)
        stage = await stack.enter_async_context(open_stage(wall))
        ledger, renew = _database(ledger_url) if ledger_url else _file(stack)
        watch_ledger(ledger, points)
        desks = _open_desks(wall, points, ledger, stage)

        def perform(deed: Deed) -> str:
            return desks[deed.url].do(deed)

        rehearsal = Rehearsal(perform)
        await Worker(wall, stage, ledger, rehearsal, renew).play(_REHEARSED, "quiet")
        rehearsal.end_all()
        await asyncio.get_running_loop().shutdown_default_executor()
        processes = stack.enter_context(Processes(points, perform))
        yield Worker(wall, stage, ledger, processes, renew)


class Rehearsal(Processes):
    """Acts done by a thread of the worker, so that its forks find everything warm: statements
    compiled, tables built."""

    def __init__(self, perform: Callable[[Deed], str]) -> None:
        self._perform = perform
        self._begun: dict[Process, Deed] = {}
        self._nobody = socket.socket()

    def begin(self, act: Deed, aim: Aim | None) -> Process:
        process = Process(0, self._nobody)
        self._begun[process] = act
        return process

    async def settle(self, process: Process) -> None:
        process.ended = Ended(**await asyncio.to_thread(self._do, self._begun.pop(process)))

    def end_sleepers(self) -> None:
        """There are none."""

    def end_all(self) -> None:
        self._nobody.close()


def _open_desks(wall: SharedWall, points: Points, ledger: Ledger, stage: Stage) -> dict[str, Desk]:
    """A desk for each way to the exchange."""
    stage.raise_curtain(1, None)
    listed = stage.list_instruments()
    stage.lower_curtain()
    return {
        url: open_desk(wall, points, ledger, url, listed) for url in (stage.url, stage.wire.url)
    }


def _file(stack: AsyncExitStack) -> tuple[Ledger, Callable[[], None]]:
    """A ledger in memory's own file system where there is one, and how it is made anew."""
    folder = Path(tempfile.mkdtemp(prefix="torture", dir=_MEMORY if _MEMORY.exists() else None))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    path, template = folder / "ledger.sqlite", folder / "template.sqlite"
    empty = Ledger(f"sqlite:///{template}")
    empty.migrate()
    empty.close()

    def renew() -> None:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(template, path)

    return Ledger(f"sqlite:///{path}"), renew


def _database(url: str) -> tuple[Ledger, Callable[[], None]]:
    """The same in a database of a server, which is emptied; nobody's books bear such a name."""
    ledger = Ledger(url)
    if not (ledger.engine.url.database or "").startswith(_DATABASE):
        raise InvalidInput(
            f"A campaign empties its database again and again; name one that begins with "
            f"{_DATABASE!r}, not {ledger.engine.url.database!r}."
        )
    ledger.migrate()

    def renew() -> None:
        with ledger.write() as books:
            for table in reversed(tables.metadata.sorted_tables):
                books.execute(table.delete())

    return ledger, renew
