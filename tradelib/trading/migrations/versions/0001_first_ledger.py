"""The first ledger: bots, runs, decisions, orders, fills, balances, incidents, halts."""

import sqlalchemy as sa
from alembic import op

from tradelib.trading.tables import MoneyText, UtcText

revision = "0001"
down_revision = None


def upgrade() -> None:

    op.create_table(
        "accounts",
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("quote", sa.String(length=16), nullable=False),
        sa.Column("opened_at", UtcText(length=27), nullable=False),
        sa.PrimaryKeyConstraint("venue", name=op.f("pk_accounts")),
    )
    op.create_table(
        "armings",
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("at", UtcText(length=27), nullable=False),
        sa.Column("until", UtcText(length=27), nullable=False),
        sa.PrimaryKeyConstraint("venue", name=op.f("pk_armings")),
    )
    op.create_table(
        "balances",
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("asset", sa.String(length=16), nullable=False),
        sa.Column("booked", MoneyText(), nullable=False),
        sa.Column("free", MoneyText(), nullable=False),
        sa.Column("used", MoneyText(), nullable=False),
        sa.Column("as_of", UtcText(length=27), nullable=False),
        sa.PrimaryKeyConstraint("venue", "asset", name=op.f("pk_balances")),
    )
    op.create_table(
        "bots",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("timeframe", sa.String(length=8), nullable=False),
        sa.Column("strategy", sa.String(length=64), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("decision", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", UtcText(length=27), nullable=False),
        sa.Column("updated_at", UtcText(length=27), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_bots")),
    )
    op.create_table(
        "equity",
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("as_of", UtcText(length=27), nullable=False),
        sa.Column("quote", sa.String(length=16), nullable=False),
        sa.Column("equity", MoneyText(), nullable=False),
        sa.Column("cash", MoneyText(), nullable=False),
        sa.Column("prices", sa.JSON(), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("venue", "as_of", name=op.f("pk_equity")),
    )
    op.create_table(
        "halts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", UtcText(length=27), nullable=False),
        sa.Column("resumed_at", UtcText(length=27), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_halts")),
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("venue", sa.String(length=64), nullable=True),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("opened_at", UtcText(length=27), nullable=False),
        sa.Column("closed_at", UtcText(length=27), nullable=True),
        sa.Column("repair", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incidents")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("cycle", sa.String(length=64), nullable=True),
        sa.Column("notebook", sa.String(length=128), nullable=False),
        sa.Column("notebook_hash", sa.String(length=64), nullable=False),
        sa.Column("bot", sa.String(length=64), nullable=True),
        sa.Column("venue", sa.String(length=64), nullable=True),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("as_of", UtcText(length=27), nullable=True),
        sa.Column("git_commit", sa.String(length=40), nullable=True),
        sa.Column("git_clean", sa.Integer(), nullable=True),
        sa.Column("lock_hash", sa.String(length=64), nullable=True),
        sa.Column("host", sa.String(length=128), nullable=False),
        sa.Column("kernel", sa.String(length=64), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("started_at", UtcText(length=27), nullable=False),
        sa.Column("ended_at", UtcText(length=27), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("page", sa.Text(), nullable=True),
        sa.Column("timings", sa.JSON(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_runs_cycle"), ["cycle"], unique=False)
        batch_op.create_index(batch_op.f("ix_runs_started_at"), ["started_at"], unique=False)

    op.create_table(
        "trade_cursors",
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("trade_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("venue", "symbol", name=op.f("pk_trade_cursors")),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("bot", sa.String(length=64), nullable=False),
        sa.Column("candle_close", UtcText(length=27), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=8), nullable=False),
        sa.Column("fraction", MoneyText(), nullable=False),
        sa.Column("temperature", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("price", MoneyText(), nullable=True),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("decided_at", UtcText(length=27), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_decisions_run")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
        sa.UniqueConstraint("bot", "candle_close", name=op.f("uq_decisions_bot")),
    )
    with op.batch_alter_table("decisions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_decisions_candle_close"), ["candle_close"], unique=False
        )

    op.create_table(
        "scores",
        sa.Column("bot", sa.String(length=64), nullable=False),
        sa.Column("candle_close", UtcText(length=27), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("score", sa.String(length=32), nullable=True),
        sa.Column("components", sa.JSON(), nullable=False),
        sa.Column("price", MoneyText(), nullable=False),
        sa.Column("candles_hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_scores_run")),
        sa.PrimaryKeyConstraint("bot", "candle_close", name=op.f("pk_scores")),
    )
    op.create_table(
        "orders",
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("decision", sa.String(length=64), nullable=True),
        sa.Column("run", sa.String(length=64), nullable=True),
        sa.Column("bot", sa.String(length=64), nullable=True),
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("amount", MoneyText(), nullable=False),
        sa.Column("limit_price", MoneyText(), nullable=True),
        sa.Column("expected_price", MoneyText(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("venue_order_id", sa.String(length=64), nullable=True),
        sa.Column("filled", MoneyText(), nullable=False),
        sa.Column("cost", MoneyText(), nullable=False),
        sa.Column("fills_complete", sa.Integer(), nullable=False),
        sa.Column("as_of", UtcText(length=27), nullable=False),
        sa.Column("created_at", UtcText(length=27), nullable=False),
        sa.Column("updated_at", UtcText(length=27), nullable=False),
        sa.ForeignKeyConstraint(["decision"], ["decisions.id"], name=op.f("fk_orders_decision")),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_orders_run")),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_orders")),
    )
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_orders_bot"), ["bot"], unique=False)
        batch_op.create_index(batch_op.f("ix_orders_decision"), ["decision"], unique=False)
        batch_op.create_index("ix_orders_venue_fills", ["venue", "fills_complete"], unique=False)
        batch_op.create_index(
            "ix_orders_venue_order", ["venue", "symbol", "venue_order_id"], unique=False
        )
        batch_op.create_index("ix_orders_venue_status", ["venue", "status"], unique=False)

    op.create_table(
        "fills",
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("trade_id", sa.String(length=64), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=True),
        sa.Column("venue_order_id", sa.String(length=64), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("amount", MoneyText(), nullable=False),
        sa.Column("price", MoneyText(), nullable=False),
        sa.Column("cost", MoneyText(), nullable=False),
        sa.Column("fee", MoneyText(), nullable=False),
        sa.Column("fee_currency", sa.String(length=16), nullable=False),
        sa.Column("at", UtcText(length=27), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["orders.client_id"], name=op.f("fk_fills_client_id")
        ),
        sa.PrimaryKeyConstraint("venue", "symbol", "trade_id", name=op.f("pk_fills")),
    )
    with op.batch_alter_table("fills", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_fills_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_fills_client_id"), ["client_id"], unique=False)

    op.create_table(
        "order_events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("at", UtcText(length=27), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["orders.client_id"], name=op.f("fk_order_events_client_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_order_events")),
    )
    with op.batch_alter_table("order_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_order_events_client_id"), ["client_id"], unique=False)

    op.create_table(
        "refusals",
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("limit_name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("bound", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", UtcText(length=27), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["orders.client_id"], name=op.f("fk_refusals_client_id")
        ),
        sa.PrimaryKeyConstraint("client_id", "limit_name", name=op.f("pk_refusals")),
    )
