"""Values as people read them: digits, signs, units and UTC times, with the exact value beside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from html import escape

NOTHING = "–"
# Currencies in which a hundredth is the custom; others, such as BTC, need every digit.
_WITH_CENTS = frozenset({"USD", "USDT", "USDC", "FDUSD", "DAI", "EUR", "GBP", "CHF", "AUD", "CAD"})


@dataclass(frozen=True)
class Cell:
    """A value on a page.

    text: what is read, not yet escaped; value: the exact value behind it; tone: gain, loss, warn
    or muted; href: where a click leads; pick: what a click chooses on this page, see
    `dashboard.Picker`; title: what shows under the mouse.
    """

    text: str
    value: str = ""
    tone: str = ""
    href: str = ""
    pick: str = ""
    title: str = ""
    number: bool = False
    wrap: bool = False

    def html(self) -> str:
        text = escape(self.text)
        if self.href:
            text = f'<a href="{escape(self.href)}" target="_blank" rel="noopener">{text}</a>'
        if self.pick:
            chosen = f'data-pick="{escape(self.pick)}" aria-pressed="false"'
            text = f'<button type="button" class="pick" {chosen}>{text}</button>'
        title = f' title="{escape(self.title)}"' if self.title else ""
        return f'<span class="{escape(self.tone)}"{title}>{text}</span>'


def money(value: Decimal | None, quote: str = "", *, signed: bool = False) -> Cell:
    """A value in currency `quote`: two decimals where cents are its custom, else up to eight.

    signed: write the plus too and colour by sign, as for a profit.
    """
    if value is None:
        return Cell(NOTHING, tone="muted", number=True)
    text = _grouped(value, 2) if quote in _WITH_CENTS else _trimmed(_grouped(value, 8))
    if not signed:
        return Cell(text, f"{value:f}", number=True)
    tone = "gain" if value > 0 else "loss" if value < 0 else "muted"
    return Cell(f"+{text}" if value > 0 else text, f"{value:f}", tone, number=True)


def price(value: Decimal | None) -> Cell:
    """A price in quote currency: two decimals from 1000, else six significant digits."""
    if value is None:
        return Cell(NOTHING, tone="muted", number=True)
    text = _grouped(value, 2) if abs(value) >= 1000 else _significant(value, 6)
    return Cell(text, f"{value:f}", number=True)


def amount(value: Decimal | None) -> Cell:
    """Units of an asset, to at most eight decimals."""
    if value is None:
        return Cell(NOTHING, tone="muted", number=True)
    return Cell(_trimmed(_grouped(value, 8)), f"{value:f}", number=True)


def percent(share: Decimal | None) -> Cell:
    """A signed share of one as percent."""
    if share is None:
        return Cell(NOTHING, tone="muted", number=True)
    tone = "gain" if share > 0 else "loss" if share < 0 else "muted"
    return Cell(f"{share:+.2%}", f"{share:f}", tone, number=True)


def count(value: int | None) -> Cell:
    if value is None:
        return Cell(NOTHING, tone="muted", number=True)
    return Cell(f"{value:,}", str(value), number=True)


def moment(time: datetime | None, *, href: str = "", pick: str = "") -> Cell:
    """A time in UTC, to the second."""
    if time is None:
        return Cell(NOTHING, tone="muted")
    return Cell(f"{time:%Y-%m-%d %H:%M:%S}", time.isoformat(), href=href, pick=pick)


def span(length: timedelta | None) -> Cell:
    """A duration in its two largest units."""
    if length is None:
        return Cell(NOTHING, tone="muted", number=True)
    return Cell(_span_text(length.total_seconds()), str(length.total_seconds()), number=True)


def prose(text: str | None, tone: str = "") -> Cell:
    """A sentence, which may run over several lines."""
    return Cell(text or NOTHING, tone=tone or ("" if text else "muted"), wrap=True)


def word(text: str | None, tone: str = "", *, href: str = "", title: str = "") -> Cell:
    return Cell(text or NOTHING, tone=tone or ("" if text else "muted"), href=href, title=title)


def _span_text(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60)} s"
    hours = minutes // 60
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def _grouped(value: Decimal, decimals: int) -> str:
    return f"{value:,.{decimals}f}"


def _significant(value: Decimal, digits: int) -> str:
    if not value:
        return "0"
    return _trimmed(_grouped(value, max(0, digits - 1 - value.adjusted())))


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
