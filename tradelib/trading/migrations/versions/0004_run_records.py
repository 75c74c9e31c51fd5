"""What a run is repeated with: its candles, its seed, its Python; and when its page was removed."""

import sqlalchemy as sa
from alembic import op

from tradelib.trading.tables import UtcText

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("runs", sa.Column("kernel_kind", sa.String(length=8)))
    op.add_column("runs", sa.Column("python", sa.String(length=32)))
    op.add_column("runs", sa.Column("seed", sa.BigInteger()))
    op.add_column("runs", sa.Column("page_removed_at", UtcText(length=27)))
    op.add_column("runs", sa.Column("candles", sa.JSON(none_as_null=True)))
    for column in ("bot", "notebook", "outcome"):
        op.create_index(f"ix_runs_{column}_started", "runs", [column, "started_at"])
