"""Pages go by age and number, and never one that somebody may still need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.desks import desk_command
from tests.trading.books import NOON
from tradelib.clock import utc_now
from tradelib.errors import ReadOnly
from tradelib.notebooks import retention
from tradelib.notebooks.retention import Kept, prune_pages
from tradelib.settings import PROJECT, DeskSettings, RetentionSettings, VenueSettings
from tradelib.trading import tables
from tradelib.trading.decisions import Action, Decision
from tradelib.trading.ledger import Ledger, insert, open_ledger
from tradelib.trading.orders import Order, OrderStatus, Side, insert_order
from tradelib.trading.runs import Outcome, Run, load_run, load_runs

VENUES = {
    "paper": VenueSettings(rest_url="service:paper"),
    "binance": VenueSettings(keys="env:NONE"),
    "tunnel": VenueSettings(rest_url="http://127.0.0.1:9000"),
}
NO_LIMITS = {"page_days": 1e5, "pages": 10**9, "failed_page_days": 1e5, "failed_pages": 10**9}
# NOON, the first of January, is long ago for the wall clock that the tests run by.
ALL_GO = {"page_days": 1.0, "failed_page_days": 1.0}


class Reports:
    """A ledger and the pages of its runs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ledger = open_ledger(DeskSettings(home=home), migrate=True)
        self.number = 0

    def settings(self, **limits: float) -> DeskSettings:
        kept = RetentionSettings(**NO_LIMITS | limits)
        return DeskSettings(home=self.home, venues=VENUES, retention=kept)

    def add_run(
        self,
        *,
        outcome: Outcome = Outcome.SUCCEEDED,
        age: timedelta | None = None,
        page: bool = True,
    ) -> str:
        """A run with a page of 1000 bytes; each begins a second after the one before."""
        self.number += 1
        at = utc_now() - age if age is not None else NOON + timedelta(seconds=self.number)
        name, ended = f"run-{self.number}", outcome != Outcome.RUNNING
        path = f"{at:%Y-%m-%d}/{name}/20.ipynb"
        run = Run(
            id=name, cycle=None, notebook="live/20", notebook_hash="", bot="btc", venue="paper",
            parameters={}, as_of=at, git_commit=None, git_clean=None, lock_hash=None, host="h",
            kernel="k", token_hash="", started_at=at, ended_at=at if ended else None,
            outcome=outcome, page=path if page and ended else None,
        )  # fmt: skip
        with self.ledger.write() as books:
            insert(books, tables.runs, run)
        file = self.home / "reports" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * 1000)
        return name

    def decide(self, run: str, bot: str = "btc") -> str:
        """A decision, newer than the bot's others."""
        self.number += 1
        at = NOON + timedelta(minutes=self.number)
        decision = Decision(
            id=f"d-{self.number}", bot=bot, candle_close=at, run=run, action=Action.BUY,
            fraction=Decimal("0.1"), temperature="HOT", reason="test", price=Decimal(1), state={},
            decided_at=at,
        )  # fmt: skip
        with self.ledger.write() as books:
            insert(books, tables.decisions, decision)
        return decision.id

    def order(
        self,
        run: str | None,
        status: OrderStatus,
        *,
        decision: str | None = None,
        venue: str = "paper",
        complete: bool = True,
    ) -> str:
        self.number += 1
        order = Order(
            client_id=f"nd-{self.number}", decision=decision, run=run, bot="btc", venue=venue,
            symbol="BTC/USDT", side=Side.BUY, type="market", amount=Decimal(1), limit_price=None,
            expected_price=Decimal(1), status=status, as_of=NOON, created_at=NOON,
            updated_at=NOON, fills_complete=complete,
        )  # fmt: skip
        with self.ledger.write() as books:
            insert_order(books, order)
        return order.client_id

    def change_order(self, client_id: str, status: OrderStatus) -> None:
        which = tables.orders.c.client_id == client_id
        with self.ledger.write() as books:
            books.execute(
                tables.orders.update().where(which).values(status=status, updated_at=utc_now())
            )

    def pages(self) -> set[str]:
        """Runs whose folder is there."""
        return {path.name for path in self.home.glob("reports/*/*") if path.is_dir()}

    def prune(self, *, dry_run: bool = False, **limits: float) -> retention.Pruning:
        return prune_pages(self.settings(**limits), self.ledger, dry_run=dry_run)

    def assert_rows_are_true(self) -> None:
        """Every row that names a page has it; every one whose page is gone says so."""
        for run in load_runs(self.ledger, limit=10_000):
            if run.page:
                assert (self.home / "reports" / run.page).is_file(), run.id
                assert run.page_removed_at is None
            elif run.id not in self.pages() and run.ended_at:
                assert run.page_removed_at is not None, run.id


