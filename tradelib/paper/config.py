"""What a paper exchange is told, and how a program is told to use it."""

from __future__ import annotations

import os
import secrets
import stat
import tomllib
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Protocol

from tradelib.errors import InvalidInput
from tradelib.paper.faults import NO_FAULTS, FaultPlan
from tradelib.paper.fees import USUAL_FEES, FeeAsset, Fees, read_fee_asset
from tradelib.paper.liquidity import Shape

ACCOUNTS_FILE = "accounts.toml"
TOKEN_FILE = "control.token"
_START_BALANCES = {"BTC": Decimal(1), "ETH": Decimal(10), "BNB": Decimal(20)}
_USUAL_START_BALANCE = Decimal(10_000)


@dataclass(frozen=True)
class PaperAccount:
    """A trader's account. balances: what it starts with, by asset. fee_asset: what it pays its
    fees in; None: in whatever it receives."""

    name: str
    key: str
    secret: str = field(repr=False)
    balances: dict[str, Decimal] = field(default_factory=dict)
    fee_asset: FeeAsset | None = None


@dataclass(frozen=True)
class RateLimits:
    """What one address, and one account, may ask.

    weight: request weight per minute and address. orders_10s, orders_day: per account.
    ban_after: requests over the limit that get 429 before the address is banned with 418.
    ban_seconds: length of the first ban; each further one doubles it.
    stream_messages: what a client may send in a second over one connection of market streams.
    streams: per connection. stream_connections: per address in five minutes.
    stream_seconds: how long a connection lives. stream_backlog: messages that may wait for a
        slow reader before its connection is cut. stream_patience: seconds a market's step waits
        for one before that.
    """

    weight: int = 6000
    orders_10s: int = 100
    orders_day: int = 200_000
    ban_after: int = 20
    ban_seconds: int = 120
    stream_messages: int = 5
    streams: int = 1024
    stream_connections: int = 300
    stream_seconds: float = 86_400
    stream_backlog: int = 10_000
    stream_patience: float = 5.0


class OHLCVSource(Protocol):
    """Whatever gives candles as ccxt does: [open time in ms, open, high, low, close, volume]."""

    def fetch_ohlcv(
        self, symbol: str, timeframe: str, since: int | None, limit: int | None
    ) -> list[list[float]]: ...


