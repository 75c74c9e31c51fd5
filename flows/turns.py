"""Whose turn it is: the order of a venue's bots, which changes from cycle to cycle."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tradelib.settings import DeskSettings
from tradelib.trading.bots import Bot

log = logging.getLogger("flows.turns")


def in_turn(bots: Sequence[Bot], order: Sequence[str]) -> list[Bot]:
    """Bots in the order of their names in `order`; those it does not know come first."""
    place = {name: number for number, name in enumerate(order)}
    return sorted(bots, key=lambda bot: place.get(bot.name, -1))


def next_turns(order: Sequence[str], had: Collection[str]) -> list[str]:
    """The order of the next cycle: who did not have a turn in this one comes first; when all had
    theirs, the first becomes the last.

    >>> next_turns(["a", "b", "c"], {"a"})
    ['b', 'c', 'a']
    >>> next_turns(["a", "b", "c"], {"a", "b", "c"})
    ['b', 'c', 'a']
    """
    left = [name for name in order if name not in had]
    if not left:
        return [*order[1:], *order[:1]]
    return [*left, *(name for name in order if name in had)]


def load_turns(settings: DeskSettings) -> dict[str, list[str]]:
    """The order that the last cycle left, by venue; empty when none did."""
    try:
        told = json.loads(_file(settings).read_text(encoding="utf-8"))
        return {str(venue): [str(name) for name in order] for venue, order in told.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("the order of bots begins anew: %s", error)
        return {}


def save_turns(settings: DeskSettings, turns: Mapping[str, Sequence[str]]) -> None:
    """Keep the order for the next cycle, and that of venues which this one did not see."""
    file = _file(settings)
    fresh = file.with_suffix(".new")
    try:
        fresh.write_text(json.dumps({**load_turns(settings), **turns}), encoding="utf-8")
        fresh.replace(file)
    except OSError as error:  # the order is a courtesy, and no reason to fail a cycle
        log.warning("the order of bots is not kept: %s", error)


def _file(settings: DeskSettings) -> Path:
    return settings.home / "run" / "turns.json"
