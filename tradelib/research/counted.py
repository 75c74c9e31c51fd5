"""The venue's side of a backtest, counted as a venue counts: in whole numbers of 1e-8.

`fill` is what becomes of an order at a candle's open, `look` what the desk sees at a close. Both
do what live trading does over the paper exchange, to the last digit: `trading.execution` sizes,
`trading.risk` refuses, `paper.engine` matches and takes its fee, `trading.positions` says what a
purchase has cost, and `trading.deciding` what is dust. They run compiled as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tradelib.paper.counts import UNIT, best_price, level_amount, level_gap, times
from tradelib.paper.liquidity import level_noise
from tradelib.research.exact import (
    Pair,
    added,
    as_written,
    divided,
    equity_of,
    is_below,
    joined,
    multiplied,
    over,
    pair_of,
    whole_below,
    worth,
)
from tradelib.strategy.decision import Decision, DecisionState

(
    NOT_REFUSED,
    VENUE_MINIMUM,
    ORDER_NOTIONAL,
    NO_BALANCE,
    CASH_RESERVE,
    POSITION_SHARE,
    ORDERS_PER_DAY,
    DAILY_LOSS,
    NO_VOLUME,
    TOO_LARGE,
) = range(10)
REFUSALS = (
    "",
    "less than the venue takes",
    "outside the allowed order values",
    "more than the balance",
    "too little cash would stay",
    "the position would be too large",
    "too many orders in a day",
    "the day has lost too much",
    "nothing is traded",
    "more than can be counted",
)

_DAY_MS = 86_400_000
_FINE = 10**10  # of 1e-18 in a count: as fine as a position keeps what its parts cost
_UNIT = float(UNIT)
_MOST = 9e18
_EVEN = 1 << 19  # noise of a level that has its usual size


class Rules(NamedTuple):
    """What `FillModel` says, in counts; shares of 1 too. Below 0: no such bound."""

    tick: int
    lot: int
    min_amount: int
    min_notional: int
    half_spread: int
    gap: int
    top: int
    growth: int
    levels: int
    noisy: bool
    volume_share: int
    carries: bool
    fee: int
    fee_step: int
    fee_received: bool
    cuts: bool
    dust_share: float
    smallest: int
    largest: int
    cash_share: int
    position_share: int
    orders_per_day: int
    loss_share: float


class Market(NamedTuple):
    """What the venue shows, candle by candle, in counts: the price and the time (ms) at which an
    order meets it, the close, the volume, what a candle usually trades, the book's salt. places:
    0, 1, 2, … of the salt's own type."""

    prices: list[int]
    times: list[int]
    closes: list[int]
    volumes: list[int]
    depths: list[int]
    salts: list[int]
    one: list[int]


class Open(NamedTuple):
    """One candle's part of it, so that no array goes from call to call: counting who holds one
    takes longer than the rest of a step."""

    price: int
    time_ms: int
    volume: int
    depth: int
    salt: int
    one: int


class Held(NamedTuple):
    """A position in counts: all that is held, dust as well, and what it has cost.

    cost and fine: quote paid for it, in counts and 1e-18 beyond. rest, rest_tranches: of it, what
    earlier sales have left. entry_*: the newest purchase, or what a sale left of it: received,
    spent with fees, traded, paid.
    """

    amount: int = 0
    cost: int = 0
    fine: int = 0
    rest: int = 0
    rest_tranches: int = 0
    entry_amount: int = 0
    entry_cost: int = 0
    entry_bought: int = 0
    entry_paid: int = 0


class Wish(NamedTuple):
    """What the last decision wants. left: base units of it that still carry over, 0 before its
    first open; begun: whether some of it was filled."""

    action: int = 0
    fraction: float = 0.0
    left: int = 0
    begun: bool = False


class Day(NamedTuple):
    """The UTC day of the last open: its number since 1970, its orders, and the account's worth in
    quote at the last open before it and at the last open."""

    number: int = -1
    sent: int = 0
    worth_before: float = 0.0
    worth: float = 0.0


class Purse(NamedTuple):
    """An account in the middle of a fold. state: the decision step's, with dust as well; cash:
    quote in counts."""

    state: DecisionState
    cash: int
    held: Held = Held()
    wish: Wish = Wish()
    day: Day = Day()


class Done(NamedTuple):
    """What became of an order. bought: what the position grew by, net of a fee in base, negative
    when sold; fee: worth in quote; value: quote per unit that changed hands, as the cost was cut;
    amount: traded, or wanted by an order that was refused; price: the mean of what
    it met; fee_base: what of the fee was taken in base; refused: a code of REFUSALS."""

    bought: float
    fee: float
    value: float
    amount: float
    price: float
    fee_base: float
    refused: int


