"""docs/strategies.md tells of every built-in strategy, and of its parameters as they are."""

import re
from pathlib import Path

import pytest

from tradelib.strategy.allocations import target_strategy, target_strategy_names
from tradelib.strategy.rebalance import RebalanceParams
from tradelib.strategy.registry import strategy, strategy_names

PAGE = Path(__file__).resolve().parents[2] / "docs" / "strategies.md"
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


NAMES = [*strategy_names(), *target_strategy_names()]
OTHERS = {"Read this first", "Several symbols", "Sources"}


def find(name):
    return strategy(name) if name in strategy_names() else target_strategy(name)


def sections():
    """The page's text under each heading of the second level."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        heading.strip("`"): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def parameter_table(params_type):
    """The table of a strategy's parameters, as the page must have it."""
    rows = ["| parameter | default | range | meaning |", "|---|---|---|---|"]
    for name, field in params_type.model_fields.items():
        limits = ", ".join(
            f"{sign} {getattr(limit, kind):,}"
            for limit in field.metadata
            for kind, sign in SIGNS.items()
            if hasattr(limit, kind)
        )
        rows.append(f"| `{name}` | {field.default} | {limits} | {field.description} |")
    return "\n".join(rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_the_strategys_parameters(name):
    fields = find(name).params_type.model_fields
    expected = parameter_table(find(name).params_type) if fields else "No parameters."
    assert f"\n{expected}\n" in sections()[name], f"The page must have:\n\n{expected}\n"


def test_the_page_has_the_rules_of_rebalancing():
    expected = parameter_table(RebalanceParams)
    assert f"\n{expected}\n" in sections()["Several symbols"], f"It must have:\n\n{expected}\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_the_candles_a_strategy_needs(name):
    found = find(name)
    warm_up, history = found.warm_up(found.params()), found.history(found.params())
    what = "score" if name in strategy_names() else "weights"
    assert f"first {what} after {warm_up:,} candles, history {history:,}." in sections()[name]


def test_the_page_has_the_strategies_there_are_and_no_others():
    assert sorted(sections().keys() - OTHERS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_section_says_when_the_strategy_loses_and_cites_what_is_listed(name):
    text = sections()[name]
    assert "**Loses**" in text
    cited = re.findall(r"\[([A-Z][^\]]+ \d{4})\]", text)
    listed = re.findall(r"^- \*\*(.+? \d{4})\*\*", sections()["Sources"], flags=re.MULTILINE)
    assert cited
    assert set(cited) <= set(listed)
