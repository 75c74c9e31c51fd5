"""A run is a record: what ran, on what, as long as it could, and how it ended."""

import json
import platform
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest

from tradelib.candles.schema import candles_hash
from tradelib.candles.store import CandleStore
from tradelib.clock import format_time
from tradelib.errors import InvalidInput, RunFailed
from tradelib.notebooks import runner
from tradelib.notebooks.parameters import declared_parameters
from tradelib.notebooks.runner import run_notebook
from tradelib.research.samples import random_candles
from tradelib.trading.runs import Outcome, load_runs

RECORD = "from tradelib.notebooks.results import record_result\nrecord_result({'limit': limit})"


def test_a_run_records_its_result_page_and_provenance(settings, ledger, notebooks):
    run = run_notebook(settings, ledger, notebooks("page", RECORD), {"limit": 7}, bot="b")
    assert (run.outcome, run.result) == (Outcome.SUCCEEDED, {"limit": 7})
    assert len(run.notebook_hash) == 64
    assert run.parameters == {"limit": 7}
    assert sum(run.timings.values()) > 0
    page = settings.reports / run.page
    assert page.parent.name == run.id
    assert run.id in page.read_text()
    assert (run.kernel, run.kernel_kind) == ("notedesk-live", "warm")
    assert run.python == platform.python_version()


def test_a_page_tells_what_it_runs_on(settings, ledger, notebooks):
    run = run_notebook(settings, ledger, notebooks("page", RECORD), {"limit": 7}, bot="b")
    told = nbformat.read(settings.reports / run.page, as_version=4).metadata["notedesk"]
    assert told == {**run.provenance, "kernel_kind": "warm"}
    assert told["started_at"] == format_time(run.started_at)
    assert "token_hash" not in told


RANDOM = """from tradelib.notebooks import open_desk
import random, numpy
desk = open_desk(run)
desk.record({"drawn": [random.random(), numpy.random.rand(), desk.rng.random()]})"""


def test_a_run_draws_from_its_seed_which_derives_from_its_work(settings, ledger, notebooks):
    page = notebooks("page", RANDOM)
    first, again, other = (
        run_notebook(settings, ledger, page, {"limit": limit}) for limit in (1, 1, 2)
    )
    assert first.seed == again.seed != other.seed
    assert first.result == again.result != other.result


READING = """from tradelib.clock import parse_time
from tradelib.notebooks import open_desk
desk = open_desk(run)
for _ in range(2):
    desk.store.load("paper", "BTC/USDT", "1h", as_of=parse_time("2026-01-01T10:00:00Z"), limit=4)
desk.store.last_close("paper", "ETH/USDT", "1h")
desk.record({})"""


def test_a_run_names_the_candles_that_it_read(settings, ledger, notebooks):
    candles = random_candles(24, seed=1, start=datetime(2026, 1, 1, tzinfo=UTC))
    CandleStore(settings.candles).append(
        "paper", "BTC/USDT", "1h", candles, as_of=datetime(2026, 1, 3, tzinfo=UTC)
    )
    (read,) = run_notebook(settings, ledger, notebooks("page", READING), {}).candles
    assert read == {
        "venue": "paper",
        "symbol": "BTC/USDT",
        "timeframe": "1h",
        "first": "2026-01-01T06:00:00+00:00",
        "last": "2026-01-01T09:00:00+00:00",
        "as_of": "2026-01-01T10:00:00+00:00",
        "candles": 4,
        "hash": candles_hash(candles.iloc[6:10]),
    }


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"limt": 1}, "did you mean 'limit'"),
        ({"limit": "many"}, "must be of type int, but 'many' is str"),
        ({"limit": True}, "must be of type int"),
        ({"symbols": [1]}, "list"),
    ],
)
def test_unknown_and_ill_typed_parameters_start_nothing(
    settings, ledger, notebooks, parameters, said
):
    with pytest.raises(InvalidInput, match=said):
        run_notebook(settings, ledger, notebooks("page", RECORD), parameters)
    assert load_runs(ledger) == []


