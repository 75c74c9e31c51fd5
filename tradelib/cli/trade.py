"""What a person does to the account: orders by hand, halt, arm, reconcile, watch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace as changed
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradelib.cli.common import AsJson, Home, make_table, out, print_json, settings_for
from tradelib.errors import DeskError, InvalidInput, RefusedError, unknown_name
from tradelib.settings import DeskSettings
from tradelib.trading.ledger import open_ledger

if TYPE_CHECKING:
    # These reach the venue's client, which costs half a second that most commands need not pay.
    from tradelib.trading.ledger import Ledger
    from tradelib.trading.manual import ManualOrder, Preview
    from tradelib.trading.orders import Order
    from tradelib.trading.risk import Refusal
    from tradelib.venue import OrderType, Venue

trade_app = typer.Typer()

# Beyond these no venue counts, and no sum of the ledger's is meant to.
_LARGEST, _DECIMALS = Decimal(10) ** 15, 18

Symbol = Annotated[str, typer.Argument(help="Such as BTC/USDT.")]
Amount = Annotated[str, typer.Argument(help="Of base currency, such as 0.01; `all` to sell all.")]
VenueName = Annotated[str | None, typer.Option("--venue", help="A venue of desk.toml.")]
ForBot = Annotated[str | None, typer.Option("--bot", help="Whose position it changes.")]
Limit = Annotated[str | None, typer.Option("--limit", help="Rest at this price.")]
PostOnly = Annotated[bool, typer.Option("--post-only", help="Rather not trade than take.")]
InForce = Annotated[str | None, typer.Option("--tif", help="GTC, IOC or FOK.")]
StopAt = Annotated[str | None, typer.Option("--stop", help="Wake when the price is this bad.")]
Target = Annotated[str | None, typer.Option("--take-profit", help="Wake when it is this good.")]
Trailing = Annotated[
    str | None, typer.Option("--trailing", help="Follow the best price at this fraction of it.")
]
Confirm = Annotated[
    str | None, typer.Option("--confirm", help="The phrase that the preview asks to be typed.")
]


@trade_app.command()
def buy(
    symbol: Symbol,
    amount: Amount,
    venue: VenueName = None,
    bot: ForBot = None,
    limit: Limit = None,
    post_only: PostOnly = False,
    tif: InForce = None,
    stop: StopAt = None,
    confirm: Confirm = None,
    home: Home = None,
) -> None:
    """Buy by hand, after a preview and a typed confirmation."""
    prices = {"limit": limit, "stop": stop}
    _trade("buy", symbol, amount, venue, bot, prices, post_only, tif, confirm, home)


@trade_app.command()
def sell(
    symbol: Symbol,
    amount: Amount,
    venue: VenueName = None,
    bot: ForBot = None,
    limit: Limit = None,
    post_only: PostOnly = False,
    tif: InForce = None,
    stop: StopAt = None,
    take_profit: Target = None,
    trailing: Trailing = None,
    confirm: Confirm = None,
    home: Home = None,
) -> None:
    """Sell by hand; --stop and --take-profit together make a bracket, of which one fills."""
    prices = {"limit": limit, "stop": stop, "target": take_profit, "trailing": trailing}
    _trade("sell", symbol, amount, venue, bot, prices, post_only, tif, confirm, home)


def _trade(
    side: str,
    symbol: str,
    amount: str,
    venue: str | None,
    bot: str | None,
    prices: dict[str, str | None],
    post_only: bool,
    tif: str | None,
    confirm: str | None,
    home: Any,
) -> None:
    from tradelib.trading.manual import preview_order

    settings = settings_for(home)
    ledger = open_ledger(settings)
    account = _open_account(settings, ledger, venue, bot)
    account.fetch_instrument(symbol)
    wanted = _wanted(side, symbol, _amount(ledger, account, side, symbol, amount, bot), bot,
                     prices, post_only, tif)  # fmt: skip
    told = preview_order(ledger, account, settings.limits, wanted)
    _show(told)
    _refuse_if(told.refusals)
    _require_typed(told.wanted.phrase, confirm)
    _place(settings, ledger, account, wanted)


def _refuse_if(refusals: Sequence[Refusal]) -> None:
    if refusals:
        raise RefusedError("; ".join(refusal.reason for refusal in refusals) + ".")


def _place(settings: DeskSettings, ledger: Ledger, account: Venue, wanted: ManualOrder) -> None:
    """Place an order and tell of it. The stops of its bot are looked after at once, also where
    the order failed after they were withdrawn for it."""
    from tradelib.trading.leases import process_holder
    from tradelib.trading.manual import place_manual_order

    try:
        orders = place_manual_order(ledger, account, settings.limits, wanted, process_holder())
    except DeskError:
        with suppress(DeskError):
            _keep_stops(ledger, account, wanted.bot)
        raise
    _show_orders(orders)
    _keep_stops(ledger, account, wanted.bot)
    _fail_unless_accepted(orders)


def _keep_stops(ledger: Ledger, account: Venue, bot: str | None) -> None:
    """Make the stops of a bot fit what it holds by now."""
    from tradelib.trading.bots import load_bot
    from tradelib.trading.leases import process_holder
    from tradelib.trading.stops import maintain_stops

    if bot is None:
        return
    try:
        maintain_stops(ledger, account, load_bot(ledger, bot), process_holder())
    except DeskError as error:
        raise RefusedError(
            f"The stops of {bot} do not fit its position yet, the next reconciliation sees to it: "
            f"{error}"
        ) from error


def _amount(
    ledger: Ledger, account: Venue, side: str, symbol: str, text: str, bot: str | None
) -> Decimal:
    if bot:
        _require_symbol_of(ledger, bot, symbol)
    if text != "all":
        return _number("amount", text)
    if side == "buy":
        raise InvalidInput("`all` is for sales; name the amount to buy, such as 0.01.")
    amount = _held(ledger, account, symbol, bot)
    if amount <= 0:
        holder = f"Bot {bot}" if bot else f"The account at {account.name}"
        raise InvalidInput(f"{holder} holds no {symbol.split('/')[0]} that could be sold.")
    return amount


def _held(ledger: Ledger, account: Venue, symbol: str, bot: str | None) -> Decimal:
    from tradelib.trading.positions import load_position

    if bot:
        return load_position(ledger, bot, symbol, account.name).amount
    found = account.fetch_balances().get(symbol.split("/")[0])
    return found.free if found else Decimal(0)


def _require_symbol_of(ledger: Ledger, bot: str, symbol: str) -> None:
    from tradelib.trading.bots import load_bot

    traded = load_bot(ledger, bot).symbol
    if traded != symbol:
        raise InvalidInput(f"Bot {bot} trades {traded}, not {symbol}; leave --bot away.")


def _number(what: str, text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(0)
    if not value.is_finite() or value <= 0:
        raise InvalidInput(f"The {what} {_short(text)} is not a number above 0, such as 0.01.")
    if value > _LARGEST or value.as_tuple().exponent < -_DECIMALS:
        raise InvalidInput(
            f"The {what} {_short(text)} is beyond what venues count; "
            f"it is at most {_LARGEST:g}, with at most {_DECIMALS} decimals."
        )
    return value


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _wanted(
    side: str,
    symbol: str,
    amount: Decimal,
    bot: str | None,
    texts: dict[str, str | None],
    post_only: bool,
    tif: str | None,
) -> ManualOrder:
    """The order that the options describe; those that do not go together are refused."""
    from tradelib.trading.bots import require_trailing
    from tradelib.trading.manual import ManualOrder
    from tradelib.trading.orders import Side

    prices = {name: _number(name, text) for name, text in texts.items() if text is not None}
    kind, is_bracket = _type(prices, post_only)
    if tif is not None:
        _require_in_force(tif, kind)
    limit = prices.get("target") if is_bracket else prices.get("limit")
    stop = prices.get("stop") or (None if is_bracket else prices.get("target"))
    trailing = prices.get("trailing")
    if trailing is not None:
        require_trailing(trailing)
    return ManualOrder(
        symbol,
        Side(side),
        amount,
        kind,
        limit_price=limit,
        stop_price=stop,
        trailing_bips=round(trailing * 10_000) if trailing is not None else None,
        time_in_force=tif,
        bot=bot,
        is_bracket=is_bracket,
    )


def _require_in_force(tif: str, kind: OrderType) -> None:
    from tradelib.venue import OrderType, TimeInForce

    if tif not in list(TimeInForce):
        raise unknown_name("time in force", tif, map(str, TimeInForce))
    if not kind.has_limit or kind is OrderType.POST_ONLY:
        raise InvalidInput(
            "--tif says how long a --limit order lives; give it --limit, without --post-only."
        )


def _type(prices: dict[str, Decimal], post_only: bool) -> tuple[Any, bool]:
    """The type of order that these prices make, and whether they make a bracket."""
    from tradelib.venue import OrderType

    named = frozenset(prices)
    if post_only and named != {"limit"}:
        raise InvalidInput("--post-only is of a resting order; give it --limit and nothing else.")
    kinds = {
        frozenset(): OrderType.MARKET,
        frozenset({"limit"}): OrderType.POST_ONLY if post_only else OrderType.LIMIT,
        frozenset({"stop"}): OrderType.STOP_LOSS,
        frozenset({"stop", "limit"}): OrderType.STOP_LOSS_LIMIT,
        frozenset({"target"}): OrderType.TAKE_PROFIT,
        frozenset({"target", "limit"}): OrderType.TAKE_PROFIT_LIMIT,
        frozenset({"trailing"}): OrderType.TRAILING_STOP,
        frozenset({"stop", "target"}): OrderType.POST_ONLY,
    }
    if named not in kinds:
        options = " and ".join(sorted(f"--{name}" for name in named))
        raise InvalidInput(f"{options} do not make one order; leave one of them.")
    return kinds[named], named == {"stop", "target"}


def _show(told: Preview) -> None:
    """What the order would do, one line each."""
    wanted, unit = told.wanted, told.wanted.symbol.split("/")[1]
    table = make_table("Preview", "")
    fee = "not told by the venue" if told.fee is None else f"{told.fee.normalize():f} {unit}"
    lines = {
        "order": f"{wanted.phrase}, {'bracket' if wanted.is_bracket else wanted.type}",
        "venue": told.venue,
        "for": wanted.bot or "no bot",
        "bid / ask": f"{told.quote.bid.normalize():f} / {told.quote.ask.normalize():f}",
        "price": f"{told.price.normalize():f}",
        "stop": f"{wanted.stop_price.normalize():f}" if wanted.stop_price else None,
        "notional": f"{told.notional.normalize():f} {unit}",
        "fee, about": fee,
        "cash now": f"{told.portfolio.cash.normalize():f} {unit}",
        "limits": f"{len(told.refusals)} refuse it" if told.refusals else "all allow it",
    }
    for name, text in lines.items():
        if text is not None:
            table.add_row(name, text)
    out.print(table)


def _require_typed(phrase: str, confirm: str | None) -> None:
    """A person types what will happen; a script passes it."""
    if confirm is None and not sys.stdin.isatty():
        raise InvalidInput(
            f'Placing an order asks a person to type it; in a script add --confirm "{phrase}".'
        )
    typed = typer.prompt(f'Type "{phrase}" to place it') if confirm is None else confirm
    if typed.strip() != phrase:
        raise InvalidInput(f'What was typed is not "{phrase}"; nothing was placed.')


def _show_orders(orders: Sequence[Order]) -> None:
    for order in orders:
        why = f": {order.reason}" if order.reason else ""
        out.print(
            f"{order.client_id}  {order.role.lower()} {order.side} {order.amount:f} "
            f"{order.symbol} {order.status}, filled {order.filled:f}{why}",
            soft_wrap=True,
        )


def _fail_unless_accepted(orders: list[Order]) -> None:
    if any(order.status in ("DENIED", "REJECTED") for order in orders):
        raise RefusedError("The order was not accepted; its reason is above and in `desk orders`.")


def _open_account(
    settings: DeskSettings, ledger: Ledger, venue: str | None, bot: str | None = None
) -> Venue:
    from tradelib.trading.bots import load_bot
    from tradelib.venue import open_venue

    chosen = load_bot(ledger, bot).venue if bot else venue
    if bot and venue not in (None, chosen):
        raise InvalidInput(f"Bot {bot} trades at {chosen}, not at {venue}; leave --venue away.")
    return open_venue(settings, chosen or _only_venue(settings), trading=True)


def _only_venue(settings: DeskSettings) -> str:
    """The one venue that can be meant: those that are up, a local exchange that is not is none."""
    from tradelib.notebooks.cycle import is_up

    up = sorted(name for name in settings.venues if is_up(settings, name))
    if len(up) != 1:
        raise InvalidInput(
            f"Name the venue with --venue; reachable are: {', '.join(up) or 'none'}."
            + ("" if up else " Start the desk with `desk up`.")
        )
    return up[0]


@trade_app.command()
def cancel(
    order: Annotated[str, typer.Argument(help="Its id, as `desk orders` lists it; `all` for all.")],
    venue: VenueName = None,
    home: Home = None,
) -> None:
    """Cancel an order of the desk's; orders of others are never touched."""
    from tradelib.trading.leaving import cancel_orders, still_live
    from tradelib.trading.orders import load_order
    from tradelib.trading.placing import cancel_live_order
    from tradelib.venue import open_venue

    settings = settings_for(home)
    ledger = open_ledger(settings)
    if order == "all":
        ended = cancel_orders(ledger, _open_account(settings, ledger, venue))
    else:
        found = load_order(ledger, order)
        account = open_venue(settings, found.venue, trading=True)
        ended = [cancel_live_order(ledger, account, found)]
    _show_orders(ended)
    if not ended:
        out.print("No order of the desk's is open.")
    _refuse_unless_done("Not all is cancelled", still_live(ended))


