"""Fragments of a page: tables, cards, banners, and words where there is nothing to show yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from tradelib.views.cells import Cell, prose
from tradelib.views.theme import STYLE


@dataclass(frozen=True)
class Html:
    """A piece of a page that notebooks display; `text` is escaped already."""

    text: str

    def __add__(self, other: Html) -> Html:
        return Html(self.text + other.text)

    def __repr__(self) -> str:
        return f"<{len(self.text)} characters of HTML>"

    def _repr_html_(self) -> str:
        return f'{STYLE}<div class="nd">{self.text}</div>'


def table(
    name: str, columns: Sequence[str], rows: Iterable[Sequence[Cell | str]], *, empty: str
) -> Html:
    """A table; without rows the sentence `empty`, which says what will stand here and when.

    name: what tests and anchors find it by.
    """
    filled = [[_cell(value) for value in row] for row in rows]
    if not filled:
        return Html(f'<div class="empty" data-testid="{escape(name)}">{escape(empty)}</div>')
    head = "".join(_head(title, cell) for title, cell in zip(columns, filled[0], strict=True))
    body = "".join(f"<tr>{''.join(map(_data, row))}</tr>" for row in filled)
    return Html(
        f'<div class="scroll" data-testid="{escape(name)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def cards(figures: Mapping[str, Cell], *, name: str = "") -> Html:
    """Headline figures side by side; each is found in tests as `<name>-<label>`."""
    return Html(
        '<div class="cards">'
        + "".join(
            f'<div class="card"><div class="label">{escape(label)}</div>'
            f'<div class="figure" data-testid="{escape(_slug(name, label))}" '
            f'data-value="{escape(cell.value)}">{cell.html()}</div></div>'
            for label, cell in figures.items()
        )
        + "</div>"
    )


def heading(text: str, note: str = "") -> Html:
    """A section's title, with a quiet remark behind it."""
    remark = f' <span class="muted" style="font-weight:400">{escape(note)}</span>' if note else ""
    return Html(f"<h2>{escape(text)}{remark}</h2>")


def note(text: str) -> Html:
    return Html(f'<p class="muted">{escape(text)}</p>')


def banner(text: str, kind: str, *, name: str) -> Html:
    """A line that must be seen. kind: stop, warn or fine."""
    return Html(f'<div class="banner {kind}" data-testid="{escape(name)}">{escape(text)}</div>')


def empty(text: str, *, name: str) -> Html:
    return Html(f'<div class="empty" data-testid="{escape(name)}">{escape(text)}</div>')


def _cell(value: Cell | str) -> Cell:
    return value if isinstance(value, Cell) else prose(value)


def _head(title: str, below: Cell) -> str:
    return f'<th class="{_kind(below)}">{escape(title)}</th>'


def _data(cell: Cell) -> str:
    exact = f' data-value="{escape(cell.value)}"' if cell.value else ""
    return f'<td class="{_kind(cell)}"{exact}>{cell.html()}</td>'


def _kind(cell: Cell) -> str:
    return "number" if cell.number else "wrap" if cell.wrap else ""


def _slug(*parts: str) -> str:
    words = " ".join(parts).lower().replace("(", "").replace(")", "").split()
    return "-".join(words)
