"""The plan of the house: who may import whom.

`services` stands leftmost: it knows no other room, and all may ask it where a service is.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project.source import PROJECT, Import, imports

ROOMS = (
    "services",
    "traffic",
    "venue",
    "candles",
    "paper",
    "strategy",
    "research",
    "trading",
    "feed",
    "torture",
    "kernels",
    "notebooks",
    "views",
    "cli",
)
HALL = ("errors", "settings", "clock", "scrubber", "logs")


def room_of(file: Path) -> str:
    return file.relative_to(PROJECT / "tradelib").parts[0].removesuffix(".py")


def test_every_room_is_on_the_plan() -> None:
    found = {room_of(file) for file in (PROJECT / "tradelib").rglob("*.py")} - {"__init__"}
    assert found <= {*ROOMS, *HALL, "__main__"}


def test_a_room_imports_only_from_rooms_to_its_left() -> None:
    assert [str(found) for found in imports("tradelib") if reaches_right(found)] == []


def reaches_right(found: Import) -> bool:
    package, _, rest = found.module.partition(".")
    target = rest.split(".")[0]
    if package in ("flows", "tests"):  # the command line alone starts flows in its own process
        return package == "tests" or room_of(found.file) != "cli"
    if package != "tradelib" or target not in ROOMS:
        return False
    source = room_of(found.file)
    if source in HALL:
        return True
    return source in ROOMS and ROOMS.index(target) > ROOMS.index(source)


@pytest.mark.parametrize(
    ("file", "module", "refused"),
    [
        ("tradelib/strategy/score.py", "tradelib.candles.store", False),
        ("tradelib/strategy/score.py", "tradelib.trading", True),
        ("tradelib/clock.py", "tradelib.venue", True),
        ("tradelib/venue/client.py", "tradelib.errors.DeskError", False),
        ("tradelib/venue/client.py", "tradelib.services.service_url", False),
        ("tradelib/services/definitions.py", "tradelib.paper", True),
        ("tradelib/cli/up.py", "tradelib.views", False),
        ("tradelib/cli/up.py", "flows.trading", False),
        ("tradelib/notebooks/runner.py", "flows.trading", True),
    ],
)
def test_the_plan_is_read_as_meant(file: str, module: str, refused: bool) -> None:
    assert reaches_right(Import(PROJECT / file, 1, module)) is refused


def test_ccxt_is_imported_in_the_venue_alone() -> None:
    outside = [
        str(found)
        for folder in ("tradelib", "flows", "notebooks", "benchmarks")
        for found in imports(folder)
        if found.module.split(".")[0] == "ccxt"
        and PROJECT / "tradelib/venue" not in found.file.parents
    ]
    assert outside == []


def test_every_import_is_a_dependency_of_the_project() -> None:
    named = set(dependencies())
    homes = packages_distributions()
    strangers = [
        str(found)
        for folder in ("tradelib", "flows")
        for found in imports(folder)
        if not is_ours(package := found.module.split(".")[0])
        and not named & {canonicalize_name(name) for name in homes.get(package, [])}
    ]
    assert strangers == []


def is_ours(package: str) -> bool:
    return package in sys.stdlib_module_names or package in ("tradelib", "flows")


def dependencies() -> Iterator[str]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    for requirement in [*project["dependencies"], *extras]:
        yield canonicalize_name(Requirement(requirement).name)
