"""Positions and tranches, kept beside the fills that they add up."""

import sqlalchemy as sa
from alembic import op

from tradelib.trading.tables import MoneyText, UtcText

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # The fills of an older ledger are added up by Ledger.migrate, once the schema is the newest.
    op.create_table(
        "positions",
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("bot", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("amount", MoneyText(), nullable=False),
        sa.Column("cost", MoneyText(), nullable=False),
        sa.Column("realised", MoneyText(), nullable=False),
        sa.Column("foreign_sold", MoneyText(), nullable=False),
        sa.Column("foreign_proceeds", MoneyText(), nullable=False),
        sa.Column("other_fees", sa.JSON(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("last_side", sa.String(length=4), nullable=False),
        sa.Column("last_trade", UtcText(length=27), nullable=False),
        sa.Column("last_trade_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("venue", "bot", "symbol", name=op.f("pk_positions")),
    )
    op.create_table(
        "tranches",
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("bot", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("entry", sa.String(length=80), nullable=False),
        sa.Column("opened_at", UtcText(length=27), nullable=False),
        sa.Column("bought", MoneyText(), nullable=False),
        sa.Column("paid", MoneyText(), nullable=False),
        sa.Column("amount", MoneyText(), nullable=False),
        sa.Column("cost", MoneyText(), nullable=False),
        sa.Column("left", MoneyText(), nullable=False),
        sa.Column("cost_left", MoneyText(), nullable=False),
        sa.Column("proceeds", MoneyText(), nullable=False),
        sa.Column("exited_at", UtcText(length=27), nullable=True),
        sa.Column("is_open", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("venue", "bot", "symbol", "number", name=op.f("pk_tranches")),
    )
    op.create_index("ix_tranches_open", "tranches", ["venue", "bot", "symbol", "is_open", "number"])
    op.create_index("ix_tranches_entry", "tranches", ["venue", "bot", "symbol", "entry"])
    op.create_index("ix_tranches_exit", "tranches", ["venue", "exited_at"])
    op.create_index("ix_tranches_opened", "tranches", ["venue", "opened_at"])
