"""Where a bot stood at each of its candles, and what went on around it: what the ledger tells of
it, in the words of `expected`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pandas as pd

from tradelib.candles.schema import candles_hash
from tradelib.clock import timeframe_ms
from tradelib.errors import InvalidInput
from tradelib.strategy.decision import DecisionState
from tradelib.trading.bots import Bot, bot_as_it_was
from tradelib.trading.deciding import LONGEST_OUTAGE
from tradelib.trading.expected import Course, Standing, choose, make_course, settle
from tradelib.trading.live_steps import LiveStep
from tradelib.trading.orders import ZERO, Fill
from tradelib.trading.positions import Position, add_fills
from tradelib.venue.facts import Instrument


@dataclass(frozen=True)
class Lived:
    """A bot's candles as they were lived, row for row.

    steps: what the ledger knows of each, None for a candle that was missed. others: the bot's
    fills that no decision of these rows asked for: stops, and orders by hand. standings: before
    each row. hashes: of as many candles as each step saw, as the store has them now.
    """

    course: Course
    steps: tuple[LiveStep | None, ...]
    others: tuple[tuple[Fill, ...], ...]
    standings: tuple[Standing, ...]
    hashes: tuple[str | None, ...]


def trace(
    bot: Bot,
    live: Sequence[LiveStep],
    candles: pd.DataFrame,
    rules: Instrument,
    fills: Sequence[Fill],
) -> Lived:
    """The rows from the first step's candle to the last one's, and before it those that the bot
    had missed by then. `compare` tells what is given."""
    length = timedelta(milliseconds=timeframe_ms(bot.timeframe))
    steps = {step.close: step for step in live}
    first, carried = _first_close(live[0], length, bot)
    closes = [(opened + length).to_pydatetime() for opened in candles.index]
    rows = [row for row, close in enumerate(closes) if first <= close <= live[-1].close]
    if not rows:
        raise InvalidInput(
            f"The store has no {bot.timeframe} candles of {bot.symbol} up to "
            f"{live[-1].close:%F %T}Z any more; fetch them again."
        )
    mine = [steps.get(closes[row]) for row in rows]
    course = _course(bot, mine, candles, rows, length, rules)
    hashes = [
        candles_hash(candles.iloc[max(row + 1 - step.candles, 0) : row + 1]) if step else None
        for row, step in zip(rows, mine, strict=True)
    ]
    return _stand(bot, course, mine, fills, hashes, lead=carried)


def _first_close(step: LiveStep, length: timedelta, bot: Bot) -> tuple[datetime, bool]:
    """The close to begin at, and whether the rows before the first step only carry its signal
    forward: the bot began there, and a confirmation reaches back."""
    since = step.inputs.since if step.inputs else None
    if since is None:
        return step.close - bot.reach * length, True
    return max(since + length, step.close - LONGEST_OUTAGE * length), False


def _course(
    bot: Bot,
    steps: Sequence[LiveStep | None],
    candles: pd.DataFrame,
    rows: Sequence[int],
    length: timedelta,
    rules: Instrument,
) -> Course:
    configs = _configs(bot, steps)
    scored = _scores(configs, candles)
    scores = [scored[_key(now)][row] for now, row in zip(configs, rows, strict=True)]
    params = [now.decision_params.step() for now in configs]
    return make_course(candles, rows, length, rules, scores, params)


def _configs(bot: Bot, steps: Sequence[LiveStep | None]) -> list[Bot]:
    """The bot as it was at each row; at a missed one, as at the next that was not."""
    now, found, seen = bot, [], {}
    for step in reversed(steps):
        if step is not None and step.config:
            told = repr(step.config)
            if told not in seen:
                seen[told] = bot_as_it_was(bot.name, step.config, bot.created_at)
            now = seen[told]
        found.append(now)
    return found[::-1]


def _key(bot: Bot) -> str:
    return f"{bot.strategy} {bot.parameters}"


def _scores(configs: Sequence[Bot], candles: pd.DataFrame) -> Mapping[str, list[float]]:
    """What each strategy that the bot had says of all candles."""
    chosen = {_key(bot): bot for bot in configs}
    return {
        key: bot.rules.score(candles, bot.strategy_params)["score"].tolist()
        for key, bot in chosen.items()
    }


def _stand(
    bot: Bot,
    course: Course,
    steps: Sequence[LiveStep | None],
    fills: Sequence[Fill],
    hashes: Sequence[str | None],
    *,
    lead: bool,
) -> Lived:
    """Go through the rows with what the ledger tells, and learn from it what came from outside:
    the course's flows and others are filled in. lead: whether the rows before the first step are
    only there for its signal."""
    first = next(place for place, step in enumerate(steps) if step is not None)
    own = {fill.trade_id for step in steps if step for fill in step.fills}
    stray = [fill for fill in fills if fill.trade_id not in own]
    before = [fill for fill in stray if fill.at <= course.closes[0]]
    others = _by_row(course.closes, [fill for fill in stray if fill.at > course.closes[0]])
    inputs = steps[first].inputs
    standing = Standing(
        inputs.state if inputs else DecisionState(),
        inputs.cash if inputs else ZERO,
        add_fills(Position(bot.symbol, venue=bot.venue, bot=bot.name), before),
    )
    standings = []
    for row, step in enumerate(steps):
        _note_account(course, row, step, standing)
        standings.append(standing)
        signal = choose(course, row, standing).signal if step is None else _signal(step)
        done = [*(step.fills if step else ()), *others[row]]
        standing = replace(settle(course, row, standing, done), signal=signal)
    cut = first if lead else 0
    columns = (steps, map(tuple, others), standings, hashes)
    return Lived(course.cut(cut), *(tuple(column)[cut:] for column in columns))


def _note_account(course: Course, row: int, step: LiveStep | None, standing: Standing) -> None:
    """What the account had at a row that is not of the bot's doing; where nobody looked, as
    before."""
    inputs = step.inputs if step else None
    if inputs is None:
        course.others[row] = course.others[row - 1] if row else ZERO
        return
    course.flows[row] = inputs.cash - standing.cash
    held = standing.position.amount * course.prices[row]
    course.others[row] = inputs.equity - inputs.cash - held


def _signal(step: LiveStep) -> DecisionState:
    return DecisionState(**step.decision.state)


def _by_row(closes: Sequence[datetime], fills: Sequence[Fill]) -> list[list[Fill]]:
    """Fills by the last close before or at each."""
    found: list[list[Fill]] = [[] for _ in closes]
    for fill in fills:
        row = bisect_right(closes, fill.at) - 1
        if fill.at < closes[-1] or row < len(closes) - 1:
            found[row].append(fill)
    return found
