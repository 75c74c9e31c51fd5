"""The project's own files, as git and Python's parser see them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Import:
    """One imported module: the file that does it, the line, the module's full name."""

    file: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(PROJECT)}:{self.line} imports {self.module}"


def committed_files(*patterns: str) -> list[Path]:
    """Files that git tracks, or would if added; outside a clone there is nothing to look at."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *patterns]
    try:
        listed = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this copy of the project is not a git clone")
    names = (name for name in listed.stdout.split("\0") if name)
    return [PROJECT / name for name in names if (PROJECT / name).is_file()]


def imports(folder: str) -> Iterator[Import]:
    """Every import below `folder`, those inside functions too, relative ones made absolute."""
    for file in sorted((PROJECT / folder).rglob("*.py")):
        package = file.relative_to(PROJECT).parent.parts
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield Import(file, node.lineno, name.name)
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else ()
                module = ".".join([*above, *filter(None, [node.module])])
                for name in node.names:  # `from tradelib import venue` reaches a room as well
                    yield Import(file, node.lineno, f"{module}.{name.name}")
