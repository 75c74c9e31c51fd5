"""A user's strategy in kernels: written in a cell, promoted from a page, traded live, replayed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from sqlalchemy import text

from tests.desks import PaperDesk, desk_command, paper_desk
from tests.pages import execute_page
from tests.strategy.sources import FALLING, LEAK, REVERSAL
from tradelib.errors import RunFailed
from tradelib.notebooks.cycle import SIGNALS, plan_venue, run_step, signal_step
from tradelib.notebooks.replay import Verdict, replay_run
from tradelib.research.samples import random_candles
from tradelib.settings import NOTEBOOKS
from tradelib.strategy import registry
from tradelib.strategy.own import Source, save_source
from tradelib.trading.bots import BotStatus, load_bot, load_bots
from tradelib.trading.parity import Cause
from tradelib.trading.parity_check import check_bot
from tradelib.trading.promotions import find_promotion, load_promotions
from tradelib.trading.runs import load_runs

LESSON = NOTEBOOKS / "research" / "promote_strategy.ipynb"


def run_cells(*cells: str, kernel: str = "python3") -> list[str]:
    """What each cell printed or showed."""
    may_fail = {"tags": ["raises-exception"]}
    page = new_notebook(cells=[new_code_cell(cell, metadata=may_fail) for cell in cells])
    execute_page(page, kernel=kernel)
    return ["\n".join(map(_text, cell.outputs)) for cell in page.cells]


def _text(output: nbformat.NotebookNode) -> str:
    told = output.get("data", {}).get("text/plain", "")
    return told or output.get("text", "") or f"{output.get('ename')}: {output.get('evalue')}"


@pytest.mark.parametrize("kernel", ["python3", "notedesk-research", "notedesk-live"])
def test_a_cell_becomes_a_strategy_that_every_kernel_finds(home: Path, kernel: str) -> None:
    reference = Source("idea", REVERSAL.lstrip()).reference
    _, kept, named, found = run_cells(
        "%load_ext tradelib",
        f"%%strategy idea\n{REVERSAL.lstrip()}",
        "idea.name",
        "from tradelib.strategy.registry import strategy\nstrategy('idea') is idea",
        kernel=kernel,
    )
    assert kept.splitlines() == [
        f"{reference}, kept in {home}/strategies/idea.py",
        "parameters: window=20",
        "by default: first score after 19 candles, history 20",
    ]
    assert named == repr(reference)
    assert found == "True"
    assert (home / "strategies" / "idea.py").read_text() == REVERSAL.lstrip()


def test_a_cell_that_is_no_strategy_is_refused_and_nothing_is_kept(home: Path) -> None:
    _, *told = run_cells(
        "%load_ext tradelib",
        "%%strategy idea\ndef score(candles):\n    retrun 1\n",
        "%%strategy idea\nx = 1\n",
        "%%strategy weighted\n" + REVERSAL,
        "%%strategy\n" + REVERSAL,
        "%%strategy idea\ndef score(candles):\n    return candles['clse']\n",
    )
    assert [one.partition(": ")[0] for one in told] == ["InvalidInput"] * 5
    words = ("line 2", "neither", "already", "not acceptable", "KeyError in line 2")
    assert all(word in one for word, one in zip(words, told, strict=True)), told
    assert not list(home.rglob("*.py"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaperDesk]:
    """A desk whose bots are `reverting`, `falling` and `leaving`, whose strategies' files are
    gone."""
    home = tmp_path_factory.mktemp("desk")
    with paper_desk(home) as opened:
        opened.reconcile()
        sample = home / "walk_BTC-USDT_1m.csv"
        random_candles(900, seed=3, timeframe="1m").to_csv(sample)
        for bot in load_bots(opened.ledger):
            assert desk_command("bots", "stop", bot.name, home=home).returncode == 0
        for bot, source in (("reverting", REVERSAL), ("falling", FALLING), ("leaving", REVERSAL)):
            file = save_source(home / "strategies", Source(bot, source))
            done = desk_command(
                "promote", bot, "--bot", bot, "--symbol", "BTC/USDT", "--candles", sample,
                "--tried", "window=5,10", home=home,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            file.unlink()
            assert desk_command("bots", "start", bot, home=home).returncode == 0
        opened.run_cycle()
        yield opened


def test_live_kernels_trade_by_the_frozen_text_and_the_run_names_its_hash(desk: PaperDesk) -> None:
    runs = {run.bot: run for run in load_runs(desk.ledger, notebook=SIGNALS)}
    store, now = desk.fetch(), desk.venue().fetch_time()
    for bot, source in (("reverting", REVERSAL), ("falling", FALLING)):
        run, known = runs[bot], load_bot(desk.ledger, bot)
        assert run.result["config"]["strategy"] == Source(bot, source).reference
        assert run.kernel_kind == "warm"
        candles = store.load(known.venue, known.symbol, known.timeframe, as_of=now)
        expected = known.rules.score(candles)["score"].iloc[-1]
        assert run.result["score"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("bot", ["reverting", "falling"])
def test_a_run_of_a_users_strategy_is_replayed_bit_for_bit(desk: PaperDesk, bot: str) -> None:
    run = load_runs(desk.ledger, notebook=SIGNALS, bot=bot)[-1]
    assert replay_run(desk.settings, run).verdict == Verdict.SAME


def test_live_is_held_against_the_backtest_of_the_frozen_text(desk: PaperDesk, monkeypatch) -> None:
    for bot in ("reverting", "falling"):
        monkeypatch.setattr(registry, "_frozen", {})
        found = check_bot(desk.ledger, desk.fetch(), bot)
        assert found.bot == bot
        assert Cause.SIGNAL not in found.costs()


def test_a_bot_that_is_gone_leaves_its_text_to_its_runs(desk: PaperDesk, monkeypatch) -> None:
    run = load_runs(desk.ledger, notebook=SIGNALS, bot="leaving")[-1]
    assert desk_command("bots", "stop", "leaving", home=desk.settings.home).returncode == 0
    assert desk_command("bots", "remove", "leaving", home=desk.settings.home).returncode == 0
    assert replay_run(desk.settings, run).verdict == Verdict.SAME
    monkeypatch.setattr(registry, "_frozen", {})
    assert Cause.SIGNAL not in check_bot(desk.ledger, desk.fetch(), "leaving").costs()
    assert {one.bot for one in load_promotions(desk.ledger)} >= {"leaving", "falling"}


def test_a_text_that_was_altered_fails_its_bots_run_with_the_reason(desk: PaperDesk) -> None:
    plan = plan_venue(desk.settings, desk.market.venue, [load_bot(desk.ledger, "falling")])
    change = "UPDATE sources SET text = {} WHERE name = 'falling'"
    with desk.ledger.write() as books:
        books.execute(text(change.format("text || ' '")))
    try:
        with pytest.raises(RunFailed, match=r"source of strategy falling@\w+ was changed"):
            run_step(desk.settings, desk.ledger, signal_step(plan.bots[0], plan.as_of), None)
    finally:
        with desk.ledger.write() as books:
            books.execute(text(change.format("substr(text, 1, length(text) - 1)")))


def test_the_lesson_promotes_from_a_page_that_may_only_read(tmp_path, monkeypatch) -> None:
    with paper_desk(tmp_path / "desk") as desk:
        monkeypatch.setenv("DESK_HOME", str(desk.settings.home))
        monkeypatch.setenv("DESK_READ_ONLY", "1")
        page = nbformat.read(LESSON, as_version=4)
        (parameters,) = [c for c in page.cells if "parameters" in c.metadata.get("tags", [])]
        parameters.source += "\nbot = 'lesson'\ncount = 900\nwindows = [12, 24]\nwidths = [2.0]"
        execute_page(page, folder=LESSON.parent)
        said = "\n".join(_text(output) for cell in page.cells for output in cell.get("outputs", []))
        assert "look-ahead: " in said
        bot = load_bot(desk.ledger, "lesson")
        promotion = find_promotion(desk.ledger, bot)
        assert bot.status == BotStatus.STOPPED
        assert promotion.checks["luck"]["trials"] == 2
        assert promotion.strategy in said


def test_the_lesson_is_committed_without_outputs_and_promotes_nothing_by_itself() -> None:
    page = nbformat.read(LESSON, as_version=4)
    cells = [cell for cell in page.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    (parameters,) = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    assert 'bot: str = ""' in parameters.source
    assert len({cell.id for cell in page.cells}) == len(page.cells)


def test_a_look_ahead_is_refused_at_the_command_line_in_one_line(desk: PaperDesk) -> None:
    home = desk.settings.home
    file = save_source(home / "strategies", Source("leak", LEAK))
    words = ["promote", file, "--bot", "leak", "--symbol", "BTC/USDT",
             "--candles", home / "walk_BTC-USDT_1m.csv", "--hold-out", "0.3"]  # fmt: skip
    done = desk_command(*words, home=home)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "look-ahead" in done.stderr
    assert "leak" not in {bot.name for bot in load_bots(desk.ledger)}
    done = desk_command(*words, "--overrule", "to see what it does", home=home)
    assert done.returncode == 0, done.stderr
    shown = desk_command("bots", "show", "leak", home=home).stdout
    assert "Overruled      to see what it does" in shown
    assert "look-ahead" in shown
