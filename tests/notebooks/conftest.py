"""A desk without a market, and notebooks of the test's own that run_notebook runs."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tradelib.notebooks import runner
from tradelib.settings import load_settings
from tradelib.trading.ledger import open_ledger


@pytest.fixture
def settings(home):
    return load_settings(home).model_copy(update={"notebook_timeout": 30})


@pytest.fixture
def ledger(settings):
    with_schema = open_ledger(settings, migrate=True)
    yield with_schema
    with_schema.close()


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A folder that run_notebook takes notebooks from; returns a writer of them."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(runner, "NOTEBOOKS", folder)

    def write(name: str, *cells: str) -> str:
        parameters = new_code_cell(
            'run: str = ""\nlabel: str = ""\nlimit: int = 3\n'
            "share: float = 0.5\nsymbols: list[str] = []",
            metadata={"tags": ["parameters"]},
        )
        page = new_notebook(cells=[new_markdown_cell("# A page"), parameters])
        page.cells += [new_code_cell(cell) for cell in cells]
        page.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
        nbformat.write(page, folder / f"{name}.ipynb")
        return name

    return write
