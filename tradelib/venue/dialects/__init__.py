"""Where exchanges differ, one file each: how an order is written, found again and listed.

A dialect answers in ccxt's rows and raises ccxt's errors; the client translates both.
"""

import ccxt

from tradelib.venue.dialects.base import Dialect, Page, Row
from tradelib.venue.dialects.binance import Binance
from tradelib.venue.dialects.coinbase import Coinbase
from tradelib.venue.dialects.kraken import Kraken

DIALECTS: dict[str, type[Dialect]] = {"binance": Binance, "coinbase": Coinbase, "kraken": Kraken}


def dialect_of(exchange: ccxt.Exchange) -> Dialect:
    """How to speak to an exchange: its own dialect, else the way of most."""
    return DIALECTS.get(exchange.id, Dialect)(exchange)


__all__ = ["Dialect", "Page", "Row", "dialect_of"]
