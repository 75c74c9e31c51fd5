"""The pages in a real Chromium, through the real Voilà, on a desk that really traded."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import nbformat
import psutil
import pytest

from tests.browser.desk import IDLE_SECONDS, LookedAtDesk, open_looked_at_desk
from tests.conftest import require
from tests.desks import load_equity
from tests.strategy.sources import REVERSAL
from tests.views.books import add_run
from tradelib.candles.files import CandleFile
from tradelib.kernels.servers import load_servers
from tradelib.research.samples import random_candles
from tradelib.services.definitions import dashboard_path
from tradelib.settings import PROJECT
from tradelib.strategy.own import Source, save_source
from tradelib.trading.accounts import load_balances
from tradelib.trading.bots import load_bots
from tradelib.trading.halts import halt_trading, resume_trading
from tradelib.trading.orders import OrderStatus, load_fills, load_orders
from tradelib.trading.positions import load_position
from tradelib.trading.promoting import Proposal, promote
from tradelib.trading.runs import load_run, load_runs
from tradelib.views.links import page_url, record_url

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# Voilà shows errors as it shows what was written to stderr; a page should have neither.
ERROR_OUTPUT = '[data-mime-type="application/vnd.jupyter.stderr"]'
# Voilà asks a CDN for icons that the desk's pages do not use.
ICONS = re.compile(r"^https://cdn\.jsdelivr\.net/npm/@fortawesome/")
PATIENCE = 90  # seconds; a page's kernel imports for a few, on a busy machine for many


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LookedAtDesk]:
    require(CHROMIUM, "Chromium is not installed")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("DESK_")]:
            patch.delenv(name)
        with open_looked_at_desk(tmp_path_factory.mktemp("desk")) as opened:
            yield opened


class Visitor:
    """A person with a browser that has no way out of this machine."""

    def __init__(self, context, desk: LookedAtDesk) -> None:
        self.context, self.desk = context, desk
        self.voila = desk.voila
        self.strayed: list[str] = []
        context.route(lambda url: not url.startswith(self.voila.url), self._refuse)

    def _refuse(self, route) -> None:
        if not ICONS.match(route.request.url):
            self.strayed.append(route.request.url)
        route.abort()

    def open(self, path: str):
        """The page, once it shows something of ours."""
        page = self.context.new_page()
        page.goto(self.voila.address(path), timeout=PATIENCE * 1000)
        page.wait_for_selector(f".nd, {ERROR_OUTPUT}", timeout=PATIENCE * 1000)
        assert_no_error(page)
        return page


@pytest.fixture
def visitor(desk: LookedAtDesk) -> Iterator[Visitor]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(viewport={"width": 1400, "height": 1900})
        visitor = Visitor(context, desk)
        yield visitor
        assert visitor.strayed == []
        browser.close()


def run_cycle(desk: LookedAtDesk) -> None:
    """In a thread of its own, since the browser's driver keeps an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(desk.run_cycle).result()


def keep_screenshot(page, name: str) -> None:
    folder = Path(os.environ.get("DESK_SCREENSHOTS") or PROJECT / ".ci" / "out")
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")


def shown(page, name: str) -> str:
    """The exact value behind a figure on the page."""
    return page.get_attribute(f'[data-testid="{name}"]', "data-value")


def rows(page, name: str) -> list[list[str]]:
    """The texts of a table on the page."""
    return page.eval_on_selector_all(
        f'[data-testid="{name}"] tbody tr',
        "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))",
    )


def wait_until(condition: Callable[[], bool], page, what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:g} s"
        page.wait_for_timeout(100)


def assert_no_error(page) -> None:
    assert page.locator(ERROR_OUTPUT).all_inner_texts() == []


def assert_portfolio_equals_ledger(page, desk: LookedAtDesk) -> None:
    ledger, venue = desk.trading.ledger, desk.trading.market.venue
    newest = load_equity(ledger, venue)[-1]
    quote = newest.quote.lower()
    assert Decimal(shown(page, f"{venue}-equity-{quote}")) == newest.equity
    assert Decimal(shown(page, f"{venue}-cash-{quote}")) == newest.cash
    positions = {bot.name: load_position(ledger, bot.name, bot.symbol) for bot in load_bots(ledger)}
    amounts = {row[0]: number(row[3]) for row in rows(page, "positions")}
    assert amounts == {name: position.amount for name, position in positions.items()}
    booked = {row[1]: number(row[2]) for row in rows(page, "balances")}
    assert booked == {b.asset: b.booked for b in load_balances(ledger, venue)}
    fills = load_fills(ledger, limit=20)[::-1]
    assert [row[7] for row in rows(page, "fills")] == [fill.trade_id for fill in fills]


