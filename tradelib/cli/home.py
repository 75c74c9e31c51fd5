"""A desk's folder, made ready for a local market: settings, keys, ledger and default bots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tradelib.cli.markets import DEFAULT_STRATEGY, LocalMarket
from tradelib.errors import StorageFailed
from tradelib.paper.config import ACCOUNTS_FILE, make_accounts_file, read_accounts
from tradelib.settings import SETTINGS_FILE, DeskSettings, load_settings
from tradelib.trading.bots import Bot, BotStatus, add_bot, load_bots, new_bot
from tradelib.trading.ledger import Ledger, open_ledger
from tradelib.venue.keys import save_keys

_HEADER = """\
# This desk's settings; docs in the README. Keys never stand here: a venue names where they are.
"""
_VENUE = """
[venues.{name}]
exchange = "binance"
rest_url = "service:{name}"
keys = "keys/{name}.toml"
quote = "{quote}"
"""


@dataclass(frozen=True)
class PreparedHome:
    """new: whether the market was unknown to this home before."""

    settings: DeskSettings
    ledger: Ledger
    paper_home: Path
    new: bool


def prepare_home(home: Path | None, market: LocalMarket) -> PreparedHome:
    """Make or complete a desk's folder for a market; what is there stays as it is."""
    settings = load_settings(home)
    bots = _default_bots(market)
    paper_home = settings.home / "paper" / market.venue
    try:
        _make_folders(settings)
        _add_venue(settings, market)
        new = _make_account(settings, market, paper_home)
    except OSError as error:
        raise StorageFailed(
            f"The desk's folder {settings.home} cannot be written ({error.strerror}); "
            "choose a writable one with --home or DESK_HOME, or make room."
        ) from error
    settings = load_settings(settings.home)
    ledger = open_ledger(settings, migrate=True)
    _add_bots(ledger, bots)
    return PreparedHome(settings, ledger, paper_home, new)


def _make_folders(settings: DeskSettings) -> None:
    settings.home.mkdir(parents=True, exist_ok=True)
    settings.services_file.parent.mkdir(mode=0o700, exist_ok=True)
    for folder in (settings.logs, settings.candles, settings.reports):
        folder.mkdir(parents=True, exist_ok=True)


def _add_venue(settings: DeskSettings, market: LocalMarket) -> None:
    if market.venue in settings.venues:
        return
    file = settings.home / SETTINGS_FILE
    known = file.read_text(encoding="utf-8") if file.exists() else _HEADER
    added = _VENUE.format(name=market.venue, quote=market.quote)
    fresh = file.with_suffix(".toml.new")
    fresh.write_text(known + added, encoding="utf-8")
    fresh.replace(file)


def _make_account(settings: DeskSettings, market: LocalMarket, paper_home: Path) -> bool:
    """An account at the paper exchange with fresh keys, once."""
    file = paper_home / ACCOUNTS_FILE
    new = not file.exists()
    if new:
        make_accounts_file(file, market.starting_cash)
    keys = settings.home / "keys" / f"{market.venue}.toml"
    if not keys.exists():
        account = read_accounts(file)[0]
        save_keys(keys, account.key, account.secret)
    return new


def _default_bots(market: LocalMarket) -> list[Bot]:
    """A running bot with default parameters for each symbol."""
    return [
        new_bot(
            name,
            market.venue,
            symbol,
            market.timeframe,
            DEFAULT_STRATEGY,
            status=BotStatus.RUNNING,
        )
        for symbol, name in market.bot_names.items()
    ]


def _add_bots(ledger: Ledger, bots: list[Bot]) -> None:
    """Add a venue's default bots, unless it has any."""
    venues = {bot.venue for bot in load_bots(ledger)}
    for bot in bots:
        if bot.venue not in venues:
            add_bot(ledger, bot)
