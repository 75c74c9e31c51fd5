"""Bots that hold several symbols, and what their decisions want of each."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for table, column in (("bots", "symbols"), ("decisions", "targets")):
        op.add_column(table, sa.Column(column, sa.JSON(), nullable=False, server_default="[]"))
