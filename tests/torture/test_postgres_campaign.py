"""The same campaign on a real PostgreSQL."""

import pytest

from tests.trading.test_postgres import server as server
from tradelib.torture.campaign import Plan, run_campaign

pytestmark = pytest.mark.postgres

SCHEDULES = 50


def test_a_campaign_on_postgresql_is_clean(server):
    for number in (1, 2):
        server.psql(f"CREATE DATABASE torture{number};")
    url = server.get_uri(database="torture{}").replace("postgresql://", "postgresql+psycopg://")
    report = run_campaign(Plan(SCHEDULES, seed=3, workers=2, ledger_url=url))
    assert {name: count for name, count in report.counted.items() if count} == {}
    assert min(report.kills, report.sleeps) > 0
