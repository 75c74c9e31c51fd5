"""What can be traded, and the filters an order must pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from functools import cached_property
from typing import Any

import numpy as np

from tradelib.paper.candles import Candles
from tradelib.paper.refusals import filter_failure

ORDER_TYPES = (
    "LIMIT",
    "LIMIT_MAKER",
    "MARKET",
    "STOP_LOSS",
    "STOP_LOSS_LIMIT",
    "TAKE_PROFIT",
    "TAKE_PROFIT_LIMIT",
)
TRAILING_DELTA_RANGE = (10, 2000)
_DECIMALS = 8
_MIN_NOTIONAL = {"BTC": Decimal("0.0001"), "ETH": Decimal("0.001"), "BNB": Decimal("0.01")}
_USUAL_MIN_NOTIONAL = Decimal(5)
SATOSHI = Decimal("0.00000001")
ZERO = Decimal(0)

# Price × amount can need more digits than the default context keeps; nothing may be lost.
EXACT = Context(prec=60)
_DOWN = Context(prec=60, rounding=ROUND_FLOOR)
_UP = Context(prec=60, rounding=ROUND_CEILING)


def cost_down(price: Decimal, amount: Decimal) -> Decimal:
    """What `amount` costs at `price`, cut to 8 decimals: the quote that changes hands."""
    return _DOWN.quantize(EXACT.multiply(price, amount), SATOSHI)


def cost_up(price: Decimal, amount: Decimal) -> Decimal:
    """What is locked for `amount` at `price`: at least the cost of all its possible fills."""
    return _UP.quantize(EXACT.multiply(price, amount), SATOSHI)


def text8(value: Decimal) -> str:
    """An amount as the exchange writes it, with 8 decimals."""
    return format(value, ".8f")


@dataclass(frozen=True)
class Instrument:
    """One spot market. Prices in quote per base, amounts in base, notionals in quote."""

    base: str
    quote: str
    tick: Decimal
    step: Decimal
    min_notional: Decimal = Decimal(5)
    max_notional: Decimal = Decimal("9000000")
    max_amount: Decimal = Decimal("900000000")
    max_price: Decimal = Decimal("100000000")
    max_orders: int = 200
    max_algo_orders: int = 5
    price_band: Decimal = Decimal(5)

    @cached_property
    def symbol(self) -> str:
        return self.base + self.quote

    def check_price(self, price: Decimal) -> None:
        if not self.tick <= price <= self.max_price or EXACT.remainder(price, self.tick):
            raise filter_failure("PRICE_FILTER")

    def check_amount(self, amount: Decimal) -> None:
        if not self.step <= amount <= self.max_amount or EXACT.remainder(amount, self.step):
            raise filter_failure("LOT_SIZE")

    def check_notional(self, notional: Decimal, market_order: bool = False) -> None:
        if notional < self.min_notional or (notional > self.max_notional and not market_order):
            raise filter_failure("NOTIONAL")

    def check_band(self, price: Decimal, last: Decimal) -> None:
        """A limit may stray from the last price by a factor of `price_band` at most."""
        if not last / self.price_band <= price <= last * self.price_band:
            raise filter_failure("PERCENT_PRICE_BY_SIDE")

    def check_trailing(self, delta: int) -> None:
        low, high = TRAILING_DELTA_RANGE
        if not low <= delta <= high:
            raise filter_failure("TRAILING_DELTA")

    def round_price(self, price: Decimal) -> Decimal:
        """The nearest price on the tick."""
        ticks = EXACT.divide(price, self.tick).to_integral_value(ROUND_HALF_EVEN)
        return EXACT.multiply(ticks, self.tick)

    def floor_amount(self, amount: Decimal) -> Decimal:
        """The largest whole number of lots within `amount`."""
        lots = EXACT.divide(amount, self.step).to_integral_value(ROUND_FLOOR)
        return EXACT.multiply(lots, self.step)

    def info(self, status: str) -> dict[str, Any]:
        """The symbol's entry in exchangeInfo."""
        low, high = TRAILING_DELTA_RANGE
        band = format(self.price_band.normalize(), "f")
        inverse_band = format((1 / self.price_band).normalize(), "f")
        return {
            "symbol": self.symbol,
            "status": status,
            "baseAsset": self.base,
            "baseAssetPrecision": 8,
            "quoteAsset": self.quote,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "baseCommissionPrecision": 8,
            "quoteCommissionPrecision": 8,
            "orderTypes": list(ORDER_TYPES),
            "icebergAllowed": False,
            "ocoAllowed": True,
            "otoAllowed": False,
            "quoteOrderQtyMarketAllowed": True,
            "allowTrailingStop": True,
            "cancelReplaceAllowed": True,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": [
                {
                    "filterType": "PRICE_FILTER",
                    "minPrice": text8(self.tick),
                    "maxPrice": text8(self.max_price),
                    "tickSize": text8(self.tick),
                },
                {
                    "filterType": "LOT_SIZE",
                    "minQty": text8(self.step),
                    "maxQty": text8(self.max_amount),
                    "stepSize": text8(self.step),
                },
                {
                    "filterType": "MARKET_LOT_SIZE",
                    "minQty": text8(ZERO),
                    "maxQty": text8(self.max_amount),
                    "stepSize": text8(ZERO),
                },
                {
                    "filterType": "TRAILING_DELTA",
                    "minTrailingAboveDelta": low,
                    "maxTrailingAboveDelta": high,
                    "minTrailingBelowDelta": low,
                    "maxTrailingBelowDelta": high,
                },
                {
                    "filterType": "PERCENT_PRICE_BY_SIDE",
                    "bidMultiplierUp": band,
                    "bidMultiplierDown": inverse_band,
                    "askMultiplierUp": band,
                    "askMultiplierDown": inverse_band,
                    "avgPriceMins": 0,
                },
                {
                    "filterType": "NOTIONAL",
                    "minNotional": text8(self.min_notional),
                    "applyMinToMarket": True,
                    "maxNotional": text8(self.max_notional),
                    "applyMaxToMarket": False,
                    "avgPriceMins": 0,
                },
                {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": self.max_orders},
                {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": self.max_algo_orders},
            ],
            "permissions": ["SPOT"],
            "permissionSets": [["SPOT"]],
            "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
            "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
        }


def check_order_count(instrument: Instrument, open_orders: int, open_algos: int) -> None:
    """Refuses one order more than the symbol allows an account to keep open.

    open_orders, open_algos: what would be open with the new order in.
    """
    if open_orders > instrument.max_orders:
        raise filter_failure("MAX_NUM_ORDERS")
    if open_algos > instrument.max_algo_orders:
        raise filter_failure("MAX_NUM_ALGO_ORDERS")


def derive_instrument(pair: str, candles: Candles) -> Instrument:
    """Tick and lot as fine as the data's own decimals; a lot is never worth much.

    pair: as 'BTC/USD'.
    """
    base, quote = pair.split("/")
    prices = np.concatenate(candles.columns[1:5])
    tick = _finest(prices)
    least = _MIN_NOTIONAL.get(quote, _USUAL_MIN_NOTIONAL)
    # Volumes are often rounded to two decimals where one lot of that would cost a fortune.
    worth = 10.0 ** math.floor(math.log10(float(least) / 10 / float(np.median(prices))))
    step = min(_finest(candles.volume), _power(min(worth, 1.0)))
    return Instrument(base, quote, tick, step, min_notional=least)


def _finest(values: np.ndarray) -> Decimal:
    """The largest power of ten, 1e-8 to 1, of which all values are multiples."""
    for places in range(_DECIMALS):
        scaled = values * 10**places
        if np.all(np.abs(scaled - np.rint(scaled)) < 1e-6 * np.maximum(1, np.abs(scaled) * 1e-6)):
            return _power(10.0**-places)
    return _power(10.0**-_DECIMALS)


def _power(value: float) -> Decimal:
    return Decimal(1).scaleb(max(-_DECIMALS, min(0, round(math.log10(value)))))