class Met(NamedTuple):
    """What an order meets in the book: base units, quote, fees (base, quote), and the sum of price
    times amount as a float."""

    amount: int
    cost: int
    fee_base: int
    fee_quote: int
    sum: float


def start(cash: int) -> Purse:
    """Cash in counts, and nothing held."""
    quote = cash / _UNIT
    return Purse(DecisionState(), cash, day=Day(worth_before=quote, worth=quote))


def fill(
    after_fill: Callable,
    purse: Purse,
    market: Market,
    i: int,
    open_ms: int,
    open: float,
    rules: Rules,
) -> tuple[Purse, Done]:
    """The order of the last decision, or its rest, meets the book at candle i's open."""
    if purse.wish.action == 0 and rules.loss_share < 0.0:
        return purse, Done(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, NOT_REFUSED)
    here = Open(
        market.prices[i], market.times[i], market.volumes[i], market.depths[i], market.salts[i],
        market.one[0],
    )  # fmt: skip
    return opened(purse, here, rules)


def opened(purse: Purse, here: Open, rules: Rules) -> tuple[Purse, Done]:
    """A candle's open, with its order if there is one, and counted into its day."""
    price, action = here.price, purse.wish.action
    bid = best_price(price, rules.half_spread, rules.tick, -1)
    done = Done(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, NOT_REFUSED)
    day = today(purse.day, here.time_ms)
    purse = Purse(purse.state, purse.cash, purse.held, purse.wish, day)
    if action != 0:
        best = best_price(price, rules.half_spread, rules.tick, action)
        wanted, refused = purse.wish.left, NOT_REFUSED
        if wanted == 0:
            equity = worth(purse.cash, purse.held.amount, bid)
            wanted = sized(purse, equity, best, rules)
            refused = refusal(purse, equity, wanted, best, bid, price, rules)
        met = Met(0, 0, 0, 0, 0.0)
        if refused == NOT_REFUSED:
            met = meet(purse, here, best, wanted, rules)
            if met.amount == 0:
                refused = NO_VOLUME
            elif action > 0 and met.cost + met.fee_quote > purse.cash:
                refused, met = NO_BALANCE, Met(0, 0, 0, 0, 0.0)
        done = told(action, met, wanted, best, refused)
        purse = booked(purse, met, wanted, refused, here.time_ms, rules)
    now = worth(purse.cash, purse.held.amount, bid)[0] / _UNIT / _UNIT
    day = Day(day.number, purse.day.sent, day.worth_before, now)
    return Purse(purse.state, purse.cash, purse.held, purse.wish, day), done


def today(day: Day, time_ms: int) -> Day:
    """The day; where a new one begins, with orders and losses counted anew."""
    number = time_ms // _DAY_MS
    if number == day.number:
        return day
    return Day(number, 0, day.worth, day.worth)


def sized(purse: Purse, equity: Pair, best: int, rules: Rules) -> int:
    """Whole lots: a share of equity (1e-16) to buy, of what is held to sell; -1: uncountable."""
    share = as_written(purse.wish.fraction)
    if purse.wish.action > 0:
        lots = divided(multiplied(equity, share), multiplied(pair_of(best), pair_of(rules.lot)))
    else:
        lots = divided(multiplied(pair_of(purse.held.amount), share), pair_of(rules.lot))
    if lots[0] * rules.lot > _MOST or lots[0] * rules.lot * best > _MOST * _UNIT:
        return -1
    amount = whole_below(lots) * rules.lot
    if purse.wish.action > 0 and rules.cuts:
        amount = min(amount, affordable(purse.cash, best, rules))
    return amount


def affordable(cash: int, price: int, rules: Rules) -> int:
    """Whole lots that the cash pays for at a price, with the fee where that is quote too."""
    fee = 0 if rules.fee_received else rules.fee
    whole = multiplied(multiplied(pair_of(price), pair_of(UNIT + fee)), pair_of(rules.lot))
    cash_pair = multiplied(multiplied(pair_of(cash), (_UNIT, 0.0)), (_UNIT, 0.0))
    lots = divided(cash_pair, whole)
    if lots[0] * rules.lot > _MOST:
        return int(_MOST) // rules.lot * rules.lot
    return whole_below(lots) * rules.lot