@pytest.fixture
def reports(home: Path) -> Reports:
    return Reports(home)


def test_pages_over_the_age_go_and_their_runs_stay(reports: Reports) -> None:
    old = reports.add_run(age=timedelta(days=31))
    young = reports.add_run(age=timedelta(days=29))
    done = reports.prune(page_days=30)
    assert (done.removed, done.freed) == (1, 1000)
    assert done.kept == {Kept.WITHIN_LIMITS: 1}
    assert reports.pages() == {young}
    gone = load_run(reports.ledger, old)
    assert (gone.page, gone.outcome) == (None, Outcome.SUCCEEDED)
    assert utc_now() - gone.page_removed_at < timedelta(minutes=1)
    assert not (reports.home / "reports" / f"{gone.started_at:%Y-%m-%d}").exists()


def test_of_more_pages_than_may_be_kept_the_newest_stay(reports: Reports) -> None:
    runs = [reports.add_run(age=timedelta(hours=12 * (9 - number))) for number in range(9)]
    assert reports.prune(pages=4).removed == 5
    assert reports.pages() == set(runs[5:])
    assert reports.prune(pages=4).removed == 0
    reports.assert_rows_are_true()


def test_failed_runs_have_limits_of_their_own(reports: Reports) -> None:
    failed = [reports.add_run(outcome=Outcome.FAILED) for _ in range(3)]
    reports.add_run()
    reports.prune(page_days=1)
    assert reports.pages() == set(failed)
    reports.prune(page_days=1, failed_pages=2)
    assert reports.pages() == set(failed[1:])
    reports.prune(failed_page_days=1)
    assert reports.pages() == set()


def test_a_dry_run_tells_the_same_and_removes_nothing(reports: Reports) -> None:
    for _ in range(3):
        reports.add_run()
    would = reports.prune(dry_run=True, **ALL_GO)
    assert len(reports.pages()) == 3
    assert all(run.page for run in load_runs(reports.ledger))
    done = reports.prune(**ALL_GO)
    assert (would.removed, would.freed, would.kept) == (done.removed, done.freed, done.kept)


@pytest.mark.parametrize("status", [status for status in OrderStatus if not status.final])
def test_the_pages_behind_an_order_that_is_not_settled_stay(
    reports: Reports, status: OrderStatus
) -> None:
    decider, sender, earlier, newest = (reports.add_run() for _ in range(4))
    decision = reports.decide(decider)
    reports.order(earlier, OrderStatus.REJECTED, decision=decision)
    live = reports.order(sender, status, decision=decision)
    reports.decide(newest)
    done = reports.prune(**ALL_GO)
    assert done.kept == {Kept.LIVE_ORDER: 3, Kept.NEWEST_DECISION: 1}
    assert reports.pages() == {decider, sender, earlier, newest}
    reports.change_order(live, OrderStatus.FILLED)
    reports.prune(**ALL_GO)
    assert reports.pages() == {newest}


def test_an_order_whose_fills_are_not_all_known_is_not_settled(reports: Reports) -> None:
    sender = reports.add_run()
    reports.order(sender, OrderStatus.FILLED, complete=False)
    reports.prune(**ALL_GO)
    assert reports.pages() == {sender}