@trade_app.command()
def replace(
    order: Annotated[str, typer.Argument(help="The id of a resting order.")],
    limit: Annotated[str, typer.Option("--limit", help="The new price.")],
    confirm: Confirm = None,
    home: Home = None,
) -> None:
    """Cancel a resting limit order and place what is left of it at another price."""
    from tradelib.trading.manual import ManualOrder, preview_order
    from tradelib.trading.orders import OrderStatus, Side, load_order
    from tradelib.trading.placing import cancel_live_order
    from tradelib.trading.replacing import refusals_instead_of, require_replaceable
    from tradelib.venue import OrderType, open_venue

    settings = settings_for(home)
    ledger = open_ledger(settings)
    found = load_order(ledger, order)
    require_replaceable(found)
    account = open_venue(settings, found.venue, trading=True)
    kind, price = OrderType(found.type), _number("limit", limit)
    wanted = ManualOrder(
        found.symbol, Side(found.side), found.left, kind, price,
        time_in_force=found.time_in_force, bot=found.bot,
    )  # fmt: skip
    told = preview_order(ledger, account, settings.limits, wanted)
    instrument = account.fetch_instrument(found.symbol)
    # While the old order rests nothing is lost: what would refuse the new one must come first.
    refusals = refusals_instead_of(found, told, settings.limits, instrument)
    _show(changed(told, refusals=refusals))
    _refuse_if(refusals)
    _require_typed(wanted.phrase, confirm)
    ended = cancel_live_order(ledger, account, found)
    _show_orders([ended])
    if ended.status != OrderStatus.CANCELED:
        raise RefusedError(f"Order {order} is {ended.status}; nothing was placed instead.")
    _place(settings, ledger, account, changed(wanted, amount=ended.left))


