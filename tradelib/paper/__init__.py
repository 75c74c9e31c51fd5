"""The paper exchange: a local server that speaks Binance's spot dialect to an unmodified ccxt.

config = PaperConfig(home=Path("paper"), seed=7, speed=0)
with paper_exchange(config) as paper:
    exchange = ccxt.binance(paper.ccxt_settings(ccxt.binance))
    paper.control("step", candles=1, timeframe="1h")
    paper.control("faults", script=[{"kind": "accept_then_timeout"}])
    paper.control("record", account="paper")  # what is so, whatever was answered
"""

from tradelib.paper.app import PaperHandle, create_app, paper_exchange, run_paper
from tradelib.paper.config import PaperAccount, PaperConfig, RateLimits, ccxt_settings
from tradelib.paper.faults import FaultPlan, mild_plan
from tradelib.paper.faulty import read_plan
from tradelib.paper.fees import FeeAsset, Fees
from tradelib.paper.liquidity import Shape
from tradelib.paper.wire import Wire, open_wire, read_wire_plan, wire_proxy

__all__ = [
    "FaultPlan",
    "FeeAsset",
    "Fees",
    "PaperAccount",
    "PaperConfig",
    "PaperHandle",
    "RateLimits",
    "Shape",
    "Wire",
    "ccxt_settings",
    "create_app",
    "mild_plan",
    "open_wire",
    "paper_exchange",
    "read_plan",
    "read_wire_plan",
    "run_paper",
    "wire_proxy",
]
