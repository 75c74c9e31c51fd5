"""What a cycle does after a step that did not end well: nothing that leans on it."""

import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from sqlalchemy import delete, select

from tests.desks import PaperDesk, paper_desk
from tradelib.notebooks import runner
from tradelib.notebooks.cycle import EXECUTE, FETCH, RECONCILE, SIGNALS
from tradelib.settings import NOTEBOOKS
from tradelib.trading import tables
from tradelib.trading.orders import load_orders
from tradelib.trading.runs import Outcome, load_runs

DIE = "import os; os.kill(os.getpid(), 9)"
FLOOD = "for _ in range(100): print('x' * 100_000)"
HUNGER = "hoard = []\nwhile True: hoard.append(b'x' * 10_000_000)"


@pytest.fixture
def desk(home):
    """A desk with one bot, small limits, and a candle to decide on."""
    with paper_desk(home) as desk:
        file = home / "desk.toml"
        limits = "notebook_timeout = 15\nnotebook_output_mb = 1\nnotebook_memory_mb = 700\n"
        file.write_text(limits + file.read_text())
        with desk.ledger.write() as books:
            books.execute(delete(tables.bots).where(tables.bots.c.name != desk.bot.name))
        desk.reconcile()
        yield desk


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory):
    """The home of a Prefect of the test's own, in this process."""
    folder = tmp_path_factory.mktemp("prefect")
    os.environ["PREFECT_HOME"] = str(folder)
    from prefect.settings import get_current_settings
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        url = get_current_settings().server.database.connection_url.get_secret_value()
        yield Path(url.partition(":///")[2]).parent


@pytest.fixture
def append(tmp_path, monkeypatch):
    """Append a cell to one of the live notebooks."""
    folder = tmp_path / "notebooks"
    (folder / "live").mkdir(parents=True)
    for path in (NOTEBOOKS / "live").glob("*.ipynb"):
        (folder / "live" / path.name).write_text(path.read_text())
    monkeypatch.setattr(runner, "NOTEBOOKS", folder)

    def add(notebook: str, cell: str) -> None:
        path = folder / f"{notebook}.ipynb"
        page = nbformat.read(path, as_version=4)
        page.cells.append(new_code_cell(cell))
        nbformat.write(page, path)

    return add


def run_cycle(desk: PaperDesk):
    from flows.trading import trading_cycle

    state = trading_cycle(str(desk.settings.home), return_state=True)
    return state, {(run.notebook, run.outcome) for run in load_runs(desk.ledger)}


def decisions(desk: PaperDesk) -> int:
    with desk.ledger.read() as books:
        return len(books.execute(select(tables.decisions.c.id)).all())


# Wants to buy whatever the strategy says.
BUY = """from tradelib.notebooks.results import record_result
record_result({"action": "BUY", "decision": "none"})
"""


def test_a_signal_that_ended_well_is_executed(desk, prefect_home, append):
    """What the others below must not do."""
    append(SIGNALS, BUY)
    _, runs = run_cycle(desk)
    assert (SIGNALS, Outcome.SUCCEEDED) in runs
    assert EXECUTE in {notebook for notebook, _ in runs}


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (DIE, "its kernel was killed by SIGKILL"),
        (FLOOD, "it printed more than 1 MB"),
        (HUNGER, "it needed more than 700 MB"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_signal_that_failed_is_not_executed(desk, prefect_home, append, cell, reason):
    append(SIGNALS, f"{BUY}\n{cell}")
    state, runs = run_cycle(desk)
    assert state.is_failed()
    assert reason in state.message
    assert runs == {
        (FETCH, Outcome.SUCCEEDED),
        (SIGNALS, Outcome.FAILED),
        (RECONCILE, Outcome.SUCCEEDED),
    }
    assert load_orders(desk.ledger) == []


@pytest.mark.parametrize(
    ("cell", "reason"),
    [(DIE, "its kernel was killed by SIGKILL"), (FLOOD, "it printed more than 1 MB")],
)
def test_nothing_is_decided_after_a_fetch_that_failed(desk, prefect_home, append, cell, reason):
    append(FETCH, cell)
    state, runs = run_cycle(desk)
    assert reason in state.message
    assert runs == {(FETCH, Outcome.FAILED), (RECONCILE, Outcome.SUCCEEDED)}
    assert decisions(desk) == 0


def test_prefect_is_told_no_secret(desk, prefect_home, append):
    secret = (desk.settings.home / "keys" / "paper.toml").read_text().split('"')[3]
    key_file = desk.settings.home / "keys" / "paper.toml"
    append(FETCH, f"raise ValueError('told to all:', open({str(key_file)!r}).read())")
    state, _ = run_cycle(desk)
    assert "told to all" in state.message
    assert secret not in state.message
    kept = [file for file in prefect_home.rglob("*") if file.is_file()]
    assert any(b"told to all" in file.read_bytes() for file in kept)
    assert [file.name for file in kept if secret.encode() in file.read_bytes()] == []
