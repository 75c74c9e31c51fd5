"""The paper exchange: a local server that speaks Binance's spot dialect to an unmodified ccxt.

config = PaperConfig(home=Path("paper"), seed=7, speed=0)
with paper_exchange(config) as paper:
    exchange = ccxt.binance(paper.ccxt_settings(ccxt.binance))
    paper.control("step", candles=1, timeframe="1h")
"""

from tradelib.paper.app import PaperHandle, create_app, paper_exchange, run_paper
from tradelib.paper.config import PaperAccount, PaperConfig, RateLimits, ccxt_settings
from tradelib.paper.engine import Fees
from tradelib.paper.liquidity import Shape

__all__ = [
    "Fees",
    "PaperAccount",
    "PaperConfig",
    "PaperHandle",
    "RateLimits",
    "Shape",
    "ccxt_settings",
    "create_app",
    "paper_exchange",
    "run_paper",
]
