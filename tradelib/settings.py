"""What a desk is told: one folder, one `desk.toml` in it, and the environment.

Order of precedence: environment (`DESK_LEDGER_URL`, `DESK_LIMITS__MAX_TRADES_PER_DAY`, …),
then `<home>/desk.toml`, then the defaults below. Nothing here holds a key: a venue names where
its keys are, and `tradelib.venue.keys` reads them when a client is made.
"""

from __future__ import annotations

import os
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tradelib.errors import InvalidInput

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = PROJECT / "notebooks"
KERNELSPECS = PROJECT / "kernelspecs"
# Forked from servers that have imported what live pages need, and what exploring and showing does.
LIVE_KERNEL = "notedesk-live"
RESEARCH_KERNEL = "notedesk-research"
DEFAULT_HOME = PROJECT / ".desk"
SETTINGS_FILE = "desk.toml"
SERVICE_PREFIX = "service:"


def _exact(value: Any) -> Any:
    """TOML numbers arrive as floats; their shortest text is what the user wrote."""
    return str(value) if isinstance(value, float) else value


Money = Annotated[Decimal, BeforeValidator(_exact)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NotionalRange(_Frozen):
    """Smallest and largest value of one order, in a quote currency."""

    min: Money = Decimal("10")
    max: Money = Decimal("10000")


_ORDER_NOTIONAL = {
    "default": NotionalRange(),
    "BTC": NotionalRange(min=Decimal("0.0005"), max=Decimal("0.5")),
    "ETH": NotionalRange(min=Decimal("0.005"), max=Decimal("5")),
}


def _hours(default: float, what: str) -> Any:
    return Field(default=default, gt=0, description=f"market hours {what}")


class ProtectionSettings(_Frozen):
    """When entries pause after trouble; exits never do. Shares are fractions; a cooling time
    begins with the newest moment at which the trouble was there."""

    max_drawdown: Money = Field(
        default=Decimal("0.10"), gt=0, description="fall of equity from its peak; 1: off"
    )
    drawdown_hours: float = _hours(24, "in which the peak is looked for")
    drawdown_cooling_hours: float = _hours(4, "without entries after a drawdown")
    stop_streak: int = Field(default=4, ge=0, description="exits by a stop that are many; 0: off")
    stop_streak_per: Literal["bot", "symbol", "account"] = Field(
        default="symbol", description="whose stops are counted together, and whose entries pause"
    )
    stop_streak_hours: float = _hours(24, "in which the stops are counted")
    stop_streak_cooling_hours: float = _hours(4, "without entries after the last of the stops")
    low_profit_after: int = Field(
        default=6, ge=0, description="purchases sold again before a symbol is judged; 0: off"
    )
    low_profit: Money = Field(
        default=Decimal("-0.03"),
        description="profit of a symbol below which it pauses, of its cost",
    )
    low_profit_hours: float = _hours(72, "in which the purchases were sold")
    low_profit_cooling_hours: float = _hours(24, "without entries after the last of the sales")


class LimitSettings(_Frozen):
    """What the desk refuses to do. Shares are fractions of the account's equity."""

    order_notional: dict[str, NotionalRange] = Field(default_factory=dict, validate_default=True)
    max_position_share: Money = Decimal("0.30")
    max_open_positions: int = Field(default=10, ge=1)
    max_trades_per_day: int = Field(default=50, ge=0)
    max_daily_loss_share: Money = Decimal("0.05")
    min_cash_share: Money = Decimal("0.05")
    max_candle_age: float = Field(
        default=2.0, gt=0, description="age of the last closed candle, in timeframes"
    )
    protections: ProtectionSettings = ProtectionSettings()

    @field_validator("order_notional", mode="after")
    @classmethod
    def _with_defaults(cls, given: dict[str, NotionalRange]) -> dict[str, NotionalRange]:
        """What a user leaves out keeps its default: 250 is no sensible bound for bitcoins."""
        return _ORDER_NOTIONAL | given

    def notional_for(self, quote: str) -> NotionalRange:
        """The allowed order values in currency `quote`."""
        return self.order_notional.get(quote) or self.order_notional["default"]


class VenueSettings(_Frozen):
    """One exchange account.

    rest_url, ws_url: base URLs that replace the exchange's own; `service:NAME` stands for the
        address of a service that `desk up` started.
    keys: `env:PREFIX` (PREFIX_KEY and PREFIX_SECRET), or a TOML file only its owner can read,
        relative to the desk's home.
    quote: the currency in which the account's equity is told.
    """

    exchange: str = "binance"
    rest_url: str | None = None
    ws_url: str | None = None
    keys: str | None = None
    quote: str = "USDT"
    timeout: float = Field(default=10.0, gt=0, description="seconds a request may take")
    patience: float = Field(
        default=20.0, ge=0, description="seconds a request may wait for the venue's rate budget"
    )

    @property
    def is_local(self) -> bool:
        """Whether it is the desk's own exchange. A URL on loopback is not enough: a tunnel to a
        real exchange has one too."""
        return (self.rest_url or "").startswith(SERVICE_PREFIX)


class CacheSettings(_Frozen):
    """What the desk's processes share of what a venue told them."""

    url: str | None = Field(
        default=None,
        repr=False,
        description="a Redis that several machines share; else a file under the home",
    )
    quote_seconds: float = Field(
        default=1.0, gt=0, description="age from which one process asks for a quote anew"
    )
    max_quote_seconds: float = Field(
        default=5.0,
        ge=0,
        le=30,
        description="age, of the market's time as of the wall's, from which no order is sized and "
        "no stop is placed with a shared quote any more; 0: the venue is asked each time",
    )
    instrument_hours: float = Field(
        default=1.0, gt=0, description="the same of a venue's list of instruments"
    )
    max_instrument_hours: float = Field(
        default=6.0, gt=0, description="age from which that list is not used any more"
    )


class PortSettings(_Frozen):
    """Preferred ports on loopback; a busy one is replaced by a free one."""

    paper: int = 8620
    prefect: int = 8621
    voila: int = 8622
    jupyter: int = 8623


def _days(default: float, which: str) -> Any:
    return Field(default=default, gt=0, description=f"age at which {which} goes")


class RetentionSettings(_Frozen):
    """How long executed pages are kept; fifty bots on one minute make some 4 GB of them a day.

    A failed run's page has limits of its own: nothing else holds its traceback, failures are few
    while all is well, and a desk that fails every minute must not fill its disk either.
    """

    page_days: float = _days(30, "a page")
    pages: int = Field(default=50_000, ge=1, description="newest pages that are kept")
    failed_page_days: float = _days(90, "a failed run's page")
    failed_pages: int = Field(default=10_000, ge=1, description="newest failed runs' pages kept")


class DeskSettings(BaseSettings):
    """The whole of a desk's settings, frozen."""

    model_config = SettingsConfigDict(
        env_prefix="DESK_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    home: Path = DEFAULT_HOME
    ledger_url: str | None = Field(default=None, repr=False)
    venues: dict[str, VenueSettings] = Field(default_factory=dict)
    limits: LimitSettings = LimitSettings()
    retention: RetentionSettings = RetentionSettings()
    cache: CacheSettings = CacheSettings()
    ports: PortSettings = PortSettings()
    notebook_timeout: float = Field(default=120.0, gt=0, description="seconds a notebook may run")
    notebook_memory_mb: int = Field(
        default=2048,
        ge=0,
        description="MB that a notebook's kernel and what it starts may have resident; 0: any",
    )
    notebook_output_mb: float = Field(
        default=10.0, gt=0, description="MB that a notebook may print and show in all"
    )
    dead_man_minutes: float = Field(
        default=10.0,
        gt=0,
        description="without a healthy cycle before resting entries are cancelled",
    )
    kernels: int = Field(default=2, ge=1, description="notebooks that run side by side")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        if "?" in str(home):
            raise ValueError("its path holds a question mark, with which SQLite's files end")
        return home.expanduser().resolve()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        **_: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        home = Path(init_settings().get("home") or os.environ.get("DESK_HOME") or DEFAULT_HOME)
        file = home.expanduser() / SETTINGS_FILE
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file))

    @property
    def reports(self) -> Path:
        """Where executed notebooks are kept: the project's `reports/` for the desk in the
        project, `<home>/reports` for any other."""
        return PROJECT / "reports" if self.home == DEFAULT_HOME else self.home / "reports"

    @property
    def candles(self) -> Path:
        return self.home / "candles"

    @property
    def strategies(self) -> Path:
        """The user's own strategies, a file each."""
        return self.home / "strategies"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def kernel_sockets(self) -> Path:
        """Sockets over which pages talk to their kernels."""
        return self.home / "run" / "kernels"

    @property
    def services_file(self) -> Path:
        """Addresses and process ids of what `desk up` started."""
        return self.home / "run" / "services.json"

    @property
    def database_url(self) -> str:
        return self.ledger_url or f"sqlite:///{self.home / 'ledger.sqlite'}"


def load_settings(home: Path | str | None = None) -> DeskSettings:
    """Settings of the desk at `home` (else DESK_HOME, else `.desk` in the project).

    Raises InvalidInput that names the file, the setting and what is wrong with it.
    """
    try:
        return DeskSettings(**({"home": Path(home)} if home else {}))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"Setting {name!r} is not acceptable: {first['msg']}; "
            f"mend it in {SETTINGS_FILE} or the DESK_ environment."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(
            f"{SETTINGS_FILE} is not valid TOML: {error}; mend that line."
        ) from error
