"""Orders by leg, attempt and type; leases; trading states; what account a venue's books are of."""

import sqlalchemy as sa
from alembic import op

from tradelib.trading.tables import MoneyText, UtcText

revision = "0002"
down_revision = "0001"

_ORDER_COLUMNS = (
    sa.Column("leg", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("role", sa.String(length=8), nullable=False, server_default="ENTRY"),
    sa.Column("stop_price", MoneyText(), nullable=True),
    sa.Column("trailing_bips", sa.Integer(), nullable=True),
    sa.Column("time_in_force", sa.String(length=4), nullable=True),
    sa.Column("bracket", sa.String(length=64), nullable=True),
    sa.Column("venue_list_id", sa.String(length=64), nullable=True),
    sa.Column("sent_at", UtcText(length=27), nullable=True),
    sa.Column("lease_token", sa.Integer(), nullable=True),
    sa.Column("proven_absent", sa.Integer(), nullable=False, server_default="0"),
    sa.Column("cancel_wanted", sa.Integer(), nullable=False, server_default="0"),
)


def upgrade() -> None:
    for column in _ORDER_COLUMNS:
        op.add_column("orders", column)
    op.execute("UPDATE orders SET role = 'EXIT' WHERE side = 'sell'")
    op.execute("UPDATE orders SET sent_at = created_at WHERE status != 'DENIED'")
    op.create_index("ix_orders_bracket", "orders", ["bracket"])
    op.create_index("ix_orders_venue_updated", "orders", ["venue", "updated_at"])
    op.add_column("bots", sa.Column("stops", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("accounts", sa.Column("identity", sa.Text(), nullable=True))
    op.add_column("accounts", sa.Column("account_id", sa.Text(), nullable=True))
    op.add_column(
        "halts",
        sa.Column("state", sa.String(length=16), nullable=False, server_default="HALTED"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("holder", sa.String(length=160), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("taken_at", UtcText(length=27), nullable=False),
        sa.Column("expires_at", UtcText(length=27), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
