"""What a flow does at one venue, job by job."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial

from flows.dispatch import Job, make_lock, try_lock
from flows.pages import read_page, run_page
from tradelib.errors import DeskError
from tradelib.notebooks.cycle import (
    Step,
    VenuePlan,
    execute_step,
    parity_step,
    reconcile_step,
    signal_step,
)
from tradelib.settings import DeskSettings
from tradelib.trading.bots import Bot

log = logging.getLogger("flows.work")


@dataclass(frozen=True)
class Pages:
    """How pages of one cycle run; each raises what its notebook failed of. until: when what is
    fetched is of no use any more."""

    home: str
    cycle: str
    until: datetime | None = None

    def fetch(self, step: Step) -> None:
        read_page(self.home, step, self.cycle, self.until)

    def trade(self, bot: Bot, as_of: datetime) -> None:
        """A bot's signal, and at once the execution of what it decided."""
        signal = read_page(self.home, signal_step(bot, as_of), self.cycle)
        step = execute_step(bot, signal)
        if step:
            run_page(self.home, step, self.cycle)

    def reconcile(self, venue: str) -> None:
        read_page(self.home, reconcile_step(venue), self.cycle)

    def check_parity(self, bot: str, venue: str, day: date) -> None:
        read_page(self.home, parity_step(bot, venue, day), self.cycle)


class InTurn:
    """A venue's pages, one after the other, whatever becomes of each. failures: takes why some
    failed."""

    def __init__(
        self, venue: str, calls: Sequence[Callable[[], None]], failures: list[str]
    ) -> None:
        self.venue, self._waiting, self._failures = venue, deque(calls), failures
        self._runs = False

    def is_ready(self, *, late: bool) -> bool:
        return bool(self._waiting) and not self._runs

    def take(self, *, late: bool) -> Job | None:
        self._runs = True
        return Job(self._waiting.popleft(), self._note)

    def is_handed_out(self, *, late: bool) -> bool:
        return not self._waiting

    def _note(self, error: BaseException | None) -> None:
        self._runs = False
        if error is not None:
            self._failures.append(tell(error))


class VenueCycle:
    """A cycle at one venue: a fetch per timeframe, each bot once its candles are there, and the
    reconciliation when all of them have ended. One bot's failure does not stop another.

    Until a fetch has come through, the venue takes one kernel at a time: it may hang. failures:
    takes why steps failed.
    """

    def __init__(
        self, settings: DeskSettings, plan: VenuePlan, pages: Pages, failures: list[str]
    ) -> None:
        self._settings, self._plan, self._pages = settings, plan, pages
        self.venue = plan.venue
        self.names = [bot.name for bot in plan.bots]
        self.had_turn: set[str] = set()
        self._failures = failures
        self._fetches = deque(plan.fetches.items())
        self._waiting = list(plan.bots)
        self._fetched: set[str] = set()
        self._fetching = self._running = 0
        self._reconciled = False

    @property
    def left_out(self) -> list[str]:
        """Bots whose turn did not come in time."""
        return [name for name in self.names if name not in self.had_turn]

    def is_ready(self, *, late: bool) -> bool:
        return self._may_fetch(late) or bool(self._may_trade(late)) or self._may_reconcile(late)

    def take(self, *, late: bool) -> Job | None:
        if self._may_fetch(late):
            return self._take_fetch(*self._fetches.popleft())
        bots = self._may_trade(late)
        if bots:
            return self._take_bot(bots[0])
        self._reconciled = True
        return self._job(partial(self._pages.reconcile, self.venue))

    def is_handed_out(self, *, late: bool) -> bool:
        return late or not (self._fetches or self._fetching or self._may_trade(late))

    def _may_fetch(self, late: bool) -> bool:
        return bool(self._fetches and not late and (self._fetched or not self._running))

    def _may_trade(self, late: bool) -> list[Bot]:
        return [] if late else [bot for bot in self._waiting if bot.timeframe in self._fetched]

    def _may_reconcile(self, late: bool) -> bool:
        return not self._running and not self._reconciled and self.is_handed_out(late=late)

    def _take_fetch(self, timeframe: str, step: Step) -> Job:
        self._fetching += 1

        def ended(error: BaseException | None) -> None:
            self._fetching -= 1
            if error is None:
                self._fetched.add(timeframe)
                return
            # Without candles there is nothing to decide on, now or later in this cycle.
            self.had_turn.update(b.name for b in self._waiting if b.timeframe == timeframe)

        return self._job(partial(self._pages.fetch, step), ended)

    def _take_bot(self, bot: Bot) -> Job | None:
        """A bot's pages, unless those of an earlier cycle still run."""
        self._waiting.remove(bot)
        self.had_turn.add(bot.name)
        lock = make_lock(self._settings.home / "run" / "locks" / f"bot-{bot.name}.lock")
        if not try_lock(lock):
            log.warning("bot %s is still at work for an earlier cycle", bot.name)
            return None
        return self._job(
            partial(self._pages.trade, bot, self._plan.as_of), lambda _error: lock.release()
        )

    def _job(
        self,
        call: Callable[[], None],
        then: Callable[[BaseException | None], None] = lambda _error: None,
    ) -> Job:
        self._running += 1

        def ended(error: BaseException | None) -> None:
            self._running -= 1
            if error is not None:
                self._failures.append(tell(error))
            then(error)

        return Job(call, ended)


def tell(error: BaseException) -> str:
    """Why something failed, as a cycle's record says it."""
    return str(error) if isinstance(error, DeskError) else f"{type(error).__name__}: {error}"
