"""Bars for work that takes its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def show_progress(
    title: str, total: int, *, done: int = 0, wanted: bool = True
) -> Iterator[Callable[[int], None]]:
    """A bar in a terminal and in a notebook, nothing in a log; it is told how much more is done."""
    console = Console(stderr=True)
    shown = wanted and (console.is_terminal or console.is_jupyter)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not shown, transient=True
    ) as bar:
        task = bar.add_task(title, total=total)
        bar.update(task, completed=done)
        yield lambda count: bar.advance(task, count)
