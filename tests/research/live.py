"""The live path over a market of candles, without its ledger and its wires: the desk's own
pure functions decide, size and refuse, and the paper exchange's own engine fills."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from tradelib.candles.schema import candles_from_arrays
from tradelib.clock import from_ms, timeframe_ms
from tradelib.paper.candles import Candles
from tradelib.paper.engine import Engine
from tradelib.paper.fees import USUAL_FEES, Fees
from tradelib.paper.instruments import Instrument as Rules
from tradelib.paper.liquidity import EXACT_SHAPE, Shape
from tradelib.paper.market import Market, Tape
from tradelib.paper.orders import BUY, SELL, Ticket
from tradelib.paper.refusals import Refusal
from tradelib.settings import LimitSettings
from tradelib.strategy.decision import (
    CANNOT_AFFORD,
    FROZEN,
    NEVER_MS,
    DecisionParams,
    DecisionState,
    decide,
)
from tradelib.strategy.decision import Decision as Taken
from tradelib.trading.accounts import compute_equity
from tradelib.trading.decisions import Action, Decision
from tradelib.trading.execution import OrderInputs, intend_order
from tradelib.trading.orders import Fill
from tradelib.trading.positions import Position, compute_position, is_dust
from tradelib.trading.risk import Portfolio
from tradelib.venue import Instrument, Quote

ZERO = Decimal(0)


@dataclass
class Live:
    """One bot alone in an account of quote currency.

    torn: the row at which it first mattered which of several purchases is which: a sale was filled
    in part, or a purchase was no more than dust itself.
    """

    market: Market
    cash: Decimal
    limits: LimitSettings
    fees: Fees = USUAL_FEES
    fills: list[Fill] = field(default_factory=list)
    position: Position = field(default_factory=lambda: Position(""))
    state: DecisionState = field(default_factory=DecisionState)
    sent: dict[int, int] = field(default_factory=dict)
    torn: int = 0

    def __post_init__(self) -> None:
        (rules,) = self.market.instruments
        self.symbol, self.name = f"{rules.base}/{rules.quote}", rules.symbol
        self.rules = Instrument(
            self.symbol, rules.base, rules.quote, rules.tick, rules.step, rules.step, None,
            rules.min_notional,
        )  # fmt: skip
        self.tape, self.engine = Tape(self.market), Engine(self.market.instruments, self.fees)
        self.engine.open_account("me", {rules.quote: self.cash})

    @property
    def totals(self) -> dict[str, Decimal]:
        return {asset: held.free for asset, held in self.engine.balances["me"].items()}

    def decide(
        self, score: float, close: float, close_ms: int, params: DecisionParams
    ) -> tuple[Taken, Decimal]:
        """As `trading.deciding` does from the ledger; the decision and the equity."""
        price = Decimal(str(close))
        equity = compute_equity(self.totals, self.rules.quote, {self.symbol: price})
        position = self.position
        if is_dust(position.amount * price, equity):
            position = Position(self.symbol, last_trade=position.last_trade)
        tranches = position.living_tranches(price, equity)
        last = position.last_trade
        state = self.state._replace(
            amount=float(position.amount),
            entry_price=float(position.average_entry or 0),
            last_trade_ms=int(last.timestamp() * 1000) if last else NEVER_MS,
            tranches=len(tranches),
            last_entry=float(tranches[-1].price) if tranches else 0.0,
        )
        cash = self.totals[self.rules.quote]
        if not (state.amount > 0 or cash >= self.limits.notional_for(self.rules.quote).min):
            return Taken(0, 0.0, FROZEN, CANNOT_AFFORD), equity
        self.state, taken = decide(
            state, score, close, close_ms, float(equity), float(cash), params.step()
        )
        return taken, equity

    def execute(self, taken: Taken, close: float, now: int) -> dict[str, Any] | None:
        """As `trading.execution` does at the venue's quote of that moment."""
        if not taken.action:
            return None
        self.engine.show(self.name, self.tape.liquidity(self.name, now))
        book = self.engine.books[self.name]
        bid, ask = (next(iter(book.market_levels(side)))[0] for side in (BUY, SELL))
        at = from_ms(now)
        decision = Decision(
            str(now), "bot", at, "run", Action.BUY if taken.action > 0 else Action.SELL,
            Decimal(str(taken.fraction)), "", "", Decimal(str(close)), {}, at,
        )  # fmt: skip
        day, totals = now // 86_400_000, self.totals
        portfolio = Portfolio(
            at,
            compute_equity(totals, self.rules.quote, {self.symbol: bid}),
            totals[self.rules.quote],
            self.position.amount,
            totals.get(self.rules.base, ZERO) * bid,
            frozenset(),
            self.sent.get(day, 0),
            ZERO,
            timedelta(0),
            timedelta(days=1),
            armed=True,
        )
        inputs = OrderInputs(
            "paper", self.rules, Quote(self.symbol, bid, ask), portfolio, self.limits, (), 0
        )
        (leg,) = decision.legs(self.symbol)
        intention = intend_order(decision, leg, inputs)
        told = {"amount": intention.order.amount, "side": taken.action, "at": now}
        if intention.refusals:
            return told | {"refused": intention.refusals[0].limit_name}
        ticket = Ticket(
            self.name, BUY if taken.action > 0 else SELL, "MARKET", str(now),
            intention.order.amount,
        )  # fmt: skip
        try:
            _, trades = self.engine.place("me", ticket, now)
        except Refusal as refusal:
            return told | {"refused": str(refusal)}
        self.sent[day] = self.sent.get(day, 0) + 1
        for trade in trades:
            currency = self.rules.base if taken.action > 0 else self.rules.quote
            self.fills.append(
                Fill(
                    "paper", self.symbol, str(trade.id), str(now), "1",
                    intention.order.side, trade.amount, trade.price, trade.quote, trade.fee,
                    currency, at,
                )
            )  # fmt: skip
        self.position = compute_position(self.symbol, self.fills)
        return told | {"trades": trades}


