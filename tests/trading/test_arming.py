"""No order leaves this machine unless a person has armed the venue, and not a moment longer."""

from datetime import timedelta

import pytest

from tests.desks import desk_command, paper_desk
from tradelib.settings import VenueSettings
from tradelib.trading.arming import arm_venue, disarm_venue
from tradelib.trading.decisions import Action
from tradelib.trading.orders import OrderStatus


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        desk.reconcile()
        yield desk


def remote(desk):
    """The paper exchange, as if it were somewhere else."""
    venue = desk.venue()
    venue.is_local = False
    return venue


def test_an_order_to_a_venue_elsewhere_is_denied_until_it_is_armed(desk):
    denied = desk.execute(desk.decide(Action.BUY), remote(desk))
    assert [refusal.limit_name for refusal in denied.refusals] == ["Armed"]
    assert "desk arm paper" in denied.order.reason
    desk.step()
    arm_venue(desk.ledger, "paper", timedelta(hours=1))
    assert desk.execute(desk.decide(Action.BUY), remote(desk)).order.status == OrderStatus.FILLED
    desk.step()
    disarm_venue(desk.ledger, "paper")
    again = desk.execute(desk.decide(Action.BUY), remote(desk))
    assert again.order.status == OrderStatus.DENIED


def test_an_arming_ends_by_itself(desk):
    arm_venue(desk.ledger, "paper", timedelta(seconds=-1))
    denied = desk.execute(desk.decide(Action.BUY), remote(desk))
    assert [refusal.limit_name for refusal in denied.refusals] == ["Armed"]


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("service:paper", True),
        ("http://127.0.0.1:8620", True),
        ("http://localhost:1", True),
        (None, False),
        ("https://127.0.0.1.example.org", False),
        ("https://example.org/127.0.0.1", False),
    ],
)
def test_only_loopback_is_local(url, local):
    assert VenueSettings(rest_url=url).is_local is local


def test_a_local_venue_needs_no_arming(desk):
    done = desk_command("arm", "paper", home=desk.settings.home)
    assert done.returncode == 2
    assert "needs no arming" in done.stderr
