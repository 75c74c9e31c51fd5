"""A page that looks at the ledger again and again, and redraws what has changed.

The browser keeps the time: a small widget on the page asks its kernel to look. So nothing runs
on when the page is closed, a notebook without a browser ends after its first drawing, and a page
whose kernel no longer answers says so instead of showing old figures as if they were new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import anywidget
import ipywidgets as widgets
import plotly.graph_objects as go
import traitlets

from tradelib.clock import utc_now
from tradelib.errors import DeskError
from tradelib.views.html import Html, banner
from tradelib.views.links import navigation
from tradelib.views.theme import DASHBOARD_STYLE, LOSS, MUTED

_PULSE = """
export default { render({ model, el }) {
  const seconds = model.get("seconds");
  let answered = Date.now(), asked = 0;
  const show = () => {
    const silent = (Date.now() - answered) / 1000;
    const stale = silent > 3 * seconds + 15;
    el.dataset.stale = stale;
    el.style.color = stale ? "STALE" : "CALM";
    el.textContent = stale
      ? `NOT CURRENT: no answer for ${Math.round(silent)} s. Is the desk up? Reload this page.`
      : `Looked at ${model.get("looked_at")} UTC, again every ${seconds} s.`;
  };
  const look = () => {
    if (asked <= answered || Date.now() - asked > 30000) {
      asked = Date.now();
      model.send({});
    }
    show();
  };
  model.on("msg:custom", () => { answered = Date.now(); show(); });
  el.style.font = "12px system-ui, sans-serif";
  show();
  // A chart measures itself before it is on the page; it does so again when the window resizes.
  const fit = () => {
    const charts = [...document.querySelectorAll(".js-plotly-plot")];
    const wrong = charts.some((chart) => {
      const drawn = chart.querySelector(".main-svg");
      return drawn && Math.abs(drawn.clientWidth - chart.clientWidth) > 2;
    });
    if (wrong) window.dispatchEvent(new Event("resize"));
  };
  const timers = [setInterval(look, 1000 * seconds), setInterval(fit, 300)];
  return () => timers.forEach(clearInterval);
} };
""".replace("STALE", LOSS).replace("CALM", MUTED)


class Pulse(anywidget.AnyWidget):  # type: ignore[misc]
    """Asks for a look every `seconds`, and tells when the last one was answered."""

    _esm = _PULSE
    seconds = traitlets.Float(5.0).tag(sync=True)
    looked_at = traitlets.Unicode("").tag(sync=True)

    def __init__(self, seconds: float, look: Callable[[], None]) -> None:
        super().__init__(seconds=seconds)
        self._look = look
        self.on_msg(self._answer)

    def _answer(self, *_: Any) -> None:
        self._look()
        self.looked_at = f"{utc_now():%H:%M:%S}"
        self.send({})


_PICKER = """
export default { render({ model, el }) {
  // A drawn table replaces the one before it: what is chosen and where it was scrolled to stay.
  let top = 0, drawn = null;
  const table = () => document.querySelector(`[data-testid="${model.get("table")}"]`);
  const mark = () => document.querySelectorAll("[data-pick]").forEach((button) =>
    button.setAttribute("aria-pressed", button.dataset.pick === model.get("picked")));
  const keep = () => {
    if (table() === drawn) return;
    drawn = table();
    if (drawn) drawn.scrollTop = top;
    mark();
  };
  const pick = (event) => {
    const row = event.target.closest("tr");
    const button = row && !event.target.closest("a") && row.querySelector("[data-pick]");
    if (!button || window.getSelection().toString()) return;
    model.set("picked", button.dataset.pick);
    model.save_changes();
  };
  const scrolled = (event) => { if (event.target === drawn) top = drawn.scrollTop; };
  model.on("change:picked", mark);
  model.on("change:part", () => { top = 0; if (drawn) drawn.scrollTop = 0; });
  document.addEventListener("click", pick);
  document.addEventListener("scroll", scrolled, true);
  const watcher = new MutationObserver(keep);
  watcher.observe(document.body, { childList: true, subtree: true });
  keep();
  return () => {
    watcher.disconnect();
    document.removeEventListener("click", pick);
    document.removeEventListener("scroll", scrolled, true);
  };
} };
"""


class Picker(anywidget.AnyWidget):  # type: ignore[misc]
    """Lets a person choose a row of a table: `picked` is the `pick` of the cell that was clicked.

    table: the name of the table, whose scroll position it keeps; part: changes when the table
    shows other rows, so that they are read from the top.
    """

    _esm = _PICKER
    table = traitlets.Unicode("").tag(sync=True)
    part = traitlets.Unicode("").tag(sync=True)
    picked = traitlets.Unicode("").tag(sync=True)


class Dashboard:
    """Sections of a page, in order: pieces of HTML that change, and widgets that stay.

    version: something that differs whenever the page would; draw: the sections by name, called
    only then. A section that did not change is not sent again. One section is `halt`: it is
    emptied when the ledger cannot be read, since nobody may then call trading active. name: of
    the notebook.
    """

    def __init__(
        self,
        version: Callable[[], object],
        draw: Callable[[], Mapping[str, Html]],
        *,
        layout: tuple[str | widgets.DOMWidget, ...],
        seconds: float,
        name: str,
    ) -> None:
        self._version, self._draw = version, draw
        self._seen: object = None
        self.sections = {name: widgets.HTML() for name in layout if isinstance(name, str)}
        self.trouble = widgets.HTML()
        self.pulse = Pulse(seconds, self.look)
        shown = [self.sections[one] if isinstance(one, str) else one for one in layout]
        head = [
            widgets.HTML(DASHBOARD_STYLE),
            widgets.HTML(as_widget_html(navigation(name))),
            self.pulse,
        ]
        self.widget = widgets.VBox([*head, self.trouble, *shown])
        self.redraw_seconds = 0.0
        self.look()
        self.pulse.looked_at = f"{utc_now():%H:%M:%S}"

    def look(self) -> None:
        """Redraw if there is news; what cannot be read is told above what is shown."""
        try:
            version = self._version()
            if version != self._seen:
                self._redraw()
                self._seen = version
            self.trouble.value = ""
        except DeskError as error:
            self._seen = None
            told = f"{error} What stands below, if anything, is old; trading counts as halted."
            self.trouble.value = as_widget_html(banner(told, "stop", name="trouble"))
            self.sections["halt"].value = ""

    def _redraw(self) -> None:
        began = monotonic()
        for name, piece in self._draw().items():
            self.sections[name].value = as_widget_html(piece)
        self.redraw_seconds = monotonic() - began


def live_figure(figure: go.Figure) -> go.FigureWidget:
    """The figure as a widget, as wide as its page."""
    shown = go.FigureWidget(figure)
    shown._config = {"responsive": True, "displaylogo": False}
    shown.layout.autosize = True
    return shown


def as_widget_html(piece: Html) -> str:
    """The piece as an HTML widget takes it; the page's style is sent once, by the first."""
    return f'<div class="nd">{piece.text}</div>' if piece.text else ""
