"""Promotions: which strategies came onto the desk, on what evidence, and the very text of each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import parse_qsl

import ipywidgets as widgets
import plotly.graph_objects as go

from tradelib.clock import parse_time
from tradelib.settings import DeskSettings, load_settings
from tradelib.trading.bots import Bot, load_bots
from tradelib.trading.halts import Halt, active_halt
from tradelib.trading.ledger import Ledger, open_ledger
from tradelib.trading.promotions import (
    Promotion,
    changes_since,
    find_promotion,
    load_promotion,
    load_promotions,
)
from tradelib.trading.sources import load_frozen
from tradelib.views.cells import Cell, count, moment, percent, prose, word
from tradelib.views.dashboard import Dashboard, Picker, live_figure
from tradelib.views.halt import halt_banner
from tradelib.views.html import Html, banner, cards, heading, note, table
from tradelib.views.theme import ACCENT, MUTED, SERIES, themed

SHOWN = 50
# What Voilà hands a page's kernel of the address that was opened.
_QUERY_ENV = "QUERY_STRING"
_COLUMNS = ("promoted (UTC)", "bot", "strategy", "candles", "in sample", "out of sample",
            "checks", "bot now")  # fmt: skip
_NONE_YET = (
    "Strategies show here once one is promoted: by `desk promote`, or as the notebook "
    "research/promote_strategy tells."
)


@dataclass(frozen=True)
class Shown:
    """All that the page shows; another value is another picture."""

    halt: Halt | None
    promotions: Sequence[Promotion]
    bots: Mapping[str, Bot]
    picked: Promotion | None


class PromotionsPage:
    """Promotions on a page that keeps itself current, and the one that is chosen."""

    def __init__(
        self, settings: DeskSettings, seconds: float, chosen: Mapping[str, str] | None = None
    ) -> None:
        """chosen: the `promotion`, or the `bot` whose promotion is shown first."""
        self.settings = settings
        self.ledger: Ledger | None = None
        self.shown: Shown | None = None
        self._bot = (chosen or {}).get("bot", "")
        self.picker = Picker(table="promotions", picked=(chosen or {}).get("promotion", ""))
        self.figure: go.FigureWidget | None = None
        self.chart = widgets.VBox([], layout={"width": "100%", "overflow": "hidden"})
        self.dashboard = Dashboard(
            self.version,
            self.draw,
            layout=("halt", "promotions", self.picker, "picked", self.chart, "details"),
            seconds=seconds,
            name="promotions",
        )
        self.picker.observe(lambda _: self.dashboard.look(), "picked")

    def version(self) -> object:
        """What is to be shown."""
        if self.ledger is None:
            self.ledger = open_ledger(self.settings, read_only=True)
        ledger, bots = self.ledger, {bot.name: bot for bot in load_bots(self.ledger)}
        if self._bot and self._bot in bots:
            found = find_promotion(ledger, bots[self._bot])
            self._bot = ""
            self.picker.picked = found.id if found else self.picker.picked
        self.shown = Shown(
            active_halt(ledger),
            load_promotions(ledger, limit=SHOWN),
            bots,
            load_promotion(ledger, self.picker.picked) if self.picker.picked else None,
        )
        return self.shown

    def draw(self) -> Mapping[str, Html]:
        assert self.ledger is not None  # version() comes first and opens it
        assert self.shown is not None
        self._draw_curves(self.shown.picked)
        picked, details = draw_promotion(self.ledger, self.shown)
        return {
            "halt": halt_banner(self.ledger),
            "promotions": promotions_table(self.shown),
            "picked": picked,
            "details": details,
        }

    def _draw_curves(self, promotion: Promotion | None) -> None:
        if promotion is None or not promotion.checks["curves"]:
            self.chart.children = []
            return
        self.figure = live_figure(curves_figure(promotion.checks["curves"]))
        self.chart.children = [self.figure]


def open_promotions(refresh_seconds: float = 5.0) -> widgets.Widget:
    """The promotions of the desk that DESK_HOME names; an address that ends in `?bot=NAME` opens
    that bot's."""
    chosen = dict(parse_qsl(os.environ.get(_QUERY_ENV, "")))
    return PromotionsPage(load_settings(), refresh_seconds, chosen).dashboard.widget


def promotions_table(shown: Shown) -> Html:
    """Newest first; a click on a row chooses it."""
    rows = (_row(one, shown.bots.get(one.bot)) for one in shown.promotions)
    return table("promotions", _COLUMNS, rows, empty=_NONE_YET)


def _row(promotion: Promotion, bot: Bot | None) -> list[Cell]:
    candles, checks = promotion.candles, promotion.checks
    if bot is None or bot.created_at > promotion.promoted_at:
        state = word("gone", "muted")
    elif changes_since(promotion, bot):
        state = word(f"{bot.status.lower()}, changed since", "warn")
    else:
        state = word(bot.status.lower())
    return [
        moment(promotion.promoted_at, pick=promotion.id),
        word(promotion.bot),
        word(promotion.strategy),
        prose(f"{candles['candles']:,} of {candles['symbol']} {candles['timeframe']}"),
        _growth(checks["in_sample"]),
        _growth(checks["out_of_sample"]),
        word("overruled", "warn", title=promotion.overruled or "")
        if promotion.overruled
        else word("passed", "gain"),
        state,
    ]


