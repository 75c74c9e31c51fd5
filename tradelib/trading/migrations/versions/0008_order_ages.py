"""Orders by their age: those given up lately are looked up at each reconciliation, those of the day
are counted for each order."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_index("ix_orders_venue_status_updated", "orders", ["venue", "status", "updated_at"])
    op.drop_index("ix_orders_venue_status", "orders")
    op.create_index("ix_orders_venue_as_of", "orders", ["venue", "as_of"])
