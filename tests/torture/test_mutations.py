"""A campaign that cannot fail proves nothing: each protection, taken away, makes it fail."""

from collections.abc import Callable

import pytest

from tests.torture import mutations
from tradelib.torture.campaign import Plan, run_campaign
from tradelib.torture.verdict import BALANCE, DUPLICATE, LOST

SCHEDULES = 60


@pytest.mark.parametrize(
    ("mutation", "focus", "expected"),
    [
        (mutations.record_after_sending, "kills", {LOST, BALANCE}),
        (mutations.send_random_ids, "answers", {LOST}),
        (mutations.resend_without_proof, "answers", {DUPLICATE}),
        (mutations.ignore_leases, "zombies", {DUPLICATE}),
        (mutations.read_newest_trades_only, "strangers", {LOST, BALANCE}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_desk_without_one_protection_fails(
    mutation: Callable[[], None], focus: str, expected: set[str]
):
    plan = Plan(SCHEDULES, seed=11, focus=focus, prepare=mutation, stop_at_first=True)
    report = run_campaign(plan)
    assert expected & set(report.violations), report.counted