def number(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def test_the_portfolio_equals_the_ledger_and_follows_it_without_a_reload(
    desk: LookedAtDesk, visitor: Visitor
) -> None:
    page = visitor.open(dashboard_path("portfolio"))
    page.wait_for_selector(".js-plotly-plot .main-svg", timeout=PATIENCE * 1000)
    assert_portfolio_equals_ledger(page, desk)
    page.evaluate("window.neverReloaded = true")

    run_cycle(desk)
    ledger, venue = desk.trading.ledger, desk.trading.market.venue
    curve = load_equity(ledger, venue)
    figure = f"{venue}-equity-{curve[-1].quote.lower()}"
    wait_until(lambda: Decimal(shown(page, figure)) == curve[-1].equity, page, "the new equity")
    assert_portfolio_equals_ledger(page, desk)
    drawn = "document.querySelector('.js-plotly-plot').data[0].y.length"
    wait_until(lambda: page.evaluate(drawn) == len(curve), page, "the curve's new point")
    assert page.evaluate("window.neverReloaded")
    assert_no_error(page)
    keep_screenshot(page, "portfolio")


def test_operations_tell_of_runs_services_and_a_halt_as_it_is_set(
    desk: LookedAtDesk, visitor: Visitor
) -> None:
    page = visitor.open(dashboard_path("operations"))
    page.wait_for_selector(".js-plotly-plot .main-svg", timeout=PATIENCE * 1000)
    assert [row[:3] for row in rows(page, "services")] == [["voila", "up", visitor.voila.url]]
    assert visitor.voila.token not in page.content()
    assert len(rows(page, "runs")) == len(load_runs(desk.trading.ledger, limit=30))
    assert {row[3] for row in rows(page, "runs")} == {"succeeded"}
    assert shown(page, "operations-open-incidents") == "0"
    assert {row[-1] for row in rows(page, "candles")} == {"yes"}
    keep_screenshot(page, "operations")

    halt_trading(desk.trading.ledger, "a person looked worried")
    try:
        page.wait_for_selector('[data-testid="halt"].stop', timeout=PATIENCE * 1000)
        assert "a person looked worried" in page.inner_text('[data-testid="halt"]')
        keep_screenshot(page, "operations-halted")
    finally:
        resume_trading(desk.trading.ledger)
    page.wait_for_selector('[data-testid="halt"].fine', timeout=PATIENCE * 1000)
    assert_no_error(page)


def test_from_a_fill_one_click_opens_its_order_and_one_more_its_decision(
    desk: LookedAtDesk, visitor: Visitor
) -> None:
    portfolio = visitor.open(dashboard_path("portfolio"))
    with visitor.context.expect_page() as opening:
        portfolio.click('[data-testid="fills"] tbody tr:last-child [title^="nd-"] a')
    page = opening.value
    page.wait_for_selector('[data-testid="fills"]', timeout=PATIENCE * 1000)

    order = load_orders(desk.trading.ledger)[-1]
    assert "opened again, succeeded" in page.inner_text('[data-testid="run-title"]')
    assert rows(page, "order")[0][9] == order.status.replace("_", " ").lower()
    assert len(rows(page, "fills")) == len(
        load_fills(desk.trading.ledger, client_id=order.client_id)
    )
    assert_no_error(page)
    keep_screenshot(page, "execute-orders")

    with visitor.context.expect_page() as opening:
        page.click('[data-testid="decision"] [title^="d-"] a')
    decision = opening.value
    decision.wait_for_selector(".js-plotly-plot .main-svg", timeout=PATIENCE * 1000)
    assert order.decision in decision.content()
    assert_no_error(decision)
    keep_screenshot(decision, "generate-signals")


def test_a_run_is_found_by_filters_and_pages_and_opens_with_its_record(
    desk: LookedAtDesk, visitor: Visitor
) -> None:
    ledger = desk.trading.ledger
    for _ in range(60):  # long before the others
        add_run(ledger, "live/10_fetch_candles", bot="ancient")
    newest = [run.id for run in load_runs(ledger)]
    older = [run.id for run in load_runs(ledger, before=load_runs(ledger)[-1])]
    page = visitor.open(dashboard_path("runs"))
    wait_until(lambda: picks(page) == newest, page, "the newest runs")
    page.click("button:has-text('Older')")
    wait_until(lambda: picks(page) == older, page, "the older runs")
    page.click("button:has-text('Newer')")
    wait_until(lambda: picks(page) == newest, page, "the newest runs again")

    choose(page, "Bot", "ancient")
    wait_until(lambda: {row[2] for row in rows(page, "runs")} == {"ancient"}, page, "one bot's")
    choose(page, "Notebook", "20_generate_signals")
    page.wait_for_selector("text=No run meets these filters", timeout=PATIENCE * 1000)
    choose(page, "Bot", "all")
    signals = [run.id for run in load_runs(ledger, notebook="live/20_generate_signals")]
    wait_until(lambda: picks(page) == signals, page, "the signals")
    choose(page, "Outcome", "succeeded")
    wait_until(lambda: picks(page) == signals, page, "the signals that succeeded")

    run = load_run(ledger, signals[0])
    page.click('[data-testid="runs"] tbody tr:first-child td:nth-child(2)')
    page.wait_for_selector('[data-testid="record"]', timeout=PATIENCE * 1000)
    record = page.inner_text('[data-testid="record"]')
    assert {run.id, run.notebook_hash, run.lock_hash} <= set(record.split())
    bars = ".js-plotly-plot .bars .point"
    wait_until(lambda: page.locator(bars).count() == len(run.timings), page, "the cells' bars")
    assert picked(page) == [run.id]
    wait_until(lambda: fits(page), page, "the charts' fit")
    assert chosen(page) == ["all", "20_generate_signals", "succeeded"]
    keep_screenshot(page, "runs")

    with visitor.context.expect_page() as opening:
        page.click('[data-testid="runs"] tbody tr:first-child a:has-text("open")')
    opened = opening.value
    opened.wait_for_selector(".js-plotly-plot .main-svg", timeout=PATIENCE * 1000)
    assert "opened again, succeeded" in opened.inner_text('[data-testid="run-title"]')
    assert_no_error(opened)
    assert_no_error(page)


def test_a_narrow_window_shows_a_record_that_an_address_names(
    desk: LookedAtDesk, visitor: Visitor
) -> None:
    run = load_runs(desk.trading.ledger, notebook="live/30_execute_orders")[0]
    page = visitor.open(record_url(run.id))
    page.set_viewport_size({"width": 800, "height": 1900})
    page.wait_for_selector(".js-plotly-plot .main-svg", timeout=PATIENCE * 1000)
    assert run.id in page.inner_text('[data-testid="record"]')
    wait_until(lambda: fits(page), page, "the narrow page")
    keep_screenshot(page, "runs-narrow")
    page.click('[data-testid="nav"] a:has-text("operations")')
    page.wait_for_selector('[data-testid="services"]', timeout=PATIENCE * 1000)
    assert_no_error(page)


def picks(page, table: str = "runs") -> list[str]:
    """What a table lists to be chosen."""
    chosen = f'[data-testid="{table}"] [data-pick]'
    return page.eval_on_selector_all(chosen, "all => all.map(one => one.dataset.pick)")


def picked(page, table: str = "runs") -> list[str]:
    chosen = f'[data-testid="{table}"] [aria-pressed="true"]'
    return page.eval_on_selector_all(chosen, "all => all.map(one => one.dataset.pick)")


def choose(page, name: str, label: str) -> None:
    page.locator(f'.widget-dropdown:has-text("{name}") select').select_option(label=label)


def chosen(page) -> list[str]:
    """What the filters show."""
    return page.eval_on_selector_all(
        ".widget-dropdown select",
        "all => all.map(one => one.selectedOptions[0] ? one.selectedOptions[0].text : '')",
    )


def fits(page) -> bool:
    """Whether nothing but what scrolls by itself is wider than the window, and charts are drawn
    as wide as their place."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.nd > *, .js-plotly-plot')].every((one) => {
            const box = one.getBoundingClientRect(), drawn = one.querySelector('.main-svg');
            return box.right <= window.innerWidth
                && (!drawn || Math.abs(drawn.clientWidth - one.clientWidth) <= 2);
        })"""
    )


