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
from plotly.subplots import make_subplots

from tradelib.trading.deciding import Signal
from tradelib.trading.decisions import Action
from tradelib.trading.orders import Fill, Side
from tradelib.views.theme import GAIN, LOSS, MUTED, themed

SHOWN_CANDLES = 200
# How far right of the newest candle fills are still shown, as a share of the chart.
MARGIN_SHARE = 0.05
WHOLE_NUMBERS = {"exponentformat": "none", "separatethousands": True}


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
    figure = make_subplots(
        rows=2, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.04
    )
    figure.add_trace(candle_trace(candles), row=1, col=1)
    for side in Side:
        figure.add_trace(_fill_marks(fills, side, candles), row=1, col=1)
    score = go.Scatter(x=scores.index, y=scores["score"], name="score", line={"width": 1.6})
    figure.add_trace(score, row=2, col=1)
    rules = signal.bot.decision_params
    _add_threshold(figure, rules.buy_threshold, "buy from", GAIN)
    _add_threshold(figure, rules.sell_threshold, "sell from", LOSS)
    figure.add_vline(candles.index[-1], line={"color": MUTED, "width": 1, "dash": "dot"})
    figure.update_yaxes(title=f"price ({signal.bot.quote})", row=1, **WHOLE_NUMBERS)
    figure.update_yaxes(title="score (−1 … 1)", range=[-1.05, 1.05], row=2)
    figure.update_xaxes(title="candle open (UTC)", row=2)
    figure.update_xaxes(rangeslider_visible=False)
    bot = signal.bot
    title = f"{bot.symbol} {bot.timeframe}, {bot.strategy}: {Action(signal.decision.action)}"
    return themed(figure, 520, title={"text": title, "y": 0.97}, margin={"t": 80})


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


def _add_threshold(figure: go.Figure, level: float, label: str, color: str) -> None:
    figure.add_hline(
        level,
        row=2,
        line={"color": color, "width": 1, "dash": "dot"},
        annotation={"text": f"{label} {level:g}", "font": {"color": color, "size": 11}},
        annotation_position="top right" if level > 0 else "bottom right",
    )


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
