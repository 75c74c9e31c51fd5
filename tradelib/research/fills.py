"""Fill models: what becomes of an order in a backtest, from the plain to a venue's every step.

    next_open   whole, at the next candle's open; the fee is a share of the value
    spread      at the ask or the bid around that open
    book        down a book whose depth is what candles have lately traded
    partial     at most a share of a candle's volume; the rest carries over to the next
    venue       lots, ticks, minimums, and a fee cut to eight decimals in what is received

They are one model with other parameters, so that `fill_model("book", volume_share=0.1)` is a book
of which a candle gives no more than a tenth of its volume. All are of a spot account: what is
bought is paid for, and what is sold is held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field

from tradelib.candles.schema import open_ms
from tradelib.clock import timeframe_ms
from tradelib.errors import InvalidInput, unknown_name
from tradelib.paper import counts, liquidity
from tradelib.paper.counts import UNIT
from tradelib.paper.liquidity import moment_salt, to_counts
from tradelib.paper.market import RECENT
from tradelib.research import counted, exact
from tradelib.research.counted import Done
from tradelib.settings import LimitSettings
from tradelib.strategy.decision import Decision, DecisionState
from tradelib.strategy.params import Params
from tradelib.venue.facts import Instrument

MOST_CASH = Decimal(10**9)
"""Quote units that a counted account may begin with; sums of 1e-8 end at some 92 billion."""


def _written(value: Any) -> Any:
    return str(value) if isinstance(value, float) else value


Exact = Annotated[Decimal, BeforeValidator(_written), Field(ge=0, decimal_places=8)]
Share = Annotated[Exact, Field(le=1)]
Step = Annotated[Exact, Field(gt=0)]


class FillModel(Params):
    """What becomes of an order; the defaults fill it whole at the next open.

    Anything but the defaults is counted in whole 1e-8 of either currency, and the order is sized
    at the price that it meets, as live trading sizes it; `next_open` sizes it at the close that
    was decided on. Where candles are missing nothing was traded: a counted order meets the last
    close, when that was.
    """

    name: str = Field("next_open", description="what the model is called in tables")

    spread_bp: Annotated[Exact, Field(lt=10_000, decimal_places=3)] = Field(
        Decimal(0), description="between bid and ask, hundredths of a percent of the price"
    )
    levels: int = Field(
        0, ge=0, le=10_000, description="levels of the book; 0: the best price takes everything"
    )
    gap_bp: Annotated[Exact, Field(le=100, decimal_places=4)] = Field(
        Decimal(1), description="between levels, hundredths of a percent; one tick at least"
    )
    top: Annotated[Exact, Field(le=1000)] = Field(
        Decimal("0.05"), description="size of the best level, share of what a candle trades lately"
    )
    growth: Annotated[Exact, Field(le=1000)] = Field(
        Decimal("0.15"), description="how much larger each further level is, a share of the top"
    )
    salt: int | None = Field(
        None, ge=0, lt=2**64, description="makes the levels as uneven as that market's; none: even"
    )
    symbol: str = Field("", description="the salted market's name of the symbol, as 'BTCUSDT'")

    volume_share: Share | None = Field(
        None, gt=0, description="most of a candle's volume that an order gets; none: no bound"
    )
    rest: Literal["lapses", "carries"] = Field(
        "lapses", description="what becomes of the part that is not filled: it may wait for the "
        "next candle, until it is filled or something else is decided",
    )  # fmt: skip

    tick: Step | None = Field(None, description="price step, quote; none: 1e-8")
    lot: Step | None = Field(None, description="amount step, base units; none: 1e-8")
    min_amount: Exact = Field(Decimal(0), description="least amount of an order, base units")
    min_notional: Exact = Field(Decimal(0), description="least value of an order, quote")
    fee_in: Literal["quote", "received"] = Field(
        "quote", description="what the fee is taken in; received: base when buying"
    )
    fee_step: Step | None = Field(None, description="what a fee is cut to; none: 1e-8")
    cuts_to_cash: bool = Field(
        True, description="a purchase beyond the cash is made as large as that; else it is refused"
    )

    dust_share: Share = Field(
        Decimal(0), description="of equity: a position worth no more is none; live: 0.0005"
    )
    smallest_order: Exact = Field(
        Decimal(0), description="least value of a purchase; with less cash nothing is decided"
    )
    largest_order: Exact | None = Field(None, description="most value of a purchase; none: all")
    min_cash_share: Share | None = Field(None, description="of equity, left by a purchase")
    max_position_share: Share | None = Field(None, description="of equity, after a purchase")
    max_orders_per_day: int | None = Field(None, ge=0, description="from which none buys; UTC")
    max_daily_loss_share: Share | None = Field(
        None, description="of equity at the day's begin; from it on nothing is bought that day"
    )

    @property
    def counts(self) -> bool:
        """Whether it is anything but whole fills at the next open."""
        return self != FillModel(name=self.name)

    def within(self, limits: LimitSettings, quote: str) -> FillModel:
        """The model with the desk's own limits on orders in a quote currency.

        Protections, and limits on more than one symbol, are not modelled.
        """
        values = limits.notional_for(quote)
        return self.changed(
            smallest_order=values.min,
            largest_order=values.max,
            min_cash_share=limits.min_cash_share,
            max_position_share=limits.max_position_share,
            max_orders_per_day=limits.max_trades_per_day,
            max_daily_loss_share=limits.max_daily_loss_share,
        )

    def leaving_share(self, fee: float) -> float:
        """Share of a position's value that its sale at one price would cost: the fee, and half the
        spread."""
        half = float(self.spread_bp) / 20_000
        return fee + half * (1.0 - fee)

    @property
    def kernel(self) -> Kernel:
        """The functions that fold it."""
        return COUNTED if self.counts else WHOLE

    def rules(self, fee: float) -> Any:
        """What the kernel's functions are told; fee: a share of each fill."""
        if not self.counts:
            return float(fee)
        share = Decimal(str(fee))
        if share != round(share, 8):
            raise InvalidInput(f"A fee of {fee} is finer than 1e-8; round it.")
        return counted.Rules(
            tick=to_counts(self.tick) if self.tick else 1,
            lot=to_counts(self.lot) if self.lot else 1,
            min_amount=to_counts(self.min_amount),
            min_notional=to_counts(self.min_notional),
            half_spread=to_counts(self.spread_bp / 20000),
            gap=to_counts(self.gap_bp / 10000),
            top=to_counts(self.top),
            growth=to_counts(self.growth),
            levels=self.levels,
            noisy=self.salt is not None,
            volume_share=_bound(self.volume_share),
            carries=self.rest == "carries",
            fee=to_counts(share),
            fee_step=to_counts(self.fee_step) if self.fee_step else 1,
            fee_received=self.fee_in == "received",
            cuts=self.cuts_to_cash,
            dust_share=float(self.dust_share),
            smallest=to_counts(self.smallest_order),
            largest=_bound(self.largest_order),
            cash_share=_bound(self.min_cash_share),
            position_share=_bound(self.max_position_share),
            orders_per_day=-1 if self.max_orders_per_day is None else self.max_orders_per_day,
            loss_share=(
                -1.0 if self.max_daily_loss_share is None else float(self.max_daily_loss_share)
            ),
        )

    def start(self, cash: float) -> Any:
        """The account before the first candle; counted cash is rounded to eight decimals."""
        if not self.counts:
            return Account(DecisionState(), float(cash))
        if cash > MOST_CASH:
            raise InvalidInput(
                f"Cash of {cash:,.0f} is more than fill model {self.name!r} can count in 1e-8; "
                f"give at most {MOST_CASH:,}."
            )
        return counted.start(to_counts(Decimal(str(cash))))

    def market(self, candles: pd.DataFrame, timeframe: str) -> tuple:
        """What the venue shows at each candle; () where the next open is all."""
        return _market(self, candles, timeframe) if self.counts else ()


