"""Orders of a status by their age: who was given up lately is looked up at each reconciliation."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_index("ix_orders_venue_status_updated", "orders", ["venue", "status", "updated_at"])
    op.drop_index("ix_orders_venue_status", "orders")
