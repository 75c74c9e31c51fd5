"""A matching engine without sockets, on one market that a test moves by hand."""

from __future__ import annotations

from decimal import Decimal
from itertools import count

from tradelib.paper.engine import Engine, Leg
from tradelib.paper.instruments import Instrument
from tradelib.paper.liquidity import Liquidity, Shape
from tradelib.paper.orders import Order, Ticket, Trade

PAIR = "AAAUSDT"
INSTRUMENT = Instrument("AAA", "USDT", Decimal("0.01"), Decimal("0.001"))
START = {"AAA": Decimal(1000), "USDT": Decimal(100_000)}
_names = count(1)

Money = Decimal | int | str


def money(value: Money | None) -> Decimal | None:
    return None if value is None else Decimal(value)


EXACT = Shape()
NO_MARKET = Shape(levels=0)


def new_engine(
    price: Money = 100,
    volume: Money = 1000,
    shape: Shape = EXACT,
    instrument: Instrument = INSTRUMENT,
) -> Engine:
    """An engine with two accounts; the market's best bid and ask both stand at `price`.

    shape: NO_MARKET leaves the accounts among themselves.
    """
    engine = Engine([instrument])
    for name in ("ann", "bob"):
        engine.open_account(name, START)
    engine.show(PAIR, Liquidity(instrument, shape, Decimal(price), Decimal(volume), salt=1))
    return engine


def ticket(side: str, kind: str = "LIMIT", **parts: Money | None) -> Ticket:
    """amount, price, stop, quote_amount as text or numbers; the rest as in Ticket."""
    amounts = {
        name: money(parts.pop(name, None)) for name in ("amount", "price", "stop", "quote_amount")
    }
    named = {"client_id": f"test-{next(_names)}", **parts}
    return Ticket(PAIR, side, kind, **amounts, **named)  # type: ignore[arg-type]


def place(engine: Engine, account: str, asked: Ticket) -> tuple[Order, tuple[Trade, ...]]:
    return engine.place(account, asked, 0)


def rest(engine: Engine, account: str, side: str, price: Money, amount: Money) -> Order:
    order, trades = place(engine, account, ticket(side, amount=amount, price=price))
    assert order.is_open
    assert not trades
    return order


def walk(engine: Engine, *prices: Money, volume: Money = 1000) -> None:
    """Moves the market from its last price over these; each leg trades `volume`."""
    for price in prices:
        here = engine.books[PAIR].liquidity.price
        engine.walk(PAIR, Leg(here, Decimal(price), Decimal(volume), 0, 60_000))


def totals(engine: Engine) -> dict[str, Decimal]:
    """What all accounts hold, with the fees and the market's share: it never changes."""
    found = dict.fromkeys(START, Decimal(0))
    for held in engine.balances.values():
        for asset, balance in held.items():
            found[asset] = found.get(asset, Decimal(0)) + balance.free + balance.locked
    for ledger in (engine.house.fees, engine.house.market):
        for asset, amount in ledger.items():
            found[asset] = found.get(asset, Decimal(0)) + amount
    return found


def locked(engine: Engine, account: str, asset: str) -> Decimal:
    return engine.balance(account, asset).locked