@trade_app.command()
def reconcile(venue: VenueName = None, home: Home = None, as_json: AsJson = False) -> None:
    """Make the books equal to the venue, and name whatever still differs."""
    from tradelib.trading.leases import process_holder
    from tradelib.trading.upkeep import reconcile_venue

    settings = settings_for(home)
    ledger = open_ledger(settings)
    account = _open_account(settings, ledger, venue)
    told = reconcile_venue(ledger, account, process_holder())
    if as_json:
        print_json(told.to_json())
    else:
        table = make_table("Kind", "Subject", "Ledger", "Venue", "Repair")
        for one in told.discrepancies:
            table.add_row(one.kind, one.subject, one.ledger, one.venue, one.repair or "OPEN")
        if told.discrepancies:
            out.print(table)
        out.print(
            f"{told.venue}: {told.orders_checked} orders asked about, {told.fills_booked} fills "
            f"booked; books and venue {'agree' if told.agrees else 'DIFFER'}."
        )
    if not told.agrees:
        raise RefusedError("Discrepancies are open; each is an incident in `desk status`.")


# Trading states


@trade_app.command()
def halt(
    reason: Annotated[str, typer.Argument(help="Why.")],
    reduce_only: Annotated[
        bool, typer.Option("--reduce-only", help="Sales still go; only entries stop.")
    ] = False,
    cancel_orders: Annotated[
        bool, typer.Option("--cancel-orders", help="Cancel resting entries too; stops stay.")
    ] = False,
    flatten: Annotated[
        bool, typer.Option("--flatten", help="Cancel everything and sell what the bots hold.")
    ] = False,
    home: Home = None,
) -> None:
    """Stop every new order, everywhere, until `desk resume`."""
    from tradelib.trading.halts import TradingState, halt_trading

    settings = settings_for(home)
    ledger = open_ledger(settings)
    state = TradingState.REDUCING if reduce_only else TradingState.HALTED
    found = halt_trading(ledger, reason, state)
    out.print(f"Trading is {found.state.lower()} since {found.at:%F %T}Z: {found.reason}")
    if cancel_orders or flatten:
        _leave_market(settings, ledger, flatten)


