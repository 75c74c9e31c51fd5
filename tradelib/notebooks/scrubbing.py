"""A page without secrets, that is read as before: what makes it a page stays, whatever words the
desk's secrets are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nbformat import NotebookNode

from tradelib.notebooks.results import CANDLES_MIME, RESULT_MIME
from tradelib.scrubber import Look, Scrubber

_MIME = re.compile(
    r"(?:application|audio|font|image|message|model|multipart|text|video)/[a-z0-9.+-]+"
)
_WIDGETS = "application/vnd.jupyter.widget-state+json"
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# What is recorded is compared and computed with: a look-alike there is a value.
_RECORDED = (RESULT_MIME, CANDLES_MIME)
# What of metadata, and of a widget, tells how it is to be read.
_READ_BY = frozenset({"kernelspec", "language_info", "kernel_kind", "tags"})
_WIDGET_READ_BY = frozenset({
    "model_id", "model_name", "model_module", "model_module_version",
    "_model_name", "_model_module", "_model_module_version",
    "_view_name", "_view_module", "_view_module_version",
})  # fmt: skip


def scrub_page(page: NotebookNode, scrubber: Scrubber) -> NotebookNode:
    """A copy of the page without secrets."""
    cells = [_scrub_cell(cell, scrubber) for cell in page.cells]
    metadata = _scrub_metadata(page.metadata, scrubber)
    return NotebookNode({**page, "metadata": metadata, "cells": cells})


def _scrub_cell(cell: Mapping[str, Any], scrubber: Scrubber) -> NotebookNode:
    look = Look.SOURCE if cell["cell_type"] == "code" else Look.TEXT
    clean = {
        **cell,
        "source": scrubber.scrub_all(cell["source"], look),
        "metadata": _scrub_metadata(cell["metadata"], scrubber),
    }
    if "outputs" in cell:
        clean["outputs"] = [_scrub_output(one, scrubber) for one in cell["outputs"]]
    if "attachments" in cell:
        clean["attachments"] = {
            scrubber.scrub(name): _scrub_bundle(bundle, scrubber)
            for name, bundle in cell["attachments"].items()
        }
    return NotebookNode(clean)


def _scrub_output(output: Mapping[str, Any], scrubber: Scrubber) -> NotebookNode:
    clean = {
        name: told if name in ("output_type", "name") else scrubber.scrub_all(told)
        for name, told in output.items()
        if name not in ("data", "metadata")
    }
    for name in ("data", "metadata"):
        if name in output:
            clean[name] = _scrub_bundle(output[name], scrubber)
    return NotebookNode(clean)


def _scrub_bundle(bundle: Mapping[str, Any], scrubber: Scrubber) -> NotebookNode:
    """What was shown, or what tells of it, by its MIME types."""
    clean: dict[str, Any] = {}
    for mime, shown in bundle.items():
        if not _MIME.fullmatch(mime):
            clean |= scrubber.scrub_all({mime: shown})
        elif mime == _WIDGET_VIEW:
            clean[mime] = _scrub_widget(shown, scrubber)
        else:
            look = Look.DATA if mime in _RECORDED else Look.TEXT
            clean[mime] = scrubber.scrub_all(shown, look)
    return NotebookNode(clean)


def _scrub_metadata(told: Any, scrubber: Scrubber) -> Any:
    """The names of metadata are the notebook's own, as those of its parameters are."""
    if isinstance(told, list):
        return [_scrub_metadata(one, scrubber) for one in told]
    if not isinstance(told, dict):
        return scrubber.scrub_all(told, Look.DATA)
    clean = {
        name: item if name in _READ_BY else _scrub_metadata(item, scrubber)
        for name, item in told.items()
        if name != _WIDGETS
    }
    if _WIDGETS in told:
        clean[_WIDGETS] = _scrub_widgets(told[_WIDGETS], scrubber)
    return NotebookNode(clean)


def _scrub_widgets(widgets: Mapping[str, Any], scrubber: Scrubber) -> NotebookNode:
    state = {
        model: NotebookNode({
            **_scrub_widget(widget, scrubber),
            "state": _scrub_widget(widget.get("state", {}), scrubber),
        })
        for model, widget in widgets.get("state", {}).items()
    }  # fmt: skip
    return NotebookNode({**widgets, "state": NotebookNode(state)})


def _scrub_widget(widget: Mapping[str, Any], scrubber: Scrubber) -> NotebookNode:
    return NotebookNode({
        name: item if name in _WIDGET_READ_BY else scrubber.scrub_all(item)
        for name, item in widget.items()
    })  # fmt: skip
