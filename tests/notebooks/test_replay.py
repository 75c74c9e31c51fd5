"""A run replayed gives what it gave, and cannot do anything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from sqlalchemy import select

from tests.desks import PaperDesk, desk_command, paper_desk
from tests.replays import entry_file
from tradelib.candles.partitions import read_month, write_month
from tradelib.candles.store import CandleRead, CandleStore
from tradelib.clock import utc_now
from tradelib.notebooks import replay, runner
from tradelib.notebooks.cycle import EXECUTE, FETCH, RECONCILE, SIGNALS
from tradelib.notebooks.replay import Verdict, replay_run, replay_runs
from tradelib.notebooks.runner import run_notebook
from tradelib.research.samples import random_candles
from tradelib.settings import NOTEBOOKS, DeskSettings, load_settings
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, open_ledger
from tradelib.trading.runs import Outcome, Run, load_runs


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaperDesk]:
    """A desk after four cycles in which a bot bought."""
    home = tmp_path_factory.mktemp("desk")
    with paper_desk(home, files=[entry_file(home)]) as desk:
        desk.reconcile()
        desk.run_cycle()
        for _ in range(3):
            desk.step()
            desk.run_cycle()
        yield desk


COMPUTED_PARTS = ("computed", "inputs")


def newest(desk: PaperDesk, notebook: str) -> Run:
    return next(run for run in load_runs(desk.ledger) if run.notebook == notebook)


def contents(ledger: Ledger) -> dict[str, list]:
    with ledger.read() as books:
        return {t.name: list(books.execute(select(t))) for t in tables.metadata.sorted_tables}


def test_every_run_of_a_session_comes_out_again(traded: PaperDesk) -> None:
    before = contents(traded.ledger)
    requests = traded.paper.control("status")["requests"]
    found = list(replay_runs(traded.settings, load_runs(traded.ledger)))
    told = {(one.run.notebook, one.verdict) for one in found}
    assert told == {
        (FETCH, Verdict.TALKED),
        (SIGNALS, Verdict.SAME),
        (EXECUTE, Verdict.SAME),
        (RECONCILE, Verdict.TALKED),
    }
    assert all(one.differences == () for one in found)
    assert contents(traded.ledger) == before
    assert traded.paper.control("status")["requests"] == requests
    assert not list(traded.settings.reports.rglob(replay.PAGE))


@contextmanager
def altered_candle(desk: PaperDesk, row: int) -> Iterator[pd.Timestamp]:
    """A stored candle whose close is another, behind the store's back; its open time."""
    file = sorted(desk.settings.candles.rglob("*.parquet"))[-1]
    whole, frame = file.read_bytes(), read_month(file)
    frame.iloc[row, frame.columns.get_loc("close")] += 0.01
    write_month(file, frame)
    try:
        yield frame.index[row]
    finally:
        file.write_bytes(whole)
        for page in desk.settings.reports.rglob(replay.PAGE):
            page.unlink()


@pytest.mark.parametrize("row", [-1, -2, -3])
def test_exactly_the_runs_that_read_an_altered_candle_differ(traded: PaperDesk, row: int) -> None:
    runs = [run for run in load_runs(traded.ledger) if run.candles]
    with altered_candle(traded, row) as time:
        found = {one.run.id: one for one in replay_runs(traded.settings, runs)}
    readers = {run.id for run in runs if reads(run, time)}
    assert {name for name, one in found.items() if one.verdict is Verdict.DIFFERS} == readers
    assert 0 < len(readers) < len(runs)
    for name in readers:
        assert found[name].differences[0].name.startswith("candles of BTC/USD")
        assert found[name].causes[0] == "candles were altered in the store"


def reads(run: Run, time: pd.Timestamp) -> bool:
    return any(r.first <= time <= r.last for r in map(CandleRead.from_json, run.candles))


def test_an_altered_close_changes_the_score_and_both_are_named(traded: PaperDesk) -> None:
    run = newest(traded, SIGNALS)
    with altered_candle(traded, -1):
        found = replay_run(traded.settings, run)
        assert found.page == traded.settings.reports / Path(run.page).parent / replay.PAGE
        assert found.page.exists()
    names = [difference.name for difference in found.differences]
    assert {"candles_hash", "score", "price"} <= set(names)
    assert names.index("candles_hash") < names.index("score")


def test_a_recorded_order_that_was_not_intended_is_named(traded: PaperDesk) -> None:
    run = newest(traded, EXECUTE)
    told = json.loads(json.dumps(run.result))
    told["computed"]["amount"] = "1.00000001"
    found = replay_run(traded.settings, replace(run, result=told))
    (difference,) = found.differences
    assert (difference.name, difference.recorded) == ("amount", "1.00000001")
    assert difference.replayed == run.result["computed"]["amount"]
    found.page.unlink()


