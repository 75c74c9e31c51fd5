"""Frozen sources of users' strategies, and the promotions that put strategies on the desk."""

import sqlalchemy as sa
from alembic import op

from tradelib.trading.tables import UtcText

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "sources",
        sa.Column("reference", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("frozen_at", UtcText(length=27), nullable=False),
        sa.PrimaryKeyConstraint("reference", name=op.f("pk_sources")),
    )
    op.create_table(
        "promotions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("bot", sa.String(length=64), nullable=False),
        sa.Column("strategy", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("candles", sa.JSON(), nullable=False),
        sa.Column("checks", sa.JSON(), nullable=False),
        sa.Column("overruled", sa.Text(), nullable=True),
        sa.Column("promoted_by", sa.String(length=160), nullable=False),
        sa.Column("promoted_at", UtcText(length=27), nullable=False),
        sa.ForeignKeyConstraint(
            ["source"], ["sources.reference"], name=op.f("fk_promotions_source")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )
    op.create_index(op.f("ix_promotions_bot"), "promotions", ["bot"])