def test_from_a_bot_one_click_shows_the_evidence_it_was_promoted_on(
    desk: LookedAtDesk, visitor: Visitor
) -> None:
    settings, ledger = desk.trading.settings, desk.trading.ledger
    first = load_bots(ledger)[0]
    file = save_source(settings.strategies, Source("idea", REVERSAL))
    sample = CandleFile(Path("walk.csv"), first.symbol, "1h", random_candles(900, seed=1))
    tried = {"window": [5, 10]}
    proposal = Proposal("promoted", str(file), sample, first.venue, tried=tried)
    promote(settings, ledger, proposal, progress=False)
    portfolio = visitor.open(dashboard_path("portfolio"))
    with visitor.context.expect_page() as opening:
        portfolio.click('[data-testid="positions"] a:has-text("promoted")')
    page = opening.value
    page.wait_for_selector('[data-testid="source"]', timeout=PATIENCE * 1000)
    page.wait_for_selector(".js-plotly-plot .main-svg", timeout=PATIENCE * 1000)
    assert "bands.std()" in page.inner_text('[data-testid="source"]')
    assert picks(page, "promotions") == picked(page, "promotions")
    wait_until(lambda: fits(page), page, "the charts' fit")
    assert_no_error(page)
    keep_screenshot(page, "promotions")


