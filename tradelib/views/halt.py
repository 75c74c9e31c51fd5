"""Whether the desk trades, in one line that cannot be overlooked."""

from __future__ import annotations

from tradelib.trading.halts import active_halt
from tradelib.trading.ledger import Ledger
from tradelib.views.html import Html, banner


def halt_banner(ledger: Ledger) -> Html:
    """Red while trading is halted, reducing, or the halt cannot be read."""
    halt = active_halt(ledger)
    if halt is None:
        return banner("Trading is active: no halt is set.", "fine", name="halt")
    if not halt.stops_all:
        told = f"TRADING IS REDUCING since {halt.at:%Y-%m-%d %H:%M:%S} UTC: {halt.reason}."
        return banner(f"{told} Positions may only shrink until `desk resume`.", "stop", name="halt")
    told = f"TRADING IS HALTED since {halt.at:%Y-%m-%d %H:%M:%S} UTC: {halt.reason}."
    return banner(f"{told} No new order is sent until `desk resume`.", "stop", name="halt")
