"""A notebook's parameters cell, read and held against what a caller passes.

Papermill only warns of an unknown parameter, so that a mistyped limit would pass unseen.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradelib.errors import InvalidInput, unknown_name

_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list[str]": (list,),
    "dict": (dict,),
}


def declared_parameters(notebook: Path) -> dict[str, str]:
    """Names and annotated types of the notebook's parameters cell."""
    cells = _read_cells(notebook)
    tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    if not tagged:
        return {}
    tree = ast.parse("".join(tagged[0]["source"]))
    return {
        node.target.id: ast.unparse(node.annotation)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """Raise InvalidInput for a parameter the notebook does not declare or of another type."""
    declared = declared_parameters(notebook)
    for name, value in parameters.items():
        if name not in declared:
            raise unknown_name("parameter", name, declared, f"notebook {notebook.stem}")
        kind = declared[name]
        if not _fits(value, kind):
            raise InvalidInput(
                f"Parameter {name!r} of notebook {notebook.stem} must be of type {kind}, "
                f"but {value!r} is {type(value).__name__}."
            )


def _fits(value: Any, kind: str) -> bool:
    if isinstance(value, bool) and kind != "bool":
        return False  # a bool is an int to Python, and a mistake to a person
    if kind == "list[str]":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, _KINDS.get(kind, (object,)))


def _read_cells(notebook: Path) -> list[dict[str, Any]]:
    try:
        cells: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except OSError as error:
        raise InvalidInput(
            f"Notebook {notebook} cannot be read ({error.strerror}); check its path."
        ) from error
    except (ValueError, KeyError) as error:
        raise InvalidInput(f"{notebook} is not a notebook: {error}.") from error
    return cells
