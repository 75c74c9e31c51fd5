"""The live pages' pieces, of records as the ledger has them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from tests.views.books import EVIL, START, add_story, add_trade, open_books
from tests.views.test_portfolio import card, cells
from tradelib.candles.store import CandleStore
from tradelib.settings import NOTEBOOKS, DeskSettings
from tradelib.trading.bots import load_bot
from tradelib.trading.deciding import Signal
from tradelib.trading.decisions import latest_decision
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import Side, load_fills, load_orders
from tradelib.views.html import Html
from tradelib.views.live import (
    execution_orders,
    fetch_chart,
    fetch_table,
    reconciliation_state,
    reconciliation_summary,
    signal_chart,
    signal_orders,
    signal_summary,
)

NO_SCORES = pd.DataFrame({"score": pd.Series(dtype="float64")})


@dataclass(frozen=True)
class Told:
    """A result as the desk hands it to a page."""

    values: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return self.values


FETCHED = Told(
    {
        "venue": "paper",
        "timeframe": "1m",
        "as_of": "2026-03-01T12:04:00+00:00",
        "lines": [
            {
                "symbol": "BTC/USDT", "requested": 4, "added": 4, "revised": 0, "open_gaps": 2,
                "venue_gaps": 0, "last_close": "2026-03-01T12:04:00+00:00", "age_seconds": 0.0,
                "error": None,
            },
            {
                "symbol": "ETH/USDT", "requested": 0, "added": 0, "revised": 0, "open_gaps": 0,
                "venue_gaps": 0, "last_close": None, "age_seconds": None,
                "error": f"no answer {EVIL}",
            },
        ],
    }
)  # fmt: skip
RECONCILED = {
    "venue": "paper", "as_of": "2026-03-01T12:04:00+00:00", "orders_checked": 2,
    "fills_booked": 1, "equity": "10012.75", "agrees": False,
    "discrepancies": [
        {"kind": "balance differs", "subject": "USDT", "ledger": "9942.7", "venue": "9940",
         "repair": None},
    ],
}  # fmt: skip


@pytest.fixture
def settings(home: Path) -> DeskSettings:
    return DeskSettings(home=home)


@pytest.fixture
def ledger(settings: DeskSettings) -> Ledger:
    ledger = open_books(settings)
    add_story(settings, ledger)
    return ledger


@pytest.fixture
def store(settings: DeskSettings) -> CandleStore:
    return CandleStore(settings.candles)


def signal_of(ledger: Ledger, bot: str, scores: pd.DataFrame = NO_SCORES) -> Signal:
    decision = latest_decision(ledger, bot)
    return Signal(load_bot(ledger, bot), START, pd.DataFrame(), scores, decision)


def figure(piece: Any) -> dict[str, Any]:
    """The figure that a page carries, as JSON."""
    data = piece._repr_mimebundle_()["application/vnd.plotly.v1+json"]
    return json.loads(json.dumps(data))


def test_a_fetch_tells_each_symbols_gaps_and_errors() -> None:
    html = fetch_table(FETCHED).text
    first, second = cells(html)
    assert first == [
        "BTC/USDT", "4", "4", "0", "2", "0", "2026-03-01 12:04:00", "0.0 s", "–",
    ]  # fmt: skip
    assert second[6:8] == ["–", "–"]
    assert "no answer &lt;script&gt;" in second[8]
    assert '<span class="warn">2</span>' in html


def test_a_fetch_draws_the_symbols_that_have_candles(ledger: Ledger, store: CandleStore) -> None:
    (line,) = figure(fetch_chart(store, FETCHED))["data"]
    assert line["name"] == "BTC/USDT"


def test_a_fetch_without_candles_says_so(tmp_path: Path) -> None:
    piece = fetch_chart(CandleStore(tmp_path), FETCHED)
    assert isinstance(piece, Html)
    assert "once candles are stored" in piece.text


def test_a_signal_shows_its_decision_and_the_order_that_came_of_it(
    ledger: Ledger, store: CandleStore
) -> None:
    signal = signal_of(ledger, "first")
    assert card(signal_summary(ledger, signal).text, "signal-share-of-equity-or-position") == "0.25"
    (row,) = cells(signal_orders(ledger, signal).text)
    assert row[3:7] == ["sell", "market", "0.4", "0.4"]


def test_a_signals_chart_has_candles_scores_and_the_bots_fills(
    ledger: Ledger, store: CandleStore
) -> None:
    index = store.load("paper", "BTC/USDT", "1m").index
    scores = pd.DataFrame({"score": [None, 0.1, 0.5, -0.4]}, index=index)
    drawn = {one["name"]: one for one in figure(
        signal_chart(ledger, store, signal_of(ledger, "first", scores)))["data"]}  # fmt: skip
    assert set(drawn) == {"price", "score", "bought", "sold"}
    # The decision at 12:03 saw three candles; the fourth was not closed yet.
    assert len(drawn["price"]["x"]) == 3
    sold = [float(f.price) for f in load_fills(ledger, bot="first") if f.side == "sell"]
    assert drawn["sold"]["y"] == sold


def test_a_chart_opened_again_does_not_stretch_to_later_trades(
    ledger: Ledger, store: CandleStore
) -> None:
    signal = signal_of(ledger, "first")
    add_trade(ledger, "first", 600, Side.BUY, Decimal(1), Decimal(130))
    drawn = figure(signal_chart(ledger, store, signal))["data"]
    bought = next(one for one in drawn if one["name"] == "bought")
    assert bought["y"] == [100.0, 110.0]


def test_a_signal_without_candles_says_why(ledger: Ledger, store: CandleStore) -> None:
    piece = signal_chart(ledger, store, signal_of(ledger, "second"))
    assert "Nothing to draw: confirmed signal." in piece.text


def test_a_refused_order_is_shown_with_the_limit_that_refused_it(ledger: Ledger) -> None:
    order = load_orders(ledger, bot="second")[0]
    refusal = SimpleNamespace(limit_name="OrderNotional", value="50", bound="10", reason=EVIL)
    execution = SimpleNamespace(
        order=order, decision=latest_decision(ledger, "second"), refusals=(refusal,)
    )
    html = execution_orders(ledger, execution).text
    assert "OrderNotional" in html
    assert EVIL not in html
    assert "No fills" in html
    assert "denied" in html


def test_a_decision_to_hold_has_no_order(ledger: Ledger) -> None:
    decision = latest_decision(ledger, "first")
    execution = SimpleNamespace(order=None, decision=decision, refusals=())
    assert execution_orders(ledger, execution).text.endswith("No order: confirmed signal.</div>")


@pytest.mark.parametrize("result", [RECONCILED, Told(RECONCILED)])
def test_a_reconciliation_reads_the_same_just_made_and_opened_again(
    ledger: Ledger, result: Any
) -> None:
    html = reconciliation_summary(ledger, result).text
    assert Decimal(card(html, "reconciliation-equity-usdt")) == Decimal("10012.75")
    (row,) = cells(html)
    assert row == ["balance differs", "USDT", "9942.7", "9940", "open"]
    state = reconciliation_state(ledger, result).text
    assert "balance differs: USDT" in state
    assert "9942.7" in state
    assert "desk resync" in state  # what to do about it
    assert "incident-fills" in state  # what moved the asset


def test_every_page_is_a_page() -> None:
    """A title, one parameters cell, no definitions and no outputs."""
    pages = sorted([*NOTEBOOKS.glob("live/*.ipynb"), *NOTEBOOKS.glob("dashboards/*.ipynb")])
    assert len(pages) >= 6
    for page in pages:
        notebook = json.loads(page.read_text(encoding="utf-8"))
        kinds = [cell["cell_type"] for cell in notebook["cells"]]
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
        source = "".join("".join(cell["source"]) for cell in code)
        assert kinds[0] == "markdown", page
        assert len(tagged) == 1, page
        assert "def " not in source, page
        assert not any(cell["outputs"] for cell in code), page
        assert notebook["metadata"]["kernelspec"]["name"] == "python3", page
