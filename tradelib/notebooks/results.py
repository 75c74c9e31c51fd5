"""A page's recorded result: what its cells returned, kept in the page itself."""

from __future__ import annotations

from typing import Any

RESULT_MIME = "application/vnd.notedesk.result+json"


def record_result(result: dict[str, Any]) -> None:
    """Put a result into the page's outputs, from where run_notebook takes it; the last counts."""
    from IPython.display import display

    lines = "\n".join(f"{name}: {value}" for name, value in result.items())
    display({RESULT_MIME: result, "text/plain": lines}, raw=True)
