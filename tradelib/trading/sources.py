"""Frozen sources: the texts of users' strategies, kept in the ledger by their hashes.

So every process, every machine that shares the ledger, a backup and a replay have the very text
that a bot trades by, whatever becomes of the file it was written in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from tradelib.clock import utc_now
from tradelib.errors import InvalidInput
from tradelib.strategy.own import Source, find_local_imports
from tradelib.strategy.registry import is_own, knows_frozen, remember_frozen
from tradelib.trading import tables
from tradelib.trading.ledger import Ledger, first, insert, rows


@dataclass(frozen=True)
class FrozenSource:
    """reference: the strategy's full name, as `my_idea@3f2a9c0d12e4b567`; hash: the text's SHA-256,
    whole."""

    reference: str
    name: str
    hash: str
    text: str
    frozen_at: datetime


def freeze(books: Connection, source: Source) -> None:
    """Keep a source under its reference; one that is kept already stays."""
    require_whole(source)
    known = first(rows(books, _by_reference([source.reference]), FrozenSource))
    if known is None:
        frozen = FrozenSource(source.reference, source.name, source.hash, source.text, utc_now())
        insert(books, tables.sources, frozen)
    elif known.hash != source.hash:
        raise InvalidInput(
            f"Another text is kept as {source.reference}; change a comment in yours, so that its "
            f"hash is another."
        )


def require_whole(source: Source) -> None:
    """Refuse a source that leans on a file of the user's, which would not be frozen with it."""
    if near := find_local_imports(source):
        raise InvalidInput(
            f"Strategy {source.name!r} imports {', '.join(near)}, which lies in no installed "
            f"package and would not be frozen with it; put what it needs into its own file."
        )


def is_frozen(books: Connection, reference: str) -> bool:
    """Whether a source is kept."""
    return bool(rows(books, _by_reference([reference]), FrozenSource))


def provide_sources(books: Connection, strategies: Iterable[str]) -> None:
    """Let this process know the frozen sources of these strategies; built-in ones need none."""
    wanted = sorted({name for name in strategies if is_own(name) and not knows_frozen(name)})
    if wanted:
        for found in rows(books, _by_reference(wanted), FrozenSource):
            remember_frozen(found.reference, found.text)


def load_frozen(ledger: Ledger, reference: str) -> FrozenSource | None:
    """A source as it is kept, None where it is not."""
    return first(ledger.rows(_by_reference([reference]), FrozenSource))


def _by_reference(references: list[str]) -> Select[Any]:
    return select(tables.sources).where(tables.sources.c.reference.in_(references))
