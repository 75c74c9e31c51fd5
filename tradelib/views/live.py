"""What the four live pages show: the same when they run and when they are opened again.

Pages executed long ago call these by the names and parameters of their day: add, don't rename.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from tradelib.candles.store import CandleStore
from tradelib.clock import parse_time
from tradelib.trading.accounts import load_account
from tradelib.trading.deciding import Signal
from tradelib.trading.decisions import Decision
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import ZERO, OrderStatus, load_fills, load_orders
from tradelib.trading.targeting import TargetSignal, load_common
from tradelib.views.accounts import (
    balances_table,
    discrepancies_table,
)
from tradelib.views.cells import Cell, count, moment, money, price, prose, span, word
from tradelib.views.charts import SHOWN_CANDLES, Chart, closes_figure, signal_figure
from tradelib.views.html import Html, cards, empty, heading, note, table
from tradelib.views.incidents import closed_incidents, incidents_page
from tradelib.views.orders import (
    action_word,
    decisions_table,
    events_table,
    fills_table,
    orders_table,
    status_word,
)
from tradelib.views.targets import weights_figure, weights_picture

if TYPE_CHECKING:
    # These reach the venue's client, which costs half a second that no page needs to pay.
    from tradelib.trading.execution import Execution
    from tradelib.trading.risk import Refusal


class Recordable(Protocol):
    def to_json(self) -> dict[str, Any]: ...


def run_title(title: str) -> Html:
    """Which run a page shows, as its first line."""
    return Html(f'<div data-testid="run-title">{note(title).text}</div>')


def fetch_table(fetched: Recordable) -> Html:
    """What the fetch did, one line per symbol."""
    told = fetched.to_json()
    columns = (
        "symbol", "asked for", "new", "revised", "open gaps", "venue's gaps",
        "newest close (UTC)", "age", "error",
    )  # fmt: skip
    lines = table(
        "fetch", columns, map(_fetch_row, told["lines"]), empty="No symbols were asked for."
    )
    scope = f"{told['venue']}, {told['timeframe']}, closed by {told['as_of'][:19]}Z"
    return heading("Candles by symbol", f"{scope}; counts are candles") + lines


def _fetch_row(line: dict[str, Any]) -> list[Cell]:
    age = line["age_seconds"]
    return [
        word(line["symbol"]),
        count(line["requested"]),
        count(line["added"]),
        _alarming(line["revised"]),
        _alarming(line["open_gaps"]),
        count(line["venue_gaps"]),
        moment(parse_time(line["last_close"]) if line["last_close"] else None),
        span(None if age is None else timedelta(seconds=age)),
        prose(line["error"], "loss" if line["error"] else ""),
    ]


def _alarming(number: int) -> Cell:
    """A count that ought to be zero."""
    return Cell(f"{number:,}", str(number), "warn" if number else "muted", number=True)


def fetch_chart(store: CandleStore, fetched: Recordable) -> Chart | Html:
    """How the fetched symbols moved, up to the page's as-of time."""
    told = fetched.to_json()
    as_of, closes = parse_time(told["as_of"]), {}
    for line in told["lines"]:
        series = (told["venue"], line["symbol"], told["timeframe"])
        candles = store.load(*series, as_of=as_of, limit=SHOWN_CANDLES)
        if len(candles):
            closes[line["symbol"]] = candles["close"]
    if not closes:
        return empty("The prices will show here once candles are stored.", name="closes")
    return Chart(closes_figure(closes))


def signal_summary(ledger: Ledger, signal: Signal | TargetSignal) -> Html:
    """What the bot decided, why, and how sure its strategy was; of several symbols, their weights
    now and wanted."""
    if isinstance(signal, TargetSignal):
        return _targets_summary(ledger, signal.decision)
    told, decision = signal.to_json(), signal.decision
    score = told["score"]
    figures = {
        "Decision": action_word(decision.action),
        "Score (−1 … 1)": Cell("–" if score is None else f"{score:+.4f}", str(score)),
        "Temperature": word(decision.temperature.lower()),
        "Share of equity or position": Cell(f"{decision.fraction:.0%}", f"{decision.fraction:f}"),
        f"Close ({signal.bot.quote})": price(decision.price),
    }
    return cards(figures, name="signal") + decisions_table(
        ledger, [decision], name="decision", empty=""
    )