def _leave_market(settings: DeskSettings, ledger: Ledger, flatten: bool) -> None:
    """Cancel, and sell if asked, at every venue; one that fails does not spare the others."""
    from tradelib.notebooks.cycle import venues_in_use, venues_looked_after

    reachable = venues_in_use(settings, ledger)
    undone: list[str] = []
    for name in reachable:
        undone += _leave_venue(settings, ledger, name, flatten)
    for name in sorted(venues_looked_after(settings, ledger) - set(reachable)):
        undone += _left_behind(ledger, name, flatten)
    _refuse_unless_done("The market was not left everywhere", undone)


def _leave_venue(settings: DeskSettings, ledger: Ledger, name: str, flatten: bool) -> list[str]:
    from tradelib.trading.leases import process_holder
    from tradelib.trading.leaving import leave_venue
    from tradelib.venue import open_venue

    try:
        account = open_venue(settings, name, trading=True)
        done = leave_venue(ledger, account, settings.limits, process_holder(), flatten=flatten)
    except Exception as error:  # nothing at one venue may keep the others from being left
        return [f"{name}: {error if isinstance(error, DeskError) else repr(error)}"]
    _show_orders(done.orders)
    return done.undone


def _left_behind(ledger: Ledger, venue: str, flatten: bool) -> list[str]:
    """What stays at a local exchange that is not up, where nothing can happen meanwhile."""
    from tradelib.trading.bots import is_flat
    from tradelib.trading.leaving import still_live
    from tradelib.trading.orders import load_orders
    from tradelib.trading.positions import UNASSIGNED, find_positions

    live = load_orders(ledger, venue=venue, unsettled=True)
    left = still_live(order for order in live if flatten or not order.reduces)
    if not flatten:
        return left
    with ledger.read() as books:
        found = find_positions(books, venue=venue)
        held = [p.bot for p in found if p.bot != UNASSIGNED and not is_flat(books, p)]
    return [*left, *(f"bot {bot} was not sold: its exchange {venue} is not up" for bot in held)]


