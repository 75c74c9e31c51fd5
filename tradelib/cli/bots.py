"""`desk bots`: the bots of a desk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradelib.cli.common import AsJson, Home, make_table, out, parse_pairs, print_json, settings_for
from tradelib.errors import InvalidInput
from tradelib.settings import DeskSettings

if TYPE_CHECKING:
    from tradelib.trading.bots import Bot
    from tradelib.venue import Venue

bots_app = typer.Typer(
    help="The bots: list, show, add, edit, start, stop, remove.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="The bot's name.")]
Params = Annotated[
    list[str] | None, typer.Option("--param", help="A strategy parameter, name=value.")
]
Decisions = Annotated[
    list[str] | None, typer.Option("--decision", help="A decision parameter, name=value.")
]

Stops = Annotated[
    list[str] | None,
    typer.Option("--stops", help="What rests at the venue: loss, profit or trailing=0.05, or off."),
]

Wake = Annotated[
    str | None,
    typer.Option("--wake", help="When it decides: schedule, close, or price=0.005 for a move."),
]
Fast = Annotated[
    bool | None,
    typer.Option("--fast/--no-fast", help="Decide in the feed's process; its page follows."),
]


@bots_app.command("list")
def list_bots(home: Home = None, as_json: AsJson = False) -> None:
    """Every bot with what it trades and whether it runs."""
    from tradelib.trading.bots import load_bots
    from tradelib.trading.ledger import open_ledger

    found = load_bots(open_ledger(settings_for(home), migrate=True))
    if as_json:
        print_json(found)
        return
    table = make_table("Bot", "Status", "Venue", "Symbol", "Timeframe", "Strategy")
    for bot in found:
        symbols = ", ".join(bot.traded)
        table.add_row(bot.name, bot.status, bot.venue, symbols, bot.timeframe, bot.strategy)
    out.print(table)


@bots_app.command("show")
def show(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """A bot's configuration, and the promotion that put it on the desk."""
    from tradelib.cli.strategies import print_promotion
    from tradelib.trading.bots import load_bot
    from tradelib.trading.ledger import open_ledger
    from tradelib.trading.promotions import changes_since, find_promotion

    ledger = open_ledger(settings_for(home))
    bot = load_bot(ledger, name)
    promotion = find_promotion(ledger, bot)
    changed = changes_since(promotion, bot) if promotion else []
    if as_json:
        print_json({"bot": bot, "promotion": promotion, "changed_since": changed})
        return
    told = {"Bot": name, "Status": bot.status, **bot.config, "stops": bot.stops}
    for title, value in told.items():
        out.print(f"{title.capitalize():14} {_told(value)}", soft_wrap=True)
    if promotion is None:
        out.print("It was not promoted: no checks are kept with it.")
        return
    out.print("")
    print_promotion(promotion)
    if changed:
        out.print(f"Changed since: {', '.join(changed)}; the checks do not speak of that.")


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={told}" for name, told in value.items()) or "none"
    return str(value)


@bots_app.command("add")
def add(
    name: Name,
    symbol: Annotated[str | None, typer.Option("--symbol", help="Such as BTC/USDT.")] = None,
    symbols: Annotated[
        str | None,
        typer.Option("--symbols", help="Of a bot that holds several: BTC/USDT,ETH/USDT."),
    ] = None,
    venue: Annotated[str, typer.Option("--venue", help="A venue of desk.toml.")] = "paper",
    timeframe: Annotated[str, typer.Option("--timeframe", help="Such as 1m, 5m, 1h.")] = "1m",
    strategy: Annotated[str, typer.Option("--strategy", help="The strategy's name.")] = "weighted",
    param: Params = None,
    decision: Decisions = None,
    stops: Stops = None,
    wake: Wake = None,
    fast: Fast = None,
    home: Home = None,
) -> None:
    """Add a bot, stopped."""
    from tradelib.trading.bots import add_bot, new_bot
    from tradelib.trading.ledger import open_ledger

    settings = settings_for(home)
    several = _parse_symbols(symbol, symbols)
    bot = new_bot(
        name,
        venue,
        symbol or several[0],
        timeframe,
        strategy,
        parse_pairs(param or [], "Parameter"),
        parse_pairs(decision or [], "Decision parameter"),
        parse_stops({}, stops),
        _parse_wake({}, wake, fast),
        symbols=several,
    )
    check_bot(settings, bot)
    add_bot(open_ledger(settings, migrate=True), bot)
    out.print(f"Added {name}, stopped; start it with: desk bots start {name}")


def _parse_symbols(symbol: str | None, symbols: str | None) -> tuple[str, ...]:
    """The symbols of a bot that holds several; none for a bot on one."""
    if bool(symbol) == bool(symbols):
        raise InvalidInput(
            "Give the bot either --symbol BTC/USDT, or --symbols BTC/USDT,ETH/USDT to hold several."
        )
    return tuple(one.strip() for one in symbols.split(",")) if symbols else ()


