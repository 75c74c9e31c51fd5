"""`desk orders|fills|positions|runs|show|status`: what the ledger remembers."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tradelib.cli.common import AsJson, Home, Limit, make_table, out, print_json, settings_for
from tradelib.clock import utc_now
from tradelib.errors import DeskError, unknown_name
from tradelib.settings import DeskSettings
from tradelib.trading.ledger import Ledger, open_ledger

if TYPE_CHECKING:
    from decimal import Decimal

    from tradelib.candles.store import CandleStore
    from tradelib.trading.bots import Bot
    from tradelib.trading.positions import Tranche
    from tradelib.trading.runs import Outcome, Run

records_app = typer.Typer()


@records_app.command()
def orders(home: Home = None, as_json: AsJson = False, limit: Limit = 50) -> None:
    """Orders, newest first."""
    from tradelib.trading.orders import load_orders

    found = load_orders(open_ledger(settings_for(home)), limit=limit)
    if as_json:
        print_json(found)
        return
    table = make_table(
        "Order",
        "Bot",
        "Side",
        "Type",
        "Amount",
        "Symbol",
        "Price",
        "Status",
        "Filled",
        "Market time",
    )  # fmt: skip
    for o in found:
        table.add_row(
            o.client_id, o.bot or "-", o.side, o.type, _cell(o.amount), o.symbol,
            _cell(o.limit_price or o.stop_price), o.status, _cell(o.filled), f"{o.as_of:%F %T}",
        )  # fmt: skip
    out.print(table if found else "No orders yet.")


@records_app.command()
def fills(home: Home = None, as_json: AsJson = False, limit: Limit = 50) -> None:
    """Fills, newest first."""
    from tradelib.trading.orders import load_fills

    found = load_fills(open_ledger(settings_for(home)), limit=limit)[::-1]
    if as_json:
        print_json(found)
        return
    table = make_table("Fill", "Order", "Side", "Amount", "Symbol", "Price", "Fee", "Market time")
    for f in found:
        table.add_row(
            f"{f.venue}/{f.symbol}/{f.trade_id}", f.client_id or "foreign", f.side,
            f"{f.amount:f}", f.symbol, f"{f.price:f}", f"{f.fee:f} {f.fee_currency}",
            f"{f.at:%F %T}",
        )  # fmt: skip
    out.print(table if found else "No fills yet.")


@records_app.command()
def positions(home: Home = None, as_json: AsJson = False) -> None:
    """Each bot's position and the purchases it is made of, priced at the last stored candle."""
    settings = settings_for(home)
    found = _positions(settings, open_ledger(settings))
    if as_json:
        print_json(found)
        return
    columns = (
        "bot",
        "symbol",
        "status",
        "amount",
        "average_entry",
        "last",
        "unrealised",
        "realised",
    )
    table = make_table(*(name.replace("_", " ").capitalize() for name in columns))
    for row in found:
        table.add_row(*(_cell(row[name]) for name in columns))
    out.print(table if found else "No bots yet.")
    if any(row["tranches"] for row in found):
        out.print(_purchases(found))


def _purchases(positions: list[dict[str, Any]]) -> Table:
    """What is not sold of each bot's purchases, oldest first."""
    columns = ("entered", "amount", "cost", "left", "average_entry", "unrealised", "realised")
    titles = ("Purchase of", *(name.replace("_", " ").capitalize() for name in columns), "Order")
    table = make_table(*titles)
    for row in positions:
        for one in row["tranches"]:
            table.add_row(row["bot"], *(_cell(one[name]) for name in columns), one["entry"])
    return table


def _positions(settings: DeskSettings, ledger: Ledger) -> list[dict[str, Any]]:
    from tradelib.candles.store import CandleStore
    from tradelib.trading.bots import load_bots

    store = CandleStore(settings.candles)
    return [
        _position(ledger, store, bot, symbol) for bot in load_bots(ledger) for symbol in bot.traded
    ]


