"""What a fill costs, and in which asset it is paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from tradelib.errors import InvalidInput, unknown_name


@dataclass(frozen=True)
class Fees:
    """Shares of the received asset."""

    maker: Decimal = Decimal("0.001")
    taker: Decimal = Decimal("0.001")


USUAL_FEES = Fees()


@dataclass(frozen=True)
class FeeAsset:
    """An asset in which an account pays its fees, while it has any free.

    discount: share of the usual fee that it saves. price: of one unit, in the quote of whatever
    is traded, where the market itself has no price of it.
    """

    asset: str
    discount: Decimal = Decimal("0.25")
    price: Decimal | None = None


def read_fee_asset(given: Mapping[str, Any], where: str) -> FeeAsset | None:
    """{"asset": "BNB", "discount": "0.25", "price": "600"}; without an asset there is none."""
    for name in given:
        if name not in ("asset", "discount", "price"):
            raise unknown_name("part of a fee asset", name, ("asset", "discount", "price"), where)
    asset = given.get("asset")
    if asset is None:
        return None
    if not isinstance(asset, str) or not asset.isalnum():
        raise InvalidInput(f"The fee asset of {where} is a name such as BNB, not {asset!r}.")
    discount = _number("discount", given.get("discount", "0.25"), where)
    price = _number("price", given["price"], where) if given.get("price") is not None else None
    if not 0 <= discount <= 1:
        raise InvalidInput(f"The fee discount of {where} is a share from 0 to 1, not {discount}.")
    if price is not None and price <= 0:
        raise InvalidInput(f"The price of the fee asset of {where} is more than 0, not {price}.")
    return FeeAsset(asset.upper(), discount, price)


def _number(name: str, value: Any, where: str) -> Decimal:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise InvalidInput(f"The fee {name} of {where} is a number, not {value!r}.")
    return number
