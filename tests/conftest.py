"""What every test may lean on: a desk's home of its own, and `require`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tradelib.kernels.identity import OWNER_ENV, this_process


def require(condition: object, reason: str) -> None:
    """Skip this test where an optional thing is missing; under CI its absence is a failure."""
    if condition:
        return
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"{reason} (may be missing on a user's machine, but not in CI)")
    pytest.skip(reason)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty desk's home, the one that DESK_HOME names; no other DESK_ setting leaks in."""
    for name in [name for name in os.environ if name.startswith("DESK_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.setenv("DESK_HOME", str(folder))
    return folder


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which fork servers import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def pytest_configure() -> None:
    """The fork servers of kernels end with these tests, whose workers share them."""
    os.environ.setdefault(OWNER_ENV, this_process())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole desks start first: on two cores, the longest file must not be the last to begin."""
    items.sort(key=lambda item: "test_desk_up" not in item.nodeid)