def _targets_summary(ledger: Ledger, decision: Decision) -> Html:
    changed = f"{decision.fraction:.1%}"
    figures = {
        "Decision": action_word(decision.action),
        "Equity that changes hands": Cell(changed, f"{decision.fraction:f}"),
        "Orders wanted": count(len(decision.legs(""))),
    }
    return (
        cards(figures, name="signal")
        + weights_picture(decision)
        + decisions_table(ledger, [decision], name="decision", empty="")
    )


def signal_chart(ledger: Ledger, store: CandleStore, signal: Signal | TargetSignal) -> Chart | Html:
    """Candles up to the decision, scores and thresholds; the bot's fills so far are marked. Of
    several symbols, their closes and target weights."""
    if isinstance(signal, TargetSignal):
        return _targets_chart(store, signal)
    bot, close = signal.bot, signal.decision.candle_close
    candles = store.load(bot.venue, bot.symbol, bot.timeframe, as_of=close, limit=SHOWN_CANDLES)
    if candles.empty:
        return empty(f"Nothing to draw: {signal.decision.reason}.", name="signal-chart")
    fills = load_fills(ledger, bot=bot.name)
    return Chart(signal_figure(signal, candles, fills))


def _targets_chart(store: CandleStore, signal: TargetSignal) -> Chart | Html:
    bot, close = signal.bot, signal.decision.candle_close
    candles = load_common(store, bot, close, SHOWN_CANDLES + bot.history)
    if candles[bot.symbols[0]].empty:
        return empty(f"Nothing to draw: {signal.decision.reason}.", name="signal-chart")
    weights = bot.target_rules.weights(candles, bot.strategy_params)
    shown = {symbol: frame.iloc[-SHOWN_CANDLES:] for symbol, frame in candles.items()}
    return Chart(weights_figure(bot, shown, weights.iloc[-SHOWN_CANDLES:]))


def signal_orders(ledger: Ledger, signal: Signal | TargetSignal) -> Html:
    """What became of the decision, as the ledger tells it now."""
    orders = load_orders(ledger, decision=signal.decision.id)
    waiting = "No order yet: one follows a BUY or SELL as soon as the execution page has run."
    if signal.decision.targets:
        waiting = "No order yet: they follow an ADJUST as soon as the execution page has run."
        return heading("Its orders, as they stand now") + orders_table(
            ledger, orders, name="decision-orders", empty=waiting
        )
    return heading("Its order, as it stands now") + orders_table(
        ledger, orders, name="decision-orders", empty=waiting
    )


def execution_summary(ledger: Ledger, execution: Execution) -> Html:
    """The decision, and in one line what became of it."""
    if execution.decision.targets:
        return _legs_summary(ledger, execution)
    order = execution.order
    figures = {
        "Decision": action_word(execution.decision.action),
        "Order": status_word(order.status) if order else word("none", "muted"),
        "Filled (quote)": money(order.cost, order.quote) if order else word(None),
    }
    told = note(execution.summary)
    return cards(figures, name="execution") + told + decisions_table(
        ledger, [execution.decision], name="decision", empty=""
    )  # fmt: skip


def _legs_summary(ledger: Ledger, execution: Execution) -> Html:
    orders = [outcome.order for outcome in execution.legs if outcome.order]
    quote = orders[0].quote if orders else ""
    filled = sum(order.status == OrderStatus.FILLED for order in orders)
    figures = {
        "Decision": action_word(execution.decision.action),
        "Orders filled": Cell(f"{filled} of {len(execution.legs)}", str(filled)),
        "Filled (quote)": money(sum((order.cost for order in orders), ZERO), quote),
    }
    return (
        cards(figures, name="execution")
        + note(execution.summary)
        + weights_picture(execution.decision)
        + decisions_table(ledger, [execution.decision], name="decision", empty="")
    )


