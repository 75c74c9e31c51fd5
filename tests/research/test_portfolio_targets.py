"""The research page over several symbols: it runs from top to bottom, on walks or on files."""

from pathlib import Path

import nbformat
import numpy as np
import pytest

from tests.pages import execute_page
from tradelib.research.samples import load_samples, random_candles

PAGE = Path(__file__).resolve().parents[2] / "notebooks" / "research" / "portfolio_targets.ipynb"


@pytest.fixture
def page():
    return nbformat.read(PAGE, as_version=4)


def test_the_page_is_committed_without_outputs_and_with_one_parameters_cell(page):
    cells = [cell for cell in page.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    assert len({cell.id for cell in page.cells}) == len(page.cells)
    assert not any("def " in cell.source or "class " in cell.source for cell in cells)


def test_the_page_runs_on_candle_files(page, tmp_path):
    files = []
    for number, base in enumerate(("ETH", "BTC", "SOL")):
        files.append(str(tmp_path / f"paper_{base}-USDT_1h.csv"))
        random_candles(600, seed=number).drop(random_candles(600, seed=0).index[number]).to_csv(
            files[-1]
        )
    (parameters,) = [cell for cell in page.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += f"\ncandle_files = {files!r}\nstrategy_name = 'top_momentum'"
    done = execute_page(page, folder=PAGE.parent)
    text = "\n".join(str(cell.get("outputs")) for cell in done.cells)
    assert "597 candles of 1h that ETH/USDT, BTC/USDT, SOL/USDT all have" in text
    assert "Total Return" in text
    assert "sharpe" in text


def test_walks_are_the_same_for_a_seed_and_move_together_in_part():
    first, again = (load_samples((), count=1500, seed=3) for _ in range(2))
    assert [one.symbol for one in first] == [f"WALK{n}/USD" for n in range(1, 5)]
    assert all(a.frame.equals(b.frame) for a, b in zip(first, again, strict=True))
    returns = np.array([np.diff(np.log(one.frame["close"])) for one in first])
    links = np.corrcoef(returns)[np.triu_indices(4, 1)]
    assert links.min() > 0.2
    assert links.max() < 0.9
    assert np.all(np.diff(returns.std(axis=1)) > 0)
