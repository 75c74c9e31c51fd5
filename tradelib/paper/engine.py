"""The matching engine: orders, balances and fills. No sockets, no files, no clock of its own.

Every change of an order is noted as an Execution and every changed balance by name; whoever
drives the engine drains them, stores them, and only then answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from tradelib.paper.book import Book
from tradelib.paper.fees import USUAL_FEES, FeeAsset, Fees
from tradelib.paper.instruments import (
    EXACT,
    ZERO,
    Instrument,
    check_order_count,
    cost_down,
    cost_up,
)
from tradelib.paper.liquidity import Liquidity
from tradelib.paper.orders import (
    BUY,
    CANCELED,
    EXPIRED,
    EXPIRED_IN_MATCH,
    FILLED,
    LIMIT_TYPES,
    PARTIAL,
    SELL,
    Balance,
    House,
    Order,
    OrderList,
    Ticket,
    Trade,
)
from tradelib.paper.refusals import (
    Refusal,
    filter_failure,
    insufficient,
    invalid_symbol,
    rejected,
    unknown_order,
)

OPPOSITE = {BUY: SELL, SELL: BUY}


@dataclass(frozen=True, slots=True)
class Leg:
    """The market's straight way from one price to another, and what it trades on it.

    volume: base units, spread evenly over the ticks passed. Times in milliseconds.
    """

    start: Decimal
    end: Decimal
    volume: Decimal
    start_time: int
    end_time: int


@dataclass(frozen=True, slots=True)
class Execution:
    """One change of one order. kind: NEW, TRADE, CANCELED, EXPIRED, TRIGGERED or REJECTED.

    order: as it stood right after the change. cancel_id: the client's name for a cancel.
    reason: why it was rejected, in the exchange's word.
    """

    kind: str
    order: Order
    time: int
    trade: Trade | None = None
    cancel_id: str | None = None
    reason: str = "NONE"


@dataclass(frozen=True, slots=True)
class Transfer:
    """Units of an asset that came to an account from elsewhere; negative when they left it."""

    account: str
    asset: str
    amount: Decimal
    time: int


@dataclass(frozen=True)
class Changes:
    """What happened since the last drain. orders: each changed one, as it stands at the end."""

    executions: tuple[Execution, ...]
    orders: tuple[Order, ...]
    balances: frozenset[tuple[str, str]]
    lists: tuple[OrderList, ...]
    transfers: tuple[Transfer, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.orders or self.balances or self.lists)


@dataclass(frozen=True)
class Match:
    """A part of an order that can trade at once; maker is None for the market's own levels."""

    price: Decimal
    amount: Decimal
    maker: Order | None


@dataclass(frozen=True)
class Plan:
    """What an order would do now. expiring: the account's own orders that stand in its way."""

    matches: tuple[Match, ...] = ()
    expiring: tuple[Order, ...] = ()
    blocked: bool = False

    @property
    def amount(self) -> Decimal:
        return sum((match.amount for match in self.matches), ZERO)

    @property
    def cost(self) -> Decimal:
        return sum((cost_down(match.price, match.amount) for match in self.matches), ZERO)


