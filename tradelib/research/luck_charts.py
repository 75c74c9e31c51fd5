"""What the tests for luck look like: a parameter surface, logits of overfitting, a walk forward."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tradelib.research.luck import Overfitting
from tradelib.research.stability import Stability
from tradelib.research.walkforward import WalkForward

_GREEN, _RED, _GREY = "#2a9d5c", "#d1495b", "#75818f"
_DIVERGING = ((0, _RED), (0.5, "#e4e7eb"), (1, _GREEN))


def stability_figure(found: Stability, title: str = "") -> go.Figure:
    """The metric over both parameters, steps of the grid evenly apart, the best cell marked."""
    surface = found.surface
    columns, rows = (list(map(str, axis)) for axis in (surface.columns, surface.index))
    heat = go.Heatmap(
        x=columns,
        y=rows,
        z=surface.to_numpy(),
        customdata=np.dstack([found.mean.to_numpy(), found.share.to_numpy()]),
        colorscale=_DIVERGING,
        zmid=found.threshold,
        colorbar={"title": found.metric},
        hovertemplate=(
            f"{found.x} %{{x}}, {found.y} %{{y}}<br>{found.metric} %{{z:.3g}}<br>neighbours "
            f"%{{customdata[0]:.3g}}, %{{customdata[1]:.0%}} above {found.threshold:g}"
            f"<extra></extra>"
        ),
    )
    best = found.best
    mark = go.Scatter(
        x=[str(best[found.x])],
        y=[str(best[found.y])],
        mode="markers",
        name="best",
        marker={"symbol": "circle-open", "size": 22, "color": "#1f2933", "line": {"width": 3}},
        hoverinfo="skip",
    )
    figure = go.Figure([heat, mark])
    figure.update_xaxes(title_text=found.x, type="category", showgrid=False)
    figure.update_yaxes(title_text=found.y, type="category", showgrid=False)
    return figure.update_layout(title=title, hovermode="closest", showlegend=False)


def logits_figure(found: Overfitting, title: str = "") -> go.Figure:
    """How the chosen trial ranked outside: red at or below the median, green above it."""
    reach = max(float(np.abs(found.logits).max()), 0.5)
    edges = np.linspace(-reach * 1.02, reach * 1.02, 41)
    # The median itself, 0, belongs to the bar on its left.
    counts, _ = np.histogram(found.logits - 1e-9, edges)
    middles = (edges[:-1] + edges[1:]) / 2
    bars = go.Bar(
        x=middles,
        y=counts / counts.sum(),
        width=np.diff(edges) * 0.94,
        marker={"color": np.where(middles < 0, _RED, _GREEN)},
        name="splits",
        hovertemplate="logit %{x:.2f}: %{y:.1%} of all splits<extra></extra>",
    )
    figure = go.Figure(bars)
    figure.add_vline(0, line_dash="dot", line_color=_GREY)
    figure.update_xaxes(title_text="logit of the rank outside; 0 is the median")
    figure.update_yaxes(title_text="share of splits", tickformat=".0%")
    return figure.update_layout(title=title, hovermode="closest", showlegend=False)


def walk_forward_figure(found: WalkForward, held: pd.Series, title: str = "") -> go.Figure:
    """The joined equity, a line where each fold begins, beside holding the market.

    held: prices of the tested candles or more, scaled here to the equity's first value.
    """
    market = held.loc[found.equity.index[0] : found.equity.index[-1]]
    market = market / market.iloc[0] * found.equity.iloc[0]
    figure = go.Figure(
        [
            go.Scatter(x=found.equity.index, y=found.equity, mode="lines", name="walk-forward"),
            go.Scatter(
                x=market.index,
                y=market,
                mode="lines",
                name="holding",
                line={"color": _GREY, "width": 1},
            ),
        ]
    )
    for fold in found.folds:
        figure.add_vline(fold.test_from, line_dash="dot", line_width=1, line_color=_GREY)
    figure.update_yaxes(title_text="equity")
    return figure.update_layout(title=title)