def _position(ledger: Ledger, store: CandleStore, bot: Bot, symbol: str) -> dict[str, Any]:
    from decimal import Decimal

    from tradelib.trading.accounts import newest_equity
    from tradelib.trading.positions import load_position

    held = load_position(ledger, bot.name, symbol, bot.venue)
    newest = store.load(bot.venue, symbol, bot.timeframe, limit=1)
    last = Decimal(str(float(newest["close"].iloc[-1]))) if len(newest) else None
    with ledger.read() as books:
        worth = newest_equity(books, bot.venue)
    equity = worth.equity if worth else None
    return {
        "bot": bot.name,
        "venue": bot.venue,
        "symbol": symbol,
        "status": str(held.status(last, equity, entries=bot.entries)),
        "amount": held.amount,
        "average_entry": held.average_entry,
        "last": last,
        "unrealised": held.unrealised(last) if last else None,
        "realised": held.realised,
        "other_fees": held.other_fees,
        "tranches": [_tranche(tranche, last) for tranche in held.tranches],
    }


def _tranche(tranche: Tranche, last: Decimal | None) -> dict[str, Any]:
    return {
        "entry": tranche.entry,
        "entered": tranche.opened_at,
        "amount": tranche.amount,
        "cost": tranche.cost,
        "left": tranche.left,
        "average_entry": tranche.average_entry,
        "unrealised": tranche.unrealised(last) if last else None,
        "realised": tranche.realised,
    }


@records_app.command()
def runs(
    home: Home = None,
    as_json: AsJson = False,
    limit: Limit = 30,
    bot: Annotated[str | None, typer.Option("--bot", help="Of one bot only.")] = None,
    notebook: Annotated[
        str | None, typer.Option("--notebook", help="Such as 20_generate_signals.")
    ] = None,
    outcome: Annotated[
        str | None, typer.Option("--outcome", help="running, succeeded or failed.")
    ] = None,
) -> None:
    """Runs of notebooks, newest first; `desk show RUN` tells one's whole record."""
    from tradelib.trading.runs import load_runs

    ledger = open_ledger(settings_for(home))
    found = load_runs(
        ledger,
        limit=limit,
        bot=_ran(ledger, "bot", bot),
        notebook=_ran(ledger, "notebook", notebook),
        outcome=_outcome(outcome),
    )
    if as_json:
        print_json([{**vars(run), "token_hash": None} for run in found])
        return
    table = make_table("Run", "Outcome", "Seconds", "Reason")
    for run in found:
        seconds = f"{run.took.total_seconds():.1f}" if run.took else "-"
        table.add_row(run.id, run.outcome, seconds, run.reason or "")
    asked = bot or notebook or outcome
    out.print(table if found else "No such runs." if asked else "No runs yet.")


def _ran(ledger: Ledger, column: str, name: str | None) -> str | None:
    """A bot or notebook that has runs; a notebook's folder may be left away."""
    from tradelib.trading.runs import load_run_values

    if name is None:
        return None
    known = load_run_values(ledger, column)
    for one in known:
        if name in (one, one.rpartition("/")[2]):
            return one
    raise unknown_name(column, name, known, "the ledger's runs")


def _outcome(name: str | None) -> Outcome | None:
    from tradelib.trading.runs import Outcome

    known = {str(outcome).lower(): outcome for outcome in Outcome}
    if name is None or name.lower() in known:
        return known[name.lower()] if name else None
    raise unknown_name("outcome", name, known)


