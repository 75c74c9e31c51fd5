"""The portfolio's figures are the ledger's."""

from __future__ import annotations

import re
import shutil
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.views.books import EVIL, START, add_run, add_story, add_trade, open_books
from tradelib.candles.store import CandleStore
from tradelib.clock import utc_now
from tradelib.settings import DeskSettings
from tradelib.trading import tables
from tradelib.trading.accounts import Equity, record_equity
from tradelib.trading.halts import halt_trading
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import ZERO, Side, load_orders
from tradelib.trading.positions import load_position
from tradelib.views.portfolio import PortfolioPage, draw_portfolio, load_curve


@pytest.fixture
def settings(home: Path) -> DeskSettings:
    return DeskSettings(home=home)


@pytest.fixture
def ledger(settings: DeskSettings) -> Ledger:
    return open_books(settings)


def draw(settings: DeskSettings, ledger: Ledger) -> dict[str, str]:
    drawn = draw_portfolio(ledger, CandleStore(settings.candles))
    return {name: piece.text for name, piece in drawn.items()}


def card(html: str, name: str) -> str:
    """The exact value behind a headline figure."""
    return re.search(rf'data-testid="{re.escape(name)}" data-value="([^"]*)"', html)[1]


def cells(html: str) -> list[list[str]]:
    """The texts of a table's rows."""
    rows = re.findall(r"<tr>(.*?)</tr>", html.partition("<tbody>")[2])
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", r)] for r in rows]


def test_headline_figures_equal_the_ledgers(settings: DeskSettings, ledger: Ledger) -> None:
    add_story(settings, ledger)
    worth = draw(settings, ledger)["worth"]
    position = load_position(ledger, "first", "BTC/USDT")

    assert card(worth, "paper-equity-usdt") == "10012.75"
    assert card(worth, "paper-cash-usdt") == "9900"
    assert card(worth, "paper-today-usdt") == "12.75"
    assert Decimal(card(worth, "paper-realised-p&amp;l-usdt")) == position.realised
    assert Decimal(card(worth, "paper-unrealised-p&amp;l-usdt")) == position.unrealised(
        Decimal("125")
    )


def test_positions_are_the_sum_of_fills_at_the_newest_close(
    settings: DeskSettings, ledger: Ledger
) -> None:
    add_story(settings, ledger)
    first, second = cells(draw(settings, ledger)["holdings"])
    # 0.5 bought for 50.1 and 0.5 for 55.1 with fees; 0.4 of the first sold for 47.9 after its fee.
    assert first == [
        "first", "stopped", "BTC/USDT", "0.6", "108.533", "125", "75.00", "+9.88", "+7.82",
        "reducing",
    ]  # fmt: skip
    assert second == ["second", "running", "ETH/USDT", "0", "–", "–", "–", "–", "0.00", "closed"]


def test_a_balance_that_differs_from_the_venues_stands_out(
    settings: DeskSettings, ledger: Ledger
) -> None:
    add_story(settings, ledger)
    html = draw(settings, ledger)["balances"]
    assert '<span class="loss">9,940</span>' in html
    assert '<span class="">0.6</span>' in html


def test_every_fill_leads_to_its_orders_page_and_its_decisions_page(
    settings: DeskSettings, ledger: Ledger
) -> None:
    add_story(settings, ledger)
    html = draw(settings, ledger)["fills"]
    order = load_orders(ledger, bot="first")[0]
    links = re.findall(r'href="(/voila/render/reports/[^"]+)"[^>]*>(..)', html)
    assert len(links) == 6
    assert (f"/voila/render/reports/2026-03-01/{order.run}/page.ipynb", "nd") in links
    assert {kind for _, kind in links} == {"nd", "d-"}


def test_what_a_person_wrote_is_escaped(settings: DeskSettings, ledger: Ledger) -> None:
    add_story(settings, ledger)
    halt_trading(ledger, EVIL)
    html = "".join(draw(settings, ledger).values())
    assert EVIL not in html
    assert html.count("&lt;script&gt;") == 2


def test_an_empty_ledger_says_what_will_show_and_when(
    settings: DeskSettings, ledger: Ledger
) -> None:
    html = draw(settings, ledger)
    assert "after the first reconciliation" in html["worth"]
    assert "`desk bots add`" in html["holdings"]
    for section in ("balances", "decisions", "orders", "fills"):
        assert 'class="empty"' in html[section]
        assert "<table" not in html[section]
    page = PortfolioPage(settings, 5, 7)
    assert "begins with the first reconciliation" in page.dashboard.sections["curve"].value
    assert page.curve.children == ()


def test_the_curve_is_the_accounts_worth_over_time(settings: DeskSettings, ledger: Ledger) -> None:
    add_story(settings, ledger)
    page = PortfolioPage(settings, 5, 7)
    (line,) = page.figure.data
    assert list(line.y) == [10000, 9990.5, 10012.75]
    assert line.name == "paper (USDT)"


def test_the_curve_keeps_the_days_asked_for(settings: DeskSettings, ledger: Ledger) -> None:
    add_story(settings, ledger)
    two_minutes = 2 / 24 / 60
    assert [str(p.equity) for p in load_curve(ledger, "paper", two_minutes)] == [
        "9990.5",
        "10012.75",
    ]


