"""environment.yml as pyproject.toml has it: one list of dependencies, two ways to install it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
FILE = PROJECT / "environment.yml"
HEADER = """\
# Written from pyproject.toml by `make environment`; edit that file instead.
#   conda env create --file environment.yml && conda activate notedesk && desk up
"""


def make_environment_file() -> str:
    """The text that environment.yml should hold; needs no network."""
    tool = Path(sys.executable).with_name("pyproject2conda")
    command = [tool, "yaml", "--pyproject", PROJECT / "pyproject.toml", "--name", "notedesk"]
    command += ["--python-include", "infer", "-e", "postgres", "-e", "dask", "-g", "dev"]
    command += ["--pip-dep", "-e ."]
    written = subprocess.run(command, check=True, capture_output=True, text=True)
    return HEADER + written.stdout


if __name__ == "__main__":
    FILE.write_text(make_environment_file(), encoding="utf-8")
    print(f"wrote {FILE.name}")
