"""Fork servers of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernels.kernels import add_kernelspec, sockets_folder
from tradelib.kernels import provisioner, servers


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Jupyter data, with the kernelspec `warm-test`; every failure and warning of
    other tests is forgotten."""
    folder = tmp_path / "jupyter"
    add_kernelspec(folder, "numpy", "sqlite3")
    monkeypatch.setenv("JUPYTER_PATH", str(folder))
    monkeypatch.setattr(provisioner, "_warned", set())
    monkeypatch.setattr(servers, "_failures", {})
    return folder


@pytest.fixture(scope="module", autouse=True)
def shared_sockets() -> Iterator[Path]:
    """One server for all tests of a module that don't ask for their own."""
    with sockets_folder() as folder:
        yield folder


@pytest.fixture
def own_sockets() -> Iterator[Path]:
    """A folder in which no server is yet."""
    with sockets_folder() as folder:
        yield folder
