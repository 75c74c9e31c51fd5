"""The `desk` command: what a person does with a desk from a terminal.

Every failure is one sentence on standard error and a non-zero exit status.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from tradelib.cli.bots import bots_app
from tradelib.cli.candles import candles_app
from tradelib.cli.common import AsJson, Home, Limit, err, out, print_json, settings_for
from tradelib.cli.kernels import kernels_app
from tradelib.cli.parity import parity_app
from tradelib.cli.records import records_app
from tradelib.cli.replay import replay_app
from tradelib.cli.strategies import strategies_app
from tradelib.cli.torture import torture_app
from tradelib.cli.trade import trade_app
from tradelib.cli.traffic import traffic_app
from tradelib.cli.upkeep import upkeep_app
from tradelib.errors import DeskError, InvalidInput
from tradelib.scrubber import desk_scrubber
from tradelib.settings import load_settings

app = typer.Typer(
    help="A trading desk made of notebooks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bots_app, name="bots")
app.add_typer(candles_app, name="candles")
app.add_typer(kernels_app)
app.add_typer(parity_app)
app.add_typer(records_app)
app.add_typer(replay_app)
app.add_typer(strategies_app)
app.add_typer(trade_app)
app.add_typer(traffic_app)
app.add_typer(torture_app)
app.add_typer(upkeep_app)


def main() -> None:
    """Run the command; a DeskError is told in its own words, a bug is told as one."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        fail("stopped", 130)
    except (Exception, KeyboardInterrupt) as error:
        if any(isinstance(one, KeyboardInterrupt) for one in _chain(error)):
            sys.exit(130)
        _tell(error)
    sys.exit(code if isinstance(code, int) else 0)


def _tell(error: BaseException) -> NoReturn:
    match error:
        case DeskError():
            fail(str(error), error.exit_code)
        case TyperException():  # a wrong option or argument
            error.show()
            sys.exit(error.exit_code)
        case BrokenPipeError():
            sys.exit(141)
    fail(f"A fault in the desk itself: {error!r}; {_keep_traceback(error)}", 70)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it: a library may wrap the Ctrl-C that ended its work."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def fail(sentence: str, code: int) -> NoReturn:
    err.print(f"desk: {sentence}")
    sys.exit(code)


def _keep_traceback(error: BaseException) -> str:
    """Where the traceback of a fault went, without secrets; a home that is not there yet is not
    made for it."""
    try:
        settings = load_settings()
        path = settings.home / "logs" / "fault.txt"
        path.parent.mkdir(exist_ok=True)
        told = "".join(traceback.format_exception(error))
        path.write_text(desk_scrubber(settings).scrub(told), encoding="utf-8")
    except Exception:  # whatever else is wrong must not hide the fault
        return "its traceback could not be kept"
    return f"its traceback is in {path}"


@app.command()
def up(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="More files for --market.")
    ] = None,
    home: Home = None,
    cycles: Annotated[
        int | None, typer.Option("--cycles", min=1, help="Run so many cycles, then stop all.")
    ] = None,
    market: Annotated[
        list[Path] | None, typer.Option("--market", help="Replay candles of a CSV or Parquet file.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--start", help="Where a replay begins (ISO 8601).")
    ] = None,
    speed: Annotated[
        float | None, typer.Option("--speed", min=0.01, help="Market seconds per second.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of the seeded market; else 1.")
    ] = None,
    follow: Annotated[
        str | None, typer.Option("--follow", help="Paper-trade on a real exchange's prices.")
    ] = None,
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", help="What to follow, such as BTC/USDT.")
    ] = None,
) -> None:
    """Start the desk: paper exchange, Prefect, Voilà, JupyterLab and the trading cycle."""
    from tradelib.cli.up import UpOptions, run_desk

    if files and not market:
        raise InvalidInput(f"{files[0]} is no option; candle files to replay follow --market.")
    replayed = (*(market or ()), *(files or ()))
    options = UpOptions(cycles, replayed, start, speed, seed, follow, tuple(symbol or ()))
    raise typer.Exit(run_desk(home, options, out))


@app.command()
def paper(
    home: Home = None,
    port: Annotated[int, typer.Option(help="Port on loopback; 0 takes a free one.")] = 8620,
    market: Annotated[list[Path] | None, typer.Option("--market", help="Candle files.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 1,
    speed: Annotated[float | None, typer.Option("--speed", help="Market seconds per second.")] = (
        None
    ),
    stepped: Annotated[bool, typer.Option("--stepped", help="Stand still until stepped.")] = False,
    start: Annotated[str | None, typer.Option("--start", help="Where the clock begins.")] = None,
    accounts: Annotated[
        Path | None, typer.Option("--accounts", help="TOML file with accounts and balances.")
    ] = None,
    follow: Annotated[str | None, typer.Option("--follow", help="A real exchange.")] = None,
    symbol: Annotated[list[str] | None, typer.Option("--symbol", help="What to follow.")] = None,
) -> None:
    """Run the paper exchange alone; it prints how any ccxt program trades on it."""
    from tradelib.paper.__main__ import main as run_paper

    folder = settings_for(home).home / "paper" / "alone"
    arguments = ["--home", str(folder), "--port", str(port), "--seed", str(seed)]
    for file in market or ():
        arguments += ["--market", str(file)]
    for name in symbol or ():
        arguments += ["--symbol", name]
    single = {"--speed": speed, "--start": start, "--accounts": accounts, "--follow": follow}
    for name, value in single.items():
        arguments += [name, str(value)] if value is not None else []
    raise typer.Exit(run_paper([*arguments, *(["--stepped"] if stepped else [])]) or 0)


@app.command()
def logs(
    home: Home = None,
    cycle: Annotated[str | None, typer.Option("--cycle", help="Of one cycle only.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """The desk's log, oldest first."""
    from tradelib.logs import read_log

    entries = read_log(settings_for(home), cycle=cycle, limit=limit)
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        line = f"{entry['time'][:19]} {entry['level']:7} {entry['cycle'] or '-':22} "
        out.print(line + entry["message"], soft_wrap=True)