class GivenMarket:
    """Candles and rules that a test gives."""

    is_live = False

    def __init__(
        self,
        frame: pd.DataFrame,
        base: str,
        rules: Rules,
        shape: Shape = EXACT_SHAPE,
        salt: int = 0,
    ) -> None:
        columns = (frame[name].to_numpy() for name in ("open", "high", "low", "close", "volume"))
        self._candles = Candles(frame.index.as_unit("ms").asi8, *columns)
        self.base, self.instruments, self.shape, self.salt = base, (rules,), shape, salt
        self.span = int(self._candles.time[0]), int(self._candles.time[-1]) + timeframe_ms(base)
        self.identity = "given"

    def candles(self, symbol: str, start: int, end: int) -> Candles:
        return self._candles.between(start, end)

    def aggregated(self, symbol: str, interval: str, start: int, end: int) -> Candles:
        return self.candles(symbol, start, end).aggregate(interval)


def frame_of(market: Market, count: int | None = None) -> pd.DataFrame:
    """The market's first candles as research reads them."""
    (rules,) = market.instruments
    columns = market.candles(rules.symbol, *market.span)
    return candles_from_arrays(*(column[:count] for column in columns.columns))


@dataclass(frozen=True)
class Walk:
    """What was decided at each close, what the account was worth there, and
    what the order came to that was made at once; at the last close none is."""

    taken: list[Taken]
    equities: list[Decimal]
    orders: list[dict[str, Any] | None]


def walk_live(
    live: Live, candles: pd.DataFrame, scores: np.ndarray, params: DecisionParams
) -> Walk:
    """Every candle through the live path."""
    walk = Walk([], [], [])
    closes = candles.index.as_unit("ms").asi8 + timeframe_ms(live.market.base)
    rows = list(zip(scores.tolist(), candles["close"].tolist(), closes.tolist(), strict=True))
    for row, (score, close, now) in enumerate(rows):
        choice, equity = live.decide(score, close, now, params)
        walk.taken.append(choice)
        walk.equities.append(equity)
        tranches = [tranche for tranche in live.position.tranches if tranche.left]
        whole = (tranche.left for tranche in tranches if tranche.left == tranche.amount)
        if any(is_dust(left * Decimal(str(close)), equity) for left in whole):
            live.torn = live.torn or row
        order = live.execute(choice, close, now) if row + 1 < len(rows) else None
        walk.orders.append(order)
        filled = sum(trade.amount for trade in order.get("trades", ())) if order else 0
        if order and order["side"] < 0 and 0 < filled < order["amount"] and len(tranches) > 1:
            live.torn = live.torn or row + 1
    return walk


def told_by(walk: Walk) -> list[dict[str, Any]]:
    """Each order in the words of a backtest's frames, by the row of its candle."""
    found = []
    for row, order in enumerate(walk.orders, start=1):
        if order is None:
            continue
        told = {"row": row, "side": order["side"], "amount": float(order["amount"])}
        if "refused" in order:
            found.append(told | {"refused": True})
            continue
        trades = order["trades"]
        amount = sum(trade.amount for trade in trades)
        price = sum(trade.amount * trade.price for trade in trades) / amount
        found.append(
            told
            | {
                "amount": float(amount),
                "price": float(price),
                "fee": float(sum(trade.fee for trade in trades)),
            }
        )
    return found
