"""The page of promotions: what was found, what it was found of, and what has changed since."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.views.books import EVIL, open_books
from tradelib.candles.files import CandleFile
from tradelib.candles.store import CandleStore
from tradelib.research.samples import random_candles
from tradelib.settings import DeskSettings, VenueSettings
from tradelib.strategy.own import Source, save_source
from tradelib.trading.bots import add_bot, change_bot, new_bot, remove_bot
from tradelib.trading.ledger import Ledger
from tradelib.trading.promoting import Proposal, promote
from tradelib.trading.promotions import Promotion
from tradelib.views.links import promotion_url
from tradelib.views.portfolio import draw_portfolio
from tradelib.views.promotions import PromotionsPage, curves_figure

SOURCE = f'''
def score(candles, window: int = 10):
    """{EVIL}"""
    change = candles["close"].pct_change(window)
    return (change * 20).clip(-1, 1)
'''
SAMPLE = CandleFile(Path("walk.csv"), "BTC/USDT", "1h", random_candles(600, seed=1))


@pytest.fixture
def settings(home: Path) -> DeskSettings:
    return DeskSettings(home=home, venues={"paper": VenueSettings(rest_url="service:paper")})


@pytest.fixture
def ledger(settings: DeskSettings) -> Iterator[Ledger]:
    opened = open_books(settings)
    yield opened
    opened.close()


def put(settings: DeskSettings, ledger: Ledger, bot: str, **more: object) -> Promotion:
    save_source(settings.strategies, Source("evil", SOURCE))
    proposal = Proposal(bot, "evil", SAMPLE, **({"tried": {"window": [5, 10]}} | more))
    return promote(settings, ledger, proposal, overrule=EVIL, progress=False)


def open_page(settings: DeskSettings, **chosen: str) -> tuple[PromotionsPage, str]:
    """The page, and all that it shows as text."""
    page = PromotionsPage(settings, 5, chosen)
    return page, " ".join(section.value for section in page.dashboard.sections.values())


def test_before_the_first_promotion_the_page_says_how_to_make_one(settings, ledger):
    _, html = open_page(settings)
    assert "desk promote" in html


def test_a_bots_address_shows_its_evidence_and_the_text_it_trades_by(settings, ledger):
    done, _ = put(settings, ledger, "one"), put(settings, ledger, "two")
    page, html = open_page(settings, bot="one")
    assert page.picker.picked == done.id
    assert page.shown.picked == done
    for words in ("Bias check", "Deflated Sharpe ratio", "walk-forward", "change * 20",
                  Source("evil", SOURCE).hash, done.candles["hash"][:16]):  # fmt: skip
        assert words in html
    assert EVIL not in html
    assert len(page.figure.data) == 4


def test_a_click_shows_another_and_an_unknown_one_shows_none(settings, ledger):
    first, second = put(settings, ledger, "one"), put(settings, ledger, "two", tried={})
    page, html = open_page(settings)
    assert page.shown.picked is None
    assert "Click a promotion" in html
    page.picker.picked = second.id
    picked = page.dashboard.sections["picked"].value
    assert "Overruled" in picked
    assert EVIL not in picked
    assert len(page.figure.data) == 2
    page.picker.picked = first.id
    assert "Overruled" not in page.dashboard.sections["picked"].value
    page.picker.picked = "nothing of ours"
    assert page.shown.picked is None


def test_a_bot_that_was_changed_or_went_is_told(settings, ledger):
    put(settings, ledger, "one")
    page, _ = open_page(settings, bot="one")
    change_bot(ledger, "one", lambda bot: replace(bot, parameters={"window": 7}))
    page.dashboard.look()
    assert "window: 10 → 7" in page.dashboard.sections["picked"].value
    assert "changed since" in page.dashboard.sections["promotions"].value
    remove_bot(ledger, "one", "test")
    add_bot(ledger, new_bot("one", "paper", "BTC/USDT", "1h", "momentum"))
    page.dashboard.look()
    assert "gone" in page.dashboard.sections["promotions"].value
    assert "changed since" not in page.dashboard.sections["picked"].value


def test_a_strategy_that_ships_has_no_source_to_show(settings, ledger):
    proposal = Proposal("one", "momentum", SAMPLE, hold_out=0.3, parameters={"window": 10})
    promote(settings, ledger, proposal, overrule="a look", progress=False)
    _, html = open_page(settings, bot="one")
    assert "docs/strategies.md" in html


def test_the_portfolio_links_a_promoted_bot_with_its_evidence(settings, ledger):
    put(settings, ledger, "one")
    add_bot(ledger, new_bot("plain", "paper", "BTC/USDT", "1h", "momentum"))
    html = draw_portfolio(ledger, CandleStore(settings.candles))["holdings"].text
    assert re.findall(r'href="([^"]*promotions[^"]*)"', html) == [promotion_url("one")]


def test_curves_begin_where_holding_begins(settings, ledger):
    curves = put(settings, ledger, "one").checks["curves"]
    traces = curves_figure(curves).data
    assert traces[0].y[0] == traces[1].y[0]
    assert traces[2].y[0] == traces[3].y[0]
    assert traces[0].x[-1] < traces[2].x[0]
