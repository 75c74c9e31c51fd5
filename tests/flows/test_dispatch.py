"""Who gets a kernel: slow bots and hanging venues cost others nothing but the kernels they hold."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from flows.dispatch import Kernels, dispatch, make_lock
from flows.work import VenueCycle
from tradelib.errors import VenueUnavailable
from tradelib.notebooks.cycle import FETCH, Step, VenuePlan
from tradelib.settings import DeskSettings, load_settings
from tradelib.trading.bots import new_bot

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = 20.0


@dataclass
class RecordingPages:
    """Pages that are written down as they begin and end, and hang or fail where a test says so.

    most: how many ran at once.
    """

    hanging: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    begun: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    most: int = 0

    def __post_init__(self) -> None:
        self.go_on = threading.Event()
        self.changed = threading.Condition()

    def fetch(self, step: Step) -> None:
        self.run(f"fetch {step.venue} {step.parameters['timeframe']}")

    def trade(self, bot, as_of) -> None:
        self.run(f"trade {bot.name}")

    def reconcile(self, venue: str) -> None:
        self.run(f"reconcile {venue}")

    def run(self, name: str) -> None:
        with self.changed:
            self.begun.append(name)
            self.most = max(self.most, len(self.begun) - len(self.ended))
            self.changed.notify_all()
        if name in self.hanging:
            assert self.go_on.wait(PATIENCE)
        with self.changed:
            self.ended.append(name)
            self.changed.notify_all()
        if name in self.failing:
            raise VenueUnavailable(f"{name} failed")

    def await_end(self, *names: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: set(names) <= set(self.ended), PATIENCE), (
                f"begun {self.begun}, ended {self.ended}"
            )


@pytest.fixture
def settings(home) -> DeskSettings:
    return load_settings(home)


@pytest.fixture
def pages():
    pages = RecordingPages()
    yield pages
    pages.go_on.set()


def cycle_of(settings, pages, venue: str, *names: str, timeframes=("1m",)) -> VenueCycle:
    bots = tuple(
        new_bot(name, venue, "BTC/USDT", timeframes[number % len(timeframes)], "momentum")
        for number, name in enumerate(names)
    )
    fetches = {
        timeframe: Step(FETCH, {"timeframe": timeframe}, venue, as_of=NOW)
        for timeframe in timeframes
    }
    return VenueCycle(settings, VenuePlan(venue, NOW, fetches, bots), pages, pages.failures)


def run_beside(settings, works, **options):
    """Dispatch in a thread of its own; call the answer to await its end."""
    stack = ExitStack()
    pool = stack.enter_context(ThreadPoolExecutor(1))
    plans = [work if callable(work) else partial(lambda one: one, work) for work in works]
    future = pool.submit(dispatch, plans, Kernels(settings, len(plans)), **options)

    def join() -> None:
        with stack:
            future.result(PATIENCE)

    return join


def test_a_slow_bot_costs_the_others_its_own_kernel_alone(settings, pages):
    names = [f"b{number}" for number in range(10)]
    pages.hanging = {"trade b0"}
    work = cycle_of(settings, pages, "here", *names)
    join = run_beside(settings, [work])
    pages.await_end(*(f"trade {name}" for name in names[1:]))
    assert pages.begun[:2] == ["fetch here 1m", "trade b0"]
    assert "reconcile here" not in pages.begun
    pages.go_on.set()
    join()
    assert pages.ended[-2:] == ["trade b0", "reconcile here"]
    assert pages.most == settings.kernels == 2
    assert pages.failures == []


@pytest.mark.parametrize("hangs", ["fetch far 1m", "trade far-0", "reconcile far"])
def test_a_venue_that_hangs_delays_no_other(settings, pages, hangs):
    pages.hanging = {hangs}
    far = cycle_of(settings, pages, "far", "far-0", timeframes=("1m", "5m", "1h"))
    near = cycle_of(settings, pages, "near", *(f"near-{number}" for number in range(6)))
    join = run_beside(settings, [far, near])
    pages.await_end("reconcile near")
    assert hangs not in pages.ended
    pages.go_on.set()
    join()
    assert pages.ended[-1] == "reconcile far"


def test_a_venue_that_does_not_tell_its_time_delays_no_other(settings, pages):
    def hang() -> None:
        assert pages.go_on.wait(PATIENCE)

    join = run_beside(settings, [hang, cycle_of(settings, pages, "near", "near-0")])
    pages.await_end("reconcile near")
    pages.go_on.set()
    join()


def test_the_next_cycle_need_not_wait_for_a_venue_that_does_not_tell_its_time(settings, pages):
    let_in = threading.Event()

    def hang() -> None:
        assert pages.go_on.wait(PATIENCE)

    until = datetime.now(UTC) + timedelta(seconds=0.3)
    join = run_beside(settings, [hang], until=until, handed_out=let_in.set)
    assert let_in.wait(PATIENCE)
    pages.go_on.set()
    join()


def test_a_venue_that_still_hangs_from_an_earlier_cycle_delays_no_other(settings, pages):
    pages.hanging = {"trade far-0", "trade far-1"}
    far = cycle_of(settings, pages, "far", "far-0", "far-1")
    handed_out, until = threading.Event(), datetime.now(UTC) + timedelta(seconds=0.5)
    near = cycle_of(settings, pages, "near", "near-0")
    join = run_beside(settings, [far, near], until=until, handed_out=handed_out.set)
    assert handed_out.wait(PATIENCE)
    later = RecordingPages(hanging={"fetch far 1m"})
    works = [
        cycle_of(settings, later, "far", "far-1"),
        cycle_of(settings, later, "near", "near-0", "near-1"),
    ]
    join_later = run_beside(settings, works)
    later.await_end("trade near-0", "trade near-1", "reconcile near")
    assert later.begun[0] == "fetch near 1m"
    pages.go_on.set()
    later.go_on.set()
    join()
    join_later()


def test_venues_have_the_only_kernel_in_turn(home, pages):
    (home / "desk.toml").write_text("kernels = 1")
    settings = load_settings(home)
    works = [cycle_of(settings, pages, venue, f"{venue}-0", f"{venue}-1") for venue in "ab"]
    run_beside(settings, works)()
    assert pages.most == 1
    traded = [name for name in pages.begun if name.startswith("trade")]
    assert traded in (
        ["trade a-0", "trade b-0", "trade a-1", "trade b-1"],
        ["trade b-0", "trade a-0", "trade b-1", "trade a-1"],
    )


def test_bots_of_a_fetch_that_failed_do_not_decide_and_others_do(settings, pages):
    pages.failing = {"fetch here 5m", "trade a"}
    work = cycle_of(settings, pages, "here", "a", "b", "c", timeframes=("1m", "5m"))
    run_beside(settings, [work])()
    assert "trade b" not in pages.begun
    assert {"trade a", "trade c"} <= set(pages.ended)
    assert pages.ended[-1] == "reconcile here"
    assert sorted(pages.failures) == ["fetch here 5m failed", "trade a failed"]
    assert work.had_turn == {"a", "b", "c"}


def test_a_cycle_out_of_time_begins_no_more_bots_and_lets_the_next_one_in(settings, pages):
    pages.hanging = {"fetch here 1m"}
    let_in = threading.Event()
    work = cycle_of(settings, pages, "here", "a", "b")
    until = datetime.now(UTC) + timedelta(seconds=0.3)
    join = run_beside(settings, [work], until=until, handed_out=let_in.set)
    assert let_in.wait(PATIENCE)
    assert pages.ended == []
    pages.go_on.set()
    join()
    assert pages.ended == ["fetch here 1m", "reconcile here"]
    assert work.left_out == ["a", "b"]


def test_what_is_slow_goes_on_beside_the_next_cycle_which_leaves_that_bot_out(settings, pages):
    pages.hanging = {"trade slow"}
    first = cycle_of(settings, pages, "here", "slow", "quick")
    handed_out = threading.Event()
    join = run_beside(settings, [first], handed_out=handed_out.set)
    pages.await_end("trade quick")
    assert handed_out.wait(PATIENCE)
    later = RecordingPages()
    second = cycle_of(settings, later, "here", "slow", "quick")
    run_beside(settings, [second])()
    assert later.ended == ["fetch here 1m", "trade quick", "reconcile here"]
    assert later.most == 1  # the other kernel is the slow bot's
    assert pages.ended[-1] == "trade quick"
    pages.go_on.set()
    join()
    assert pages.ended[-2:] == ["trade slow", "reconcile here"]


def test_kernels_that_other_processes_hold_are_waited_for(settings, pages):
    others = [make_lock(settings.home / "run" / "locks" / f"kernel-{n}.lock") for n in range(2)]
    for lock in others:
        lock.acquire()
    join = run_beside(settings, [cycle_of(settings, pages, "here", "a")])
    assert pages.begun == []
    others[0].release()
    join()
    assert pages.ended == ["fetch here 1m", "trade a", "reconcile here"]
    others[1].release()


def test_an_error_of_a_plan_ends_the_dispatch_and_frees_its_kernels(settings, pages):
    def fail() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run_beside(settings, [fail, cycle_of(settings, pages, "near", "near-0")])()
    free = Kernels(settings)
    assert all(free.take("near") for _ in range(settings.kernels))
