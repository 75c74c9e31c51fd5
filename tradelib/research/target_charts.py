"""What a backtest over several symbols looks like."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from tradelib.research.target_backtest import TargetBacktest
from tradelib.strategy.targets import columns_of


def target_figure(result: TargetBacktest, title: str = "") -> go.Figure:
    """Closes since the first candle, target weights, weights held, and the equity."""
    figure = make_subplots(
        rows=4,
        shared_xaxes=True,
        row_heights=[0.3, 0.2, 0.2, 0.3],
        vertical_spacing=0.03,
    )
    closes = columns_of(result.candles, "close")
    for number, symbol in enumerate(closes):
        color = qualitative.D3[number % len(qualitative.D3)]
        change = closes[symbol] / closes[symbol].iloc[0] - 1
        line = go.Scatter(x=closes.index, y=change, name=symbol, line={"width": 1.2})
        figure.add_trace(line.update(line_color=color), row=1, col=1)
        for row, weights in ((2, result.targets), (3, result.shares)):
            area = go.Scatter(
                x=weights.index,
                y=weights[symbol],
                name=symbol,
                showlegend=False,
                stackgroup=f"row{row}",
                line={"width": 0.3, "color": color},
            )
            figure.add_trace(area, row=row, col=1)
    equity = go.Scatter(x=result.equity.index, y=result.equity, name="equity", line={"width": 1.4})
    figure.add_trace(equity, row=4, col=1)
    for row, label in enumerate(("change", "wanted", "held", "equity"), start=1):
        figure.update_yaxes(title_text=label, row=row)
    for row in (2, 3):
        figure.update_yaxes(range=[0, 1], row=row)
    return figure.update_layout(title=title, height=820, margin={"t": 50, "b": 30})
