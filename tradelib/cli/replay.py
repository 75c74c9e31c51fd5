"""`desk replay`: runs executed once more, and held against their records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tradelib.cli.common import (
    AsJson,
    Home,
    make_table,
    out,
    parse_span,
    print_json,
    progress_bar,
    settings_for,
)
from tradelib.clock import utc_now
from tradelib.errors import InvalidInput
from tradelib.settings import DeskSettings
from tradelib.trading.ledger import open_ledger
from tradelib.trading.runs import load_run, load_runs

if TYPE_CHECKING:
    from tradelib.notebooks.replay import Replay
    from tradelib.trading.runs import Run

replay_app = typer.Typer()
_SHOWN = 40


@replay_app.command()
def replay(
    run: Annotated[str | None, typer.Argument(help="The run's id; `desk runs` lists them.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="All runs of the last 12h, 7d, …, instead of one.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Execute runs once more on what they read, and compare; exit code 1 where one differs.

    A replay reaches no venue and changes nothing of the desk. Where it differs, its page is kept
    beside the run's.
    """
    settings = settings_for(home)
    ledger = open_ledger(settings, read_only=True)
    if (run is None) == (since is None):
        raise InvalidInput("Name one run, or give --since and a span of time such as 7d.")
    runs = (
        [load_run(ledger, run)]
        if run
        else load_runs(ledger, since=utc_now() - parse_span(since or ""), limit=None)[::-1]
    )
    found = _replay_all(settings, runs)
    if as_json:
        print_json([one.to_json() for one in found])
    else:
        _show(found)
    if not all(one.verdict.good for one in found):
        raise typer.Exit(1)


def _replay_all(settings: DeskSettings, runs: Sequence[Run]) -> list[Replay]:
    from tradelib.notebooks.replay import replay_runs

    found = []
    with progress_bar("replays") as tell:
        for one in replay_runs(settings, runs):
            found.append(one)
            tell(len(found), len(runs))
    return found


def _show(found: Sequence[Replay]) -> None:
    if not found:
        out.print("No runs in that time.")
        return
    shown = found if len(found) <= _SHOWN else [one for one in found if not one.verdict.good]
    if shown:
        table = make_table("Run", "Verdict", "First difference", "More")
        for one in shown:
            first = str(one.differences[0]) if one.differences else ""
            table.add_row(one.run.id, one.verdict, first, str(len(one.differences[1:]) or ""))
        out.print(table)
    for one in found:
        if not one.verdict.good:
            page = f" Its page: {one.page}" if one.page else ""
            out.print(f"{one.run.id}: {'; '.join(one.causes)}.{page}")
    out.print(_counts(found))


def _counts(found: Sequence[Replay]) -> str:
    """How many of each notebook came out how."""
    notebooks = Counter(one.run.notebook for one in found)
    lines = []
    for notebook, count in sorted(notebooks.items()):
        verdicts = Counter(one.verdict for one in found if one.run.notebook == notebook)
        told = ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items()))
        lines.append(f"{notebook}: {count} runs, {told}")
    return "\n".join(lines)
