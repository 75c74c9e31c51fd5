"""Schedules: what is to happen, drawn whole from one seed before anything does.

A schedule says which acts are begun in which order, at which of their effect points they are
killed or put to sleep, when sleepers are woken, and what the venue does wrong meanwhile. It looks
at nothing that happens, so that a change of the desk changes no other part of it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tradelib.torture.points import Aim

SYMBOLS = ("BTC/USDT", "ETH/USDT")
TIMEFRAME = "1h"


@dataclass(frozen=True)
class BotPlan:
    """stops: what rests at the venue while it holds a position, as of a Bot."""

    name: str
    symbol: str
    stops: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Decide:
    """A bot decides at the present candle. fraction: as of a Decision."""

    bot: str
    action: str
    fraction: str


@dataclass(frozen=True)
class Act:
    """A process that does one thing. kind: 'execute', 'reconcile', 'manual' (a person's order),
    'cancel', 'flatten' or 'foreign' (somebody else's orders).

    age: of the decision to execute, in decisions of the bot; 0 is the newest. aim: where it
    signals itself. is_left: nobody notices that it was killed, as when its machine died. is_fresh:
    it knows nothing of the venue's instruments yet. choice: a number for what is random in it.
    """

    kind: str
    bot: str = ""
    age: int = 0
    aim: Aim | None = None
    is_left: bool = False
    is_fresh: bool = False
    choice: float = 0.0


@dataclass(frozen=True)
class Wake:
    """The process that has slept longest goes on; or the one that went to sleep last."""

    is_last: bool = False


@dataclass(frozen=True)
class GiveUp:
    """The runner closes the run of the process that has slept longest, which sleeps on."""


@dataclass(frozen=True)
class Pass:
    """Time goes by, of the wall alone."""

    seconds: float


@dataclass(frozen=True)
class Candle:
    """The market moves on by a candle. seconds: of the wall meanwhile."""

    seconds: float


@dataclass(frozen=True)
class Halt:
    """state: 'HALTED' or 'REDUCING'; '' resumes."""

    state: str


Step = Decide | Act | Wake | GiveUp | Pass | Candle | Halt


@dataclass(frozen=True)
class Schedule:
    """One schedule. faults, wire: plans of faults; fee_asset: in which the account pays."""

    seed: int
    bots: tuple[BotPlan, ...]
    steps: tuple[Step, ...]
    faults: Mapping[str, Any] = field(default_factory=dict)
    wire: Mapping[str, Any] = field(default_factory=dict)
    fee_asset: str | None = None


@dataclass(frozen=True)
class Odds:
    """How likely what is, as shares.

    kill, sleep: of acts; retry: of executions that are done once more; aimed: of signals that
    are sent around the order's own request. person: of candles at which a
    person trades too. overlap: of bots that two processes trade at once;
    takeover: of these, how often the first one's lease expires meanwhile.
    """

    kill: float = 0.3
    sleep: float = 0.15
    retry: float = 0.4
    overlap: float = 0.12
    takeover: float = 0.5
    aimed: float = 0.4
    foreign: float = 0.15
    person: float = 0.2
    late: float = 0.1
    halt: float = 0.04
    faults: float = 1.0
    wire: float = 0.25


FOCUSES: Mapping[str, Odds] = {
    "": Odds(),
    "quiet": Odds(kill=0, sleep=0, overlap=0, faults=0, wire=0),
    "kills": Odds(kill=0.7, sleep=0, overlap=0, faults=0, wire=0),
    "answers": Odds(kill=0.2, sleep=0, faults=2.5, retry=0.8),
    "zombies": Odds(kill=0.25, sleep=0.1, overlap=0.9, takeover=0.85, faults=0.1, wire=0, late=0.2),
    "strangers": Odds(kill=0.1, foreign=0.7, faults=0.3),
}


def draw_schedule(seed: int, focus: str = "") -> Schedule:
    """The schedule of a seed."""
    odds, rng = FOCUSES[focus], Random(f"schedule/{seed}")
    bots = _draw_bots(rng)
    return Schedule(
        seed=seed,
        bots=bots,
        steps=tuple(_Writer(odds, rng, bots).write()),
        faults=_draw_faults(odds, Random(f"faults/{seed}"), seed),
        wire=_draw_wire(odds, Random(f"wire/{seed}"), seed),
        fee_asset="BNB" if Random(f"fees/{seed}").random() < 0.2 else None,
    )


def _draw_bots(rng: Random) -> tuple[BotPlan, ...]:
    symbols = SYMBOLS[: rng.randint(1, 2)]
    count = rng.choice((1, 1, 2, 2, 3))
    return tuple(BotPlan(f"bot{n}", rng.choice(symbols), rng.choice(_STOPS)) for n in range(count))


_STOPS: tuple[Mapping[str, float], ...] = (
    {}, {}, {"loss": 0.01}, {"loss": 0.02, "profit": 0.02}, {"profit": 0.01}, {"trailing": 0.02},
)  # fmt: skip


# Points that an act passes at most, roughly, when nothing goes wrong.
_TYPICAL = {"execute": 27, "reconcile": 40, "manual": 30, "cancel": 12, "flatten": 42}
# So many an execution, when the bot's stops follow.
_WITH_STOPS = 66
_DECISIVE = (
    "commit _plan_order", "committed _plan_order", "begin take_to_wire", "commit take_to_wire",
    "committed take_to_wire", "request POST order", "sent POST order", "answered POST order",
    "begin record_answer", "commit record_answer", "committed record_answer",
    "begin book_order_trades", "commit book_order_trades", "begin release_lease",
)  # fmt: skip
# Before an execution has recorded anything but its lease.
_EARLY = (
    "committed take_lease", "request GET ticker/bookTicker", "answered GET ticker/bookTicker",
    "request GET time", "answered GET time", "begin _plan_order",
)  # fmt: skip
_SPANS = (0.5, 2, 4, 7, 9, 12, 25, 40, 100, 100, 200, 700)


@dataclass(frozen=True)
class _Writer:
    """Writes the steps of a schedule, candle by candle."""

    odds: Odds
    rng: Random
    bots: tuple[BotPlan, ...]

    def write(self) -> Iterator[Step]:
        yield from self._act("reconcile", share=0.3)
        yield Act("reconcile", is_fresh=True)
        for _ in range(self.rng.randint(2, 4)):
            yield Candle(self.rng.choice((20, 60, 300, 3600)))
            yield from self._candle()

    def _candle(self) -> Iterator[Step]:
        for bot in self.bots:
            yield self._decide(bot.name)
        deeds: list[Callable[[], Iterator[Step]]] = [
            *(lambda bot=bot: self._execute(bot.name) for bot in self.bots),
            *(self._maybe(self.odds.retry, lambda bot=bot: self._execute(bot.name))
              for bot in self.bots),
            *(self._maybe(self.odds.overlap, lambda bot=bot: self._overlap(bot.name))
              for bot in self.bots),
            self._maybe(self.odds.late, self._execute_late),
            self._maybe(self.odds.foreign, lambda: self._act("foreign", share=0)),
            self._maybe(self.odds.person, self._person),
            self._maybe(self.odds.halt, self._halt),
            lambda: self._act("reconcile"),
        ]  # fmt: skip
        self.rng.shuffle(deeds)
        for deed in deeds:
            yield from deed()
            yield from self._maybe(0.3, self._pass)()
            yield from self._maybe(0.5, self._wake)()

    def _maybe(
        self, share: float, deed: Callable[[], Iterator[Step]]
    ) -> Callable[[], Iterator[Step]]:
        return deed if self.rng.random() < share else lambda: iter(())

    def _decide(self, bot: str) -> Decide:
        action = self.rng.choices(("BUY", "SELL", "HOLD"), (5, 4, 1))[0]
        fraction = "1" if action == "SELL" else self.rng.choice(("0.01", "0.02", "0.05", "0.1"))
        return Decide(bot, action, fraction)

    def _execute(self, bot: str, age: int = 0) -> Iterator[Step]:
        yield from self._act("execute", bot, age)

    def _execute_late(self) -> Iterator[Step]:
        yield from self._execute(self.rng.choice(self.bots).name, age=1)

    def _act(self, kind: str, bot: str = "", age: int = 0, share: float = 1.0) -> Iterator[Step]:
        fate, rng = self.rng.random(), self.rng
        aim = None
        if fate < self.odds.kill * share:
            aim = self._aim(kind, signal.SIGKILL, bot)
        elif fate < (self.odds.kill + self.odds.sleep) * share:
            aim = self._aim(kind, signal.SIGSTOP, bot)
        yield Act(
            kind, bot, age, aim, is_left=rng.random() < 0.4, is_fresh=rng.random() < 0.1,
            choice=rng.random(),
        )  # fmt: skip
        if aim is not None and aim.signal == signal.SIGSTOP:
            yield from self._maybe(0.4, lambda: iter((GiveUp(),)))()
            yield from self._maybe(0.8, self._pass)()

    def _person(self) -> Iterator[Step]:
        """Orders and cancels by hand, for a bot or for the account itself."""
        kind = self.rng.choices(("manual", "cancel", "flatten"), (6, 2, 1))[0]
        bot = self.rng.choice(self.bots).name if self.rng.random() < 0.5 else ""
        yield from self._act(kind, bot)

    def _overlap(self, bot: str) -> Iterator[Step]:
        """A process falls asleep within an execution, and another one takes its bot over."""
        rng = self.rng
        aim = self._aim("execute", signal.SIGSTOP, bot)
        if rng.random() < 0.4:
            aim = Aim(signal.SIGSTOP, 1, rng.choice(_EARLY))
        yield Act("execute", bot, aim=aim, choice=rng.random())
        if rng.random() < 0.3:
            yield GiveUp()
        is_over = rng.random() < self.odds.takeover
        yield Pass(rng.choice((100, 200) if is_over else (0.5, 4, 8, 12)))
        if rng.random() < 0.5:
            yield Candle(rng.choice((1, 100)))
            yield self._decide(bot)
        yield from self._act("execute", bot)
        yield from self._maybe(0.3, lambda: self._act("reconcile"))()
        yield from self._maybe(0.3, self._pass)()
        yield from self._wake()

    def _aim(self, kind: str, number: int, bot: str) -> Aim:
        if kind in ("execute", "manual") and self.rng.random() < self.odds.aimed:
            return Aim(number, 1, self.rng.choice(_DECISIVE))
        protects = kind == "execute" and any(b.stops for b in self.bots if b.name == bot)
        return Aim(number, self.rng.randint(1, _WITH_STOPS if protects else _TYPICAL[kind]))

    def _halt(self) -> Iterator[Step]:
        yield Halt(self.rng.choice(("HALTED", "REDUCING")))
        yield from self._execute(self.rng.choice(self.bots).name)
        yield Halt("")

    def _pass(self) -> Iterator[Step]:
        yield Pass(self.rng.choice(_SPANS))

    def _wake(self) -> Iterator[Step]:
        yield Wake(is_last=self.rng.random() < 0.3)


# What goes wrong at the venue: kind, highest rate, options with their highest values (ms).
_FAULTS: tuple[tuple[str, float, Mapping[str, int]], ...] = (
    ("accept_then_hang", 0.1, {}),
    ("accept_then_timeout", 0.15, {}),
    ("accept_then_5xx", 0.15, {}),
    ("late", 0.15, {"late_ms": 14_000}),
    ("hang_before", 0.04, {}),
    ("refuse_5xx", 0.05, {}),
    ("maintenance", 0.01, {"maintenance_ms": 60_000}),
    ("rate_limit", 0.02, {}),
    ("ban", 0.01, {"ban_ms": 60_000}),
    ("order_limit", 0.05, {}),
    ("read_lag", 0.3, {"lag_ms": 9_000}),
    ("trades_lag", 0.3, {"trades_lag_ms": 60_000}),
    ("cancel_fill_race", 0.3, {}),
    ("partial", 0.3, {}),
    ("skew", 0.05, {"skew_ms": 20_000}),
    ("halt_symbol", 0.03, {"halt_ms": 60_000}),
)
_WIRE: tuple[tuple[str, float], ...] = (
    ("reset_before", 0.05),
    ("cut_after", 0.08),
    ("reset_after", 0.08),
    ("half_reply", 0.08),
    ("black_hole", 0.0015),
    ("black_hole_after", 0.002),
)


def _draw_faults(odds: Odds, rng: Random, seed: int) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    for kind, rate, options in _FAULTS:
        is_on, share, *values = (rng.random() for _ in range(2 + len(options)))
        if is_on < 0.5 * min(odds.faults, 1.5):
            rates[kind] = {
                "rate": min(rate * share * odds.faults, 1.0),
                **{name: int(most * value)
                   for (name, most), value in zip(options.items(), values, strict=True)},
            }  # fmt: skip
    return {"seed": seed, "rates": rates, "options": {"hold_ms": 2}}


def _draw_wire(odds: Odds, rng: Random, seed: int) -> dict[str, Any]:
    if rng.random() >= odds.wire:
        return {}
    rates = {kind: rate * rng.random() for kind, rate in _WIRE}
    return {"seed": seed, "rates": rates}