class Engine:
    """Accounts trade with each other and with the market; nothing is ever lost between them."""

    def __init__(self, instruments: Iterable[Instrument], fees: Fees = USUAL_FEES) -> None:
        self.instruments: dict[str, Instrument] = {each.symbol: each for each in instruments}
        self.books = {symbol: Book(each) for symbol, each in self.instruments.items()}
        self.fees = fees
        self.fee_assets: dict[str, FeeAsset] = {}
        self.balances: dict[str, dict[str, Balance]] = {}
        self.house = House()
        self.halted: set[str] = set()
        self.paused: set[str] = set()  # halts that no restart remembers
        self.open: dict[int, Order] = {}
        self.lists: dict[int, OrderList] = {}
        self.next_order, self.next_trade, self.next_list = 1, 1, 1
        self._names: dict[tuple[str, str], int] = {}
        self._by_account: dict[tuple[str, str], dict[int, Order]] = {}
        self._executions: list[Execution] = []
        self._changed: dict[int, Order] = {}
        self._touched: set[tuple[str, str]] = set()
        self._new_lists: list[OrderList] = []
        self._transfers: list[Transfer] = []

    # Accounts.

    def open_account(self, name: str, balances: Mapping[str, Decimal]) -> None:
        """A new account with what it starts with; the market gave it."""
        self.balances[name] = {}
        for asset, amount in balances.items():
            self.balance(name, asset).free += amount
            self._touched.add((name, asset))

    def transfer(self, account: str, asset: str, amount: Decimal, now: int) -> None:
        """A deposit, or, with a negative amount, a withdrawal of what is free."""
        if self.balance(account, asset).free + amount < 0:
            raise insufficient()
        self._credit(account, asset, amount)
        self._transfers.append(Transfer(account, asset, amount, now))

    def balance(self, account: str, asset: str) -> Balance:
        held = self.balances[account]
        found = held.get(asset)
        if found is None:
            found = held[asset] = Balance()
        return found

    def restore(self, order: Order) -> None:
        """Puts an open order back after a restart; its lock is already in the balances."""
        self._keep(order)

    def drain(self) -> Changes:
        """Everything that changed since the last call, once."""
        changes = Changes(
            tuple(self._executions),
            tuple(self._changed.values()),
            frozenset(self._touched),
            tuple(self._new_lists),
            tuple(self._transfers),
        )
        self._executions, self._changed = [], {}
        self._touched, self._new_lists, self._transfers = set(), [], []
        return changes

    def is_halted(self, symbol: str) -> bool:
        return symbol in self.halted or symbol in self.paused

    # What clients ask for.

    def check(self, account: str, ticket: Ticket) -> Plan:
        """Refuses what the exchange would refuse; changes nothing."""
        book = self._open_book(ticket.symbol)
        self._check_filters(book, ticket)
        if (account, ticket.client_id) in self._names:
            raise rejected("Duplicate order sent.")
        self._check_counts(account, ticket.symbol, (ticket,))
        plan = Plan() if ticket.is_stop else self._plan(book, account, ticket)
        self._check_crossing(book, ticket, plan)
        asset, needed = self._needs(book, ticket, plan)
        if self.balance(account, asset).free < needed:
            raise insufficient()
        return plan

    def place(
        self, account: str, ticket: Ticket, now: int, share: float | None = None
    ) -> tuple[Order, tuple[Trade, ...]]:
        """Takes an order: what can trade does so at once, the rest as its type says.

        share: how much of that the market leaves to it, where it is thin.
        """
        plan = self.check(account, ticket)
        order = self._new_order(account, ticket, plan, now)
        if share is not None:
            plan = self._thinned(plan, ticket, share)
        self._note("NEW", order, now)
        if ticket.is_stop:
            self._lock(order, self._lock_of(order))
            self._keep(order)
            return order, ()
        return order, self._take(order, plan, now)

    def place_oco(
        self, account: str, above: Ticket, below: Ticket, client_id: str, now: int
    ) -> tuple[OrderList, tuple[Order, Order]]:
        """Two resting orders that share one lock: the first to trade or trigger expires the other.

        above, below: by the price at which each acts.
        """
        self._check_pair(account, above, below)
        orders = tuple(self._new_order(account, each, Plan(), now) for each in (above, below))
        pair = OrderList(
            self.next_list, account, above.symbol, client_id, (orders[0].id, orders[1].id), now
        )
        self.next_list += 1
        self.lists[pair.id] = pair
        self._new_lists.append(pair)
        for order in orders:
            order.list_id = pair.id
        # One lock serves both legs, since only one can be filled; the first leg carries it.
        self._lock(orders[0], max(self._lock_of(order) for order in orders))
        for order in orders:
            self._keep(order)
            self._note("NEW", order, now)
        return pair, (orders[0], orders[1])

    def cancel(self, order: Order, now: int, cancel_id: str | None = None) -> tuple[Order, ...]:
        """Ends an open order, and with it the other leg of its list."""
        if order.id not in self.open:
            raise unknown_order()
        return self._end_all(order, CANCELED, now, cancel_id)

    def find_open(
        self, account: str, symbol: str, order_id: int | None, client_id: str | None
    ) -> Order | None:
        """The account's open order by either name; both must fit when both are given."""
        key = order_id if order_id is not None else self._names.get((account, client_id or ""))
        order = self.open.get(key) if key is not None else None
        if order is None or order.account != account or order.ticket.symbol != symbol:
            return None
        if order_id is not None and client_id and order.ticket.client_id != client_id:
            return None
        return order

    def open_orders(self, account: str, symbol: str) -> list[Order]:
        return list(self._by_account.get((account, symbol), {}).values())

    # What the market does.

    def show(self, symbol: str, liquidity: Liquidity) -> None:
        """The market's levels of this moment."""
        self.books[symbol].show(liquidity)

    def walk(self, symbol: str, leg: Leg) -> None:
        """Moves the market along a leg: resting orders trade with what passes, stops fire."""
        book = self.books[symbol]
        position, now = leg.start, leg.start_time
        self._trail(book, position)
        first = True
        while True:
            stop = self._next_stop(book, position, leg.end)
            target = stop[0] if stop else leg.end
            then = _time_at(leg, target)
            self._sweep(book, leg, (position, target), (now, then), first)
            first = False
            position, now = target, then
            if book.liquidity is not None and book.liquidity.price != position:
                book.show(replace(book.liquidity, price=position))
            self._trail(book, position)
            if stop is None:
                return
            self._reach(stop[1], position, now)

    # Checks.

    def _open_book(self, symbol: str) -> Book:
        book = self.books.get(symbol)
        if book is None:
            raise invalid_symbol()
        if self.is_halted(symbol) or book.liquidity is None:
            raise Refusal(-1013, "Market is closed.")
        return book

    def _check_filters(self, book: Book, ticket: Ticket) -> None:
        instrument, last = book.instrument, book.liquidity.price
        for price in (ticket.price, ticket.stop):
            if price is not None:
                instrument.check_price(price)
                instrument.check_band(price, last)
        if ticket.amount is not None:
            instrument.check_amount(ticket.amount)
        if ticket.trailing is not None:
            instrument.check_trailing(ticket.trailing)
        is_market = ticket.type == "MARKET"
        if ticket.quote_amount is not None:
            instrument.check_notional(ticket.quote_amount, is_market)
        else:
            price = ticket.price or ticket.stop or last
            instrument.check_notional(EXACT.multiply(price, ticket.amount), is_market)

    def _check_counts(self, account: str, symbol: str, tickets: tuple[Ticket, ...]) -> None:
        """A market order never stays open, so it is always welcome."""
        if tickets[0].type == "MARKET":
            return
        standing = self._by_account.get((account, symbol), {})
        algos = sum(each.is_stop for each in tickets)
        if algos:
            algos += sum(order.ticket.is_stop for order in standing.values())
        check_order_count(self.instruments[symbol], len(standing) + len(tickets), algos)

    def _check_crossing(self, book: Book, ticket: Ticket, plan: Plan) -> None:
        if ticket.type == "LIMIT_MAKER" and (plan.matches or plan.blocked or plan.expiring):
            raise rejected("Order would immediately match and take.")
        if ticket.is_stop and ticket.stop is not None and ticket.trailing is None:
            last = book.liquidity.price
            if last >= ticket.stop if ticket.triggers_rising else last <= ticket.stop:
                raise rejected("Stop price would trigger immediately.")
        one_lot = book.liquidity.price * book.instrument.step
        if ticket.quote_amount is not None and not plan.matches and ticket.quote_amount < one_lot:
            raise filter_failure("LOT_SIZE")

    def _check_pair(self, account: str, above: Ticket, below: Ticket) -> None:
        book = self._open_book(above.symbol)
        for ticket in (above, below):
            self._check_filters(book, ticket)
            if (account, ticket.client_id) in self._names:
                raise rejected("Duplicate order sent.")
            plan = Plan() if ticket.is_stop else self._plan(book, account, ticket)
            self._check_crossing(book, ticket, plan)
        last = book.liquidity.price
        upper, lower = (each.stop or each.price or last for each in (above, below))
        if above.client_id == below.client_id or not lower <= last <= upper:
            raise rejected("The relationship of the prices for the orders is not correct.")
        self._check_counts(account, above.symbol, (above, below))
        asset, _ = self._needs(book, above, Plan())
        needed = max(self._needs(book, each, Plan())[1] for each in (above, below))
        if self.balance(account, asset).free < needed:
            raise insufficient()

    def _needs(self, book: Book, ticket: Ticket, plan: Plan) -> tuple[str, Decimal]:
        """The asset an order pays with, and how much of it must be free."""
        instrument = book.instrument
        if ticket.side == SELL:
            return instrument.base, ticket.amount if ticket.amount is not None else plan.amount
        if ticket.type == "MARKET":
            return instrument.quote, plan.cost
        return instrument.quote, cost_up(self._lock_price(book, ticket), ticket.amount)

    # Matching.

    def _plan(
        self,
        book: Book,
        account: str,
        ticket: Ticket,
        amount: Decimal | None = None,
        funds: Decimal | None = None,
    ) -> Plan:
        """What stands against the order now, best first; changes nothing.

        amount: base units still wanted. funds: quote a stop that turned into a market buy may
        spend. An order by quote amount spends, or asks for, no more than that.
        """
        wanted = ticket.amount if amount is None else amount
        spend = ticket.quote_amount if ticket.quote_amount is not None else funds
        matches: list[Match] = []
        expiring: list[Order] = []
        limit, buying = ticket.price, ticket.side == BUY
        for price, standing, maker in book.offers(OPPOSITE[ticket.side]):
            if limit is not None and (price > limit if buying else price < limit):
                break
            if maker is not None and maker.account == account and ticket.prevention != "NONE":
                if ticket.prevention != "EXPIRE_TAKER":
                    expiring.append(maker)
                if ticket.prevention != "EXPIRE_MAKER":
                    return Plan(tuple(matches), tuple(expiring), blocked=True)
                continue
            take = standing if wanted is None or standing < wanted else wanted
            if spend is not None:
                take = min(take, book.instrument.floor_amount(EXACT.divide(spend, price)))
            if take <= 0:
                break
            matches.append(Match(price, take, maker))
            if spend is not None:
                spend -= cost_down(price, take)
            if wanted is not None:
                wanted -= take
                if not wanted:
                    break
        return Plan(tuple(matches), tuple(expiring))

    def _new_order(self, account: str, ticket: Ticket, plan: Plan, now: int) -> Order:
        amount = ticket.amount if ticket.amount is not None else plan.amount
        order = Order(self.next_order, account, ticket, amount, now, now)
        self.next_order += 1
        order.working = not ticket.is_stop
        order.working_time = now if order.working else -1
        if ticket.trailing is not None:
            order.trailing_time = now
            if ticket.stop is None:
                order.extreme = self.books[ticket.symbol].liquidity.price
        return order

    def _take(self, order: Order, plan: Plan, now: int) -> tuple[Trade, ...]:
        """Trades the plan, then rests or ends what is left. The order is not in the book yet."""
        ticket, book = order.ticket, self.books[order.ticket.symbol]
        if ticket.time_in_force == "FOK" and plan.amount < order.amount:
            self._end(order, EXPIRED, now)
            return ()
        for own in plan.expiring:
            if own.is_open:
                self._end_all(own, EXPIRED_IN_MATCH, now)
        self._lock(order, self._lock_of(order))
        trades = tuple(self._match(order, match, book, now) for match in plan.matches)
        if ticket.type == "MARKET" and ticket.quote_amount is not None:
            self._close_quote_order(order, book, now)
        if not order.is_open:
            return trades
        if plan.blocked:
            self._end(order, EXPIRED_IN_MATCH, now)
        elif ticket.type not in LIMIT_TYPES or ticket.time_in_force != "GTC":
            self._end(order, EXPIRED, now)
        else:
            self._keep(order)
        return trades

    def _close_quote_order(self, order: Order, book: Book, now: int) -> None:
        """An order by quote amount is as large as what it traded; it expires on an empty book."""
        if next(book.offers(OPPOSITE[order.ticket.side]), None) is None:
            self._end(order, EXPIRED, now)

    def _match(self, order: Order, match: Match, book: Book, now: int) -> Trade:
        if match.maker is None:
            book.consume(OPPOSITE[order.ticket.side], match.price, match.amount)
            return self._fill(order, match.price, match.amount, now, is_maker=False)
        self._touch(match.maker, now)
        trade = self._fill(order, match.price, match.amount, now, is_maker=False, counter=True)
        self._fill(match.maker, match.price, match.amount, now, is_maker=True, counter=True)
        self.next_trade += 1
        return trade

    def _fill(
        self,
        order: Order,
        price: Decimal,
        amount: Decimal,
        now: int,
        is_maker: bool,
        counter: bool = False,
    ) -> Trade:
        """Books one side of a fill. counter: another account is on the other side, and both
        share one trade id; otherwise the market is."""
        instrument, buying = self.instruments[order.ticket.symbol], order.ticket.side == BUY
        quote = cost_down(price, amount)
        paid, got = (quote, amount) if buying else (amount, quote)
        paid_asset, got_asset = instrument.quote, instrument.base
        if not buying:
            paid_asset, got_asset = got_asset, paid_asset
        order.filled += amount
        order.filled_quote += quote
        order.update_time = now
        order.status = FILLED if order.filled == order.amount else PARTIAL
        self._pay(order, paid_asset, paid)
        self._credit(order.account, got_asset, got)
        fee_asset, fee = self._fee(order, (paid_asset, got_asset), got, quote, is_maker)
        self._credit(order.account, fee_asset, -fee)
        _add(self.house.fees, fee_asset, fee)
        if not counter:
            _add(self.house.market, paid_asset, paid)
            _add(self.house.market, got_asset, -got)
        trade = Trade(
            self.next_trade, order.ticket.symbol, order.id, order.list_id, order.account, price,
            amount, quote, fee, fee_asset, now, buying, is_maker,
        )  # fmt: skip
        if not counter:
            self.next_trade += 1
        if order.status == FILLED:
            self._forget(order)
        self._note("TRADE", order, now, trade)
        return trade

    def _credit(self, account: str, asset: str, amount: Decimal) -> None:
        self.balance(account, asset).free += amount
        self._touched.add((account, asset))

    def _fee(
        self,
        order: Order,
        assets: tuple[str, str],
        got: Decimal,
        quote: Decimal,
        is_maker: bool,
    ) -> tuple[str, Decimal]:
        """The asset a fill's fee is taken from, and how much: the account's own choice while
        there is enough of it, else the received one. assets: paid and received.

        Never the asset that the order pays with: its next match may need all there is.
        """
        rate = self.fees.maker if is_maker else self.fees.taker
        chosen = self.fee_assets.get(order.account)
        if chosen is not None and chosen.asset != assets[0]:
            price = self._fee_price(chosen, self.instruments[order.ticket.symbol].quote)
            if price is not None:
                worth = EXACT.multiply(quote, rate * (1 - chosen.discount))
                fee = cost_down(EXACT.divide(worth, price), Decimal(1))
                if self.balance(order.account, chosen.asset).free >= fee:
                    return chosen.asset, fee
        return assets[1], cost_down(rate, got)

    def _fee_price(self, chosen: FeeAsset, quote: str) -> Decimal | None:
        """What one unit of the fee asset is worth in `quote`."""
        if chosen.asset == quote:
            return Decimal(1)
        book = self.books.get(chosen.asset + quote)
        return book.liquidity.price if book and book.liquidity else chosen.price

    def _pay(self, order: Order, asset: str, paid: Decimal) -> None:
        """Takes the price out of the order's lock; what the lock held too much becomes free."""
        balance = self.balance(order.account, asset)
        needed = self._lock_of(order)
        released, order.locked = order.locked - needed, needed
        balance.locked -= released
        balance.free += released - paid
        self._touched.add((order.account, asset))

    # A market that is not as it seemed.

    def _thinned(self, plan: Plan, ticket: Ticket, share: float) -> Plan:
        """A share of a plan: one lot at least, and whatever other accounts offer.

        The rest of the market's levels turn out not to be there.
        """
        instrument = self.instruments[ticket.symbol]
        wanted = instrument.floor_amount(plan.amount * Decimal(share))
        left = max(wanted, instrument.step)
        matches: list[Match] = []
        for match in plan.matches:
            amount = match.amount if match.maker is not None else min(match.amount, left)
            left = max(left - amount, ZERO)
            if amount > 0:
                matches.append(replace(match, amount=amount))
        return replace(plan, matches=tuple(matches))

    def rush(self, order: Order, now: int) -> None:
        """The market fills a waiting order at once: a limit at its price, a stop at the market's
        as when it fires."""
        book = self._open_book(order.ticket.symbol)
        price = book.liquidity.price
        if not order.working:
            if order.ticket.trailing is not None and order.extreme is None:
                order.extreme = price  # as if it trailed already; else it would only begin to
            self._reach(order, price, now)
        if order.is_open:
            self._touch(order, now)
            self._fill(order, order.ticket.price, order.remaining, now, is_maker=True)

    # The market on the move.

    def _sweep(
        self,
        book: Book,
        leg: Leg,
        prices: tuple[Decimal, Decimal],
        times: tuple[int, int],
        first: bool,
    ) -> None:
        """Resting orders trade with the volume of one stretch of a leg.

        The leg's volume lies evenly on its ticks. An order can have what lies at its price or
        beyond, after the orders with priority over it. first: the stretch begins the leg; the
        tick on which a later one begins was traded by the one before.
        """
        tick, (low, high) = book.instrument.tick, sorted(prices)
        per_tick = leg.volume / (abs(leg.end - leg.start) / tick + 1)
        stretch = per_tick * ((high - low) / tick + int(first))
        for side, ladder in book.sides.items():
            left = stretch
            for order in list(ladder.orders()) if ladder else ():
                price = order.ticket.price
                reached = (price - low if side == BUY else high - price) / tick + 1
                if reached <= 0:
                    break
                left = min(left, per_tick * reached)
                amount = min(order.remaining, book.instrument.floor_amount(left))
                if amount > 0 and order.is_open:
                    at = _time_between(*prices, *times, price)
                    self._touch(order, at)
                    self._fill(order, price, amount, at, is_maker=True)
                    left -= amount

    def _next_stop(
        self, book: Book, position: Decimal, end: Decimal
    ) -> tuple[Decimal, Order] | None:
        """The first stop met between two prices, and the price at which it is met."""
        low, high = min(position, end), max(position, end)
        met: list[tuple[Decimal, int, Decimal, Order]] = []
        for order in book.stops.values():
            trigger = self._trigger(book, order)
            if order.ticket.triggers_rising:
                price = max(trigger, position)
                due = trigger <= high
            else:
                price = min(trigger, position)
                due = trigger >= low
            if due:
                met.append((abs(price - position), order.id, price, order))
        return min(met)[2:] if met else None

    def _trigger(self, book: Book, order: Order) -> Decimal:
        """The price that fires a stop, or makes a trailing one start to trail."""
        ticket = order.ticket
        if order.extreme is None:
            return ticket.stop
        sign = 1 if ticket.triggers_rising else -1
        exact = order.extreme * (1 + Decimal(sign * ticket.trailing) / 10000)
        return max(book.instrument.round_price(exact), book.instrument.tick)

    def _trail(self, book: Book, price: Decimal) -> None:
        for order in book.stops.values():
            if order.extreme is None:
                continue
            best = min if order.ticket.triggers_rising else max
            if best(order.extreme, price) != order.extreme:
                order.extreme = price
                self._changed[order.id] = order

    def _reach(self, order: Order, price: Decimal, now: int) -> None:
        """The price reached a stop: a waiting trailing one starts to trail, any other fires."""
        if order.ticket.trailing is not None and order.extreme is None:
            order.extreme = price
            order.trailing_time = now
            self._note("TRIGGERED", order, now)
            return
        self._touch(order, now)
        book = self.books[order.ticket.symbol]
        self._forget(order)
        order.working, order.working_time, order.update_time = True, now, now
        self._note("TRIGGERED", order, now)
        is_market_buy = order.ticket.side == BUY and order.ticket.type not in LIMIT_TYPES
        self._lock(order, ZERO)
        asset = book.instrument.quote
        funds = self.balance(order.account, asset).free if is_market_buy else None
        self._take(order, self._plan(book, order.account, order.ticket, order.amount, funds), now)

    # One-cancels-the-other.

    def _sibling(self, order: Order) -> Order | None:
        if order.list_id < 0:
            return None
        first, second = self.lists[order.list_id].order_ids
        return self.open.get(second if order.id == first else first)

    def _touch(self, order: Order, now: int) -> None:
        """Before a leg of a list trades or fires, its sibling goes, and leaves it the lock."""
        sibling = self._sibling(order)
        if sibling is None:
            return
        order.locked += sibling.locked
        sibling.locked = ZERO
        self._end(sibling, EXPIRED, now)
        self._lock(order, min(order.locked, self._lock_of(order)))

    # Locks and ends.

    def _lock_price(self, book: Book, ticket: Ticket) -> Decimal:
        """Quote per base that a waiting buy must be able to pay."""
        if ticket.price is not None:
            return ticket.price
        if ticket.stop is not None:
            return ticket.stop
        return book.liquidity.price * (1 + Decimal(ticket.trailing or 0) / 10000)

    def _lock_of(self, order: Order) -> Decimal:
        """What an order must keep locked as it stands."""
        ticket = order.ticket
        if not order.is_open or (order.working and ticket.type not in LIMIT_TYPES):
            return ZERO
        if ticket.side == SELL:
            return order.remaining
        return cost_up(self._lock_price(self.books[ticket.symbol], ticket), order.remaining)

    def _lock(self, order: Order, amount: Decimal) -> None:
        """Sets what the order locks, from or back to the free balance."""
        instrument = self.instruments[order.ticket.symbol]
        asset = instrument.quote if order.ticket.side == BUY else instrument.base
        balance = self.balance(order.account, asset)
        balance.free += order.locked - amount
        balance.locked += amount - order.locked
        order.locked = amount
        self._touched.add((order.account, asset))

    def _end_all(
        self, order: Order, status: str, now: int, cancel_id: str | None = None
    ) -> tuple[Order, ...]:
        """Ends an order and the other leg of its list, which must not outlive the shared lock."""
        legs = (order, *filter(None, [self._sibling(order)]))
        for leg in sorted(legs, key=lambda each: each.id):
            self._end(leg, status, now, cancel_id)
        return legs

    def _end(self, order: Order, status: str, now: int, cancel_id: str | None = None) -> None:
        order.status, order.update_time = status, now
        self._lock(order, ZERO)
        self._forget(order)
        kind = CANCELED if status == CANCELED else EXPIRED
        self._note(kind, order, now, cancel_id=cancel_id)

    def _keep(self, order: Order) -> None:
        self.books[order.ticket.symbol].add(order)
        self.open[order.id] = order
        self._names[(order.account, order.ticket.client_id)] = order.id
        self._by_account.setdefault((order.account, order.ticket.symbol), {})[order.id] = order

    def _forget(self, order: Order) -> None:
        if self.open.pop(order.id, None) is None:
            return
        self.books[order.ticket.symbol].remove(order)
        del self._names[(order.account, order.ticket.client_id)]
        del self._by_account[(order.account, order.ticket.symbol)][order.id]

    def _note(
        self,
        kind: str,
        order: Order,
        now: int,
        trade: Trade | None = None,
        cancel_id: str | None = None,
    ) -> None:
        self._changed[order.id] = order
        self._executions.append(Execution(kind, order.snapshot(), now, trade, cancel_id))


def _add(amounts: dict[str, Decimal], asset: str, amount: Decimal) -> None:
    amounts[asset] = amounts.get(asset, ZERO) + amount


def _time_at(leg: Leg, price: Decimal) -> int:
    return _time_between(leg.start, leg.end, leg.start_time, leg.end_time, price)


def _time_between(start: Decimal, end: Decimal, then: int, now: int, price: Decimal) -> int:
    """When a straight way from start to end passes a price; its beginning when already passed."""
    if end == start:
        return then
    share = min(max((price - start) / (end - start), ZERO), Decimal(1))
    return then + int(share * (now - then))