def test_a_look_redraws_only_when_the_ledger_has_news(
    settings: DeskSettings, ledger: Ledger
) -> None:
    add_story(settings, ledger)
    page = PortfolioPage(settings, 5, 7)
    drawn = []
    page.dashboard._draw = lambda: drawn.append(1) or page.draw()

    page.dashboard.look()
    assert drawn == []
    add_trade(ledger, "first", 5, Side.BUY, Decimal("0.5"), Decimal(130))
    page.dashboard.look()
    assert drawn == [1]
    assert ">1.1<" in page.dashboard.sections["holdings"].value


def test_a_page_without_a_ledger_says_so_and_recovers(settings: DeskSettings) -> None:
    page = PortfolioPage(settings, 5, 7)
    assert "There is no ledger" in page.dashboard.trouble.value
    add_story(settings, open_books(settings))
    page.dashboard.look()
    assert page.dashboard.trouble.value == ""
    assert "10,012.75" in page.dashboard.sections["worth"].value


def test_books_that_nobody_reconciles_are_called_old(
    settings: DeskSettings, ledger: Ledger
) -> None:
    add_story(settings, ledger)
    assert "old-books" not in draw(settings, ledger)["worth"]
    run = add_run(ledger, "live/40_reconcile_orders")
    with ledger.write() as books:
        books.execute(tables.equity.update().values(run=run))
    assert "old-books" not in draw(settings, ledger)["worth"]
    an_hour_ago = utc_now() - timedelta(hours=1)
    with ledger.write() as books:
        books.execute(tables.runs.update().values(ended_at=an_hour_ago))
    assert f"last at {an_hour_ago:%Y-%m-%d %H:%M:%S} UTC" in draw(settings, ledger)["worth"]


def test_profit_is_not_known_while_a_price_is_missing(
    settings: DeskSettings, ledger: Ledger
) -> None:
    add_story(settings, ledger)
    shutil.rmtree(settings.candles)
    worth = draw(settings, ledger)["worth"]
    assert card(worth, "paper-unrealised-p&amp;l-usdt") == ""
    assert card(worth, "paper-equity-usdt") == "10012.75"


def test_a_ledger_that_cannot_be_read_never_looks_active(
    settings: DeskSettings, ledger: Ledger
) -> None:
    page = PortfolioPage(settings, 5, 7)
    assert "Trading is active" in page.dashboard.sections["halt"].value
    with ledger.write() as books:
        books.exec_driver_sql("DROP TABLE halts")
    page.dashboard.look()
    assert page.dashboard.sections["halt"].value == ""
    assert "trading counts as halted" in page.dashboard.trouble.value


def test_a_halt_is_the_first_thing_on_the_page(settings: DeskSettings, ledger: Ledger) -> None:
    assert "Trading is active" in draw(settings, ledger)["halt"]
    halt_trading(ledger, "spread looks wrong")
    assert "TRADING IS HALTED" in draw(settings, ledger)["halt"]
    assert "spread looks wrong" in draw(settings, ledger)["halt"]


def test_a_page_cannot_write_the_ledger(settings: DeskSettings, ledger: Ledger) -> None:
    page = PortfolioPage(settings, 5, 7)
    assert page.ledger.read_only


def test_each_purchase_shows_what_it_cost_and_what_it_earned(
    settings: DeskSettings, ledger: Ledger
) -> None:
    add_story(settings, ledger)
    drawn = draw(settings, ledger)["tranches"]
    second, first = cells(drawn)
    assert drawn.count('href="/voila/render/reports/') == 2
    # The sale of 0.4 for 47.9 took 0.8 of the first purchase, which cost 50.1.
    assert first[:-1] == [
        "first", "BTC/USDT", "2026-03-01 12:01:00", "0.5", "50.10", "100.2", "0.1", "+7.82",
        "+2.48", "part sold",
    ]  # fmt: skip
    assert second[3:-1] == ["0.5", "55.10", "110.2", "0.5", "0.00", "+7.40", "held"]


def test_profits_are_told_by_bot_by_symbol_and_by_account(
    settings: DeskSettings, ledger: Ledger
) -> None:
    add_story(settings, ledger)
    told = cells(draw(settings, ledger)["profits"])
    earned = ["paper", "USDT", "+7.82", "+9.88", "–", "+17.70"]
    assert told == [
        ["bot", "first", *earned],
        ["symbol", "BTC/USDT", *earned],
        ["account", "paper", *earned],
    ]


def test_coins_that_are_no_bots_show_and_missing_ones_stand_out(
    settings: DeskSettings, ledger: Ledger
) -> None:
    add_story(settings, ledger)
    assert cells(draw(settings, ledger)["shares"]) == [["paper", "BTC", "0.6", "0.6", "0", "first"]]
    with ledger.write() as books:
        books.execute(
            tables.balances.update()
            .where(tables.balances.c.asset == "BTC")
            .values(booked=Decimal("0.5"))
        )
    assert '<span class="loss">-0.1</span>' in draw(settings, ledger)["shares"]


def test_a_protection_in_force_says_until_when(settings: DeskSettings, ledger: Ledger) -> None:
    add_story(settings, ledger)
    assert "nothing but the limits" in draw(settings, ledger)["protections"]
    with ledger.write() as books:
        fallen = Equity("paper", START + timedelta(minutes=5), "USDT", ZERO + 9000, ZERO, {}, None)
        record_equity(books, fallen)
    (row,) = cells(draw(settings, ledger)["protections"])
    assert row[:6] == [
        "MaxDrawdown", "paper", "all", "all", "2026-03-01 12:05:00", "2026-03-01 16:05:00",
    ]  # fmt: skip
    assert "Entries wait. account paper: equity fell 10.1%" in draw(settings, ledger)["halt"]