@trade_app.command()
def resume(home: Home = None) -> None:
    """Lift the halt."""
    from tradelib.trading.halts import resume_trading

    lifted = resume_trading(open_ledger(settings_for(home)))
    out.print("Trading goes on." if lifted else "There was no halt.")


@trade_app.command()
def watch(
    every: Annotated[float, typer.Option("--every", min=1, help="Seconds between looks.")] = 15,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    home: Home = None,
) -> None:
    """The dead-man's switch, for another machine: cancel resting entries when cycles stop."""
    from tradelib.clock import utc_now
    from tradelib.trading.watch import watch_once

    settings = settings_for(home)
    ledger = open_ledger(settings)
    patience = timedelta(minutes=settings.dead_man_minutes)
    # What a single look sees is all it knows: nobody was there before it.
    since = utc_now() - (2 * patience if once else timedelta(0))
    find_accounts = partial(accounts_in_use, settings, ledger)
    while True:
        look = watch_once(ledger, find_accounts, patience, since)
        _show_orders(look.cancelled)
        if once:
            return _refuse_unless_done("The watch could not do all", look.failures)
        time.sleep(every)


def _refuse_unless_done(what: str, failures: Sequence[str]) -> None:
    if failures:
        raise RefusedError(f"{what}: {'; '.join(each.rstrip('.') for each in failures)}.")


