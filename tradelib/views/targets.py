"""What a decision on several symbols looks like: weights now and wanted, and how they came."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradelib.trading.bots import Bot
from tradelib.trading.decisions import Action, Decision
from tradelib.views.html import Html, empty, heading
from tradelib.views.theme import ACCENT, MUTED, SERIES, themed

_COLUMNS = (
    "display:grid;grid-template-columns:max-content 1fr max-content;gap:4px 12px;margin-bottom:12px"
)


def weights_picture(decision: Decision) -> Html:
    """Each symbol's share of equity at the decision and the share wanted, as bars, with what is to
    be done; what is neither is cash, or belongs to others."""
    title = heading("Weights", "of equity: grey what was held, blue what is wanted")
    if not decision.targets:
        return title + empty(f"No weights: {decision.reason}.", name="weights")
    most = max([0.01, *(max(one["share"], one["weight"] or 0.0) for one in decision.targets)])
    rows = "".join(_row(one, most) for one in decision.targets)
    return title + Html(f'<div data-testid="weights" style="{_COLUMNS}">{rows}</div>')


def _row(target: Mapping[str, Any], most: float) -> str:
    share, weight, action = target["share"], target["weight"], target["action"]
    wanted = "warming up" if weight is None else f"{weight:.1%}"
    done = "" if action == Action.HOLD else f", {action.lower()}"
    bars = _bar(share, most, MUTED) + _bar(weight or 0.0, most, ACCENT)
    told = escape(f"{share:.1%} → {wanted}{done}")
    return f"<div>{escape(target['symbol'])}</div><div>{bars}</div><div>{told}</div>"


def _bar(share: float, most: float, color: str) -> str:
    return (
        f'<div style="height:8px;margin:1px 0;width:{share / most:.2%};background:{color}"></div>'
    )


def weights_figure(
    bot: Bot, candles: Mapping[str, pd.DataFrame], weights: pd.DataFrame
) -> go.Figure:
    """Closes since the first shown candle, and below them the strategy's weights, stacked."""
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.6, 0.4], vertical_spacing=0.05)
    for number, (symbol, frame) in enumerate(candles.items()):
        color = SERIES[number % len(SERIES)]
        change = (frame["close"] / frame["close"].iloc[0] - 1) * 100
        line = {"width": 1.6, "color": color}
        figure.add_trace(go.Scatter(x=frame.index, y=change, name=symbol, line=line), row=1, col=1)
        area = {"stackgroup": "weights", "showlegend": False, "line": {"width": 0.5}}
        trace = go.Scatter(x=weights.index, y=weights[symbol] * 100, name=symbol, **area)
        figure.add_trace(trace.update(line_color=color, fillcolor=color), row=2, col=1)
    figure.update_yaxes(title="change since the left edge (%)", row=1)
    figure.update_yaxes(title="target weight (%)", rangemode="tozero", row=2)
    figure.update_xaxes(title="candle open (UTC)", row=2)
    title = f"{', '.join(bot.symbols)} {bot.timeframe}, {bot.strategy}"
    return themed(figure, 520, title={"text": title, "y": 0.97}, margin={"t": 80})
