"""What one kernel does, the next knows nothing of."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests.kernels.kernels import kernel
from tradelib.kernels.files import files_under, find_change, imported_files

LITTER = """
import colorsys, os, random, sqlite3, sys, time
import numpy
left = 1
numpy.left_behind = True
sys.path.insert(0, "/left")
sys.modules["left"] = sys
os.environ["LEFT"] = "1"
os.chdir("/")
numpy.random.seed(7)
random.seed(7)
database = sqlite3.connect("left.sqlite" if os.access(".", os.W_OK) else ":memory:")
os.umask(0o077)
"""
LOOK = """
import json, os, sys
import numpy
handles = [os.path.realpath(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd")]
os.umask(mask := os.umask(0))
print(json.dumps({
    "variable": "left" in globals(), "attribute": hasattr(numpy, "left_behind"),
    "import": "colorsys" in sys.modules or "left" in sys.modules, "path": "/left" in sys.path,
    "environment": os.environ.get("LEFT"), "folder": os.getcwd(), "umask": mask,
    "database": [one for one in handles if one.endswith(".sqlite")],
}))
"""
DRAW = "import numpy, random; print(numpy.random.rand(3).tolist(), random.random())"


def test_variables_imports_and_surroundings_end_with_their_kernel(tmp_path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    with kernel(cwd=str(tmp_path)) as first:
        assert first.is_warm
        first.run(LITTER)
        with kernel(cwd=str(tmp_path)) as second:
            assert second.is_warm
            seen = json.loads(second.run(LOOK))
    assert seen == {
        "variable": False, "attribute": False, "import": False, "path": False,
        "environment": None, "folder": str(tmp_path), "umask": mask, "database": [],
    }  # fmt: skip


def test_random_numbers_differ_between_kernels_unless_they_are_seeded() -> None:
    drawn, seeded = [], []
    for _ in range(2):
        with kernel() as one:
            drawn.append(one.run(DRAW))
            seeded.append(
                one.run(f"import numpy, random; numpy.random.seed(1); random.seed(1)\n{DRAW}")
            )
    assert drawn[0] != drawn[1]
    assert seeded[0] == seeded[1]


def test_a_kernel_sees_the_environment_folder_and_zone_it_was_given(tmp_path: Path) -> None:
    env = {**os.environ, "GIVEN": "as it is", "TZ": "Asia/Tokyo"}
    env.pop("LANGUAGE", None)
    with kernel(env=env, cwd=str(tmp_path)) as one:
        assert one.is_warm
        told = one.run("import os, time; print(os.environ['GIVEN'], os.getcwd(), time.tzname[0])")
        inherited = one.run("import subprocess; print(subprocess.getoutput('echo $GIVEN'))")
    assert told == f"as it is {tmp_path} JST"
    assert inherited == "as it is"
    assert time.tzname[0] != "JST"


SEARCH = """
import hashlib, re

def read(low, high):
    with open("/proc/self/mem", "rb", 0) as memory:
        memory.seek(int(low, 16))
        return memory.read(int(high, 16) - int(low, 16))

with open("/proc/self/maps") as maps:
    regions = [line.split()[0].split("-") for line in maps if line.split()[1].startswith("rw")]
found = {hashlib.sha256(one).hexdigest() for region in regions
         for one in re.findall(rb"secret-[0-9]{19}", read(*region))}
print("WANTED" in found)
"""


def test_a_secret_reaches_no_memory_but_its_own_kernels() -> None:
    """The server never reads what a kernel is given, so that no later fork can find it."""
    secret = f"secret-{time.time_ns()}"
    search = SEARCH.replace("WANTED", hashlib.sha256(secret.encode()).hexdigest())
    with kernel(env={**os.environ, "DESK_RUN_TOKEN": secret}) as first:
        assert first.run(search) == "True"
        with kernel(env={**os.environ, "DESK_RUN_TOKEN": "another"}) as second:
            assert second.is_warm
            assert second.run(search) == "False"


def test_a_file_that_changes_while_it_is_imported_counts_as_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "edited_meanwhile.py"
    module.write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = files_under(tmp_path)
    importlib.import_module("edited_meanwhile")
    assert find_change(imported_files(before)) is None
    module.write_text("value = 22\n")
    assert find_change(imported_files(before)) == str(module)
    del sys.modules["edited_meanwhile"]