@pytest.mark.parametrize("notebook", ["10_fetch_candles", "40_reconcile_orders"])
def test_the_other_results_open_again_and_change_nothing(
    desk: LookedAtDesk, visitor: Visitor, notebook: str
) -> None:
    before = [(o.client_id, o.status) for o in load_orders(desk.trading.ledger)]
    path = sorted(desk.trading.settings.reports.rglob(f"{notebook}.ipynb"))[-1]
    page = visitor.open(page_url(str(path.relative_to(desk.trading.settings.reports))))
    name = {"10_fetch_candles": "fetch", "40_reconcile_orders": "balances"}[notebook]
    page.wait_for_selector(f'[data-testid="{name}"]', timeout=PATIENCE * 1000)
    page.wait_for_selector("text=Recorded result", timeout=PATIENCE * 1000)
    assert "opened again, succeeded" in page.inner_text('[data-testid="run-title"]')
    assert_no_error(page)
    assert [(o.client_id, o.status) for o in load_orders(desk.trading.ledger)] == before
    assert OrderStatus.FILLED in {status for _, status in before}
    keep_screenshot(page, notebook[3:].replace("_", "-"))


def test_an_open_page_keeps_its_kernel_and_a_closed_one_leaves_none_behind(
    desk: LookedAtDesk, visitor: Visitor
) -> None:
    before = kernels(visitor)
    page = visitor.open(dashboard_path("portfolio"))
    (opened,) = kernels(visitor) - before
    page.wait_for_timeout(1000 * (IDLE_SECONDS + 10))
    assert opened in kernels(visitor)
    other = visitor.context.new_page()
    page.close()  # as a browser that crashes: nobody says goodbye
    wait_until(lambda: opened not in kernels(visitor), other, "the kernel's end")


def kernels(visitor: Visitor) -> set[int]:
    """Process ids of Voilà's kernels, which are not its children but a fork server's."""
    servers = [server for server in load_servers() if "vectorbt" in server.preload]
    return {pid for server in servers for pid in server.kernels}


def test_an_error_on_a_page_would_be_noticed(desk: LookedAtDesk, visitor: Visitor) -> None:
    page = desk.trading.settings.reports / "broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), page)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        visitor.open(page_url("broken.ipynb"))


def test_a_page_whose_kernel_hangs_says_that_it_is_not_current(
    desk: LookedAtDesk, visitor: Visitor
) -> None:
    before = kernels(visitor)
    page = visitor.open(dashboard_path("portfolio"))
    page.wait_for_selector("text=Looked at", timeout=PATIENCE * 1000)
    (kernel,) = map(psutil.Process, kernels(visitor) - before)
    kernel.suspend()
    try:
        page.wait_for_selector("text=NOT CURRENT", timeout=PATIENCE * 1000)
    finally:
        kernel.resume()
    page.wait_for_selector("text=Looked at", timeout=PATIENCE * 1000)