def test_an_int_is_accepted_for_a_float(settings, ledger, notebooks):
    assert run_notebook(settings, ledger, notebooks("p", RECORD), {"share": 1}).result


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["print('before')", "1 / 0"], "ZeroDivisionError"),
        (
            ["import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
            "its kernel was killed by SIGKILL, perhaps for memory",
        ),
        (["print('nothing recorded')"], "it recorded no result"),
    ],
)
def test_a_page_that_does_not_end_well_is_a_failed_run(settings, ledger, notebooks, cells, reason):
    with pytest.raises(RunFailed, match=reason):
        run_notebook(settings, ledger, notebooks("bad", *cells), {})
    (run,) = load_runs(ledger)
    assert run.outcome == Outcome.FAILED
    assert reason in run.reason


def test_a_failed_page_is_kept_as_far_as_it_got(settings, ledger, notebooks):
    with pytest.raises(RunFailed):
        run_notebook(settings, ledger, notebooks("bad", "print('so far')", "1 / 0"), {})
    assert "so far" in (settings.reports / load_runs(ledger)[0].page).read_text()


def test_a_page_that_takes_too_long_is_stopped(settings, ledger, notebooks):
    quick = settings.model_copy(update={"notebook_timeout": 3})
    with pytest.raises(RunFailed, match="longer than 3 s"):
        run_notebook(quick, ledger, notebooks("slow", "import time; time.sleep(60)"), {})


def test_the_runs_token_is_in_the_kernels_environment_and_nowhere_else(
    settings, ledger, notebooks, monkeypatch
):
    monkeypatch.setenv("EXCHANGE_SECRET", "hunter2")
    look = (
        "import os, hashlib\nfrom tradelib.notebooks.results import record_result\n"
        "token = os.environ['DESK_RUN_TOKEN']\n"
        "record_result({'hash': hashlib.sha256(token.encode()).hexdigest(), "
        "'secret': os.environ.get('EXCHANGE_SECRET'), 'run': os.environ['DESK_RUN']})"
    )
    run = run_notebook(settings, ledger, notebooks("look", look), {})
    assert run.result == {"hash": run.token_hash, "secret": None, "run": run.id}


def test_the_notebooks_hash_ignores_outputs(settings, ledger, notebooks):
    first = run_notebook(settings, ledger, notebooks("page", RECORD), {})
    path = Path(runner.NOTEBOOKS) / "page.ipynb"
    content = json.loads(path.read_text())
    content["cells"][0]["metadata"]["edited"] = True
    path.write_text(json.dumps(content))
    assert run_notebook(settings, ledger, "page", {}).notebook_hash == first.notebook_hash
    content["cells"][0]["source"] = "# Another page"
    path.write_text(json.dumps(content))
    assert run_notebook(settings, ledger, "page", {}).notebook_hash != first.notebook_hash


def test_a_file_that_is_no_notebook_is_named(settings, ledger, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "NOTEBOOKS", tmp_path)
    (tmp_path / "text.ipynb").write_text("hello")
    with pytest.raises(InvalidInput, match=r"text.ipynb is not a notebook"):
        run_notebook(settings, ledger, "text", {})
    with pytest.raises(InvalidInput, match="cannot be read"):
        run_notebook(settings, ledger, "missing", {})


def test_every_live_notebook_declares_the_run_it_belongs_to():
    from tradelib.settings import NOTEBOOKS

    for path in sorted((NOTEBOOKS / "live").glob("*.ipynb")):
        assert declared_parameters(path)["run"] == "str"


def test_a_very_long_error_is_cut_in_the_record_and_ends_the_page(settings, ledger, notebooks):
    small = settings.model_copy(update={"notebook_output_mb": 1})
    with pytest.raises(RunFailed):
        run_notebook(small, ledger, notebooks("p", "raise ValueError('x\\0' * 3_000_000)"), {})
    (run,) = load_runs(ledger)
    assert run.outcome == Outcome.FAILED
    assert len(run.reason) < 3_000
    assert "\0" not in run.reason
    assert (settings.reports / run.page).stat().st_size < 2_000_000


def test_ccxt_draws_its_nonces_from_no_seed(settings, ledger, notebooks):
    cell = """from tradelib.notebooks import open_desk
from tradelib.settings import VenueSettings
from tradelib.venue.client import make_exchange
desk = open_desk(run)
exchange = make_exchange("v", VenueSettings(), None)
desk.record({"nonces": [exchange.random_bytes(16), exchange.uuid22()]})"""
    first, second = (run_notebook(settings, ledger, notebooks("p", cell), {}) for _ in range(2))
    assert first.seed == second.seed
    assert not set(first.result["nonces"]) & set(second.result["nonces"])
