"""A page's recorded result: what its cells returned, kept in the page itself."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

RESULT_MIME = "application/vnd.notedesk.result+json"
CANDLES_MIME = "application/vnd.notedesk.candles+json"


def record_result(result: dict[str, Any], candles: Sequence[dict[str, Any]] = ()) -> None:
    """Put a result, and which candles it comes from, into the page's outputs, from where
    run_notebook takes them; the last counts."""
    from IPython.display import display

    result = without_infinities(result)
    told = json.dumps(result, indent=2, default=str)
    page = f"<details><summary>Recorded result</summary><pre>{escape(told)}</pre></details>"
    found = {RESULT_MIME: result, CANDLES_MIME: list(candles)}
    display({**found, "text/html": page, "text/plain": told}, raw=True)


def without_infinities(value: Any) -> Any:
    """The value as JSON can hold it: numbers that are not finite become their names."""
    if isinstance(value, dict):
        return {key: without_infinities(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value