def refusal(
    purse: Purse, equity: Pair, amount: int, best: int, bid: int, last: int, rules: Rules
) -> int:
    """The first limit that the order breaks, by its code."""
    if amount < 0:
        return TOO_LARGE
    if amount == 0 or amount < rules.min_amount:
        return VENUE_MINIMUM
    value = times(amount, best)
    if value < rules.min_notional or times(amount, last) < rules.min_notional:
        return VENUE_MINIMUM
    if purse.wish.action < 0:
        return NOT_REFUSED if amount <= purse.held.amount else NO_BALANCE
    exact = worth(0, amount, best)
    bound = multiplied(pair_of(rules.largest), (_UNIT, 0.0))
    if value < rules.smallest or (rules.largest >= 0 and is_below(bound, exact)):
        return ORDER_NOTIONAL
    cash = multiplied(pair_of(purse.cash), (_UNIT, 0.0))
    if not rules.cuts and is_below(cash, exact):
        return NO_BALANCE
    left = multiplied(added(cash, (-exact[0], -exact[1])), (_UNIT, 0.0))
    if rules.cash_share >= 0 and is_below(left, multiplied(equity, pair_of(rules.cash_share))):
        return CASH_RESERVE
    after = multiplied(added(worth(0, purse.held.amount, bid), exact), (_UNIT, 0.0))
    bound = multiplied(equity, pair_of(rules.position_share))
    if rules.position_share >= 0 and is_below(bound, after):
        return POSITION_SHARE
    if rules.orders_per_day >= 0 and purse.day.sent >= rules.orders_per_day:
        return ORDERS_PER_DAY
    now = equity[0] / _UNIT / _UNIT
    loss = purse.day.worth_before - now
    if rules.loss_share >= 0.0 and loss > 0.0 and loss >= rules.loss_share * (now + loss):
        return DAILY_LOSS
    return NOT_REFUSED