def new_token() -> str:
    """A fresh secret that opens the control of one exchange."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class PaperConfig:
    """One paper exchange.

    home: folder of its state. port: 0 takes a free one.
    files: candles to play; source: a real exchange to follow; neither: the seeded market.
    source_symbols: what to follow, as 'BTC/USDT'.
    speed: market seconds per second; 0 stands still until stepped. None: 1 for a market of the
    present, 0 for files.
    start: where the market's clock begins, when the state holds no time yet.
    is_kept: False keeps the state in memory alone; with accounts given, nothing is written.
    shape: how the market's book looks; None: the usual one of the kind of market.
    faults: what goes wrong from the first request on.
    """

    home: Path
    port: int = 0
    seed: int = 1
    files: tuple[Path, ...] = ()
    source: OHLCVSource | None = field(default=None, repr=False)
    source_symbols: tuple[str, ...] = ("BTC/USDT", "ETH/USDT")
    source_timeframe: str = "1m"
    speed: float | None = None
    start: datetime | None = None
    is_kept: bool = True
    accounts: tuple[PaperAccount, ...] = ()
    fees: Fees = USUAL_FEES
    shape: Shape | None = None
    limits: RateLimits = RateLimits()
    faults: FaultPlan = NO_FAULTS
    control_token: str = field(default_factory=new_token, repr=False)


def read_accounts(path: Path) -> tuple[PaperAccount, ...]:
    """Accounts of a TOML file that only its owner may read."""
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise InvalidInput(
                f"Accounts file {path} holds secrets and others may read it; chmod 600 it."
            )
        tables = tomllib.loads(path.read_text()).get("accounts")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InvalidInput(f"Accounts file {path} cannot be read: {reason}.") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"Accounts file {path} is not valid TOML: {error}.") from error
    if not isinstance(tables, list) or not tables:
        raise InvalidInput(f"Accounts file {path} has no [[accounts]].")
    accounts = tuple(_account(table, path) for table in tables)
    for what in ("name", "key"):
        if len({getattr(each, what) for each in accounts}) < len(accounts):
            raise InvalidInput(f"Accounts file {path} uses one {what} twice.")
    return accounts


_FEE_PARTS = {"fee_asset": "asset", "fee_discount": "discount", "fee_price": "price"}


def _account(table: dict[str, Any], path: Path) -> PaperAccount:
    wanted = {"name", "key", "secret", "balances"}
    if not isinstance(table, dict) or set(table) - _FEE_PARTS.keys() != wanted:
        raise InvalidInput(
            f"Every [[accounts]] of {path} needs exactly name, key, secret and balances; "
            f"fee_asset, fee_discount and fee_price may come with them."
        )
    for name in ("name", "key", "secret"):
        if not isinstance(table[name], str) or not table[name]:
            raise InvalidInput(f"An account's {name} in {path} must be text.")
    try:
        balances = {asset: Decimal(str(each)) for asset, each in table["balances"].items()}
    except (AttributeError, InvalidOperation) as error:
        raise InvalidInput(
            f'Balances of account {table["name"]!r} in {path} must read {{ USDT = "10000" }}.'
        ) from error
    for asset, amount in balances.items():
        if not amount.is_finite() or amount < 0 or amount != round(amount, 8):
            raise InvalidInput(
                f"Balance of {asset} of account {table['name']!r} in {path} must be 0 or more, "
                f"with at most 8 decimals."
            )
    given = {part: table[name] for name, part in _FEE_PARTS.items() if name in table}
    chosen = read_fee_asset(given, f"account {table['name']!r} in {path}")
    return PaperAccount(table["name"], table["key"], table["secret"], balances, chosen)


def start_balance(asset: str) -> Decimal:
    """What an account that nobody configured starts with."""
    return _START_BALANCES.get(asset, _USUAL_START_BALANCE)


def make_accounts_file(path: Path, balances: dict[str, Decimal]) -> None:
    """One account with fresh keys, in a file only its owner can read."""
    amounts = ", ".join(f'{asset} = "{amount}"' for asset, amount in balances.items())
    text = (
        f'[[accounts]]\nname = "paper"\nkey = "{secrets.token_hex(32)}"\n'
        f'secret = "{secrets.token_hex(32)}"\nbalances = {{ {amounts} }}\n'
    )
    write_private(path, text)


def write_private(path: Path, text: str) -> None:
    """Writes a file, whole or not at all, that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def ccxt_settings(
    url: str, key: str = "", secret: str = "", exchange_class: Any = None
) -> dict[str, Any]:
    """Constructor settings that point ccxt's binance at a paper exchange, and nowhere else.

    url: 'http://127.0.0.1:8620'. exchange_class: `ccxt.binance`, to which the settings go; with
    it, ccxt tells spot errors as finely as it does at the real exchange, whose table of them it
    otherwise picks by the real one's address.

        exchange = ccxt.binance(ccxt_settings(url, key, secret, ccxt.binance))
    """
    base = url.rstrip("/")
    socket = "ws" + base.removeprefix("http")
    dead = f"{socket}/nowhere"
    settings: dict[str, Any] = {
        "apiKey": key,
        "secret": secret,
        "urls": {
            "api": {
                **{section: f"{base}/api/v3" for section in ("public", "private", "v1")},
                **{section: f"{base}/nowhere" for section in _OTHER_SECTIONS},
                "ws": {
                    **{section: dead for section in _OTHER_SOCKETS},
                    "spot": f"{socket}/stream/ws",
                    "ws-api": {
                        "spot": f"{socket}/ws-api/v3", "linear": dead, "inverse": dead,
                    },
                },
            }
        },
        "options": {
            "fetchMarkets": {"types": ["spot"]},
            "fetchCurrencies": False,
            "fetchMargins": False,
            "fetchOpenOrders": {"warnWithoutSymbol": False},
        },
    }  # fmt: skip
    if exchange_class is not None:
        settings["exceptions"] = {"exact": exchange_class().exceptions["spot"]["exact"]}
    return settings


_OTHER_SECTIONS = (
    "sapi", "sapiV2", "sapiV3", "sapiV4", "dapiPublic", "dapiPrivate", "eapiPublic",
    "eapiPrivate", "dapiPrivateV2", "dapiData", "fapiPublic", "fapiPublicV2", "fapiPublicV3",
    "fapiPrivate", "fapiPrivateV2", "fapiPrivateV3", "fapiData", "papi", "papiV2",
)  # fmt: skip
_OTHER_SOCKETS = (
    "margin", "linear", "inverse", "stock", "option", "optionMarket", "optionPrivate", "papi",
)  # fmt: skip
