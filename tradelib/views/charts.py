"""Figures: candles with their scores, closes side by side, an account's worth over time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from tradelib.trading.deciding import Signal
from tradelib.trading.decisions import Action
from tradelib.trading.orders import Fill, Side
from tradelib.views.theme import GAIN, LOSS, MUTED, look, themed

SHOWN_CANDLES = 200
# How far right of the newest candle fills are still shown, as a share of the chart.
MARGIN_SHARE = 0.05
WHOLE_NUMBERS = {"exponentformat": "none", "separatethousands": True}
# The two rows of a signal's chart, as shares of its height.
PRICES, SCORES = (0.3472, 1.0), (0.0, 0.3072)
NO_SLIDER = {"rangeslider": {"visible": False}}


@dataclass(frozen=True)
class Chart:
    """A figure as notebooks display it: data alone, which JupyterLab and Voilà draw with the
    Plotly that this machine serves.

    Plotly's own display imports nbformat, and that takes most of a second in every new kernel.
    """

    figure: go.Figure

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {
            "application/vnd.plotly.v1+json": json.loads(self.figure.to_json()),
            "text/plain": "a chart, which JupyterLab and Voilà draw",
        }


def signal_figure(signal: Signal, candles: pd.DataFrame, fills: Sequence[Fill] = ()) -> go.Figure:
    """The candles before a decision, the strategy's scores below with the bot's thresholds, the
    candle decided on, and the bot's own fills. A strategy may score fewer candles than shown."""
    scores = signal.scores[signal.scores.index.isin(candles.index)]
    below = {"xaxis": "x2", "yaxis": "y2"}
    line = go.Scatter(x=scores.index, y=scores["score"], name="score", line={"width": 1.6}, **below)
    marks = [_fill_marks(fills, side, candles) for side in Side]
    rules, bot = signal.bot.decision_params, signal.bot
    levels = ((rules.buy_threshold, "buy from", GAIN), (rules.sell_threshold, "sell from", LOSS))
    title = f"{bot.symbol} {bot.timeframe}, {bot.strategy}: {Action(signal.decision.action)}"
    layout = {
        "xaxis": {"anchor": "y", "matches": "x2", "showticklabels": False, **NO_SLIDER},
        "yaxis": {
            "anchor": "x", "domain": PRICES, "title": {"text": f"price ({bot.quote})"},
            **WHOLE_NUMBERS,
        },
        "xaxis2": {"anchor": "y2", "title": {"text": "candle open (UTC)"}, **NO_SLIDER},
        "yaxis2": {
            "anchor": "x2", "domain": SCORES, "title": {"text": "score (−1 … 1)"},
            "range": [-1.05, 1.05],
        },
        "shapes": [
            *(_threshold_line(level, color) for level, _, color in levels),
            *(_moment_line(candles.index[-1], row) for row in ("", "2")),
        ],
        "annotations": [_threshold_label(*level) for level in levels],
        "title": {"text": title, "y": 0.97},
        "margin": {"t": 80},
    }  # fmt: skip
    # All at once: step by step, each change is validated with all that is there by then, which
    # takes longer than deciding.
    return go.Figure([candle_trace(candles), *marks, line], look(520, **layout))


def candle_trace(candles: pd.DataFrame) -> go.Candlestick:
    prices = {name: candles[name] for name in ("open", "high", "low", "close")}
    return go.Candlestick(
        x=candles.index,
        name="price",
        increasing={"line": {"color": GAIN, "width": 1}, "fillcolor": GAIN},
        decreasing={"line": {"color": LOSS, "width": 1}, "fillcolor": LOSS},
        **prices,
    )


def _fill_marks(fills: Sequence[Fill], side: Side, candles: pd.DataFrame) -> go.Scatter:
    """Fills of one side that belong to the shown candles; a page opened again years later must
    not stretch to the bot's newest trade."""
    first, last = candles.index[0], candles.index[-1]
    until = last + MARGIN_SHARE * (last - first) + pd.Timedelta(minutes=5)
    shown = [fill for fill in fills if fill.side == side and first <= fill.at <= until]
    buys = side is Side.BUY
    return go.Scatter(
        x=[fill.at for fill in shown],
        y=[float(fill.price) for fill in shown],
        mode="markers",
        name="bought" if buys else "sold",
        showlegend=bool(shown),
        marker={
            "symbol": "triangle-up" if buys else "triangle-down",
            "size": 12,
            "color": GAIN if buys else LOSS,
            "line": {"width": 1.5, "color": "white"},
        },
    )


def _threshold_line(level: float, color: str) -> dict[str, Any]:
    return {
        "type": "line", "xref": "x2 domain", "x0": 0, "x1": 1, "yref": "y2", "y0": level,
        "y1": level, "line": {"color": color, "width": 1, "dash": "dot"},
    }  # fmt: skip


def _threshold_label(level: float, label: str, color: str) -> dict[str, Any]:
    return {
        "text": f"{label} {level:g}", "font": {"color": color, "size": 11}, "showarrow": False,
        "xref": "x2 domain", "x": 1, "xanchor": "right",
        "yref": "y2", "y": level, "yanchor": "bottom" if level > 0 else "top",
    }  # fmt: skip


def _moment_line(moment: pd.Timestamp, row: str) -> dict[str, Any]:
    """The candle decided on, in one of the two rows."""
    return {
        "type": "line", "xref": f"x{row}", "x0": moment, "x1": moment, "yref": f"y{row} domain",
        "y0": 0, "y1": 1, "line": {"color": MUTED, "width": 1, "dash": "dot"},
    }  # fmt: skip


def closes_figure(closes: Mapping[str, pd.Series]) -> go.Figure:
    """Closes of several symbols, each as the change since its first shown candle."""
    figure = go.Figure()
    for symbol, series in closes.items():
        change = (series / series.iloc[0] - 1) * 100
        figure.add_trace(go.Scatter(x=series.index, y=change, name=symbol, line={"width": 1.6}))
    figure.update_yaxes(title="change since the left edge (%)", ticksuffix=" %")
    figure.update_xaxes(title="candle open (UTC)")
    return themed(figure, 340)


@dataclass(frozen=True)
class CurvePoint:
    """An account's worth in its quote currency at one moment of the market."""

    as_of: datetime
    quote: str
    equity: Decimal


def equity_traces(curves: Mapping[str, Sequence[CurvePoint]]) -> list[go.Scatter]:
    """One line per venue: the account's worth at each reconciliation."""
    return [
        go.Scatter(
            x=[point.as_of for point in curve],
            y=[float(point.equity) for point in curve],
            name=f"{venue} ({curve[-1].quote})",
            mode="lines" if len(curve) > 1 else "markers",
            line={"width": 2},
        )
        for venue, curve in curves.items()
        if curve
    ]
