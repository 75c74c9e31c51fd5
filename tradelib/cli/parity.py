"""`desk parity`: live held against the backtest, of a bot's own runs or on a file's candles."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tradelib.cli.bots import Decisions, Params
from tradelib.cli.common import (
    AsJson,
    Home,
    make_table,
    out,
    parse_pairs,
    parse_span,
    print_json,
    progress_bar,
    settings_for,
)
from tradelib.clock import utc_now
from tradelib.errors import InvalidInput

if TYPE_CHECKING:
    from tradelib.cli.stepped import BotPlan
    from tradelib.trading.backtested import Comparison
    from tradelib.trading.parity import Parity

parity_app = typer.Typer()
_SHOWN = 20
_AGREES = "No gap: live is the backtest."


@parity_app.command()
def parity(
    bot: Annotated[str | None, typer.Argument(help="A bot of the desk: its own runs.")] = None,
    since: Annotated[
        str, typer.Option("--since", help="What it decided in the last 12h, 7d, ….")
    ] = "1d",
    candles: Annotated[
        Path | None, typer.Option("--candles", help="Instead, live trading on a file's candles.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=2, help="How many of the file's candles; else all.")
    ] = None,
    pages: Annotated[
        bool, typer.Option("--pages", help="By the notebooks, and not by what they call alone.")
    ] = False,
    strategy: Annotated[str, typer.Option("--strategy", help="On the file's candles.")] = (
        "weighted"
    ),
    param: Params = None,
    decision: Decisions = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Hold live trading against the backtest of the same candles, gap by gap; exit code 1 where
    there is one.

    On a file's candles it trades on a stepped paper exchange in a home of its own, which is gone
    afterwards.
    """
    if (bot is None) == (candles is None):
        raise InvalidInput("Name a bot, or give --candles and a file.")
    if candles is not None:
        plan = _plan(strategy, param, decision)
        agrees = _tell_rehearsal(_rehearse(candles, count, plan, pages=pages), as_json)
    else:
        agrees = _tell_check(_check(bot or "", since, home), as_json)
    if not agrees:
        raise typer.Exit(1)


def _plan(strategy: str, param: list[str] | None, decision: list[str] | None) -> BotPlan:
    from tradelib.cli.stepped import BotPlan

    decided = parse_pairs(decision or [], "Decision parameter")
    return BotPlan(strategy, parse_pairs(param or [], "Parameter"), decided)


def _check(bot: str, since: str, home: Home) -> Parity:
    from tradelib.candles.store import CandleStore
    from tradelib.trading.bots import load_bot
    from tradelib.trading.ledger import open_ledger
    from tradelib.trading.parity_check import check_bot

    settings = settings_for(home)
    ledger = open_ledger(settings, read_only=True)
    load_bot(ledger, bot)
    return check_bot(ledger, CandleStore(settings.candles), bot, utc_now() - parse_span(since))


def _rehearse(file: Path, count: int | None, plan: BotPlan, *, pages: bool) -> Comparison:
    from tradelib.cli.stepped import candles_left, check, rehearsal, run_in_process, run_pages

    with (
        tempfile.TemporaryDirectory(prefix="desk-parity-") as folder,
        rehearsal(Path(folder) / "desk", file, plan) as desk,
        progress_bar("candles") as tell,
    ):
        number = min(count or candles_left(desk), candles_left(desk))
        run = run_pages if pages else run_in_process
        for done, _ in enumerate(run(desk, number), 1):
            tell(done, number)
        return check(desk)


def _tell_rehearsal(found: Comparison, as_json: bool) -> bool:
    if as_json:
        print_json(found)
        return found.agrees
    out.print(
        f"{found.candles} candles, {found.decisions} decisions, {found.orders} orders "
        f"({found.refused} of them refused), {found.fills} fills; "
        f"equity {found.equity!r}, backtest {found.backtest!r}",
        soft_wrap=True,
    )
    if found.agrees:
        out.print(_AGREES)
        return True
    table = make_table("Candle close", "What", "Live", "Backtest")
    for one in found.mismatches[:_SHOWN]:
        table.add_row(f"{one.close:%F %T}Z", one.what, one.live, one.backtest)
    out.print(table)
    more = f", of which the first {_SHOWN} are shown" if len(found.mismatches) > _SHOWN else ""
    out.print(f"{len(found.mismatches)} values differ{more}; the first tells why the others do.")
    return False


def _tell_check(found: Parity, as_json: bool) -> bool:
    if as_json:
        print_json(found.to_json())
    elif found.closes is None:
        out.print("; ".join(found.notes) or "Nothing was decided in that time.")
    else:
        _show(found, *found.closes)
    return found.agrees


def _show(found: Parity, first: datetime, last: datetime) -> None:
    out.print(
        f"{found.bot}: {found.candles} candles closed from {first:%F %T}Z to {last:%F %T}Z, "
        f"{found.decisions} decisions, {found.orders} orders, {found.fills} fills",
        soft_wrap=True,
    )
    out.print(
        f"equity {found.equity:f} {found.quote}, backtest {found.backtest:f}, "
        f"difference {-found.difference:f}",
        soft_wrap=True,
    )
    for told in found.notes:
        out.print(told, soft_wrap=True)
    if found.agrees:
        out.print(_AGREES)
        return
    _show_gaps(found)


def _show_gaps(found: Parity) -> None:
    costs = make_table("Cause", "Gaps", f"Effect ({found.quote})", "What it means")
    for cause, (number, cost) in found.costs().items():
        costs.add_row(cause, str(number), f"{-cost:+f}", cause.meaning)
    out.print(costs)
    table = make_table("Candle close", "Cause", "What", "Live", "Backtest", "Effect")
    dearest = sorted(found.gaps, key=lambda gap: -abs(gap.cost))
    for gap in dearest[:_SHOWN]:
        table.add_row(
            f"{gap.close:%F %T}Z", gap.cause, gap.what, gap.live, gap.backtest, f"{-gap.cost:+f}"
        )
    out.print(table)
    if len(dearest) > _SHOWN:
        out.print(f"and {len(dearest) - _SHOWN} more, which --json tells")
