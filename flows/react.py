"""Bots that react: what the feed hears wakes them, each for its newest candle and never twice."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from decimal import Decimal

from flows.dispatch import Kernel, Kernels, make_lock, try_lock
from tradelib.clock import utc_now
from tradelib.errors import DeskError
from tradelib.notebooks.cycle import Step, execute_step, run_step, signal_step, venues_in_use
from tradelib.notebooks.fast import IN_PROCESS, trade_at_once, write_page
from tradelib.notebooks.preheat import KernelPool
from tradelib.settings import DeskSettings
from tradelib.trading.bots import Bot, BotStatus, load_bot
from tradelib.trading.ledger import Ledger
from tradelib.trading.runs import Run, load_runs
from tradelib.venue import Quote, Told, Venue, open_venue
from tradelib.venue.streams import Series

log = logging.getLogger("flows.react")

# Seconds to wait for a bot that a cycle is at work for, and between two looks for a free kernel.
_BOT_PATIENCE, _KERNEL_LOOK = 15.0, 0.02
# Seconds that a page waits at most for bots that trade one after the other.
_PAGE_PATIENCE = 10.0
# A signal's kernel, and its execution's.
_PREHEATED = 2
# How far back pages are looked for that a feed left unwritten.
_UNWRITTEN = timedelta(hours=1)


class Reactor:
    """Wakes the bots of one venue.

    A bot that is woken while it works is woken once more when it has done, for the newest candle
    by then; what came between is decided together with it, as after an outage. told: what the
    venue's streams told a moment ago, None where nobody listens.
    """

    told: Told | None = None

    def __init__(self, settings: DeskSettings, ledger: Ledger, venue: str) -> None:
        self._settings, self._ledger, self._venue = settings, ledger, venue
        self._notebooks = ThreadPoolExecutor(settings.kernels, f"{venue} react")
        self._fast = ThreadPoolExecutor(1, f"{venue} fast")
        self._pages = ThreadPoolExecutor(1, f"{venue} pages")
        self._pool = KernelPool(settings)
        self._client: Venue | None = None
        self._lock = threading.Lock()
        self._bots: dict[str, Bot] = {}
        self._wanted: dict[str, datetime] = {}
        self._working: set[str] = set()
        self._closes: dict[Series, datetime] = {}
        self._prices: dict[tuple[str, str], Decimal] = {}
        self._begun: set[Future[None]] = set()
        self._trading: set[Future[None]] = set()
        self._calm = threading.Event()
        self._calm.set()
        self._ended = threading.Event()
        for run in load_runs(ledger, limit=None, since=utc_now() - _UNWRITTEN):
            lacks_page = run.kernel_kind == IN_PROCESS and not run.page and not run.page_removed_at
            if run.venue == venue and lacks_page:
                self._submit(self._pages, self._write_page, run)

    def know(self, bots: Sequence[Bot]) -> None:
        """The venue's bots that run now."""
        self._bots = {bot.name: bot for bot in bots if bot.wake_params.on != "schedule"}
        self._preheat()

    def on_close(self, series: Series, closed: datetime) -> None:
        """A candle of a series has closed and is stored. A bot on several symbols wakes once all
        of them have it: before, there is nothing new to decide."""
        self._closes[series] = closed
        for bot in [*self._bots.values()]:
            if bot.wake_params.on != "close" or series not in (its := _series(bot)):
                continue
            if all(one in self._closes and self._closes[one] >= closed for one in its):
                self._wake(bot, closed)

    def on_quotes(self, quotes: Sequence[Quote]) -> None:
        """Prices have moved; a bot is woken once they are far enough from where it last was."""
        prices = {quote.symbol: (quote.bid + quote.ask) / 2 for quote in quotes}
        for bot in [*self._bots.values()]:
            closes = [self._closes[one] for one in _series(bot) if one in self._closes]
            if bot.wake_params.move is None or not closes:
                continue
            moved = [symbol for symbol in bot.traded if self._has_moved(bot, symbol, prices)]
            if moved:
                self._prices |= {(bot.name, symbol): prices[symbol] for symbol in moved}
                self._wake(bot, max(closes))

    def _has_moved(self, bot: Bot, symbol: str, prices: Mapping[str, Decimal]) -> bool:
        if symbol not in prices:
            return False
        before = self._prices.setdefault((bot.name, symbol), prices[symbol])
        return abs(prices[symbol] / before - 1) >= Decimal(str(bot.wake_params.move))

    def end(self, patience: float) -> None:
        """Begin nothing any more, and come back when what is at work has ended, or after so many
        seconds. The next feed writes the pages that this one has not; what else it leaves is as
        after its death."""
        with self._lock:
            self._ended.set()
            for pool in (self._fast, self._notebooks, self._pages):
                pool.shutdown(wait=False, cancel_futures=True)
            begun = self._begun.copy()
        self._calm.set()
        self._pool.close()
        _, slow = wait(begun, patience)
        if slow:
            log.warning("%d bots or pages of %s are left at work", len(slow), self._venue)

    def _submit(self, pool: ThreadPoolExecutor, work: Callable[..., None], what: Bot | Run) -> None:
        """Have it done, unless the feed ends."""
        with self._lock:
            if self._ended.is_set():
                return
            future = pool.submit(work, what)
            self._begun.add(future)
            future.add_done_callback(self._begun.discard)
            if pool is self._fast:
                self._trading.add(future)
                self._calm.clear()
                future.add_done_callback(self._note_traded)

    def _note_traded(self, future: Future[None]) -> None:
        self._trading.discard(future)
        if not self._trading:
            self._calm.set()

    def _wake(self, bot: Bot, closed: datetime) -> None:
        with self._lock:
            self._wanted[bot.name] = max(closed, self._wanted.get(bot.name, closed))
            if bot.name in self._working:
                return
            self._working.add(bot.name)
        pool = self._fast if bot.wake_params.fast else self._notebooks
        self._submit(pool, self._work, bot)

    def _work(self, bot: Bot) -> None:
        """Let the bot decide until nothing newer is wanted of it."""
        while True:
            with self._lock:
                as_of = self._wanted.pop(bot.name, None)
                if as_of is None or self._ended.is_set():
                    self._working.discard(bot.name)
                    break
            try:
                self._trade(bot, as_of)
            except DeskError as error:
                log.error("bot %s: %s", bot.name, error)
            except Exception:
                log.exception("bot %s failed", bot.name)
        self._preheat()

    def _preheat(self) -> None:
        """Have kernels started for the next pages, once no bot is at work."""
        in_notebooks = any(not bot.wake_params.fast for bot in [*self._bots.values()])
        if in_notebooks and not self._working:
            self._pool.fill(_PREHEATED)

    def _trade(self, bot: Bot, as_of: datetime) -> None:
        lock = make_lock(self._settings.home / "run" / "locks" / f"bot-{bot.name}.lock")
        if not try_lock(lock, _BOT_PATIENCE, self._ended.is_set):
            log.warning("bot %s is still at work for a cycle", bot.name)
            return
        try:
            if self._ended.is_set():
                return
            # As it is now: it may have been stopped or changed since the feed last looked.
            bot = load_bot(self._ledger, bot.name)
            if bot.status != BotStatus.RUNNING:
                return
            if bot.wake_params.fast:
                self._trade_fast(bot, as_of)
            else:
                self._trade_in_notebooks(bot, as_of)
        finally:
            lock.release()

    def _trade_fast(self, bot: Bot, as_of: datetime) -> None:
        # Kept from one to the next: a new one would ask for every instrument of the venue first.
        self._client = client = self._client or open_venue(
            self._settings, self._venue, trading=True, told=self.told
        )
        done: list[Run] = []
        runs = trade_at_once(self._settings, self._ledger, bot, as_of, lambda _venue: client)
        try:
            for run in runs:
                done.append(run)
        except BaseException:
            self._client = None  # its keys, or its connection, may be what failed
            client.close()
            raise
        finally:
            for run in done:
                self._submit(self._pages, self._write_page, run)

    def _trade_in_notebooks(self, bot: Bot, as_of: datetime) -> None:
        kernel = self._take_kernel()
        if kernel is None:
            return
        try:
            signal = self._run(signal_step(bot, as_of))
            step = execute_step(bot, signal)
            if step:
                self._run(step)
        finally:
            kernel.give_back()

    def _run(self, step: Step) -> Run:
        return run_step(self._settings, self._ledger, step, None, self._pool)

    def _write_page(self, run: Run) -> None:
        # Orders first: a page takes as long as a dozen of them.
        self._calm.wait(_PAGE_PATIENCE)
        kernel = self._take_kernel()
        if kernel is None:
            return
        try:
            write_page(self._settings, self._ledger, run)
        except Exception:
            log.exception("the page of run %s could not be written", run.id)
        finally:
            kernel.give_back()

    def _take_kernel(self) -> Kernel | None:
        """A kernel of the desk's, which a cycle may have; None once the feed ends."""
        kernels = Kernels(self._settings, len(venues_in_use(self._settings, self._ledger)))
        while not self._ended.is_set():
            kernel = kernels.take(self._venue)
            if kernel is not None:
                return kernel
            self._ended.wait(_KERNEL_LOOK)
        return None


def _series(bot: Bot) -> list[Series]:
    return [Series(symbol, bot.timeframe) for symbol in bot.traded]
