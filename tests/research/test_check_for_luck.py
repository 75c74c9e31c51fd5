"""The page that teaches to tell luck from an edge, and its figures."""

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from tradelib.research.luck import backtest_overfitting
from tradelib.research.luck_charts import logits_figure, stability_figure, walk_forward_figure
from tradelib.research.samples import random_candles
from tradelib.research.stability import parameter_stability
from tradelib.research.walkforward import Choice, rolling_folds, walk_forward
from tradelib.strategy.registry import strategy

PAGE = Path(__file__).resolve().parents[2] / "notebooks" / "research" / "check_for_luck.ipynb"


def test_the_page_is_committed_without_outputs_and_with_one_parameters_cell():
    page = nbformat.read(PAGE, as_version=4)
    cells = [cell for cell in page.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    assert len({cell.id for cell in page.cells}) == len(page.cells)
    assert not any("def " in cell.source or "class " in cell.source for cell in cells)


def test_the_logits_are_all_shown_and_red_up_to_the_median():
    found = backtest_overfitting(np.random.default_rng(1).normal(size=(120, 9)), 8)
    (bars,) = logits_figure(found).data
    red = [color == "#d1495b" for color in bars.marker.color]
    assert sum(bars.y) == pytest.approx(1)
    assert (np.abs(found.logits) < 1e-9).any()
    assert sum(share for share, is_red in zip(bars.y, red, strict=True) if is_red) == pytest.approx(
        found.probability
    )


def test_the_surface_marks_its_best_cell():
    rows = pd.DataFrame({"x": [1, 2, 1, 2], "y": [5, 5, 6, 6], "sharpe": [0.1, 0.4, 0.2, 0.3]})
    heat, mark = stability_figure(parameter_stability(rows, "x", "y", "sharpe")).data
    assert np.array(heat.z).tolist() == [[0.1, 0.4], [0.2, 0.3]]
    assert (mark.x, mark.y) == (("2",), ("5",))


def test_the_walk_forward_is_shown_beside_holding_from_the_same_value():
    candles, holder = random_candles(300, seed=2), strategy("buy_and_hold")
    folds = rolling_folds(300, train=50, test=100, purge=1)
    found = walk_forward(candles, "1h", holder, lambda train: Choice(holder.params()), folds)
    figure = walk_forward_figure(found, candles["close"])
    walked, held = figure.data
    assert len(walked.x) == len(held.x) == 200
    assert held.y[0] == walked.y[0] == found.cash
    assert held.y[-1] / held.y[0] == pytest.approx(
        candles["close"].iloc[-1] / candles["close"].iloc[100]
    )
    assert len(figure.layout.shapes) == 2