@records_app.command()
def show(
    record: Annotated[
        str, typer.Argument(metavar="ID", help="Of an order, fill, decision or run.")
    ],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The chain fill → order → decision → run, and the page that decided it; of a run, its whole
    record."""
    from tradelib.trading.chain import find_chain

    settings = settings_for(home)
    chain = find_chain(open_ledger(settings), record)
    page = settings.reports / chain.run.page if chain.run and chain.run.page else None
    if as_json:
        run = {**vars(chain.run), "token_hash": None} if chain.run else None
        print_json({**vars(chain), "run": run, "page": str(page) if page else None})
        return
    tree = Tree(Text(record, style="bold"))
    node = tree
    for f in chain.fills:
        node.add(f"fill {f.venue}/{f.symbol}/{f.trade_id}: {f.side} {f.amount:f} at {f.price:f}, "
                 f"fee {f.fee:f} {f.fee_currency}, {f.at:%F %T}Z")  # fmt: skip
    if chain.order:
        o = chain.order
        node = tree.add(f"order {o.client_id}: {o.side} {o.amount:f} {o.symbol}, {o.status}")
    if chain.decision:
        d = chain.decision
        node = node.add(f"decision {d.id}: {d.action} {d.temperature}, {d.reason}, "
                        f"candle closed {d.candle_close:%F %T}Z")  # fmt: skip
    if chain.run:
        node = node.add(f"run {chain.run.id}: {chain.run.outcome}")
    if page:
        node.add(f"page {page}")
    out.print(tree, soft_wrap=True)
    if chain.run and chain.run.id == record:
        _print_record(chain.run)


def _print_record(run: Run) -> None:
    """What a run ran on and read, and how long its cells took; never cut, so that hashes can be
    compared."""
    from tradelib.trading.runs import Outcome

    told = {name: text for name, text in run.record.items() if name != "Run"}
    if run.outcome == Outcome.FAILED:
        told["Failed"] = run.reason or "for no known reason"
    told["Parameters"] = json.dumps(run.parameters)
    for read in run.candles or ():
        told[f"Read {read['symbol']} {read['timeframe']}"] = (
            f"{read['candles']} candles opened {read['first']} to {read['last']}, {read['hash']}"
        )
    for cell, seconds in (run.timings or {}).items():
        told[f"Cell {cell}"] = f"{seconds:.4f} s"
    for name, text in told.items():
        out.print(f"{name:28} {text}", soft_wrap=True)


@records_app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """What runs, what is open, and whether trading is halted."""
    settings = settings_for(home)
    told = _status(settings)
    if as_json:
        print_json(told)
        return
    out.print(f"Home {told['home']}")
    out.print("Desk " + ("runs" if told["running"] else "does not run; start it with `desk up`"))
    for name, service in told["services"].items():
        out.print(f"  {name:16} {'up  ' if service['alive'] else 'DOWN'} {service['url']}")
    if told["halt"]:
        out.print(f"{told['state']}: {told['halt']}")
    out.print(
        f"Bots {told['bots_running']} running of {told['bots']}; orders {told['orders']}, "
        f"unsettled {told['orders_unsettled']}; open incidents {told['incidents']}; "
        f"last cycle {told['last_cycle'] or 'none yet'}"
    )
    for run in told["failed_runs"]:
        out.print(f"FAILED in the last hour: {run['id']}: {run['reason']}")


FETCH = "live/10_fetch_candles"  # what tells a trading cycle from a pass between two


def _status(settings: DeskSettings) -> dict[str, Any]:
    from tradelib.services.addresses import load_services
    from tradelib.trading.bots import BotStatus, load_bots
    from tradelib.trading.halts import TradingState, active_halt
    from tradelib.trading.incidents import load_incidents
    from tradelib.trading.orders import load_orders
    from tradelib.trading.runs import Outcome, load_runs

    ledger = open_ledger(settings)
    try:
        services = load_services(settings)
    except DeskError:
        services = {}
    bots = load_bots(ledger)
    halt = active_halt(ledger)
    recent = load_runs(ledger, limit=500)
    return {
        "home": str(settings.home),
        "running": bool(services),
        "services": {
            name: {"url": s.url, "pid": s.pid, "alive": s.alive} for name, s in services.items()
        },
        "halt": halt.reason if halt else None,
        "state": halt.state if halt else TradingState.ACTIVE,
        "bots": len(bots),
        "bots_running": sum(bot.status == BotStatus.RUNNING for bot in bots),
        "orders": len(load_orders(ledger)),
        "orders_unsettled": len(load_orders(ledger, unsettled=True)),
        "incidents": len(load_incidents(ledger, open_only=True)),
        "last_cycle": next((run.cycle for run in recent if run.notebook == FETCH), None),
        "failed_runs": [
            {"id": run.id, "reason": run.reason}
            for run in recent
            if run.outcome == Outcome.FAILED and utc_now() - run.started_at < timedelta(hours=1)
        ],
    }


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value:%F %T}"
    return value if isinstance(value, str) else f"{value:.8f}".rstrip("0").rstrip(".")
