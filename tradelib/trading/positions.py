"""Positions: the sum of fills, with its average entry and what it has earned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

from tradelib.trading.ledger import Ledger, rows
from tradelib.trading.orders import ZERO, Fill, Side, select_fills

_DUST_SHARE = Decimal("0.0005")


def is_dust(value: Decimal, equity: Decimal) -> bool:
    """Whether a holding's value, in the currency of `equity`, is only what lot sizes and fees in
    base currency leave behind after a full sale: at most 0.05% of equity."""
    return value <= _DUST_SHARE * equity


@dataclass(frozen=True)
class Position:
    """What fills of one symbol add up to.

    amount: base currency held, after fees taken in it. cost: quote currency paid for what is
    held, fees in quote included. realised: profit in quote currency, negative for a loss, after
    fees in base and quote. other_fees: fees paid in third currencies, by currency.
    """

    symbol: str
    amount: Decimal = ZERO
    cost: Decimal = ZERO
    realised: Decimal = ZERO
    other_fees: dict[str, Decimal] = field(default_factory=dict)
    last_trade: datetime | None = None

    @property
    def average_entry(self) -> Decimal | None:
        """Quote paid per unit held, None when flat."""
        return self.cost / self.amount if self.amount > 0 else None

    def unrealised(self, price: Decimal) -> Decimal:
        """Profit in quote currency if the position were sold at `price`, before fees."""
        return self.amount * price - self.cost


def compute_position(symbol: str, fills: Iterable[Fill]) -> Position:
    """The position after fills in time order, at average cost.

    A buy of 2 at 10 with a fee of 0.002 base leaves amount 1.998 and cost 20; a sale of 1 at 12
    with a fee of 0.012 quote then realises 12 - 0.012 - 20/1.998.
    """
    position = Position(symbol)
    for fill in fills:
        position = _after(position, fill)
    return position


def _after(position: Position, fill: Fill) -> Position:
    base, quote = fill.symbol.split("/")
    base_fee = fill.fee if fill.fee_currency == base else ZERO
    quote_fee = fill.fee if fill.fee_currency == quote else ZERO
    position = replace(position, last_trade=fill.at)
    if fill.fee_currency not in (base, quote) and fill.fee:
        paid = position.other_fees.get(fill.fee_currency, ZERO) + fill.fee
        position = replace(position, other_fees={**position.other_fees, fill.fee_currency: paid})
    if fill.side == Side.BUY:
        return replace(
            position,
            amount=position.amount + fill.amount - base_fee,
            cost=position.cost + fill.cost + quote_fee,
        )
    return _after_sale(position, fill, fill.amount + base_fee, fill.cost - quote_fee)


def _after_sale(position: Position, fill: Fill, sold: Decimal, proceeds: Decimal) -> Position:
    """Selling more than is held (coins from elsewhere) realises only what was held."""
    held = min(sold, position.amount)
    if held <= 0:
        return position
    # A full sale takes all the cost, so that no rounding of a quotient is left behind.
    is_all = held == position.amount
    cost_sold = position.cost if is_all else position.cost * held / position.amount
    return replace(
        position,
        amount=position.amount - held,
        cost=position.cost - cost_sold,
        realised=position.realised + proceeds * held / sold - cost_sold,
    )


def bot_position(books: Connection, bot: str, symbol: str) -> Position:
    """The bot's own position: the sum of the fills of its orders."""
    return compute_position(symbol, reversed(rows(books, select_fills(bot=bot), Fill)))


def load_position(ledger: Ledger, bot: str, symbol: str) -> Position:
    with ledger.read() as books:
        return bot_position(books, bot, symbol)
