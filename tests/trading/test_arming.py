"""No order leaves this machine unless a person has armed the venue, and not a moment longer."""

from datetime import timedelta

import pytest

from tests.desks import paper_desk
from tradelib.settings import VenueSettings
from tradelib.trading.arming import arm_venue, disarm_venue
from tradelib.trading.decisions import Action
from tradelib.trading.orders import OrderStatus


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        desk.reconcile()
        yield desk


@pytest.fixture
def disarmed(desk):
    disarm_venue(desk.ledger, "paper")
    return desk


def test_an_order_to_a_venue_elsewhere_is_denied_until_it_is_armed(disarmed):
    desk = disarmed
    denied = desk.execute(desk.decide(Action.BUY))
    assert [refusal.limit_name for refusal in denied.refusals] == ["Armed"]
    assert "desk arm paper" in denied.order.reason
    desk.step()
    arm_venue(desk.ledger, "paper", timedelta(hours=1))
    assert desk.execute(desk.decide(Action.BUY)).order.status == OrderStatus.FILLED
    desk.step()
    disarm_venue(desk.ledger, "paper")
    again = desk.execute(desk.decide(Action.BUY))
    assert again.order.status == OrderStatus.DENIED


def test_an_arming_ends_by_itself(desk):
    arm_venue(desk.ledger, "paper", timedelta(seconds=-1))
    denied = desk.execute(desk.decide(Action.BUY))
    assert [refusal.limit_name for refusal in denied.refusals] == ["Armed"]


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("service:paper", True),
        (None, False),
        # A tunnel to a real exchange has an address on loopback too.
        ("http://127.0.0.1:8620", False),
        ("https://example.org/service:paper", False),
    ],
)
def test_only_the_desks_own_exchange_needs_no_arming(url, local):
    assert VenueSettings(rest_url=url).is_local is local
