"""A paper exchange to trade on, and the traders on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import ccxt
import pytest

from tradelib.paper import (
    PaperAccount,
    PaperConfig,
    PaperHandle,
    RateLimits,
    ccxt_settings,
    paper_exchange,
)

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
ANN = PaperAccount("ann", "ann-key", "ann-secret", {"USDT": Decimal(100_000), "BTC": Decimal(2)})
BOB = PaperAccount("bob", "bob-key", "bob-secret", {"USDT": Decimal(100_000), "BTC": Decimal(2)})
NO_LIMITS = RateLimits(
    weight=10**6, orders_10s=10**6, orders_day=10**7, stream_messages=10**6,
    stream_connections=10**6,
)  # fmt: skip


def trader(paper: PaperHandle, account: PaperAccount = ANN, **settings: Any) -> ccxt.binance:
    """An unmodified ccxt with an account's keys, its markets loaded."""
    known = ccxt_settings(paper.url, account.key, account.secret, ccxt.binance)
    exchange = ccxt.binance({**known, "enableRateLimit": False, "timeout": 5000, **settings})
    exchange.load_markets()
    return exchange


Start = Callable[..., PaperHandle]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a stepped paper exchange with two rich accounts, or as the arguments say."""
    with ExitStack() as running:

        def run(wall: Any = None, **changes: Any) -> PaperHandle:
            usual = {
                "home": tmp_path / "paper",
                "speed": 0,
                "accounts": (ANN, BOB),
                "limits": NO_LIMITS,
            }
            config = PaperConfig(**{**usual, **changes})
            more = {} if wall is None else {"wall": wall}
            return running.enter_context(paper_exchange(config, **more))

        yield run


@pytest.fixture
def paper(start: Start) -> PaperHandle:
    return start()


@pytest.fixture
def ann(paper: PaperHandle) -> Iterator[ccxt.binance]:
    exchange = trader(paper)
    yield exchange
    exchange.close()


@pytest.fixture
def bob(paper: PaperHandle) -> Iterator[ccxt.binance]:
    exchange = trader(paper, BOB)
    yield exchange
    exchange.close()
