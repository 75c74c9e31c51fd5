"""The research notebook: a page that runs from top to bottom, on a walk or on a file."""

from pathlib import Path

import nbformat
import pytest

from tests.pages import execute_page
from tradelib.research.samples import random_candles

PAGE = Path(__file__).resolve().parents[2] / "notebooks" / "research" / "explore_strategy.ipynb"


@pytest.fixture
def page():
    return nbformat.read(PAGE, as_version=4)


def test_the_page_is_committed_without_outputs_and_with_one_parameters_cell(page):
    cells = [cell for cell in page.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    assert len({cell.id for cell in page.cells}) == len(page.cells)
    assert not any("def " in cell.source or "class " in cell.source for cell in cells)


def test_the_page_runs_on_a_candle_file(page, tmp_path):
    path = tmp_path / "paper_ETH-USDT_1h.csv"
    random_candles(600, seed=3).to_csv(path)
    (parameters,) = [cell for cell in page.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += f"\ncandle_file = {str(path)!r}\nstrategy_name = 'momentum'"
    parameters.source += "\nfill_name = 'venue'\nfill_params = {'spread_bp': 3}"
    done = execute_page(page, folder=PAGE.parent)
    text = "\n".join(str(cell.get("outputs")) for cell in done.cells)
    assert "ETH/USDT 1h: 600 candles" in text
    assert "Total Return" in text