def _bound(value: Decimal | None) -> int:
    return -1 if value is None else to_counts(value)


NEXT_OPEN = FillModel()
"""Whole fills at the next open."""

_PRESETS: dict[str, dict[str, Any]] = {
    "next_open": {},
    "spread": {"spread_bp": 2},
    "book": {"spread_bp": 2, "levels": 100},
    "partial": {"volume_share": "0.1", "rest": "carries"},
    "venue": {
        "tick": "0.01", "lot": "0.00001", "min_notional": 5, "fee_in": "received",
        "cuts_to_cash": False, "dust_share": "0.0005",
    },
}  # fmt: skip
FILL_MODELS: tuple[str, ...] = tuple(_PRESETS)


def fill_model(name: str, /, **changes: Any) -> FillModel:
    """The model of that name, with some parameters changed."""
    if name not in _PRESETS:
        raise unknown_name("fill model", name, FILL_MODELS)
    return FillModel(**{"name": name, **_PRESETS[name], **changes})


def venue_fills(instrument: Instrument, **changes: Any) -> FillModel:
    """The `venue` model by a symbol's own rules."""
    rules = {
        "tick": instrument.tick,
        "lot": instrument.lot,
        "min_amount": instrument.min_amount or 0,
        "min_notional": instrument.min_notional or 0,
    }
    return fill_model("venue", **{**rules, **changes})


class Kernel(NamedTuple):
    """A model's functions. fill: the order at an open; look: what is decided with at a close;
    want: the account with what was decided. helpers: what these call."""

    fill: Callable
    look: Callable
    want: Callable
    helpers: tuple[Callable, ...] = ()


class Account(NamedTuple):
    """What a fold of whole fills carries from candle to candle.

    action, spend, sell: what the last decision wants of the next open: quote to spend on a buy,
    base units to sell on a sell.
    """

    state: DecisionState
    cash: float
    action: int = 0
    spend: float = 0.0
    sell: float = 0.0


