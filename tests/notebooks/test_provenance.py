"""Which code a run names: what git tells, asked once for pages that start together."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import require
from tradelib.notebooks import provenance
from tradelib.notebooks.provenance import code_version
from tradelib.settings import PROJECT


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(provenance, "_known", None)


def test_it_is_what_git_tells():
    require((PROJECT / ".git").exists(), "this is no checkout")
    told = subprocess.run(
        ["git", "-C", str(PROJECT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert code_version().git_commit == told.stdout.strip()


def test_pages_that_start_together_share_one_answer():
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: code_version(), range(8)))
    assert {id(answer) for answer in answers} == {id(answers[0])}


def test_an_answer_does_not_outlive_its_seconds(monkeypatch):
    before = code_version()
    monkeypatch.setattr(provenance, "_FRESH", -1.0)
    assert code_version() is not before