@pytest.mark.parametrize("venue", ["binance", "tunnel", "forgotten"])
def test_what_went_to_a_real_venue_is_kept_for_ever(reports: Reports, venue: str) -> None:
    decider, sender, denied, newest = (reports.add_run() for _ in range(4))
    decision = reports.decide(decider)
    reports.order(sender, OrderStatus.FILLED, decision=decision, venue=venue)
    reports.order(denied, OrderStatus.DENIED, decision=reports.decide(denied), venue=venue)
    reports.decide(newest)
    done = reports.prune(**ALL_GO)
    assert done.kept[Kept.REAL_VENUE] == 2
    assert reports.pages() == {decider, sender, newest}


def test_a_run_that_has_not_ended_keeps_its_page(reports: Reports) -> None:
    running = reports.add_run(outcome=Outcome.RUNNING)
    assert reports.prune(**ALL_GO).kept == {Kept.NOT_ENDED: 1}
    assert reports.pages() == {running}


def test_an_abandoned_run_without_a_page_loses_its_folder_too(reports: Reports) -> None:
    abandoned = reports.add_run(outcome=Outcome.FAILED, page=False)
    assert reports.prune(**ALL_GO).removed == 1
    assert load_run(reports.ledger, abandoned).page_removed_at
    assert reports.pages() == set()


