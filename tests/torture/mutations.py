"""The desk with one of its protections taken away; each is called before a worker begins."""

import secrets
from collections.abc import Sequence
from dataclasses import replace

from tradelib.clock import utc_now
from tradelib.trading import execution, placing
from tradelib.trading.booking import apply_venue_order
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import Order, OrderStatus, find_attempts, find_order, insert_order
from tradelib.venue import Venue, VenueTrade
from tradelib.venue.client import parse_trades


def record_after_sending() -> None:
    """The order is in the ledger only once the venue has answered."""

    def keep_in_mind(_books, order, refusals):
        return order if not refusals else record(_books, order, refusals)

    def take(_ledger, _venue, orders, held, **_options):
        sent = {"status": OrderStatus.SUBMITTED, "sent_at": utc_now(), "lease_token": held.token}
        if any(order.status != OrderStatus.PLANNED for order in orders):
            return orders, False
        return [replace(order, **sent) for order in orders], True

    def write(ledger: Ledger, order: Order, answer):
        with ledger.write() as books:
            if find_order(books, order.client_id) is None:  # stops are recorded elsewhere
                insert_order(books, order)
            return apply_venue_order(books, order, answer)

    record = execution.record_planned
    execution.record_planned = keep_in_mind
    placing.take_to_wire, placing.record_answer = take, write


def send_random_ids() -> None:
    """Every request bears a client id of its own, which derives from nothing."""
    derived = placing.request_of
    placing.request_of = lambda order: replace(derived(order), client_id=_random_id())


def _random_id() -> str:
    return f"nd-{secrets.token_hex(10)}"


def resend_without_proof() -> None:
    """An order without an answer counts as never received at once."""

    def next_attempt(books, decision, leg):
        before = find_attempts(books, decision.id, leg.number)
        if not before:
            return 0, None
        last = before[-1]
        return (last.attempt + 1, None) if _is_unknown(last) else (last.attempt, last)

    usual = execution.may_try_again
    execution.may_try_again = lambda venue, attempts: (
        _is_unknown(attempts[-1]) or usual(venue, attempts)
    )
    execution._next_attempt = next_attempt
    check = execution.check_limits
    execution.check_limits = lambda *given: tuple(
        refusal for refusal in check(*given) if refusal.limit_name != "OneAtATime"
    )


def _is_unknown(order: Order) -> bool:
    is_silent = order.status in (OrderStatus.UNRESOLVED, OrderStatus.SUBMITTED)
    return is_silent or order.proven_absent


def ignore_leases() -> None:
    """Nobody finds out that another process has taken over."""
    execution.require_lease = placing.require_lease = lambda books, held: None


def read_newest_trades_only() -> None:
    """The executions that a venue gives when it is asked for no particular ones."""

    def newest(
        venue: Venue, symbol: str, last_trade_id: str | None, opened_at=None
    ) -> Sequence[VenueTrade]:
        rows = venue._read("list trades", lambda: venue._exchange.fetch_my_trades(
            symbol, None, venue.trade_page))  # fmt: skip
        return [trade for trade in parse_trades(rows) if trade.trade_id != last_trade_id]

    Venue.fetch_trades_since = newest
