"""Everything that talks to an exchange; the one room that imports ccxt."""

from tradelib.venue.client import Told, Venue, open_stream, open_venue
from tradelib.venue.facts import (
    BracketRequest,
    Instrument,
    OrderRequest,
    OrderType,
    Quote,
    TimeInForce,
    VenueBalance,
    VenueOrder,
    VenueStatus,
    VenueTrade,
)
from tradelib.venue.keys import Keys, load_keys, save_keys

__all__ = [
    "BracketRequest",
    "Instrument",
    "Keys",
    "OrderRequest",
    "OrderType",
    "Quote",
    "TimeInForce",
    "Told",
    "Venue",
    "VenueBalance",
    "VenueOrder",
    "VenueStatus",
    "VenueTrade",
    "load_keys",
    "open_stream",
    "open_venue",
    "save_keys",
]
