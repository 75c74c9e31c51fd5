"""How much the desk asks of its venues: the rate budget that all processes share.

Knows no exchange; a dialect states its limits as data.
"""

from tradelib.traffic.rates import Pool, Urgency, spend_as, spending_as, urgent

__all__ = ["Pool", "Urgency", "spend_as", "spending_as", "urgent"]
