"""When a bot decides, beside the schedule."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("bots", sa.Column("wake", sa.JSON(), nullable=False, server_default="{}"))
