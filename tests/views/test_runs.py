"""Runs are found by what is known of them, page by page, and each tells what it ran on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import event

from tests.views.books import EVIL, START, add_order, add_page, add_run, open_books
from tests.views.test_portfolio import cells
from tradelib.settings import DeskSettings
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import OrderStatus, Side
from tradelib.trading.runs import Outcome, finish_run, load_run_values, load_runs
from tradelib.views import runs as runs_view
from tradelib.views.runs import RunsPage

SIGNALS, FETCH = "live/20_generate_signals", "live/10_fetch_candles"


@pytest.fixture
def settings(home: Path) -> DeskSettings:
    return DeskSettings(home=home)


@pytest.fixture
def ledger(settings: DeskSettings) -> Ledger:
    return open_books(settings)


def open_page(settings: DeskSettings, **chosen: str) -> RunsPage:
    return RunsPage(settings, 5, chosen)


def section(page: RunsPage, name: str) -> str:
    return page.dashboard.sections[name].value


def ids(page: RunsPage) -> list[str]:
    assert page.shown is not None
    return [run.id for run in page.shown.runs]


def run_ids(numbers: Sequence[int]) -> list[str]:
    return [f"run-{number}" for number in numbers]


def add_mixture(ledger: Ledger) -> None:
    """run-0 … run-11: two bots by turns, every third a fetch, run-5 and run-10 failed."""
    for number in range(12):
        fetch = number % 3 == 2
        add_run(
            ledger,
            FETCH if fetch else SIGNALS,
            bot=None if fetch else ("eth" if number % 2 else "btc"),
            outcome=Outcome.FAILED if number in (5, 10) else Outcome.SUCCEEDED,
            cycle=f"c-{number // 3}",
        )


def test_runs_meet_every_filter_that_is_given(ledger: Ledger) -> None:
    add_mixture(ledger)
    everything = load_runs(ledger)
    assert [run.id for run in everything] == run_ids(range(11, -1, -1))
    for bot in (None, "btc", "eth", "nobody"):
        for notebook in (None, SIGNALS, FETCH):
            for outcome in (None, *Outcome):
                for cycle in (None, "c-3"):
                    wanted = {
                        "bot": bot, "notebook": notebook, "outcome": outcome, "cycle": cycle,
                    }  # fmt: skip
                    expected = [
                        run for run in everything
                        if all(v is None or getattr(run, n) == v for n, v in wanted.items())
                    ]  # fmt: skip
                    assert load_runs(ledger, **wanted) == expected, wanted


def test_pages_join_without_a_gap_where_runs_start_at_the_same_moment(ledger: Ledger) -> None:
    add_mixture(ledger)
    with ledger.write() as books:  # four moments, three runs in each
        for number in range(12):
            which = tables.runs.c.id == f"run-{number}"
            start = START + timedelta(seconds=number // 3)
            books.execute(tables.runs.update().where(which).values(started_at=start))
    everything = load_runs(ledger)
    for size in (1, 2, 5):
        down = load_runs(ledger, limit=size)
        while len(down) < 12:
            down += load_runs(ledger, limit=size, before=down[-1])
        assert down == everything
        up = [everything[-1]]
        while len(up) < 12:
            up = load_runs(ledger, limit=size, after=up[0]) + up
        assert up == everything
    assert load_runs(ledger, before=everything[-1]) == []
    assert load_runs(ledger, after=everything[0]) == []


def test_a_day_begins_and_ends_at_midnight_utc(ledger: Ledger) -> None:
    moments = [
        datetime(2026, 3, 1, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 3, 2, tzinfo=UTC),
        datetime(2026, 3, 2, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 3, 3, tzinfo=UTC),
    ]
    for number, moment in enumerate(moments):
        add_run(ledger, FETCH)
        which = tables.runs.c.id == f"run-{number}"
        with ledger.write() as books:
            books.execute(tables.runs.update().where(which).values(started_at=moment))
    found = load_runs(ledger, day=date(2026, 3, 2))
    assert [run.id for run in found] == ["run-2", "run-1"]


def test_the_choices_are_what_runs_have(ledger: Ledger) -> None:
    assert load_run_values(ledger, "bot") == []
    add_mixture(ledger)
    assert load_run_values(ledger, "bot") == ["btc", "eth"]
    assert load_run_values(ledger, "notebook") == [FETCH, SIGNALS]
    assert load_run_values(ledger, "outcome") == ["FAILED", "SUCCEEDED"]


def test_no_query_of_the_page_reads_every_run(ledger: Ledger) -> None:
    """SQLite says what it would read: each time through an index, never the whole table."""
    add_mixture(ledger)
    asked: list[str] = []

    def explain(connection, cursor, statement, parameters, *_) -> None:
        if statement.startswith(("SELECT", "WITH")):
            plan = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            asked.extend(row[-1] for row in plan)

    run = load_runs(ledger)[5]
    event.listen(ledger.engine, "before_cursor_execute", explain)
    for column in ("bot", "notebook", "outcome"):
        load_run_values(ledger, column)
    for wanted in (
        {}, {"bot": "btc"}, {"notebook": FETCH}, {"outcome": Outcome.SUCCEEDED}, {"cycle": "c-1"},
        {"bot": "btc", "notebook": FETCH, "outcome": Outcome.SUCCEEDED}, {"day": date(2026, 3, 1)},
        {"before": run}, {"after": run}, {"bot": "btc", "outcome": Outcome.FAILED, "before": run},
    ):  # fmt: skip
        load_runs(ledger, **wanted)
    reads = [line for line in asked if "runs" in line]
    assert len(reads) > 10
    assert [line for line in reads if "INDEX" not in line] == []
    chosen = [line for line in reads if "bot=?" in line]
    assert len(chosen) == 2  # with a bot, its index is the one; but for failures, which are few


def test_an_empty_ledger_says_how_to_start_the_desk(settings: DeskSettings, ledger: Ledger) -> None:
    page = open_page(settings)
    assert "start it with `desk up`" in section(page, "runs")
    assert page.older.disabled
    assert page.newer.disabled


def test_filters_narrow_and_say_when_nothing_is_left(
    settings: DeskSettings, ledger: Ledger
) -> None:
    add_mixture(ledger)
    page = open_page(settings)
    assert [label for label, _ in page.chosen["bot"].options] == ["all", "btc", "eth"]
    page.chosen["outcome"].value = "FAILED"
    assert ids(page) == ["run-10", "run-5"]
    page.chosen["bot"].value = "eth"
    assert ids(page) == []
    assert "No run meets these filters" in section(page, "runs")
    page.clear.click()
    assert [dropdown.label for dropdown in page.chosen.values()] == ["all", "all", "all"]
    assert len(ids(page)) == 12
    page.day.value = START.date()
    assert len(ids(page)) == 12
    page.day.value = START.date() + timedelta(days=1)
    assert ids(page) == []


def test_a_choice_stays_when_new_ones_come(settings: DeskSettings, ledger: Ledger) -> None:
    add_mixture(ledger)
    page = open_page(settings)
    page.chosen["bot"].value = "eth"
    newest = add_run(ledger, SIGNALS, bot="aaa")
    page.dashboard.look()
    assert page.chosen["bot"].value == "eth"
    assert [label for label, _ in page.chosen["bot"].options] == ["all", "aaa", "btc", "eth"]
    assert newest not in ids(page)


def test_paging_leads_to_the_oldest_and_back(
    settings: DeskSettings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_view, "SHOWN", 5)
    add_mixture(ledger)
    page = open_page(settings)
    assert ids(page) == run_ids(range(11, 6, -1))
    assert page.newer.disabled
    page.older.click()
    assert ids(page) == run_ids(range(6, 1, -1))
    page.older.click()
    assert ids(page) == run_ids([1, 0])
    assert page.older.disabled
    new = add_run(ledger, FETCH)
    page.dashboard.look()
    assert ids(page) == run_ids([1, 0])  # who looks back is not moved
    page.newer.click()
    assert ids(page) == run_ids(range(6, 1, -1))
    page.newer.click()
    assert ids(page) == run_ids(range(11, 6, -1))
    page.newer.click()
    assert ids(page) == [new, *run_ids(range(11, 7, -1))]
    assert page.newer.disabled
    page.older.click()
    page.newest.click()
    assert ids(page)[0] == new


def test_a_row_tells_what_came_of_the_run(settings: DeskSettings, ledger: Ledger) -> None:
    order = add_order(
        ledger, "btc", 1, Side.BUY, Decimal(1), Decimal(100), OrderStatus.PARTIALLY_FILLED
    )
    decided = load_runs(ledger, notebook=SIGNALS)[0].id
    told = {
        decided: {"decision": order.decision},
        add_run(ledger, FETCH): {"lines": [{"added": 2, "error": None}, {"added": 1}]},
        add_run(ledger, FETCH): {"lines": [{"added": 0, "error": "timed out"}]},
        add_run(ledger, "live/40_reconcile_orders"): {"agrees": True, "fills_booked": 2},
        add_run(ledger, "live/40_reconcile_orders"): {"agrees": False, "discrepancies": [{}, {}]},
    }
    for run, result in told.items():
        finish_run(ledger, run, Outcome.SUCCEEDED, kernel_kind="warm", result=result)
    rows = cells(section(open_page(settings), "runs"))
    assert [row[7] for row in rows][:4] == [
        "books differ in 2",
        "books agree, 2 fills booked",
        "0 candles, 1 errors",
        "3 candles",
    ]
    assert rows[-1][7] == "BUY → partially filled"
    assert rows[-1][5] == "warm"


def test_words_of_notebooks_and_venues_are_no_markup(
    settings: DeskSettings, ledger: Ledger
) -> None:
    failed = add_run(
        ledger, f"live/{EVIL}", bot=EVIL, outcome=Outcome.FAILED, reason=f"why {EVIL}" * 30,
        cycle=EVIL,
    )  # fmt: skip
    add_run(ledger, FETCH, cycle=EVIL)
    read = {"venue": EVIL, "symbol": EVIL, "timeframe": EVIL, "first": START.isoformat(),
            "last": START.isoformat(), "candles": 1, "hash": EVIL}  # fmt: skip
    with ledger.write() as books:
        books.execute(
            tables.runs.update()
            .where(tables.runs.c.id == failed)
            .values(candles=[read], parameters={EVIL: EVIL}, host=EVIL, timings={"0": 0.1},
                    git_commit=EVIL, kernel_kind="cold")
        )  # fmt: skip
    add_page(settings, ledger, failed, f"x('{EVIL}')")
    page = open_page(settings, run=failed)
    shown = [page.record.value, *(one.value for one in page.dashboard.sections.values())]
    assert "&lt;script&gt;" in "".join(shown)
    assert "<script" not in "".join(shown)
    assert "<script" not in str(page.figure.data[0].y)


def test_the_record_of_the_chosen_run_is_whole(settings: DeskSettings, ledger: Ledger) -> None:
    order = add_order(ledger, "btc", 1, Side.BUY, Decimal(1), Decimal(100), OrderStatus.FILLED)
    run = load_runs(ledger, notebook=SIGNALS)[0].id
    add_run(ledger, FETCH, cycle="another")
    read = {"venue": "paper", "symbol": "BTC/USDT", "timeframe": "1m", "candles": 740,
            "first": START.isoformat(), "last": START.isoformat(), "hash": "f" * 64}  # fmt: skip
    finish_run(
        ledger, run, Outcome.SUCCEEDED, page=f"2026-03-01/{run}/page.ipynb", kernel_kind="warm",
        timings={"1": 0.25, "2": 1.5}, candles=[read], result={"decision": order.decision},
    )  # fmt: skip
    with ledger.write() as books:
        which = tables.runs.c.id == run
        kept = {"git_commit": "a" * 40, "git_clean": 0, "lock_hash": "b" * 64, "seed": 7}
        books.execute(tables.runs.update().where(which).values(**kept, python="3.12.1"))
    add_page(settings, ledger, run, "title", "from x import y\nfetch(\n  a,\n)", "z = 1\ndraw(z)")
    page = open_page(settings)
    assert "Click a run" in section(page, "picked")
    page.picker.picked = run
    told = dict(cells(page.record.value))
    assert told["Commit"] == "a" * 40 + ", with changes that are in no commit"
    assert told["Lock file&#x27;s SHA-256"] == "b" * 64
    assert (told["Seed"], told["Python"], told["Host"]) == ("7", "3.12.1", "here")
    assert told["Notebook&#x27;s SHA-256"] == "0" * 64
    assert told["Kernel"] == "python3, warm"
    assert "token" not in page.record.value.lower()
    details = section(page, "details")
    assert "740" in details
    assert "f" * 64 in details  # in full, under the mouse
    assert order.client_id in details
    assert "c-1, in order" in details
    assert list(page.figure.data[0].x) == [0.25, 1.5]
    assert list(page.figure.data[0].y) == ["1  fetch(", "2  draw(z)"]


def test_an_address_names_a_run_and_filters(
    settings: DeskSettings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_mixture(ledger)
    page = open_page(settings, run="run-3", bot="btc")
    assert "run-3" in section(page, "picked")
    assert {run.bot for run in page.shown.runs} == {"btc"}
    assert "Click a run" in section(open_page(settings, run="nothing"), "picked")
    monkeypatch.setenv("QUERY_STRING", "run=run-3&token=x")
    opened = runs_view.open_runs()
    assert any("run-3" in getattr(one, "value", "") for one in opened.children)


def test_a_page_that_was_removed_says_when_and_is_no_link(
    settings: DeskSettings, ledger: Ledger
) -> None:
    present, removed, _lost = (add_run(ledger, FETCH) for _ in range(3))
    add_page(settings, ledger, present)
    with ledger.write() as books:
        which = tables.runs.c.id == removed
        gone = {"page": None, "page_removed_at": START}
        books.execute(tables.runs.update().where(which).values(**gone))
    page = open_page(settings)
    html = section(page, "runs")
    assert [row[6] for row in cells(html)] == ["missing", "removed 2026-03-01", "open"]
    assert html.count("href=") == 1
    assert f"/voila/render/reports/2026-03-01/{present}/page.ipynb" in html
    page.picker.picked = removed
    assert dict(cells(page.record.value))["Page removed (UTC)"] == "2026-03-01 12:00:00"


def test_a_run_that_ends_is_redrawn_and_nothing_else_is(
    settings: DeskSettings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = add_run(ledger, FETCH)
    page = open_page(settings, run=run)
    drawn = []
    draw = page.dashboard._draw
    monkeypatch.setattr(page.dashboard, "_draw", lambda: drawn.append(1) or draw())
    page.dashboard.look()
    assert drawn == []
    finish_run(ledger, run, Outcome.FAILED, reason="it broke")
    page.dashboard.look()
    assert drawn == [1]
    assert "it broke" in section(page, "runs")
    assert "it broke" in section(page, "picked")
