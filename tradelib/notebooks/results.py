"""A page's recorded result: what its cells returned, kept in the page itself."""

from __future__ import annotations

import json
from html import escape
from typing import Any

RESULT_MIME = "application/vnd.notedesk.result+json"


def record_result(result: dict[str, Any]) -> None:
    """Put a result into the page's outputs, from where run_notebook takes it; the last counts."""
    from IPython.display import display

    told = json.dumps(result, indent=2, default=str)
    page = f"<details><summary>Recorded result</summary><pre>{escape(told)}</pre></details>"
    display({RESULT_MIME: result, "text/html": page, "text/plain": told}, raw=True)
