"""The player: drives one schedule, step by step, and takes down what came of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from tradelib.clock import from_ms, utc_now
from tradelib.torture.acts import VENUE, Deed
from tradelib.torture.processes import Ended, Process, Processes
from tradelib.torture.schedule import (
    TIMEFRAME,
    Act,
    BotPlan,
    Candle,
    Decide,
    GiveUp,
    Halt,
    Pass,
    Schedule,
    Step,
    Wake,
)
from tradelib.torture.stage import Stage
from tradelib.torture.wall import SharedWall
from tradelib.trading.accounts import load_account
from tradelib.trading.bots import Bot, BotStatus, add_bot, new_bot
from tradelib.trading.decisions import Action, Decision, record_decision
from tradelib.trading.halts import TradingState, halt_trading, resume_trading
from tradelib.trading.leases import bot_lease, read_lease
from tradelib.trading.ledger import Ledger
from tradelib.trading.orders import decision_id
from tradelib.trading.runs import Outcome, Run, finish_run, start_run

# Longer than any lease, lag, maintenance or ban.
_SETTLING = timedelta(minutes=30)
_STEP = timedelta(milliseconds=500)


@dataclass(frozen=True)
class Sleeper:
    """A process that was put to sleep in its act."""

    process: Process
    act: Act
    run: str
    decision: str | None


@dataclass(frozen=True)
class Done:
    """One act that came to an end. decision: the id of the one it executed."""

    act: Act
    ended: Ended
    decision: str | None


@dataclass
class Script:
    """What accumulates while a schedule is played.

    tokens: when each newer lease of a bot was first seen. is_open: whether the account's
    books are. events: what happened, in words.
    """

    bots: dict[str, Bot] = field(default_factory=dict)
    decisions: dict[str, list[Decision]] = field(default_factory=dict)
    sleepers: list[Sleeper] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    tokens: list[tuple[str, int, datetime]] = field(default_factory=list)
    is_open: bool = False
    events: list[str] = field(default_factory=list)
    runs: int = 0


class Player:
    """Plays one schedule on a stage that was set for it."""

    def __init__(
        self,
        schedule: Schedule,
        wall: SharedWall,
        ledger: Ledger,
        stage: Stage,
        processes: Processes,
    ) -> None:
        self.schedule, self.ledger, self.stage = schedule, ledger, stage
        self._wall, self._processes = wall, processes
        # By way of the wire where something happens on it.
        self._url = stage.wire.url if schedule.wire else stage.url
        self.script = Script()

    async def play(self) -> Script:
        """Every step, and then every sleeper wakes."""
        for plan in self.schedule.bots:
            self._add_bot(plan)
        self.stage.play(self.schedule.faults, self.schedule.wire)
        for step in self.schedule.steps:
            await self._do(step)
        while self.script.sleepers:
            await self._wake(0)
        return self.script

    def calm_down(self) -> dict[str, int]:
        """The venue does nothing wrong any more, and time passes; what it had played."""
        played = Counter(self.stage.faulty.tell()["played"])
        played.update(self.stage.wire.tell()["played"])
        resume_trading(self.ledger)
        self.stage.play({}, {})
        self._pass(_SETTLING)
        self._pass(_SETTLING)  # what arrived late in the first may have brought a lag with it
        return dict(played)

    async def reconcile(self) -> None:
        """One pass that nobody disturbs."""
        await self._begin(Act("reconcile"))

    async def _do(self, step: Step) -> None:
        match step:
            case Decide():
                self._decide(step)
            case Act():
                await self._begin(step)
            case Wake():
                if self.script.sleepers:
                    await self._wake(-1 if step.is_last else 0)
            case GiveUp():
                self._give_up()
            case Pass():
                self._pass(timedelta(seconds=step.seconds))
            case Candle():
                self._move_on(step)
            case Halt():
                self._halt(step)

    def _tell(self, event: str) -> None:
        self.script.events.append(f"{self._wall.peek():%H:%M:%S.%f} {event}")

    # Steps that need no process

    def _add_bot(self, plan: BotPlan) -> None:
        bot = new_bot(
            plan.name, VENUE, plan.symbol, TIMEFRAME, "buy_and_hold",
            stops=dict(plan.stops), status=BotStatus.RUNNING,
        )  # fmt: skip
        add_bot(self.ledger, bot)
        self.script.bots[bot.name] = bot
        self.script.decisions[bot.name] = []

    def _decide(self, step: Decide) -> None:
        at = from_ms(self.stage.now_ms)
        run = self._start_run("20_generate_signals", step.bot)
        decision = Decision(
            id=decision_id(step.bot, at), bot=step.bot, candle_close=at, run=run,
            action=Action(step.action), fraction=Decimal(step.fraction), temperature="HOT",
            reason="drawn", price=Decimal(1), state={}, decided_at=utc_now(),
        )  # fmt: skip
        self.script.decisions[step.bot].append(record_decision(self.ledger, decision, None))
        finish_run(self.ledger, run, Outcome.SUCCEEDED)
        self._tell(f"{step.bot} decides {step.action} {step.fraction}: {decision.id}")

    def _start_run(self, notebook: str, bot: str) -> str:
        self.script.runs += 1
        name = f"run-{self.script.runs}"
        start_run(
            self.ledger,
            Run(
                id=name, cycle=None, notebook=notebook, notebook_hash="", bot=bot or None,
                venue=VENUE, parameters={}, as_of=None, git_commit=None, git_clean=None,
                lock_hash=None, host="torture", kernel="none", token_hash="",
                started_at=utc_now(),
            ),
        )  # fmt: skip
        return name

    def _pass(self, span: timedelta) -> None:
        """Time goes by; in short steps while a late request is on its way, so that what it does
        at its arrival begins then and not at the end."""
        left = span
        while left:
            step = min(left, _STEP) if self.stage.faulty.tell()["pending"] else left
            self._wall.pass_time(step)
            self.stage.faulty.catch_up()
            left -= step
        self._tell(f"{span} pass")

    def _move_on(self, step: Candle) -> None:
        self._pass(timedelta(seconds=step.seconds))
        self.stage.step(1, TIMEFRAME)

    def _halt(self, step: Halt) -> None:
        if step.state:
            halt_trading(self.ledger, "drawn", TradingState(step.state))
        else:
            resume_trading(self.ledger)
        self._tell(f"trading is {step.state or 'resumed'}")

    def _give_up(self) -> None:
        if self.script.sleepers:
            run = self.script.sleepers[0].run
            finish_run(self.ledger, run, Outcome.FAILED, reason="it took too long")
            self._tell(f"{run} is given up")

    # Processes

    async def _begin(self, act: Act) -> None:
        decision = self._decision_of(act)
        if act.kind == "execute" and decision is None:
            return
        # Books that open while the venue hides somebody's newest trades, yet shows the balances
        # after them, book these twice; how long to wait, no reply tells.
        if act.kind == "foreign" and not self.script.is_open:
            return
        run = self._start_run(act.kind, act.bot)
        self._tell(f"{run} begins: {act}")
        # No connection may be open while a process forks: two would share it.
        self.ledger.close()
        process = self._processes.begin(self._deed(act, decision, run), act.aim)
        await self._settle(Sleeper(process, act, run, decision.id if decision else None))

    def _decision_of(self, act: Act) -> Decision | None:
        made = self.script.decisions.get(act.bot, [])
        return made[-1 - act.age] if act.age < len(made) else None

    def _deed(self, act: Act, decision: Decision | None, run: str) -> Deed:
        symbols = tuple(sorted({bot.symbol for bot in self.script.bots.values()}))
        bot = self.script.bots.get(act.bot)
        return Deed(act.kind, self._url, run, symbols, bot, decision, act.is_fresh, act.choice)

    async def _wake(self, place: int) -> None:
        sleeper = self.script.sleepers.pop(place)
        self._tell(f"{sleeper.run} wakes")
        self._processes.wake(sleeper.process)
        await self._settle(sleeper)

    async def _settle(self, one: Sleeper) -> None:
        await self._processes.settle(one.process)
        self._watch_leases()
        self.script.is_open = self.script.is_open or load_account(self.ledger, VENUE) is not None
        ended = one.process.ended
        if ended is None:
            self.script.sleepers.append(one)
            self._tell(f"{one.run} sleeps")
            return
        self.script.done.append(Done(one.act, ended, one.decision))
        text = ended.text.replace(self._url, "the venue's address")
        self._tell(f"{one.run} {ended.how} {ended.place} {ended.error} {text}")
        self._close_run(one, ended)

    def _close_run(self, one: Sleeper, ended: Ended) -> None:
        if ended.how == "killed" and one.act.is_left:
            return
        outcome = Outcome.SUCCEEDED if ended.how == "done" else Outcome.FAILED
        finish_run(self.ledger, one.run, outcome)

    def _watch_leases(self) -> None:
        """Take down when a bot changed hands."""
        with self.ledger.read() as books:
            for bot in self.script.bots:
                held = read_lease(books, bot_lease(bot))
                known = max((t for name, t, _ in self.script.tokens if name == bot), default=0)
                if held and held.token > known:
                    self.script.tokens.append((bot, held.token, self._wall.peek()))