def meet(purse: Purse, here: Open, best: int, wanted: int, rules: Rules) -> Met:
    """What the order finds, level by level; each is a fill of its own, with its own fee."""
    amount, cost, fee_base, fee_quote, total = 0, 0, 0, 0, 0.0
    action, left, rank = purse.wish.action, wanted, 0
    if rules.volume_share >= 0:
        left = min(left, times(here.volume, rules.volume_share) // rules.lot * rules.lot)
    # The market's bids take a sale. Of the salt's type, and so made of its one.
    place = here.one if action < 0 else here.one ^ here.one
    gap = level_gap(here.price, rules.gap, rules.tick) * action
    while left > 0 and rank < max(rules.levels, 1):
        price = best + gap * rank
        if price <= 0:
            break
        take = min(left, standing(here, rank, place, rules)) if rules.levels > 0 else left
        if action > 0 and rules.cuts:
            take = min(take, affordable(purse.cash - cost - fee_quote, price, rules))
            if take <= 0:
                break
        paid = times(price, take)
        if action > 0 and rules.fee_received:
            fee_base += times(rules.fee, take) // rules.fee_step * rules.fee_step
        else:
            fee_quote += times(rules.fee, paid) // rules.fee_step * rules.fee_step
        amount, cost, left, rank = amount + take, cost + paid, left - take, rank + 1
        total, place = total + float(price) * float(take), place + here.one + here.one
    return Met(amount, cost, fee_base, fee_quote, total)


def standing(here: Open, rank: int, place: int, rules: Rules) -> int:
    """What stands at a level of the book that the order takes from."""
    noise = int(float(level_noise(here.salt, place))) if rules.noisy else _EVEN
    return level_amount(here.depth, rules.top, rules.growth, rank, noise, rules.lot)


def told(action: int, met: Met, wanted: int, best: int, refused: int) -> Done:
    """The order's end in units."""
    if met.amount == 0:
        return Done(0.0, 0.0, 0.0, max(wanted, 0) / _UNIT, best / _UNIT, 0.0, refused)
    value = over(met.cost, met.amount)
    # One level's price is told as it stands; the mean of several is a quotient.
    price = best / _UNIT
    if met.sum != float(best) * float(met.amount):
        price = met.sum / float(met.amount) / _UNIT
    net = met.amount - met.fee_base if action > 0 else -met.amount
    fee = met.fee_quote / _UNIT + value * (met.fee_base / _UNIT)
    base_fee = met.fee_base / _UNIT
    return Done(net / _UNIT, fee, value, met.amount / _UNIT, price, base_fee, NOT_REFUSED)


def booked(purse: Purse, met: Met, wanted: int, refused: int, time_ms: int, rules: Rules) -> Purse:
    """The account after what the order met."""
    before, day = purse.wish, purse.day
    went = refused in (NOT_REFUSED, NO_VOLUME)
    left = wanted - met.amount if went and rules.carries else 0
    begun = left > 0 and (before.begun or met.amount > 0)
    wish = Wish(before.action if left > 0 else 0, before.fraction, left, begun)
    # What carries over is the same order still.
    sent = day.sent + (1 if went and before.left == 0 else 0)
    day = Day(day.number, sent, day.worth_before, day.worth)
    if met.amount == 0:
        return Purse(purse.state, purse.cash, purse.held, wish, day)
    if before.action > 0:
        state, held = bought(purse, met, time_ms)
        return Purse(state, purse.cash - met.cost - met.fee_quote, held, wish, day)
    state, held = sold(purse, met, time_ms)
    return Purse(state, purse.cash + met.cost - met.fee_quote, held, wish, day)


def bought(purse: Purse, met: Met, time_ms: int) -> tuple[DecisionState, Held]:
    """The position after a purchase, or after one more part of it."""
    state, held = purse.state, purse.held
    received, spent = met.amount - met.fee_base, met.cost + met.fee_quote
    amount, cost = held.amount + received, held.cost + spent
    entry, tranches = (received, spent, met.amount, met.cost), state.tranches + 1
    if purse.wish.begun:
        tranches = state.tranches
        entry = (
            held.entry_amount + received, held.entry_cost + spent,
            held.entry_bought + met.amount, held.entry_paid + met.cost,
        )  # fmt: skip
    return (
        DecisionState(
            state.pending, state.pending_since_ms, time_ms, over(amount, UNIT),
            mean_cost(cost, held.fine, amount), tranches, over(entry[3], entry[2]),
        ),
        Held(
            amount, cost, held.fine, held.rest, held.rest_tranches, entry[0], entry[1], entry[2],
            entry[3],
        ),
    )  # fmt: skip


def sold(purse: Purse, met: Met, time_ms: int) -> tuple[DecisionState, Held]:
    """The position after a sale, or after one more part of it. The oldest purchases go first:
    what is less than a lot is left of the newest, at what that has cost."""
    state, held = purse.state, purse.held
    amount = held.amount - met.amount
    entry, tranches, last, cost, fine = 0.0, 0, 0.0, 0, 0
    if amount > 0:
        tranches, last = state.tranches, state.last_entry
        if amount <= held.entry_amount < held.amount:
            tranches = 1
            cost, fine = cost_share(held.entry_cost, 0, amount, held.entry_amount)
        else:
            cost, fine = cost_share(held.cost, held.fine, amount, held.amount)
        entry = mean_cost(cost, fine, amount)
    return (
        DecisionState(
            state.pending, state.pending_since_ms, time_ms, over(amount, UNIT), entry, tranches,
            last,
        ),
        Held(
            amount, cost, fine, amount, tranches, amount, cost, held.entry_bought, held.entry_paid
        ),
    )  # fmt: skip


def mean_cost(cost: int, fine: int, held: int) -> float:
    """Quote paid per unit held, as one quotient."""
    scale = (float(_FINE), 0.0)
    paid = added(multiplied(pair_of(cost), scale), pair_of(fine))
    return divided(paid, multiplied(pair_of(held), scale))[0]


def cost_share(cost: int, fine: int, part: int, whole: int) -> tuple[int, int]:
    """The cost of a part of what was bought, to 1e-18."""
    scale = (float(_FINE), 0.0)
    paid = added(multiplied(pair_of(cost), scale), pair_of(fine))
    share = divided(multiplied(paid, pair_of(part)), pair_of(whole))
    counts = whole_below(divided(share, scale))
    back = multiplied(pair_of(counts), scale)
    beyond = added(share, (-back[0], -back[1]))
    return counts, max(whole_below(joined(beyond[0], beyond[1] + 0.5)), 0)


def look(
    purse: Purse, market: Market, i: int, close: float, rules: Rules
) -> tuple[DecisionState, float, float, bool]:
    """What the desk decides with at candle i's close: its state, where dust is no position,
    equity and cash in quote, and whether it can act at all."""
    state, held, price = purse.state, purse.held, market.closes[i]
    equity = equity_of(purse.cash, held.amount, price)
    amount, entry, tranches, last = (
        state.amount, state.entry_price, state.tranches, state.last_entry,
    )  # fmt: skip
    dust = rules.dust_share * equity * _UNIT
    if rules.dust_share > 0.0 and held.amount > 0 and times(held.amount, price) <= dust:
        amount, entry, tranches, last = 0.0, 0.0, 0, 0.0
    elif rules.dust_share > 0.0 and held.rest > 0 and times(held.rest, price) <= dust:
        tranches = tranches - held.rest_tranches
    seen = DecisionState(
        state.pending, state.pending_since_ms, state.last_trade_ms, amount, entry, tranches, last
    )
    able = amount > 0.0 or purse.cash >= rules.smallest
    return seen, equity, over(purse.cash, UNIT), able


def want(purse: Purse, seen: DecisionState, taken: Decision, equity: float) -> Purse:
    """The account with what was decided: an order that carries over gives way to a new one."""
    mine, wish = purse.state, purse.wish
    if taken.action != 0 or wish.left == 0:
        wish = Wish(taken.action, taken.fraction, 0, False)
    state = DecisionState(
        seen.pending, seen.pending_since_ms, mine.last_trade_ms, mine.amount, mine.entry_price,
        mine.tranches, mine.last_entry,
    )  # fmt: skip
    return Purse(state, purse.cash, purse.held, wish, purse.day)
