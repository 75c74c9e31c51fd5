"""What is committed: pages without results, no keys, nothing of one person's machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.project.source import PROJECT, committed_files

# Spelled in pieces, so that this file does not find itself.
HOMES = re.compile(r"/(?:home|Users|root)/[A-Za-z0-9._-]+" + r"|/work" + r"/(?:main|shared)\b")
KEYS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE" + r" KEY-----"
    r"|\bAKIA[0-9A-Z]{16}\b"  # Amazon
    r"|\bgh[pousr]_[A-Za-z0-9]{36}"  # GitHub
    r"|\bxox[abpr]-[A-Za-z0-9-]{10,}"  # Slack
    r"|\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}\b"  # Telegram
    r"|(?i:(?:api_?key|secret|token|password)\w*)[\"']?\s*[=:]\s*[\"'][A-Za-z0-9+/_-]{32,}[\"']"
)
GENERATED = {"uv.lock"}
MAX_BYTES = 2_000_000


def texts() -> list[tuple[str, str]]:
    """Committed text files by name; a folder of recorded answers holds made-up keys at most."""
    found = []
    for file in committed_files():
        if file.name in GENERATED:
            continue
        try:
            found.append((str(file.relative_to(PROJECT)), file.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def test_no_file_names_a_persons_machine() -> None:
    assert [(name, match[0]) for name, text in texts() if (match := HOMES.search(text))] == []


def test_no_file_holds_a_key() -> None:
    assert [name for name, text in texts() if KEYS.search(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN EC PRIVATE" + " KEY-----",
        "api_key = '" + "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A" + "'",
        '"secret": "' + "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j" + '"',
    ],
)
def test_a_key_would_be_found(text: str) -> None:
    assert KEYS.search(text)


def test_no_file_is_large() -> None:
    large = [file.name for file in committed_files() if file.stat().st_size > MAX_BYTES]
    assert large == []


def test_notebooks_are_committed_without_results() -> None:
    assert [line for file in committed_files("*.ipynb") for line in results_in(file)] == []


def results_in(file: Path) -> list[str]:
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return [
        f"{file.relative_to(PROJECT)}: cell {number} holds results; clear them, as nbstripout does"
        for number, cell in enumerate(cells)
        if cell.get("outputs") or cell.get("execution_count") is not None
    ]
