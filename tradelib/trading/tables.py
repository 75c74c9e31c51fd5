"""The ledger's tables. Money is text, so that no database rounds it; time is ISO 8601 text in
UTC, of fixed width, so that it sorts; both come back as Decimal and aware datetime."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

from tradelib.clock import format_time, parse_time

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class MoneyText(TypeDecorator[Decimal]):
    """An exact decimal, kept as plain text ('0.00012000')."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, Decimal) or not value.is_finite():
            raise TypeError(f"money must be a finite Decimal, not {value!r}")
        return format(value, "f")

    def process_result_value(self, value: str | None, dialect: Any) -> Decimal | None:
        return None if value is None else Decimal(value)


class UtcText(TypeDecorator[datetime]):
    """An aware time, kept as UTC text with microseconds."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> str | None:
        return None if value is None else format_time(value)

    def process_result_value(self, value: str | None, dialect: Any) -> datetime | None:
        return None if value is None else parse_time(value)


def _key(name: str) -> Column[str]:
    return Column(name, String(64), primary_key=True)


bots = Table(
    "bots",
    metadata,
    _key("name"),
    Column("venue", String(64), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("timeframe", String(8), nullable=False),
    Column("strategy", String(64), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("decision", JSON, nullable=False),
    Column("stops", JSON, nullable=False, server_default="{}"),
    Column("wake", JSON, nullable=False, server_default="{}"),
    Column("symbols", JSON, nullable=False, server_default="[]"),
    Column("status", String(16), nullable=False),
    Column("created_at", UtcText, nullable=False),
    Column("updated_at", UtcText, nullable=False),
)

# Texts of users' strategies that bots trade or traded; never changed, never removed.
sources = Table(
    "sources",
    metadata,
    _key("reference"),
    Column("name", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("frozen_at", UtcText, nullable=False),
)

promotions = Table(
    "promotions",
    metadata,
    _key("id"),
    Column("bot", String(64), nullable=False, index=True),
    Column("strategy", String(64), nullable=False),
    Column("source", String(64), ForeignKey("sources.reference")),
    Column("code", String(64), nullable=False),
    Column("config", JSON, nullable=False),
    Column("candles", JSON, nullable=False),
    Column("checks", JSON, nullable=False),
    Column("overruled", Text),
    Column("promoted_by", String(160), nullable=False),
    Column("promoted_at", UtcText, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    _key("id"),
    Column("cycle", String(64), index=True),
    Column("notebook", String(128), nullable=False),
    Column("notebook_hash", String(64), nullable=False),
    Column("bot", String(64)),
    Column("venue", String(64)),
    Column("parameters", JSON, nullable=False),
    Column("as_of", UtcText),
    Column("git_commit", String(40)),
    Column("git_clean", Integer),
    Column("lock_hash", String(64)),
    Column("host", String(128), nullable=False),
    Column("kernel", String(64), nullable=False),
    Column("kernel_kind", String(8)),
    Column("python", String(32)),
    Column("seed", BigInteger),
    Column("token_hash", String(64), nullable=False),
    Column("started_at", UtcText, nullable=False, index=True),
    Column("ended_at", UtcText),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text),
    Column("page", Text),
    Column("page_removed_at", UtcText),
    Column("timings", JSON(none_as_null=True)),
    Column("candles", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    Index("ix_runs_bot_started", "bot", "started_at"),
    Index("ix_runs_notebook_started", "notebook", "started_at"),
    Index("ix_runs_outcome_started", "outcome", "started_at"),
)

scores = Table(
    "scores",
    metadata,
    Column("bot", String(64), primary_key=True),
    Column("candle_close", UtcText, primary_key=True),
    Column("run", String(64), ForeignKey("runs.id"), nullable=False),
    Column("score", String(32)),
    Column("components", JSON, nullable=False),
    Column("price", MoneyText, nullable=False),
    Column("candles_hash", String(64), nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    _key("id"),
    Column("bot", String(64), nullable=False),
    Column("candle_close", UtcText, nullable=False, index=True),
    Column("run", String(64), ForeignKey("runs.id"), nullable=False),
    Column("action", String(8), nullable=False),
    Column("fraction", MoneyText, nullable=False),
    Column("temperature", String(8), nullable=False),
    Column("reason", Text, nullable=False),
    Column("price", MoneyText),
    Column("state", JSON, nullable=False),
    Column("targets", JSON, nullable=False, server_default="[]"),
    Column("decided_at", UtcText, nullable=False),
    UniqueConstraint("bot", "candle_close"),
)

orders = Table(
    "orders",
    metadata,
    _key("client_id"),
    Column("decision", String(64), ForeignKey("decisions.id"), index=True),
    Column("run", String(64), ForeignKey("runs.id")),
    Column("bot", String(64), index=True),
    Column("venue", String(64), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("leg", Integer, nullable=False, server_default="0"),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("role", String(8), nullable=False, server_default="ENTRY"),
    Column("side", String(4), nullable=False),
    Column("type", String(16), nullable=False),
    Column("amount", MoneyText, nullable=False),
    Column("limit_price", MoneyText),
    Column("stop_price", MoneyText),
    Column("trailing_bips", Integer),
    Column("time_in_force", String(4)),
    Column("bracket", String(64), index=True),
    Column("expected_price", MoneyText, nullable=False),
    Column("status", String(20), nullable=False),
    Column("reason", Text),
    Column("venue_order_id", String(64)),
    Column("venue_list_id", String(64)),
    Column("sent_at", UtcText),
    Column("lease_token", Integer),
    Column("proven_absent", Integer, nullable=False, server_default="0"),
    Column("cancel_wanted", Integer, nullable=False, server_default="0"),
    Column("filled", MoneyText, nullable=False),
    Column("cost", MoneyText, nullable=False),
    Column("fills_complete", Integer, nullable=False),
    Column("as_of", UtcText, nullable=False),
    Column("created_at", UtcText, nullable=False),
    Column("updated_at", UtcText, nullable=False),
    Index("ix_orders_venue_status_updated", "venue", "status", "updated_at"),
    Index("ix_orders_venue_updated", "venue", "updated_at"),
    Index("ix_orders_venue_as_of", "venue", "as_of"),
    Index("ix_orders_venue_fills", "venue", "fills_complete"),
    Index("ix_orders_venue_order", "venue", "symbol", "venue_order_id"),
)

order_events = Table(
    "order_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("client_id", String(64), ForeignKey("orders.client_id"), nullable=False, index=True),
    Column("status", String(20), nullable=False),
    Column("detail", Text),
    Column("at", UtcText, nullable=False),
)

refusals = Table(
    "refusals",
    metadata,
    Column("client_id", String(64), ForeignKey("orders.client_id"), primary_key=True),
    Column("limit_name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    Column("bound", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", UtcText, nullable=False),
)

fills = Table(
    "fills",
    metadata,
    Column("venue", String(64), primary_key=True),
    Column("symbol", String(32), primary_key=True),
    Column("trade_id", String(64), primary_key=True),
    Column("client_id", String(64), ForeignKey("orders.client_id"), index=True),
    Column("venue_order_id", String(64), nullable=False),
    Column("side", String(4), nullable=False),
    Column("amount", MoneyText, nullable=False),
    Column("price", MoneyText, nullable=False),
    Column("cost", MoneyText, nullable=False),
    Column("fee", MoneyText, nullable=False),
    Column("fee_currency", String(16), nullable=False),
    Column("at", UtcText, nullable=False, index=True),
)

accounts = Table(
    "accounts",
    metadata,
    _key("venue"),
    Column("quote", String(16), nullable=False),
    Column("opened_at", UtcText, nullable=False),
    Column("identity", Text),
    Column("account_id", Text),
)

trade_cursors = Table(
    "trade_cursors",
    metadata,
    Column("venue", String(64), primary_key=True),
    Column("symbol", String(32), primary_key=True),
    Column("trade_id", String(64), nullable=False),
)

balances = Table(
    "balances",
    metadata,
    Column("venue", String(64), primary_key=True),
    Column("asset", String(16), primary_key=True),
    Column("booked", MoneyText, nullable=False),
    Column("free", MoneyText, nullable=False),
    Column("used", MoneyText, nullable=False),
    Column("as_of", UtcText, nullable=False),
)

equity = Table(
    "equity",
    metadata,
    Column("venue", String(64), primary_key=True),
    Column("as_of", UtcText, primary_key=True),
    Column("quote", String(16), nullable=False),
    Column("equity", MoneyText, nullable=False),
    Column("cash", MoneyText, nullable=False),
    Column("prices", JSON, nullable=False),
    Column("run", String(64)),
)

incidents = Table(
    "incidents",
    metadata,
    _key("id"),
    Column("kind", String(64), nullable=False),
    Column("venue", String(64)),
    Column("subject", String(128), nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("opened_at", UtcText, nullable=False),
    Column("closed_at", UtcText),
    Column("repair", Text),
)

armings = Table(
    "armings",
    metadata,
    _key("venue"),
    Column("at", UtcText, nullable=False),
    Column("until", UtcText, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(96), primary_key=True),
    Column("holder", String(160), nullable=False),
    Column("token", Integer, nullable=False),
    Column("taken_at", UtcText, nullable=False),
    Column("expires_at", UtcText, nullable=False),
)

halts = Table(
    "halts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("state", String(16), nullable=False, server_default="HALTED"),
    Column("reason", Text, nullable=False),
    Column("at", UtcText, nullable=False),
    Column("resumed_at", UtcText),
)

# What fills add up to, kept beside them; bot '' is for fills of no bot.
positions = Table(
    "positions",
    metadata,
    Column("venue", String(64), primary_key=True),
    Column("bot", String(64), primary_key=True),
    Column("symbol", String(32), primary_key=True),
    Column("amount", MoneyText, nullable=False),
    Column("cost", MoneyText, nullable=False),
    Column("realised", MoneyText, nullable=False),
    Column("foreign_sold", MoneyText, nullable=False),
    Column("foreign_proceeds", MoneyText, nullable=False),
    Column("other_fees", JSON, nullable=False),
    Column("entries", Integer, nullable=False),
    Column("last_side", String(4), nullable=False),
    Column("last_trade", UtcText, nullable=False),
    Column("last_trade_id", String(64), nullable=False),
)

tranches = Table(
    "tranches",
    metadata,
    Column("venue", String(64), primary_key=True),
    Column("bot", String(64), primary_key=True),
    Column("symbol", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("entry", String(80), nullable=False),
    Column("opened_at", UtcText, nullable=False),
    Column("bought", MoneyText, nullable=False),
    Column("paid", MoneyText, nullable=False),
    Column("amount", MoneyText, nullable=False),
    Column("cost", MoneyText, nullable=False),
    Column("left", MoneyText, nullable=False),
    Column("cost_left", MoneyText, nullable=False),
    Column("proceeds", MoneyText, nullable=False),
    Column("exited_at", UtcText),
    Column("is_open", Integer, nullable=False),
    Index("ix_tranches_open", "venue", "bot", "symbol", "is_open", "number"),
    Index("ix_tranches_entry", "venue", "bot", "symbol", "entry"),
    Index("ix_tranches_exit", "venue", "exited_at"),
    Index("ix_tranches_opened", "venue", "opened_at"),
)