def test_a_changed_notebook_is_told_as_a_cause(
    traded: PaperDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = nbformat.read(NOTEBOOKS / f"{SIGNALS}.ipynb", as_version=4)
    page.cells[
        -1
    ].source = 'told = signal.to_json()\ntold["computed"]["score"] = "0.5"\ndesk.record(told)'
    (tmp_path / "live").mkdir()
    nbformat.write(page, tmp_path / f"{SIGNALS}.ipynb")
    monkeypatch.setattr(replay, "NOTEBOOKS", tmp_path)
    found = replay_run(traded.settings, newest(traded, SIGNALS))
    assert [difference.name for difference in found.differences] == ["score"]
    assert "the notebook was changed" in found.causes
    found.page.unlink()


@pytest.fixture
def settings(home: Path) -> DeskSettings:
    return load_settings(home)


@pytest.fixture
def ledger(settings: DeskSettings) -> Iterator[Ledger]:
    with_schema = open_ledger(settings, migrate=True)
    yield with_schema
    with_schema.close()


@pytest.fixture
def run_of(
    settings: DeskSettings, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Run]:
    """Runs a notebook of one cell, which records what it calls `told`."""
    for module in (runner, replay):
        monkeypatch.setattr(module, "NOTEBOOKS", tmp_path)

    def run(cell: str, **more: object) -> Run:
        source = 'run: str = ""\nlimit: int = 3'
        parameters = new_code_cell(source, metadata={"tags": ["parameters"]})
        start = "import os, random\nfrom tradelib.notebooks import open_desk\ndesk = open_desk(run)"
        cells = [parameters, *map(new_code_cell, (start, cell, "desk.record({'told': told})"))]
        page = new_notebook(cells=cells)
        page.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
        nbformat.write(page, tmp_path / "page.ipynb")
        return run_notebook(settings, ledger, "page", {}, **more)

    return run


def test_the_clock_and_chance_of_a_replay_are_the_runs(settings, run_of) -> None:
    run = run_of(
        "from tradelib.clock import utc_now\n"
        "told = [random.random(), float(desk.rng.normal()), utc_now() >= desk.run.started_at]"
    )
    assert replay_run(settings, run).verdict is Verdict.SAME


def test_chance_without_a_seed_is_told_as_such(settings, run_of, monkeypatch) -> None:
    run = run_of("told = random.SystemRandom().random()")
    here = replay.code_version()
    run = replace(run, git_commit=here.git_commit, git_clean=1)
    monkeypatch.setattr(replay, "code_version", lambda: replace(here, git_clean=1))
    found = replay_run(settings, run)
    assert [difference.name for difference in found.differences] == ["told"]
    assert found.causes[0].startswith("nothing that the record names has changed")


ACTS = {
    "network": "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
    "name": "import socket; socket.getaddrinfo('example.org', 443)",
    "venue": "from tradelib.venue import open_venue; open_venue(desk.settings, 'v').fetch_time()",
    "program": "import subprocess; subprocess.run(['true'])",
    "shell": "os.system('true')",
    "file": "(desk.settings.home / 'file').write_text('x')",
    "removal": "os.remove(desk.settings.home / 'desk.toml')",
    "rename": "os.rename(desk.settings.home / 'desk.toml', desk.settings.home / 'other.toml')",
    "folder": "import shutil; shutil.rmtree(desk.settings.home / 'kept')",
    "open folder": "os.remove('desk.toml', dir_fd=os.open(desk.settings.home, os.O_RDONLY))",
    "mode": "os.chmod(desk.settings.home / 'desk.toml', 0o600)",
    "page": "(desk.settings.reports / 'file').write_text('x')",
    "database": "import sqlite3; sqlite3.connect(desk.settings.home / 'ledger.sqlite')",
    "ledger": "from tradelib.trading.halts import halt_trading; halt_trading(desk.ledger, 'x')",
    "candles": "import pandas as pd; from tradelib.research.samples import random_candles; "
    "desk.store.append('v', 'A/B', '1h', random_candles(3, seed=1), as_of=desk.run.started_at)",
}  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
def test_a_replay_cannot(settings, ledger, run_of, act: str) -> None:
    (settings.home / "desk.toml").write_text('[venues.v]\nrest_url = "http://127.0.0.1:9"\n')
    (settings.home / "kept").mkdir()
    (settings.home / "kept" / "file").touch()
    run = run_of(f"told = 1\nif 'DESK_REPLAY' in os.environ:\n    {ACTS[act]}")
    before = contents(ledger)
    found = replay_run(settings, run)
    assert found.verdict is Verdict.FAILED
    words = "This page may read the ledger" if act == "ledger" else "A replay "
    assert words in found.causes[0]
    assert contents(ledger) == before
    assert {path.name for path in settings.home.glob("*")} >= {"desk.toml", "ledger.sqlite"}
    assert not (settings.home / "file").exists()
    assert (settings.home / "kept" / "file").exists()


def test_a_replays_kernel_has_no_keys_and_no_token(settings, run_of, monkeypatch) -> None:
    monkeypatch.setenv("VENUE_KEY", "k")
    run = run_of("told = 1\nif 'DESK_REPLAY' in os.environ:\n    told = sorted(os.environ)")
    (difference,) = replay_run(settings, run).differences
    assert "VENUE_KEY" not in difference.replayed
    assert "DESK_RUN_TOKEN" not in difference.replayed


def test_a_run_that_failed_is_not_held_against_anything(settings, run_of) -> None:
    run = replace(run_of("told = 1"), outcome=Outcome.FAILED, reason="it was late")
    found = replay_run(settings, run)
    assert (found.verdict, found.causes) == (Verdict.SKIPPED, ("the run failed: it was late",))


def test_the_command_replays_one_run_or_a_span_of_them(traded: PaperDesk) -> None:
    home = traded.settings.home
    run = newest(traded, SIGNALS)
    one = desk_command("replay", run.id, home=home)
    assert (one.returncode, "1 SAME" in one.stdout) == (0, True)
    told = json.loads(desk_command("replay", "--since", "7d", "--json", home=home).stdout)
    assert len(told) == len(load_runs(traded.ledger, limit=None))
    assert {one["verdict"] for one in told} == {"SAME", "TALKED"}


def test_the_command_tells_what_differs_and_ends_so(traded: PaperDesk) -> None:
    home, run = traded.settings.home, newest(traded, SIGNALS)
    with altered_candle(traded, -1):
        told = desk_command("replay", run.id, home=home)
    assert told.returncode == 1
    assert "candles of BTC/USD 1h" in told.stdout
    assert "candles were altered in the store" in told.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Name one run, or give --since"),
        (("r", "--since", "7d"), "Name one run, or give --since"),
        (("nothing",), "There is no run 'nothing'"),
        (("--since", "soon"), "--since 'soon' is no span of time"),
    ],
)
def test_the_command_says_what_it_cannot_do(traded: PaperDesk, words, said) -> None:
    told = desk_command("replay", *words, home=traded.settings.home)
    assert told.returncode == 2
    assert said in told.stderr