def test_an_order_that_comes_to_life_while_pages_go_saves_its_own(
    reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = reports.add_run()
    order = reports.order(sender, OrderStatus.REJECTED)
    other = reports.add_run()
    stays = retention._Pruner._stays

    def revive(pruner: retention._Pruner, page: retention._Page) -> bool:
        if page.id == sender:
            reports.change_order(order, OrderStatus.UNRESOLVED)
        return stays(pruner, page)

    monkeypatch.setattr(retention._Pruner, "_stays", revive)
    done = reports.prune(**ALL_GO)
    assert done.kept == {Kept.LIVE_ORDER: 1}
    assert reports.pages() == {sender}
    assert load_run(reports.ledger, sender).page
    assert load_run(reports.ledger, other).page is None


def test_an_order_sent_to_a_real_venue_while_pages_go_saves_its_own(
    reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = reports.add_run()
    order = reports.order(sender, OrderStatus.DENIED, venue="binance")
    disown = retention._Pruner._disown

    def fill(pruner: retention._Pruner, batch: list[retention._Page]) -> list[retention._Page]:
        reports.change_order(order, OrderStatus.FILLED)
        return disown(pruner, batch)

    monkeypatch.setattr(retention._Pruner, "_disown", fill)
    assert reports.prune(**ALL_GO).kept == {Kept.REAL_VENUE: 1}
    assert reports.pages() == {sender}


def test_folders_that_the_ledger_does_not_know_are_named_and_left(reports: Reports) -> None:
    run = reports.add_run()
    place = reports.home / "reports"
    (place / "2026-01-01" / "of-nobody").mkdir()
    (place / "2025-01-01" / run).mkdir(parents=True)  # a copy, under another date
    (place / f"{utc_now():%Y-%m-%d}" / "starting").mkdir(parents=True)
    (place / "notes" / "mine").mkdir(parents=True)
    (place / "README.md").write_text("mine")
    done = reports.prune(**ALL_GO)
    assert done.removed == 1
    assert done.unknown == ["2026-01-01/of-nobody", f"2025-01-01/{run}"]
    assert reports.pages() == {"of-nobody", run, "starting", "mine"}
    assert (place / "README.md").exists()


def test_no_link_leads_out_of_the_reports(reports: Reports, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "kept.txt").write_text("x")
    linked, inside = reports.add_run(), reports.add_run()
    day = reports.home / "reports" / f"{NOON:%Y-%m-%d}"
    (day / linked / "20.ipynb").unlink()
    (day / linked).rmdir()
    (day / linked).symlink_to(treasure, target_is_directory=True)
    (day / inside / "folder").symlink_to(treasure, target_is_directory=True)
    (day / inside / "file").symlink_to(treasure / "kept.txt")
    (reports.home / "reports" / "2025-12-31").symlink_to(treasure, target_is_directory=True)
    reports.prune(**ALL_GO)
    assert (treasure / "kept.txt").read_text() == "x"
    assert not (day / inside).exists()
    assert (day / linked).is_symlink()


def test_a_folder_swapped_for_a_link_meanwhile_is_not_followed(
    reports: Reports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = reports.add_run()
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "kept.txt").write_text("x")
    folder = reports.home / "reports" / f"{NOON:%Y-%m-%d}" / run
    disown = retention._Pruner._disown

    def swap(pruner: retention._Pruner, batch: list[retention._Page]) -> list[retention._Page]:
        folder.rename(tmp_path / "away")
        folder.symlink_to(treasure, target_is_directory=True)
        return disown(pruner, batch)

    monkeypatch.setattr(retention._Pruner, "_disown", swap)
    done = reports.prune(**ALL_GO)
    assert list(done.failed) == [f"{NOON:%Y-%m-%d}/{run}"]
    assert (treasure / "kept.txt").read_text() == "x"


def test_reports_on_another_disk_are_pruned_through_their_link(
    reports: Reports, tmp_path: Path
) -> None:
    reports.add_run()
    place = reports.home / "reports"
    place.rename(tmp_path / "disk")
    place.symlink_to(tmp_path / "disk", target_is_directory=True)
    assert reports.prune(**ALL_GO).removed == 1
    assert list((tmp_path / "disk").iterdir()) == []


def test_todays_folder_stays_for_the_run_that_is_just_starting(reports: Reports) -> None:
    reports.add_run(age=timedelta(0))
    reports.add_run(age=timedelta(days=3))
    assert reports.prune(page_days=1e-9).removed == 2
    assert [path.name for path in (reports.home / "reports").iterdir()] == [f"{utc_now():%Y-%m-%d}"]


def test_pages_that_cannot_be_removed_are_told_and_tried_again(
    reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = reports.add_run()

    def refuse(name: str, **_: object) -> None:
        raise PermissionError(13, "Permission denied", name)

    with monkeypatch.context() as patch:
        patch.setattr(retention.os, "unlink", refuse)
        done = reports.prune(**ALL_GO)
    assert done.failed == {f"{NOON:%Y-%m-%d}/{run}": "Permission denied"}
    assert done.removed == 0
    again = reports.prune(**ALL_GO)
    assert (again.removed, again.leftovers) == (1, 1)
    assert reports.pages() == set()


def test_nothing_is_removed_from_a_page_that_only_looks(reports: Reports) -> None:
    reports.add_run()
    looking = Ledger(DeskSettings(home=reports.home).database_url, read_only=True)
    with pytest.raises(ReadOnly):
        prune_pages(reports.settings(**ALL_GO), looking)
    assert len(reports.pages()) == 1


class Killed(BaseException):
    """What no cleanup sees coming."""


def kill_at(
    monkeypatch: pytest.MonkeyPatch, nth: int, kill: Callable[[], None]
) -> Callable[[], int]:
    """Have the nth effect end the process before it happens; answers how many there were."""
    effects = 0

    def dying(effect: Callable) -> Callable:
        def call(*arguments: object, **named: object) -> object:
            nonlocal effects
            effects += 1
            if effects == nth:
                kill()
            return effect(*arguments, **named)

        return call

    for name in ("unlink", "rmdir"):
        monkeypatch.setattr(retention.os, name, dying(getattr(os, name)))
    monkeypatch.setattr(retention, "mark_pages_removed", dying(retention.mark_pages_removed))
    monkeypatch.setattr(retention._Pruner, "_remove", dying(retention._Pruner._remove))
    return lambda: effects


def test_a_removal_killed_anywhere_is_finished_by_the_next(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    nth, died = 1, True
    while died:
        folder = tmp_path / f"{nth}"
        folder.mkdir()
        reports = Reports(folder)
        for _ in range(5):
            reports.add_run()
        with monkeypatch.context() as patch:
            kill_at(patch, nth, lambda: _raise(Killed))
            try:
                reports.prune(**ALL_GO)
                died = False
            except Killed:
                reports.assert_rows_are_true()
        done = reports.prune(**ALL_GO)
        assert not done.failed
        assert reports.pages() == set()
        assert list((folder / "reports").iterdir()) == []
        reports.assert_rows_are_true()
        reports.ledger.close()
        nth += 1
    assert nth > 15  # it died at each of a good many places


def _raise(error: type[BaseException]) -> None:
    raise error


@pytest.mark.parametrize("nth", [2, 4, 5, 9])
def test_a_removal_killed_by_the_system_leaves_nothing_untold(reports: Reports, nth: int) -> None:
    for _ in range(5):
        reports.add_run()
    (reports.home / "desk.toml").write_text("[retention]\npage_days = 1\n")
    code = (
        "import sys, pytest, os, signal\n"
        "from tests.notebooks.test_retention import kill_at\n"
        "from tradelib.notebooks import retention\n"
        "from tradelib.settings import load_settings\n"
        "from tradelib.trading.ledger import open_ledger\n"
        "retention.BATCH = 2\n"
        "kill = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        "kill_at(pytest.MonkeyPatch(), int(sys.argv[1]), kill)\n"
        "settings = load_settings()\n"
        "retention.prune_pages(settings, open_ledger(settings))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(nth)], cwd=PROJECT, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    reports.assert_rows_are_true()
    reports.prune(**ALL_GO)
    assert reports.pages() == set()
    reports.assert_rows_are_true()


orders = st.lists(
    st.tuples(
        st.integers(0, 5),  # the run that sent it
        st.integers(0, 5) | st.none(),  # the run that decided on it
        st.sampled_from(list(OrderStatus)),
        st.sampled_from(["paper", "binance", "forgotten"]),
        st.booleans(),
    ),
    max_size=6,
)


@hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    outcomes=st.lists(st.sampled_from(list(Outcome)), min_size=6, max_size=6),
    orders=orders,
    pages=st.integers(1, 7),
)
def test_no_protected_page_is_ever_removed(
    tmp_path_factory: pytest.TempPathFactory,
    home: Path,
    outcomes: list[Outcome],
    orders: list[tuple],
    pages: int,
) -> None:
    reports = Reports(tmp_path_factory.mktemp("desk"))
    runs = [reports.add_run(outcome=outcome) for outcome in outcomes]
    protected = {run for run, outcome in zip(runs, outcomes, strict=True) if outcome == "RUNNING"}
    deciders: dict[str, str] = {}
    for sender, decider, status, venue, complete in orders:
        decision = None
        if decider is not None:
            decision = deciders.setdefault(runs[decider], "") or reports.decide(runs[decider])
            deciders[runs[decider]] = decision
        reports.order(runs[sender], status, decision=decision, venue=venue, complete=complete)
        real = venue != "paper" and status != OrderStatus.DENIED
        if not status.final or not complete or real:
            protected |= {runs[sender], *([runs[decider]] if decider is not None else [])}
    if deciders:
        protected.add(list(deciders)[-1])  # the newest decision of the one bot
    reports.prune(page_days=1, pages=pages, failed_page_days=1)
    assert protected <= reports.pages()
    reports.assert_rows_are_true()
    reports.ledger.close()


def test_the_command_tells_what_went_and_what_stays_and_why(reports: Reports) -> None:
    newest = reports.add_run()
    reports.decide(newest)
    reports.add_run()
    (reports.home / "reports" / "2026-01-01" / "of-nobody").mkdir()
    (reports.home / "desk.toml").write_text("[retention]\npage_days = 1\n")
    would = desk_command("prune", "--dry-run", home=reports.home)
    assert "1 pages would be removed" in would.stdout, would.stderr
    done = desk_command("prune", home=reports.home)
    assert done.returncode == 0, done.stderr
    assert "1 pages removed" in done.stdout
    assert "1 kept: it made its bot's newest decision" in done.stdout
    assert "2026-01-01/of-nobody" in done.stdout
    assert reports.pages() == {newest, "of-nobody"}
    assert '"removed": 0' in desk_command("prune", "--json", home=reports.home).stdout


def test_a_limit_that_keeps_nothing_is_refused(home: Path) -> None:
    (home / "desk.toml").write_text("[retention]\npages = 0\n")
    done = desk_command("prune", home=home)
    assert done.returncode == 2
    assert "retention.pages" in done.stderr