def _fill_whole(
    after_fill: Callable,
    account: Account,
    market: tuple,
    i: int,
    open_ms: int,
    open: float,
    fee: float,
) -> tuple[Account, Done]:
    state, cash, action, amount, paid = account.state, account.cash, account.action, 0.0, 0.0
    if action > 0:
        amount = min(account.spend, cash / (1.0 + fee)) / open
    elif action < 0:
        amount = account.sell
    if amount > 0.0:
        paid = amount * open * fee
        cash = cash - action * amount * open - paid
        state = after_fill(state, action, amount, open, open_ms)
    done = Done(action * amount, paid, open, amount, open, 0.0, 0)
    return Account(state, cash), done


def _look_whole(
    account: Account, market: tuple, i: int, close: float, fee: float
) -> tuple[DecisionState, float, float, bool]:
    state, cash = account.state, account.cash
    return state, cash + state.amount * close, cash, True


def _want_whole(account: Account, state: DecisionState, taken: Decision, equity: float) -> Account:
    spend, sell = taken.fraction * equity, taken.fraction * state.amount
    return Account(state, account.cash, taken.action, spend, sell)


WHOLE = Kernel(_fill_whole, _look_whole, _want_whole)
COUNTED = Kernel(
    counted.fill,
    counted.look,
    counted.want,
    (
        liquidity.mix, liquidity.level_noise, counts.times, counts.rest_of_times,
        counts.best_price, counts.level_gap, counts.level_amount,
        exact.pair_of, exact.product, exact.joined, exact.multiplied, exact.added, exact.divided,
        exact.over, exact.equity_of, exact.worth, exact.is_below, exact.whole_below,
        exact.as_written,
        counted.opened, counted.today, counted.sized, counted.affordable, counted.refusal,
        counted.standing, counted.meet, counted.told, counted.booked, counted.bought,
        counted.sold, counted.mean_cost, counted.cost_share,
    ),
)  # fmt: skip


def compiled_kernel(kernel: Kernel) -> tuple[Callable, Callable, Callable]:
    """The kernel's three functions, compiled."""
    with _COMPILING:  # numba is told of a helper once, whatever threads ask
        return _compiled_kernel(kernel)


_COMPILING = threading.Lock()


@cache
def _compiled_kernel(kernel: Kernel) -> tuple[Callable, Callable, Callable]:
    import numba
    from numba.extending import register_jitable

    for helper in kernel.helpers:
        register_jitable(helper)
    inlined = numba.njit(forceinline=True)
    return inlined(kernel.fill), inlined(kernel.look), inlined(kernel.want)


def _market(model: FillModel, candles: pd.DataFrame, timeframe: str) -> counted.Market:
    opened, length = open_ms(candles), timeframe_ms(timeframe)
    closes = _counts(candles, "close")
    tick = to_counts(model.tick) if model.tick else 1
    prices, times = _counts(candles, "open"), opened.copy()
    # Nothing trades while candles are missing: the price is the last close, then and there.
    late = np.flatnonzero(np.diff(opened) != length) + 1
    prices[late], times[late] = closes[late - 1], opened[late - 1] + length
    prices = np.maximum((prices + tick // 2) // tick * tick, tick)
    if model.levels and float(prices.max()) * to_counts(model.gap_bp / 10000) > 2.0**62:
        raise InvalidInput(
            f"Prices up to {prices.max() / UNIT:,.0f} are too high for a gap of "
            f"{model.gap_bp} basis points to be counted; give a smaller gap_bp."
        )
    count = len(candles)
    depths = np.zeros(count, dtype="int64")
    if model.levels:
        depths = _depths(candles["volume"].to_numpy(dtype="float64"), set(late.tolist()))
    salts = np.zeros(count, dtype="uint64")
    if model.levels and model.salt is not None:
        each = (moment_salt(model.salt, at // length, model.symbol) for at in times.tolist())
        salts = np.array(list(each), dtype="uint64")
    volumes, one = _counts(candles, "volume"), np.ones(1, dtype="uint64")
    return counted.Market(prices, times, closes, volumes, depths, salts, one)


def _counts(candles: pd.DataFrame, column: str) -> np.ndarray:
    scaled = candles[column].to_numpy(dtype="float64") * UNIT
    least = 0 if column == "volume" else 1
    if not (np.rint(scaled) >= least).all() or scaled.max() >= 2.0**62:
        raise InvalidInput(
            f"Candles whose {column} is {candles[column].min():g} to {candles[column].max():g} "
            f"cannot be counted in 1e-8; use the fill model next_open."
        )
    return np.rint(scaled).astype("int64")


def _depths(volumes: np.ndarray, late: set[int]) -> np.ndarray:
    """What a candle usually trades, as the exchange sees it at each open: the mean of those of
    the last RECENT and the forming one that have closed."""
    found = np.zeros(len(volumes), dtype="int64")
    for row in range(len(volumes)):
        first = max(row - RECENT - (1 if row in late else 0), 0)
        recent = volumes[first:row] if row else volumes[:1]
        found[row] = int(f"{float(recent.mean()):.8f}".replace(".", ""))
    return found


def plain_market(market: tuple) -> tuple:
    """The same in Python's own numbers, which plain functions need."""
    return type(market)(*(part.tolist() for part in market)) if market else ()