def execution_orders(ledger: Ledger, execution: Execution) -> Html:
    """The order as it stands now, why it was refused if it was, its events and its fills; of
    several orders each."""
    if execution.decision.targets:
        return _legs_orders(ledger, execution)
    none = f"No order: {execution.decision.reason}."
    orders = [execution.order] if execution.order else []
    page = heading("Order") + orders_table(ledger, orders, name="order", empty=none)
    if not execution.order:
        return page
    client_id = execution.order.client_id
    if execution.refusals:
        page += heading("Refused by") + refusals_table(execution.refusals)
    fills = load_fills(ledger, client_id=client_id)
    unfilled = "No fills: they show here when the venue has told of them."
    return (
        page
        + heading("What happened to it")
        + events_table(ledger, client_id)
        + heading("Fills")
        + fills_table(ledger, fills, orders, name="fills", empty=unfilled)
    )


def _legs_orders(ledger: Ledger, execution: Execution) -> Html:
    outcomes = [outcome for outcome in execution.legs if outcome.order]
    orders = [outcome.order for outcome in outcomes if outcome.order]
    none = "No order: purchases wait until it is known what became of the sales."
    page = heading("Orders", "sales first, each purchase with what they brought")
    page += orders_table(ledger, orders, name="order", empty=none)
    fills = [fill for order in orders for fill in load_fills(ledger, client_id=order.client_id)]
    for outcome, order in zip(outcomes, orders, strict=True):
        if outcome.refusals:
            page += heading(f"{order.symbol} was refused by") + refusals_table(outcome.refusals)
        page += heading(f"What happened to {order.symbol}") + events_table(ledger, order.client_id)
    unfilled = "No fills: they show here when the venue has told of them."
    return (
        page + heading("Fills") + fills_table(ledger, fills, orders, name="fills", empty=unfilled)
    )


def refusals_table(refusals: tuple[Refusal, ...]) -> Html:
    columns = ("limit", "value", "allowed", "reason")
    rows = ([word(r.limit_name), word(r.value), word(r.bound), prose(r.reason)] for r in refusals)
    return table("refusals", columns, rows, empty="No limit refused it.")


def reconciliation_summary(ledger: Ledger, result: Recordable | dict[str, Any]) -> Html:
    """Whether books and venue agree, and what was found on the way."""
    told = _plain(result)
    account = load_account(ledger, told["venue"])
    quote = account.quote if account else ""
    agrees = word("yes", "gain") if told["agrees"] else word("no", "loss")
    figures = {
        "Books and venue agree": agrees,
        "Orders asked about": count(told["orders_checked"]),
        "Fills booked": count(told["fills_booked"]),
        f"Equity ({quote})": money(Decimal(told["equity"]) if told["equity"] else None, quote),
    }
    scope = f"{told['venue']}, {told['as_of'][:19]}Z"
    return (
        heading("Outcome", scope)
        + cards(figures, name="reconciliation")
        + heading("Discrepancies", "what the books said, what the venue said")
        + discrepancies_table(told["discrepancies"])
    )


def reconciliation_state(ledger: Ledger, result: Recordable | dict[str, Any]) -> Html:
    """Balances and incidents of the venue, as they stand now."""
    venue = _plain(result)["venue"]
    return (
        heading("Balances now", "in units of the asset")
        + balances_table(ledger, [venue])
        + incidents_page(ledger, venue)
        + closed_incidents(ledger, venue)
    )


def _plain(result: Recordable | dict[str, Any]) -> dict[str, Any]:
    """A reconciliation just made, or its recorded form."""
    return result if isinstance(result, dict) else result.to_json()