def test_no_runs_in_a_span_are_told_in_a_sentence(traded: PaperDesk) -> None:
    assert load_runs(traded.ledger, since=utc_now()) == []


def test_a_run_from_before_such_records_is_not_told_to_differ(traded: PaperDesk) -> None:
    for notebook in (FETCH, EXECUTE, RECONCILE):
        run = newest(traded, notebook)
        told = {name: value for name, value in run.result.items() if name not in COMPUTED_PARTS}
        old = replace(run, result=told, python=None, candles=None)
        assert replay_run(traded.settings, old).verdict is Verdict.SKIPPED


def test_candles_that_cannot_be_read_fail_one_replay_and_no_other(traded: PaperDesk) -> None:
    runs = [newest(traded, SIGNALS), newest(traded, RECONCILE)]
    file = sorted(traded.settings.candles.rglob("*.parquet"))[-1]
    whole = file.read_bytes()
    file.write_bytes(b"torn")
    try:
        found = list(replay_runs(traded.settings, runs))
    finally:
        file.write_bytes(whole)
    assert [one.verdict for one in found] == [Verdict.FAILED, Verdict.TALKED]
    assert "cannot be read" in found[0].causes[0]


def test_a_page_sees_no_candle_that_came_after_its_run(settings, ledger, run_of) -> None:
    early = datetime(2026, 1, 1, tzinfo=UTC)
    candles = random_candles(30, seed=1, start=early)
    store = CandleStore(settings.candles)
    store.append("v", "A/B", "1h", candles.iloc[:10], as_of=early + timedelta(days=9))
    run = run_of("told = len(desk.store.load('v', 'A/B', '1h'))", as_of=early + timedelta(hours=10))
    assert run.result == {"told": 10}
    store.append("v", "A/B", "1h", candles, as_of=early + timedelta(days=9))
    assert replay_run(settings, run).verdict is Verdict.SAME


def test_numbers_that_are_not_finite_are_told_apart(settings, run_of) -> None:
    run = run_of("told = [float('nan'), float('inf'), -float('inf')]")
    assert run.result == {"told": ["nan", "inf", "-inf"]}
    assert replay_run(settings, run).verdict is Verdict.SAME
