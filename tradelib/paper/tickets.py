"""From a request's parameters to a Ticket, with the complaints of the real exchange."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from tradelib.paper.instruments import ORDER_TYPES
from tradelib.paper.orders import BUY, SELL, STOP_TYPES, Ticket
from tradelib.paper.params import Params
from tradelib.paper.refusals import Refusal, missing, not_required

ORDER_PARAMS = frozenset({
    "symbol", "side", "type", "timeInForce", "quantity", "quoteOrderQty", "price",
    "newClientOrderId", "stopPrice", "trailingDelta", "newOrderRespType",
    "selfTradePreventionMode", "icebergQty", "strategyId", "strategyType",
})  # fmt: skip
OCO_PARAMS = frozenset({
    "symbol", "listClientOrderId", "side", "quantity", "newOrderRespType",
    "selfTradePreventionMode",
}) | {
    f"{leg}{name}"
    for leg in ("above", "below")
    for name in ("Type", "ClientOrderId", "Price", "StopPrice", "TrailingDelta", "TimeInForce")
}  # fmt: skip

# What each type must bring and may bring, of the parameters that not every type takes.
_LIMITS = frozenset({"LIMIT", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"})
_PRICED = _LIMITS | {"LIMIT_MAKER"}
_IN_FORCE = ("GTC", "IOC", "FOK")
_PREVENTIONS = ("EXPIRE_MAKER", "EXPIRE_TAKER", "EXPIRE_BOTH", "NONE")


@dataclass(frozen=True)
class Fields:
    """The names under which a request carries one order's parts; the legs of a list differ."""

    type: str = "type"
    client_id: str = "newClientOrderId"
    price: str = "price"
    stop: str = "stopPrice"
    trailing: str = "trailingDelta"
    in_force: str = "timeInForce"


def _leg(name: str) -> Fields:
    parts = ("Type", "ClientOrderId", "Price", "StopPrice", "TrailingDelta", "TimeInForce")
    return Fields(*(name + part for part in parts))


ONE, ABOVE, BELOW = Fields(), _leg("above"), _leg("below")


def new_client_id() -> str:
    """A name as the exchange makes one for an order that came without."""
    return secrets.token_urlsafe(16)[:22]


def read_ticket(params: Params, fields: Fields = ONE) -> Ticket:
    """The order a request asks for."""
    symbol = params.symbol()
    params.need("side")
    side = params.choice("side", (BUY, SELL), Refusal(-1117, "Invalid side."))
    params.need(fields.type)
    kind = params.choice(fields.type, ORDER_TYPES, Refusal(-1116, "Invalid orderType."))
    if fields is not ONE and kind in ("MARKET", "LIMIT"):
        raise Refusal(-1116, "Invalid orderType.")
    if params.text("icebergQty") is not None:
        raise Refusal(-1013, "Filter failure: ICEBERG_PARTS")
    _check_fields(params, fields, kind)
    in_force = params.choice(fields.in_force, _IN_FORCE, Refusal(-1115, "Invalid timeInForce."))
    prevention = params.choice(
        "selfTradePreventionMode",
        _PREVENTIONS,
        Refusal(-1130, "Data sent for parameter 'selfTradePreventionMode' is not valid."),
    )
    return Ticket(
        symbol=symbol,
        side=side,
        type=kind,
        client_id=params.client_id(fields.client_id) or new_client_id(),
        amount=params.amount("quantity"),
        quote_amount=params.amount("quoteOrderQty"),
        price=params.amount(fields.price),
        stop=params.amount(fields.stop),
        trailing=params.integer(fields.trailing),
        time_in_force=in_force or "GTC",
        prevention=prevention or "EXPIRE_MAKER",
    )


def _check_fields(params: Params, fields: Fields, kind: str) -> None:
    """What is missing for this type of order, or out of place in it."""
    sent = params.names
    if kind in _LIMITS:
        params.need(fields.in_force)
    if kind in _PRICED:
        params.need(fields.price)
    if kind != "MARKET" or "quoteOrderQty" not in sent:
        params.need("quantity")
    elif "quantity" in sent:
        raise Refusal(-1128, "Combination of optional parameters invalid.")
    if kind in STOP_TYPES and not sent & {fields.stop, fields.trailing}:
        raise missing(fields.stop)
    misplaced = {
        fields.in_force: kind not in _LIMITS,
        fields.price: kind not in _PRICED,
        fields.stop: kind not in STOP_TYPES,
        fields.trailing: kind not in STOP_TYPES,
        "quoteOrderQty": kind != "MARKET",
    }
    for name, is_misplaced in misplaced.items():
        if is_misplaced and name in sent:
            raise not_required(name)
