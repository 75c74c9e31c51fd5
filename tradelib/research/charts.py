"""What a backtest looks like."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradelib.research.backtest import Backtest

_GREEN, _RED = "#2a9d5c", "#d1495b"


def strategy_figure(result: Backtest, title: str = "") -> go.Figure:
    """Price with its purchases and sales, the score with its thresholds, and the equity."""
    figure = make_subplots(
        rows=3,
        shared_xaxes=True,
        row_heights=[0.5, 0.25, 0.25],
        vertical_spacing=0.03,
    )
    for trace in (_price(result), _fills(result, 1), _fills(result, -1)):
        figure.add_trace(trace, row=1, col=1)
    figure.add_trace(_line(result.scores["score"], "score"), row=2, col=1)
    figure.add_hline(result.decision.buy_threshold, row=2, line_dash="dot", line_color=_GREEN)
    figure.add_hline(result.decision.sell_threshold, row=2, line_dash="dot", line_color=_RED)
    figure.add_trace(_line(result.equity, "equity"), row=3, col=1)
    figure.update_xaxes(rangeslider_visible=False)
    for row, label in enumerate(("price", "score", "equity"), start=1):
        figure.update_yaxes(title_text=label, row=row)
    return figure.update_layout(title=title, height=720, margin={"t": 50, "b": 30})


def _price(result: Backtest) -> go.Candlestick:
    prices = {name: result.candles[name] for name in ("open", "high", "low", "close")}
    return go.Candlestick(x=result.candles.index, name="price", **prices)


def _fills(result: Backtest, side: int) -> go.Scatter:
    trades = result.trades[result.trades["side"] == side]
    name, symbol, color = {
        1: ("bought", "triangle-up", _GREEN),
        -1: ("sold", "triangle-down", _RED),
    }[side]
    marker = {"symbol": symbol, "size": 11, "color": color, "line": {"width": 1, "color": "white"}}
    return go.Scatter(
        x=trades.index,
        y=trades["price"],
        mode="markers",
        name=name,
        marker=marker,
        text=trades["reason"],
    )


def _line(values: pd.Series, name: str) -> go.Scatter:
    return go.Scatter(x=values.index, y=values, mode="lines", name=name, line={"width": 1.2})
