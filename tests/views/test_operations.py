"""Operations tells what the ledger, the services file and the store say."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

from tests.views.books import EVIL, START, add_order, add_page, add_run, add_story, open_books
from tests.views.test_portfolio import card, cells
from tradelib.candles.store import CandleStore
from tradelib.services.addresses import Running, save_services
from tradelib.settings import DeskSettings
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import OrderStatus, Side
from tradelib.trading.runs import Outcome, finish_run
from tradelib.traffic import Pool, spend_as
from tradelib.traffic.budget import Budget
from tradelib.traffic.cache import SharedCache, Terms
from tradelib.traffic.records import budget_file
from tradelib.views.operations import OperationsPage, draw_operations, load_cycles
from tradelib.views.version import ledger_version

TOKEN = "not for the page"


@pytest.fixture
def settings(home: Path) -> DeskSettings:
    return DeskSettings(home=home)


@pytest.fixture
def ledger(settings: DeskSettings) -> Ledger:
    return open_books(settings)


def draw(settings: DeskSettings, ledger: Ledger) -> dict[str, str]:
    store = CandleStore(settings.candles)
    drawn = draw_operations(settings, ledger, store, load_cycles(ledger))
    return {name: piece.text for name, piece in drawn.items()}


def start_services(settings: DeskSettings) -> None:
    """A services file as a desk writes it: one service that lives, one that has died."""
    settings.services_file.parent.mkdir(parents=True)
    me = psutil.Process()
    lives = Running(
        "voila", "http://127.0.0.1:8622", os.getpid(), me.create_time(), START.isoformat(),
        link="/voila/tree/dashboards", token=TOKEN,
    )  # fmt: skip
    save_services(settings.services_file, [lives, replace(lives, name="paper", born=0.0)])


def test_services_are_shown_alive_or_dead_and_without_their_tokens(
    settings: DeskSettings, ledger: Ledger
) -> None:
    start_services(settings)
    html = draw(settings, ledger)
    assert [row[:3] for row in cells(html["services"])] == [
        ["voila", "up", "http://127.0.0.1:8622"],
        ["paper", "down, being restarted", "http://127.0.0.1:8622"],
    ]
    assert card(html["headline"], "operations-services-up") == "1"
    assert TOKEN not in "".join(html.values())


def test_a_failed_run_is_told_with_its_reason_and_its_page(
    settings: DeskSettings, ledger: Ledger
) -> None:
    failed = add_run(
        ledger, "live/10_fetch_candles", outcome=Outcome.FAILED, reason=f"timed out {EVIL}"
    )
    assert cells(draw(settings, ledger)["runs"])[0][-1] == "missing"
    add_page(settings, ledger, failed)
    html = draw(settings, ledger)["runs"]
    (row,) = cells(html)
    assert row[1:4] == ["10_fetch_candles", "paper", "failed"]
    assert "timed out &lt;script&gt;" in row[5]
    assert f'href="/voila/render/reports/2026-03-01/{failed}/page.ipynb"' in html
    assert f'href="/voila/render/dashboards/runs.ipynb?run={failed}"' in html


def test_a_cycle_lasts_from_its_first_start_to_its_last_end(
    settings: DeskSettings, ledger: Ledger
) -> None:
    add_run(ledger, "live/10_fetch_candles", cycle="c-1")
    add_run(ledger, "live/40_reconcile_orders", cycle="c-1", outcome=Outcome.FAILED)
    add_run(ledger, "live/10_fetch_candles", cycle="c-2")
    add_run(ledger, "live/40_reconcile_orders", cycle="between two cycles")
    cycles = load_cycles(ledger)
    assert [(cycle.cycle, cycle.failed) for cycle in cycles] == [("c-1", 1), ("c-2", 0)]
    assert cycles[0].started_at == START
    page = OperationsPage(settings, 5)
    assert list(page.figure.data[0].y) == [cycle.took.total_seconds() for cycle in cycles]


def test_unsettled_orders_and_incidents_stand_out(settings: DeskSettings, ledger: Ledger) -> None:
    add_story(settings, ledger)
    add_order(
        ledger, "first", 9, Side.BUY, Decimal(1), Decimal(100), OrderStatus.UNRESOLVED
    )  # fmt: skip
    html = draw(settings, ledger)
    assert card(html["headline"], "operations-unsettled-orders") == "1"
    assert card(html["headline"], "operations-open-incidents") == "1"
    assert "unresolved" in html["attention"]
    assert "ledger: 9942.7" in html["attention"]


def test_candles_are_as_old_as_the_market_says_and_not_the_wall_clock(
    settings: DeskSettings, ledger: Ledger
) -> None:
    add_story(settings, ledger)
    (row,) = cells(draw(settings, ledger)["candles"])
    assert row == ["paper", "BTC/USDT", "1m", "2026-03-01 12:04:00", "0.0 s", "yes"]


def test_candles_that_fall_behind_are_not_fresh(settings: DeskSettings, ledger: Ledger) -> None:
    add_story(settings, ledger)
    strict = settings.model_copy(
        update={"limits": settings.limits.model_copy(update={"max_candle_age": 0.5})}
    )
    add_run(ledger, "live/10_fetch_candles", as_of=START + timedelta(minutes=5))
    (row,) = cells(draw(strict, ledger)["candles"])
    assert row[4:] == ["1 min 0 s", "no"]


def test_refusals_are_counted_by_limit(settings: DeskSettings, ledger: Ledger) -> None:
    add_story(settings, ledger)
    (row,) = cells(draw(settings, ledger)["refusals"])
    assert row[:2] == ["OrderNotional", "1"]


def test_an_empty_desk_is_told_in_words(settings: DeskSettings, ledger: Ledger) -> None:
    html = draw(settings, ledger)
    assert "start it with `desk up`" in html["services"]
    assert "as soon as the first cycle begins" in html["runs"]
    assert "once one has ended" in html["cycles"]
    assert "after the first fetch" in html["candles"]
    assert OperationsPage(settings, 5).chart.children == ()


def test_a_page_notices_a_service_that_dies(settings: DeskSettings, ledger: Ledger) -> None:
    start_services(settings)
    page = OperationsPage(settings, 5)
    assert "1 of 2" in page.dashboard.sections["headline"].value
    settings.services_file.unlink()
    page.dashboard.look()
    assert "0 of 0" in page.dashboard.sections["headline"].value


def test_venue_use_sums_what_the_pages_of_the_last_cycle_recorded(
    settings: DeskSettings, ledger: Ledger
) -> None:
    recorded = (
        ("live/10_fetch_candles", {"lines": [{"requested": 2}, {"requested": 1}],
                                   "used_weight": 30}),
        ("live/20_generate_signals", {"candles": 740}),
        ("live/20_generate_signals", {"candles": 260}),
        ("live/40_reconcile_orders", {"used_weight": 86}),
    )  # fmt: skip
    for notebook, result in recorded:
        finish_run(ledger, add_run(ledger, notebook), Outcome.SUCCEEDED, result=result)
    (row,) = cells(draw(settings, ledger)["venues"])
    assert row == ["paper", "3", "1,000", "99.7%", "86"]


def test_rate_limits_show_what_is_used_who_used_it_and_what_is_closed(
    settings: DeskSettings, ledger: Ledger
) -> None:
    assert "once a venue has been asked" in draw(settings, ledger)["budget"]
    pools = [Pool("weight", 100, 60)]
    budget = Budget(budget_file(settings.home, "binance x"), "paper", pools, "nobody", 0)
    spend_as(f"30_execute_orders {EVIL}", "run-1", "first")
    budget.take({"weight": 5}, "GET time")
    budget.close_gate("weight", 60, "it wants fewer requests")
    html = draw(settings, ledger)["budget"]
    assert cells(html)[0][:5] == ["binance-x", "weight", "5", "100", "60 s"]
    assert re.search(r"closed for \d+ s: it wants fewer requests", html)
    assert cells(html.split("Who asked")[1])[0][1:] == ["first", "GET time", "1", "5", "0"]
    assert EVIL not in html


def test_what_the_shared_cache_spared_is_shown(settings: DeskSettings, ledger: Ledger) -> None:
    assert "once a venue has been asked" in draw(settings, ledger)["cache"]
    shared = SharedCache(settings.home)
    for _ in range(4):
        terms = Terms(fresh=60, longest=60)
        shared.get("quotes", "v", ["x"], lambda names: dict.fromkeys(names, 1), terms)
    (row,) = cells(draw(settings, ledger)["cache"])
    assert row[:5] == ["quotes", "75.0%", "1", "3", "0"]


def test_a_run_that_ends_is_news_though_another_began_before(ledger: Ledger) -> None:
    run = add_run(ledger, "live/10_fetch_candles")
    with ledger.write() as books:
        which = tables.runs.c.id == run
        books.execute(tables.runs.update().where(which).values(outcome=Outcome.RUNNING))
    add_run(ledger, "live/40_reconcile_orders")
    before = ledger_version(ledger)
    assert ledger_version(ledger) == before
    finish_run(ledger, run, Outcome.SUCCEEDED)
    assert ledger_version(ledger) != before