@bots_app.command("edit")
def edit(
    name: Name,
    timeframe: Annotated[str | None, typer.Option("--timeframe")] = None,
    param: Params = None,
    decision: Decisions = None,
    stops: Stops = None,
    wake: Wake = None,
    fast: Fast = None,
    home: Home = None,
) -> None:
    """Change a bot's timeframe, parameters, stops, or when it decides."""
    from tradelib.trading.bots import change_bot, load_bot, new_bot
    from tradelib.trading.ledger import open_ledger

    settings = settings_for(home)
    ledger = open_ledger(settings)

    def change(bot: Bot) -> Bot:
        checked = new_bot(
            name,
            bot.venue,
            bot.symbol,
            timeframe or bot.timeframe,
            bot.strategy,
            bot.parameters | parse_pairs(param or [], "Parameter"),
            bot.decision | parse_pairs(decision or [], "Decision parameter"),
            parse_stops(bot.stops, stops),
            _parse_wake(bot.wake, wake, fast),
            symbols=bot.symbols,
        )
        return replace(checked, status=bot.status, created_at=bot.created_at)

    if stops:
        _check_stops_if_up(settings, change(load_bot(ledger, name)))
    change_bot(ledger, name, change)
    out.print(f"Changed {name}; its next decision uses it.")


def parse_stops(now: dict[str, Any], pairs: list[str] | None) -> dict[str, Any]:
    """The stops with changes; `off` takes one away."""
    changed = now | parse_pairs(pairs or [], "Stop")
    return {name: value for name, value in changed.items() if value != "off"}


def _parse_wake(now: dict[str, Any], wake: str | None, fast: bool | None) -> dict[str, Any]:
    """When a bot decides, with changes; one that waits for the schedule again is not fast."""
    changed = dict(now)
    if wake is not None:
        on, _, move = wake.partition("=")
        kept = {"fast": now["fast"]} if "fast" in now and on != "schedule" else {}
        changed = {"on": on, **({"move": move} if move else {}), **kept}
    return changed | ({} if fast is None else {"fast": fast})


@bots_app.command("start")
def start(name: Name, home: Home = None) -> None:
    """Let a bot trade from the next cycle on."""
    _set_status(name, home, "RUNNING")
    out.print(f"{name} runs from the next cycle on.")


@bots_app.command("stop")
def stop(name: Name, home: Home = None) -> None:
    """Keep a bot from deciding; its position stays as it is."""
    _set_status(name, home, "STOPPED")
    out.print(f"{name} is stopped; its position stays.")


def _set_status(name: str, home: Home, status: str) -> None:
    from tradelib.trading.bots import BotStatus, change_bot, load_bot
    from tradelib.trading.ledger import open_ledger

    settings = settings_for(home)
    ledger = open_ledger(settings)
    if status == BotStatus.RUNNING:
        check_bot(settings, load_bot(ledger, name))
    change_bot(ledger, name, lambda bot: replace(bot, status=BotStatus(status)))


@bots_app.command("remove")
def remove(name: Name, home: Home = None) -> None:
    """Take away a bot that is stopped and holds nothing; what it did stays in the ledger."""
    from tradelib.trading.bots import remove_bot
    from tradelib.trading.leases import process_holder
    from tradelib.trading.ledger import open_ledger

    remove_bot(open_ledger(settings_for(home)), name, process_holder())
    out.print(f"{name} is gone; its decisions, orders and fills stay.")


def check_bot(settings: DeskSettings, bot: Bot) -> None:
    """Refuse a bot that its venue cannot trade or protect as it is meant to."""
    for symbol in bot.traded:
        account = check_market(settings, bot.venue, symbol, bot.timeframe)
    check_stops(account, bot)


def _check_stops_if_up(settings: DeskSettings, bot: Bot) -> None:
    """Stops may also be changed while no desk runs: its own exchange takes all kinds."""
    from tradelib.notebooks.cycle import is_up
    from tradelib.venue import open_venue

    if is_up(settings, bot.venue):
        check_stops(open_venue(settings, bot.venue), bot)


def check_stops(account: Venue, bot: Bot) -> None:
    """Refuse stops that the venue does not take: its position would never be protected."""
    from tradelib.venue import OrderType

    stops = bot.stop_params
    kinds = {
        "trailing": stops.trailing is not None and OrderType.TRAILING_STOP,
        "loss": stops.loss is not None and OrderType.STOP_LOSS,
        "profit": stops.profit is not None and stops.loss is None and OrderType.LIMIT,
    }
    for name, kind in kinds.items():
        if kind and not account.supports(kind, bot.symbol):
            raise InvalidInput(
                f"Venue {bot.venue} takes no orders of type {kind} for {bot.symbol}; "
                f"leave the stop {name} away."
            )
    if stops.loss is not None and stops.profit is not None and not account.supports_brackets:
        raise InvalidInput(
            f"Venue {bot.venue} takes no two orders for the same coins; choose loss or profit."
        )


def check_market(settings: DeskSettings, venue: str, symbol: str, timeframe: str) -> Venue:
    """The venue, to read from. Refuse one that desk.toml lacks, a symbol or timeframe that it
    lacks, and a symbol not quoted in the currency the venue's limits and worth are told in."""
    from tradelib.trading.bots import require_venue
    from tradelib.venue import open_venue

    require_venue(settings, venue, symbol)
    account = open_venue(settings, venue)
    account.fetch_instrument(symbol)
    account.require_timeframe(timeframe)
    return account
