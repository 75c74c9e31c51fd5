"""`desk strategies|promote`: what there is to trade by, and how it comes onto the desk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradelib.cli.bots import Decisions, Params, Stops, parse_stops
from tradelib.cli.common import AsJson, Home, make_table, out, parse_pairs, print_json, settings_for
from tradelib.errors import DeskError, InvalidInput, StorageFailed
from tradelib.settings import DeskSettings

if TYPE_CHECKING:
    from tradelib.candles.files import CandleFile
    from tradelib.trading.promotions import Promotion

strategies_app = typer.Typer()
_COLUMNS = ("hash", "warm_up", "history")


@strategies_app.command()
def strategies(home: Home = None, as_json: AsJson = False) -> None:
    """Every strategy: those that ship, and your own with their hashes, or with what is wrong."""
    from tradelib.strategy.allocations import target_strategy_names
    from tradelib.strategy.own import own_names
    from tradelib.strategy.registry import strategy_names

    ships = [*strategy_names(), *target_strategy_names()]
    own = own_names(settings_for(home).strategies)
    found = [*map(_describe, ships), *(_describe(name, own=True) for name in own)]
    if as_json:
        print_json(found)
        return
    table = make_table("Strategy", "Hash", "First score", "History", "Parameters")
    table.columns[-1].no_wrap = False
    for column, width in zip(table.columns, (20, 16, 11, 7), strict=False):
        column.min_width = width
    for row in found:
        told = ", ".join(f"{name}={value}" for name, value in row["parameters"].items())
        cells = ("-" if row[name] is None else f"{row[name]}" for name in _COLUMNS)
        table.add_row(row["name"], *cells, row["error"] or told)
    out.print(table)


def _describe(name: str, *, own: bool = False) -> dict[str, Any]:
    """A strategy by its defaults; one of a user's that cannot be used, with the reason."""
    from tradelib.strategy.allocations import target_strategy, target_strategy_names
    from tradelib.strategy.own import load_source
    from tradelib.strategy.registry import require_free, strategy, strategy_file

    row: dict[str, Any] = {"name": name, "own": own, "hash": None, "parameters": {},
                           "warm_up": None, "history": None, "error": None}  # fmt: skip
    try:
        if own:
            require_free(name)
            row["hash"] = load_source(strategy_file(name)).reference.partition("@")[2]
        several = name in target_strategy_names()
        found = target_strategy(name) if several else strategy(name)
        params = found.params()
        row["parameters"] = params.model_dump(mode="json")
        row |= {"warm_up": found.warm_up(params), "history": found.history(params)}
    except DeskError as error:
        row["error"] = str(error)
    return row


@strategies_app.command()
def promote(
    strategy: Annotated[str, typer.Argument(help="A strategy's name, or a file such as idea.py.")],
    bot: Annotated[str, typer.Option("--bot", help="The new bot's name.")],
    symbol: Annotated[str, typer.Option("--symbol", help="Such as BTC/USDT.")],
    venue: Annotated[str, typer.Option("--venue", help="A venue of desk.toml.")] = "paper",
    timeframe: Annotated[
        str | None, typer.Option("--timeframe", help="Such as 5m; else the candles'.")
    ] = None,
    candles: Annotated[
        Path | None, typer.Option("--candles", help="CSV or Parquet; else those of the venue.")
    ] = None,
    param: Params = None,
    decision: Decisions = None,
    stops: Stops = None,
    tried: Annotated[
        list[str] | None,
        typer.Option("--tried", help="All values that were looked at, name=5,10,20."),
    ] = None,
    hold_out: Annotated[
        float | None,
        typer.Option("--hold-out", help="Instead: the last share of the candles, never looked at."),
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=1, help="Of the walk forward.")] = 5,
    fee: Annotated[float, typer.Option("--fee", help="Share of each fill's value.")] = 0.001,
    overrule: Annotated[
        str, typer.Option("--overrule", help="Why to promote it although the checks say no.")
    ] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Check a strategy for bias and out of sample, and add it, frozen, as a stopped bot."""
    from tradelib.trading.ledger import open_ledger
    from tradelib.trading.promoting import NotPromoted, Proposal
    from tradelib.trading.promoting import promote as promote_strategy
    from tradelib.trading.promotions import summarise

    settings = settings_for(home)
    proposal = Proposal(
        bot,
        strategy,
        _sample(settings, candles, venue, symbol, timeframe),
        venue,
        symbol,
        timeframe,
        parse_pairs(param or [], "Parameter"),
        parse_pairs(decision or [], "Decision parameter"),
        parse_stops({}, stops),
        _values(tried or []),
        hold_out,
        folds,
        fee,
    )
    ledger = open_ledger(settings, migrate=True)
    try:
        done = promote_strategy(settings, ledger, proposal, overrule=overrule)
    except NotPromoted as refusal:
        if not as_json:
            print_summary(summarise(refusal.examination.to_json()))
        raise
    if as_json:
        print_json(done)
        return
    print_promotion(done)
    out.print(f"Added {bot}, stopped; start it with: desk bots start {bot}")


def print_promotion(promotion: Promotion) -> None:
    """A promotion in a line for each of its parts."""
    print_summary(promotion.summary)


def print_summary(told: dict[str, str]) -> None:
    for name, text in told.items():
        out.print(f"{name:14} {text}", soft_wrap=True)


def _values(pairs: list[str]) -> dict[str, list[Any]]:
    """`name=5,10,20` arguments as lists of values."""
    found: dict[str, list[Any]] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise InvalidInput(f"--tried {pair!r} is not of the form name=5,10,20.")
        found[name] = [_value(one) for one in text.split(",") if one]
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _sample(
    settings: DeskSettings, file: Path | None, venue: str, symbol: str, timeframe: str | None
) -> CandleFile:
    """The candles of the file, else what the desk has stored of the venue's."""
    from tradelib.candles.files import CandleFile, read_candle_file
    from tradelib.candles.store import CandleStore

    if file is not None:
        return read_candle_file(file)
    if timeframe is None:
        raise InvalidInput("Name the candles to check on: a file with --candles, or a --timeframe.")
    stored = CandleStore(settings.candles).load(venue, symbol, timeframe)
    if stored.empty:
        raise StorageFailed(
            f"The desk has no candles of {symbol} {timeframe} at {venue}; give a file with "
            f"--candles."
        )
    return CandleFile(Path(f"{venue}-store"), symbol, timeframe, stored)
