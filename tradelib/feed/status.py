"""How a desk's streams are: written by each feed at every look, read by pages and commands."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tradelib.clock import format_time, parse_time
from tradelib.settings import DeskSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamStatus:
    """One channel of one venue, at a look of its feed.

    joined: whether it was listened to. heard_at: when it last told anything. cuts: so many since
    the feed began, the last for `why`; gaps: of the latest, seconds from each cut to when all that
    it had missed was there. told: of candles, those that came by the stream; asked: by REST.
    """

    venue: str
    channel: str
    joined: bool
    looked_at: datetime
    heard_at: datetime | None = None
    messages: int = 0
    cuts: int = 0
    why: str = ""
    gaps: tuple[float, ...] = ()
    told: int | None = None
    asked: int | None = None


def save_streams(settings: DeskSettings, venue: str, channels: Sequence[StreamStatus]) -> None:
    """Replace what a venue's feed told before; where that cannot be written, nobody sees it."""
    file = _folder(settings) / f"{quote(venue, safe='')}.json"
    fresh = file.with_suffix(".new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh.write_text(json.dumps([_to_json(one) for one in channels]), encoding="utf-8")
        fresh.replace(file)
    except OSError as error:
        log.warning("how the streams of %s are is not kept: %s", venue, error)


def load_streams(settings: DeskSettings) -> list[StreamStatus]:
    """Every channel that a feed of this desk last told of, by venue; a damaged file is left out."""
    found = []
    for file in sorted(_folder(settings).glob("*.json")):
        try:
            found += [_from_json(told) for told in json.loads(file.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s tells nothing: %s", file, error)
    return found


def _folder(settings: DeskSettings) -> Path:
    return settings.home / "run" / "feed"


def _to_json(status: StreamStatus) -> dict[str, Any]:
    times = {name: getattr(status, name) for name in ("looked_at", "heard_at")}
    return asdict(status) | {name: time and format_time(time) for name, time in times.items()}


def _from_json(told: Mapping[str, Any]) -> StreamStatus:
    times = {name: told[name] and parse_time(told[name]) for name in ("looked_at", "heard_at")}
    return StreamStatus(**{**told, **times, "gaps": tuple(told["gaps"])})
