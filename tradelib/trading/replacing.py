"""Replacing an order: what speaks against the new one once the old one is gone."""

from __future__ import annotations

from dataclasses import replace

from tradelib.errors import InvalidInput
from tradelib.settings import LimitSettings
from tradelib.trading.manual import Preview
from tradelib.trading.orders import Order, OrderStatus, Role, Side
from tradelib.trading.risk import Portfolio, Refusal, check_limits, limits_for
from tradelib.venue import Instrument, OrderType

# The limits that an order at rest counts in: they are asked again without it.
_COUNTING = {"OneAtATime", "SufficientBalance", "CashReserve", "PositionShare"}


def require_replaceable(order: Order) -> None:
    """Refuse an order that is no resting limit order, or that protects a position: what replaces
    that is computed from the position."""
    if order.type not in (OrderType.LIMIT, OrderType.POST_ONLY) or order.bracket:
        raise InvalidInput(
            f"Order {order.client_id} is a {order.type} order; only limit orders are replaced."
        )
    if Role(order.role).protects:
        raise InvalidInput(
            f"Order {order.client_id} protects a position and is kept by the desk; "
            f"change it with: desk bots edit {order.bot or 'BOT'} --stops profit=0.1"
        )
    if OrderStatus(order.status).final:
        raise InvalidInput(f"Order {order.client_id} is {order.status} and rests no more.")


def refusals_instead_of(
    old: Order, told: Preview, limits: LimitSettings, instrument: Instrument
) -> tuple[Refusal, ...]:
    """What of a preview's refusals would stand if the old order were gone, with the cash or the
    coins that are promised to it."""
    wanted = told.wanted
    new = replace(
        old,
        side=Side(old.side),
        amount=wanted.amount,
        limit_price=wanted.limit_price,
        expected_price=told.price,
    )
    counting = [one for one in limits_for(limits, instrument) if type(one).__name__ in _COUNTING]
    others = (refusal for refusal in told.refusals if refusal.limit_name not in _COUNTING)
    return (*others, *check_limits(new, _without(old, told.portfolio), counting))


def _without(old: Order, portfolio: Portfolio) -> Portfolio:
    """The account with the order gone: a purchase frees its cash, a sale its coins."""
    if old.bot is not None:
        name = "orders_resting" if old.is_known else "orders_on_their_way"
        portfolio = replace(portfolio, **{name: max(getattr(portfolio, name) - 1, 0)})
    if old.side == Side.SELL:
        return replace(portfolio, held_amount=portfolio.held_amount + old.left)
    promised = max(old.notional, old.cost)
    return replace(
        portfolio,
        cash=portfolio.cash + promised,
        symbol_value=portfolio.symbol_value - promised,
    )
