"""Profits: what positions have earned, and would earn at given prices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext

from tradelib.trading.orders import ZERO
from tradelib.trading.positions import EXACT, Position


@dataclass(frozen=True)
class Profit:
    """What was earned, in one quote currency, negative for a loss.

    realised: by sales, after fees in base and quote. unrealised: if all were sold at the price
    given, before fees; None where something is held whose price is not known. other_fees: paid in
    third currencies, by currency; fees_value: their worth in quote, None where a price of one is
    not known.
    """

    quote: str
    realised: Decimal = ZERO
    unrealised: Decimal | None = ZERO
    other_fees: Mapping[str, Decimal] = field(default_factory=dict)
    fees_value: Decimal | None = ZERO

    @property
    def total(self) -> Decimal | None:
        """Realised and unrealised profit after all fees, None where a price is not known."""
        if self.unrealised is None or self.fees_value is None:
            return None
        return self.realised + self.unrealised - self.fees_value

    def __add__(self, other: Profit) -> Profit:
        """Both together; they must be in the same quote currency."""
        assert self.quote == other.quote, f"{self.quote} and {other.quote} cannot be added"
        with localcontext(EXACT):
            fees = dict(self.other_fees)
            for currency, fee in other.other_fees.items():
                fees[currency] = fees.get(currency, ZERO) + fee
            return Profit(
                self.quote,
                self.realised + other.realised,
                _sum_known(self.unrealised, other.unrealised),
                fees,
                _sum_known(self.fees_value, other.fees_value),
            )


def compute_profit(position: Position, prices: Mapping[str, Decimal]) -> Profit:
    """What a position has earned; prices: by symbol ('BTC/USDT'), quote per unit of base.

    1 BTC bought for 100 USDT with a fee of 0.01 BNB, at prices of 120 and of 500 for BNB/USDT:
    unrealised 20, fees_value 5, total 15.
    """
    quote, price = position.symbol.split("/")[1], prices.get(position.symbol)
    with localcontext(EXACT):
        fees = position.other_fees.items()
        worth = [_in_quote(fee, currency, quote, prices) for currency, fee in fees]
        unrealised = ZERO if not position.amount else None
        if position.amount and price is not None:
            unrealised = position.unrealised(price)
        return Profit(
            quote, position.realised, unrealised, position.other_fees, _sum_known(ZERO, *worth)
        )


def compute_profits(
    positions: Iterable[Position],
    prices: Mapping[str, Decimal],
    by: Callable[[Position], str] = lambda position: position.symbol,
) -> dict[tuple[str, str], Profit]:
    """Profits added up by `by` (symbol, bot or venue of a position) and quote currency; profits
    in different currencies are never added."""
    found: dict[tuple[str, str], Profit] = {}
    for position in positions:
        profit = compute_profit(position, prices)
        key = (by(position), profit.quote)
        found[key] = found.get(key, Profit(profit.quote)) + profit
    return found


def _in_quote(
    value: Decimal, currency: str, quote: str, prices: Mapping[str, Decimal]
) -> Decimal | None:
    price = prices.get(f"{currency}/{quote}")
    return None if price is None else value * price


def _sum_known(*values: Decimal | None) -> Decimal | None:
    """The sum, None as soon as one of the values is not known."""
    known = [value for value in values if value is not None]
    return sum(known, ZERO) if len(known) == len(values) else None
