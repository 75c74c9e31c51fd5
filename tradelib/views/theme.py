"""One look for every page: colours, type and the charts' template.

Text and lines take JupyterLab's own colours, so that a dark theme stays readable; charts are
transparent and use greys that can be read on white and on black.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

GAIN, LOSS, ACCENT, WARN = "#12805c", "#c8384f", "#2f6fde", "#b7791f"
MUTED = "#75818f"
SERIES = (ACCENT, "#8a5cd1", "#0e9aa7", "#d9822b", "#5b8c2a")
FONT = "Inter, 'Segoe UI', system-ui, -apple-system, 'Helvetica Neue', Arial, sans-serif"
_GRID = "rgba(127, 140, 155, 0.22)"

STYLE = f"""<style>
.nd {{ font-family: {FONT}; font-size: 13px; line-height: 1.45;
  color: var(--jp-ui-font-color1, #1f2933); font-variant-numeric: tabular-nums; }}
.nd h2 {{ font-size: 15px; font-weight: 600; margin: 22px 0 8px; }}
.nd p {{ margin: 4px 0; }}
.nd a {{ color: {ACCENT}; text-decoration: none; }}
.nd a:hover {{ text-decoration: underline; }}
.nd .muted, .nd.nd th, .nd .label, .nd .empty {{ color: var(--jp-ui-font-color2, {MUTED}); }}
.nd .gain {{ color: {GAIN}; }} .nd .loss {{ color: {LOSS}; }} .nd .warn {{ color: {WARN}; }}
.nd .scroll {{ overflow: auto; max-height: 420px;
  border: 1px solid var(--jp-border-color2, #e0e4e9); border-radius: 6px; }}
/* Doubled, since JupyterLab has a style of its own for tables in a page. */
.nd.nd table {{ border-collapse: collapse; table-layout: auto; width: 100%; margin: 0;
  font-size: 12.5px; }}
.nd.nd tr, .nd.nd tr:hover {{ background: none; }}
.nd.nd th {{ position: sticky; top: 0; text-align: left; font-weight: 600;
  background: var(--jp-layout-color2, #f4f6f8); padding: 7px 10px; white-space: nowrap; }}
.nd.nd td {{ vertical-align: top; max-width: none; text-align: left;
  padding: 6px 10px; white-space: nowrap;
  border-top: 1px solid var(--jp-border-color3, #edf0f3); }}
.nd.nd td.wrap {{ white-space: normal; min-width: 10em; }}
.nd.nd .number {{ text-align: right; }}
.nd .cards {{ display: flex; flex-wrap: wrap; gap: 10px; margin-bottom: 10px; }}
.nd .card {{ flex: 1 1 140px; padding: 10px 14px; border-radius: 6px;
  border: 1px solid var(--jp-border-color2, #e0e4e9); }}
.nd .card .label {{ font-size: 12px; }}
.nd .card .figure {{ font-size: 20px; font-weight: 600; white-space: nowrap; }}
.nd .empty {{ padding: 14px 16px; border-radius: 6px;
  border: 1px dashed var(--jp-border-color2, #d0d6dc); }}
.nd .banner {{ padding: 12px 16px; border-radius: 6px; color: white; font-weight: 600;
  margin-bottom: 8px; }}
.nd .banner.stop {{ background: #b3253b; }} .nd .banner.fine {{ background: {GAIN}; }}
.nd .banner.warn {{ background: #94600f; }}
[data-jp-theme-light="false"] .nd .gain {{ color: #43c391; }}
[data-jp-theme-light="false"] .nd .loss {{ color: #f27a90; }}
[data-jp-theme-light="false"] .nd .warn {{ color: #e0ab52; }}
[data-jp-theme-light="false"] .nd a {{ color: #7fb0ff; }}
</style>"""

# What only dashboards need: every table that a page keeps carries STYLE with it.
DASHBOARD_STYLE = f"""{STYLE}<style>
/* Else a wide table widens its page instead of being scrolled. */
.widget-html-content:has(> .nd) {{ min-width: 0; }}
.nd .nav {{ display: flex; gap: 18px; padding: 2px 0 6px; text-transform: capitalize; }}
.nd .pick {{ font: inherit; color: {ACCENT}; background: none; border: 0; padding: 0;
  cursor: pointer; text-align: left; }}
.nd.nd tr:has(.pick) {{ cursor: pointer; }}
.nd.nd tr:has(.pick):hover {{ background: rgba(47, 111, 222, 0.06); }}
.nd.nd tr:has(.pick[aria-pressed="true"]) {{ background: rgba(47, 111, 222, 0.14); }}
.nd .whole {{ max-height: none; }}
.nd .clipped {{ display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3;
  overflow: hidden; }}
.nd .hash {{ font-family: ui-monospace, 'DejaVu Sans Mono', monospace; font-size: 11.5px;
  overflow-wrap: anywhere; }}
@media (max-width: 900px) {{
  .nd.nd th, .nd.nd td {{ padding-left: 6px; padding-right: 6px; }}
  .nd.nd td.wrap {{ min-width: 7em; }}
}}
[data-jp-theme-light="false"] .nd .pick {{ color: #7fb0ff; }}
</style>"""

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 12, "color": MUTED},
        "colorway": SERIES,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 70, "r": 20, "t": 40, "b": 48},
        "hovermode": "x unified",
        "hoverlabel": {"font": {"family": FONT}},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": {
            "automargin": True,
            "title": {"standoff": 22},  # below the two lines that a date's label may have
            "gridcolor": _GRID,
            "zerolinecolor": _GRID,
            "linecolor": _GRID,
        },
        "yaxis": {
            "automargin": True,
            "title": {"standoff": 12},
            "gridcolor": _GRID,
            "zerolinecolor": _GRID,
            "linecolor": _GRID,
        },
    }
)


def look(height: int, **layout: Any) -> dict[str, Any]:
    """A figure's layout in the desk's look. A redraw keeps the zoom that a person chose."""
    return {"template": TEMPLATE, "height": height, "uirevision": "desk", **layout}


def themed(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """The figure in the desk's look."""
    return figure.update_layout(**look(height, **layout))
