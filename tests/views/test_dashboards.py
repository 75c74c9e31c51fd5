"""The dashboards as notebooks: they end without a browser, and load nothing they don't need."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.pages import execute_page
from tests.views.books import add_story, open_books
from tradelib.services.definitions import DASHBOARDS
from tradelib.settings import NOTEBOOKS, PROJECT, DeskSettings
from tradelib.views.links import navigation

# ccxt costs half a second in each kernel; nbformat's checks as much.
HEAVY = "('ccxt', 'nbformat', 'prefect', 'vectorbt')"


def run(name: str) -> str:
    """Execute a dashboard; its outputs and the state of its widgets as text."""
    notebook = nbformat.read(NOTEBOOKS / "dashboards" / f"{name}.ipynb", as_version=4)
    execute_page(notebook, folder=PROJECT)
    return nbformat.writes(notebook)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_ends_without_a_browser(home: Path, name: str) -> None:
    settings = DeskSettings(home=home)
    add_story(settings, open_books(settings))
    page = run(name)
    assert "Trading is active" in page


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_of_a_desk_that_never_ran_says_how_to_start_it(home: Path, name: str) -> None:
    assert "start the desk with `desk up`" in run(name)


def test_every_dashboard_is_linked_from_every_other() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("dashboards/*.ipynb")} == set(DASHBOARDS)
    for here in DASHBOARDS:
        links = navigation(here).text
        others = [name for name in DASHBOARDS if name != here]
        assert re.findall(r'href="/voila/render/dashboards/(\w+).ipynb"', links) == others


@pytest.mark.parametrize("page", [*DASHBOARDS, "live"])
def test_a_page_loads_nothing_that_only_trading_needs(page: str) -> None:
    code = f"import sys, tradelib.views.{page}; print([m for m in {HEAVY} if m in sys.modules])"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "[]"