def accounts_in_use(settings: DeskSettings, ledger: Ledger) -> dict[str, Callable[[], Venue]]:
    """How to open each venue that the desk trades at now."""
    from tradelib.notebooks.cycle import venues_in_use
    from tradelib.venue import open_venue

    return {
        name: lambda name=name: open_venue(settings, name, trading=True)
        for name in venues_in_use(settings, ledger)
    }


# Arming


@trade_app.command()
def arm(
    venue: Annotated[str, typer.Argument(help="A venue of desk.toml.")],
    hours: Annotated[float, typer.Option("--hours", min=0.01, max=720, help="For how long.")] = 24,
    home: Home = None,
) -> None:
    """Let bots send orders to a real exchange, for a set time."""
    from tradelib.trading.arming import arm_venue
    from tradelib.venue import open_venue

    if not sys.stdin.isatty():
        raise InvalidInput("Arming asks a person to type the venue's name; run it in a terminal.")
    settings = settings_for(home)
    ledger = open_ledger(settings)
    account = open_venue(settings, venue)
    if account.is_local:
        raise InvalidInput(f"Venue {venue} is the desk's own exchange and needs no arming.")
    out.print(f"Venue {venue} is {settings.venues[venue].exchange}, with real money.")
    for balance in account.fetch_balances().values():
        out.print(f"  {balance.asset:8} free {balance.free:f}, in orders {balance.used:f}")
    limits = settings.limits
    bounds = limits.notional_for(account.quote)
    out.print(
        f"  an order {bounds.min} to {bounds.max} {account.quote}, a position at most "
        f"{limits.max_position_share:.0%} of equity, {limits.max_trades_per_day} orders a day, "
        f"a daily loss of at most {limits.max_daily_loss_share:.0%}"
    )
    if typer.prompt(f"Type the venue's name to arm it for {hours:g} h") != venue:
        raise InvalidInput("The name typed is not the venue's; nothing is armed.")
    until = arm_venue(ledger, venue, timedelta(hours=hours)).until
    out.print(f"Armed until {until:%F %T}Z; `desk disarm {venue}` ends it.")


@trade_app.command()
def disarm(
    venue: Annotated[str, typer.Argument(help="A venue of desk.toml.")], home: Home = None
) -> None:
    """Send no more orders to a real exchange."""
    from tradelib.trading.arming import disarm_venue

    settings = settings_for(home)
    ledger = open_ledger(settings)
    if venue not in settings.venues:
        raise unknown_name("venue", venue, settings.venues, "desk.toml")
    disarm_venue(ledger, venue)
    out.print(f"Venue {venue} is not armed.")
