"""Upkeep: what is done after a decision for its bot, and between decisions for a whole account.

Scheduled pages, bots that react and commands come here.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta

from tradelib.errors import DeskError, LeaseHeld
from tradelib.settings import LimitSettings
from tradelib.trading.bots import Bot, load_bots, symbols_of
from tradelib.trading.decisions import Decision
from tradelib.trading.execution import Execution, execute_decision
from tradelib.trading.leases import Lease, run_of
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import load_orders
from tradelib.trading.placing import cancel_live_order
from tradelib.trading.reconciliation import Reconciliation, merge, reconcile
from tradelib.trading.stops import maintain_stops
from tradelib.traffic import Urgency, urgent
from tradelib.venue import Venue

log = logging.getLogger(__name__)


def execute_and_protect(
    ledger: Ledger,
    venue: Venue,
    limits: LimitSettings,
    bot: Bot,
    decision: Decision,
    run: str,
    *,
    patience: timedelta = timedelta(0),
    held: Lease | None = None,
) -> Execution:
    """`execute_decision`, then make the bot's stops fit what it holds, unless another process
    trades it by then and looks after them."""
    done = execute_decision(ledger, venue, limits, bot, decision, run, patience=patience, held=held)
    with suppress(LeaseHeld):
        maintain_stops(ledger, venue, bot, run)
    return done


def _see_cancels_through(ledger: Ledger, venue: Venue) -> bool:
    """Cancel what somebody wanted cancelled when its state was not known yet."""
    live = load_orders(ledger, venue=venue.name, unsettled=True)
    wanted = [order for order in live if order.cancel_wanted and order.is_known]
    for order in wanted:
        try:
            cancel_live_order(ledger, venue, order)
        except DeskError as error:
            log.warning("cancel of %s: %s", order.client_id, error)
    return bool(wanted)


@urgent(Urgency.RECONCILE)
def reconcile_venue(ledger: Ledger, venue: Venue, holder: str) -> Reconciliation:
    """Reconcile an account, make every bot's stops fit its position, and look again where that
    changed something.

    holder: the run or command that does it. A bot that another process trades right now is left
    to that one.
    """
    run = run_of(holder)
    bots = [bot for bot in load_bots(ledger) if bot.venue == venue.name]
    symbols = symbols_of(bots, venue.name)
    first = reconcile(ledger, venue, symbols, run=run)
    changed = _see_cancels_through(ledger, venue)
    for bot in bots:
        try:
            changed |= not maintain_stops(ledger, venue, bot, holder).is_done
        except DeskError as error:
            log.warning("stops of %s: %s", bot.name, error, extra={"fields": {"run": run}})
    return merge(first, reconcile(ledger, venue, symbols, run=run)) if changed else first