def _growth(part: Mapping[str, Any] | None) -> Cell:
    if part is None:
        return word("none", "warn")
    return percent(part["total_return"])


def draw_promotion(ledger: Ledger, shown: Shown) -> tuple[Html, Html]:
    """The chosen promotion: what stands above its curves, and what below."""
    promotion = shown.picked
    if promotion is None:
        hint = "Click a promotion to see its evidence." if shown.promotions else ""
        return (note(hint) if hint else Html("")), Html("")
    bot = shown.bots.get(promotion.bot)
    own = bot if bot and bot.created_at <= promotion.promoted_at else None
    head = heading("Promotion", f"{promotion.strategy} as bot {promotion.bot}")
    if promotion.overruled:
        head += banner(f"Overruled: {promotion.overruled}", "warn", name="overruled")
    if own and (changes := changes_since(promotion, own)):
        told = f"The bot was changed since: {', '.join(changes)}. The checks do not speak of that."
        head += banner(told, "warn", name="changed")
    head += cards(_figures(promotion.checks), name="promotion")
    return head, _summary(promotion) + _folds(promotion) + _parameters(promotion) + _source(
        ledger, promotion
    )


def _figures(checks: Mapping[str, Any]) -> dict[str, Cell]:
    bias, outside, luck = checks["bias"], checks["out_of_sample"], checks["luck"]
    passed = bool(bias and bias["unbiased"])
    figures = {
        "Bias check": word("passed" if passed else "failed", "gain" if passed else "loss"),
        "In sample": _growth(checks["in_sample"]),
        "Out of sample": _growth(outside),
        "Holding, out of sample": percent(outside["market_return"]) if outside else word(None),
        "Trades, out of sample": count(outside["trades"]) if outside else word(None),
    }
    if luck:
        figures["Deflated Sharpe ratio"] = word(f"{luck['deflated_sharpe']:.3f}")
        figures["Probability of overfitting"] = word(f"{luck['overfitting']:.0%}")
    return figures


def curves_figure(curves: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    """Equity in and out of sample, each beside holding from its own beginning."""
    looks = {"in_sample": ("in sample", SERIES[1]), "out_of_sample": ("out of sample", ACCENT)}
    traces = []
    for part, curve in curves.items():
        name, colour = looks[part]
        for values, title, line in (
            (curve["equity"], name, {"color": colour, "width": 2}),
            (curve["holding"], f"holding, {name}", {"color": MUTED, "width": 1, "dash": "dot"}),
        ):
            traces.append(
                go.Scatter(x=curve["times"], y=values, name=title, mode="lines", line=line)
            )
    figure = themed(go.Figure(traces), 340, margin={"l": 80, "r": 20, "t": 30, "b": 36})
    figure.update_yaxes(title="equity (quote)", tickformat=",.0f")
    return figure.update_xaxes(title="candle (UTC)")


def _summary(promotion: Promotion) -> Html:
    return heading("What was found") + _lines("checks", promotion.summary)


def _folds(promotion: Promotion) -> Html:
    outside = promotion.checks["out_of_sample"]
    if outside is None:
        return Html("")
    columns = ("traded from (UTC)", "to (UTC)", "chosen on what was known", "growth inside",
               "growth outside", "trades")  # fmt: skip
    rows = (
        [
            moment(parse_time(fold["test_from"])),
            moment(parse_time(fold["test_to"])),
            prose(_pairs(fold["choice"]) or "the defaults"),
            percent(fold["inside_growth"]),
            percent(fold["outside_growth"]),
            count(fold["trades"]),
        ]
        for fold in outside["folds"]
    )
    return heading("Out of sample", outside["kind"]) + table("folds", columns, rows, empty="")


def _parameters(promotion: Promotion) -> Html:
    config = promotion.config
    told = {
        "Trades": f"{config['symbol']} {config['timeframe']} at {config['venue']}",
        "Parameters": _pairs(config["parameters"]) or "none",
        "Decision": _pairs(config["decision"]),
        "Stops": _pairs(config["stops"]) or "none",
    }
    return heading("What was promoted") + _lines("config", told)


def _source(ledger: Ledger, promotion: Promotion) -> Html:
    if promotion.source is None:
        return note("The strategy ships with the desk; docs/strategies.md tells of it.")
    frozen = load_frozen(ledger, promotion.source)
    if frozen is None:
        return banner(f"The source {promotion.source} is missing.", "stop", name="no-source")
    title = heading("Its source", f"SHA-256 {frozen.hash}, frozen")
    return title + Html(
        f'<div class="scroll whole" data-testid="source"><pre class="hash" style="padding:10px">'
        f"{escape(frozen.text)}</pre></div>"
    )


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _lines(name: str, told: Mapping[str, str]) -> Html:
    lines = "".join(
        f'<tr><td class="label">{escape(title)}</td><td class="wrap">{escape(text)}</td></tr>'
        for title, text in told.items()
    )
    return Html(
        f'<div class="scroll whole" data-testid="{escape(name)}"><table>'
        f"<tbody>{lines}</tbody></table></div>"
    )
