"""What the page of a day's check shows: live against backtest, gap by gap."""

from __future__ import annotations

import plotly.graph_objects as go

from tradelib.trading.parity import Parity
from tradelib.views.cells import count, moment, money, prose, word
from tradelib.views.charts import Chart
from tradelib.views.html import Html, cards, empty, heading, note, table
from tradelib.views.theme import ACCENT, MUTED, themed

_SHOWN = 200
NOTHING_DECIDED = "There is nothing to compare on that day."


def parity_summary(found: Parity) -> Html:
    """Whether live and backtest agree, and what they came to."""
    agrees = word("yes", "gain") if found.agrees else word(f"{len(found.gaps)} gaps", "loss")
    figures = {
        "Live is the backtest": agrees,
        f"Equity ({found.quote})": money(found.equity, found.quote),
        f"Backtest ({found.quote})": money(found.backtest, found.quote),
        "Difference": money(-found.difference, found.quote, signed=True),
        "Candles": count(found.candles),
        "Orders": count(found.orders),
    }
    page = heading(found.bot, _scope(found)) + cards(figures, name="parity")
    for told in found.notes:
        page += note(told)
    return page


def _scope(found: Parity) -> str:
    if found.closes is None:
        return found.venue
    first, last = found.closes
    return f"{found.venue}, candles closed from {first:%F %T}Z to {last:%F %T}Z"


def parity_costs(found: Parity) -> Html:
    """What each cause took from the account."""
    costs = found.costs()
    lines = [
        [word(cause), prose(cause.meaning), count(number), money(-cost, found.quote, signed=True)]
        for cause, (number, cost) in costs.items()
    ]
    if found.residue:
        meaning = "what no gap explains"
        cost = money(-found.residue, found.quote, signed=True)
        lines.append([word("residue"), prose(meaning), count(0), cost])
    columns = ("cause", "what it means", "gaps", f"effect ({found.quote})")
    scope = "on the account's worth at the last close"
    none = NOTHING_DECIDED if found.closes is None else "No gap: live is the backtest."
    return heading("By cause", scope) + table("parity-costs", columns, lines, empty=none)


def parity_gaps(found: Parity) -> Html:
    """Every gap, dearest first."""
    dearest = sorted(found.gaps, key=lambda gap: -abs(gap.cost))
    shown = dearest[:_SHOWN]
    columns = ("candle close (UTC)", "cause", "what", "live", "backtest", f"effect ({found.quote})")
    lines = [
        [
            moment(gap.close), word(gap.cause), word(gap.what), prose(gap.live),
            prose(gap.backtest), money(-gap.cost, found.quote, signed=True),
        ]
        for gap in shown
    ]  # fmt: skip
    rest = len(dearest) - len(shown)
    scope = "dearest first" + (f"; {rest} more are in the recorded result" if rest else "")
    return heading("Gaps", scope) + table("parity-gaps", columns, lines, empty="None.")


def parity_chart(found: Parity) -> Chart | Html:
    """The account's worth as it was, and had all gone as the backtest says."""
    if not found.curve:
        return empty(NOTHING_DECIDED, name="parity-chart")
    times = [point.close for point in found.curve]
    lines = {
        "backtest": ([point.backtest for point in found.curve], MUTED, "dot"),
        "live": ([point.live for point in found.curve], ACCENT, "solid"),
    }
    figure = go.Figure()
    for name, (worth, color, dash) in lines.items():
        style = {"color": color, "dash": dash, "width": 2}
        figure.add_trace(go.Scatter(x=times, y=worth, name=name, mode="lines", line=style))
    figure.update_yaxes(title=f"equity ({found.quote})")
    figure.update_xaxes(title="candle close (UTC)")
    return Chart(themed(figure, 360))
