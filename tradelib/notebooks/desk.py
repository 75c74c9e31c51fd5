"""The desk as a notebook sees it: a handful of verbs, one per live page.

Inside a scheduled run the verbs act and record. Opened by anybody else, in JupyterLab, in Voilà,
by a test, the same page shows what its run did and what became of it: the ledger is read-only
and no venue is reached.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from hmac import compare_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tradelib.candles.fetch import FetchReport, fetch_candles
from tradelib.candles.store import CandleRead, CandleStore
from tradelib.clock import parse_time, set_clock
from tradelib.errors import DeskError, InvalidInput, ReadOnly
from tradelib.logs import configure_logging
from tradelib.notebooks.results import record_result
from tradelib.settings import DeskSettings, load_settings
from tradelib.trading.bots import Bot, bot_as_it_was, candle_history, load_bot, load_bots
from tradelib.trading.deciding import (
    DecisionInputs,
    Signal,
    compute_signal,
    load_scores,
    score_bot,
)
from tradelib.trading.decisions import Decision, load_decision
from tradelib.trading.execution import (
    Execution,
    LegOutcome,
    OrderInputs,
    intend_order,
)
from tradelib.trading.leases import Lease
from tradelib.trading.ledger import Ledger, first, open_ledger
from tradelib.trading.orders import find_attempts
from tradelib.trading.parity import Parity
from tradelib.trading.parity_check import check_bot, keep_incident
from tradelib.trading.reconciliation import Reconciliation
from tradelib.trading.risk import load_refusals
from tradelib.trading.runs import COMPUTED, Outcome, Run, hash_token, latest_run, load_run
from tradelib.trading.sources import provide_sources
from tradelib.trading.targeting import (
    TargetInputs,
    TargetSignal,
    compute_targets,
    weigh_symbols,
)
from tradelib.trading.upkeep import execute_and_protect, reconcile_venue
from tradelib.traffic import spend_as
from tradelib.venue import Venue, open_venue

if TYPE_CHECKING:
    from tradelib.candles.files import CandleFile
    from tradelib.strategy.base import Strategy
    from tradelib.trading.promotions import Promotion

RUN_ENV = "DESK_RUN"
REPLAY_ENV = "DESK_REPLAY"
TOKEN_ENV = "DESK_RUN_TOKEN"
# How long an execution waits for whoever trades its bot right now.
_PATIENCE = timedelta(seconds=15)


class Recordable(Protocol):
    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Fetch:
    """What a fetch page shows: one line per symbol, where the candles are, and what of the
    venue's budget is used in the present minute."""

    venue: str
    timeframe: str
    as_of: datetime
    lines: tuple[dict[str, Any], ...]
    used_weight: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "venue": self.venue,
            "timeframe": self.timeframe,
            "as_of": self.as_of.isoformat(),
            "lines": list(self.lines),
            "used_weight": self.used_weight,
            COMPUTED: {},
        }


@dataclass(frozen=True)
class ExecutionPage:
    """What became of a decision, as the ledger tells it now."""

    execution: Execution

    def to_json(self) -> dict[str, Any]:
        if self.execution.decision.targets:
            return self._legs_to_json()
        order, intention = self.execution.order, self.execution.intention
        return {
            "decision": self.execution.decision.id,
            "summary": self.execution.summary,
            "order": order.client_id if order else None,
            "status": str(order.status) if order else None,
            "inputs": intention.inputs.to_json() if intention else None,
            COMPUTED: intention.to_json() if intention else {},
        }

    def _legs_to_json(self) -> dict[str, Any]:
        """The same of a decision on several symbols: what one order has, each leg has."""
        legs = self.execution.legs
        made = {str(outcome.leg.number): outcome.intention for outcome in legs if outcome.intention}
        return {
            "decision": self.execution.decision.id,
            "summary": self.execution.summary,
            "orders": [outcome.order.client_id for outcome in legs if outcome.order],
            "statuses": [str(outcome.order.status) for outcome in legs if outcome.order],
            "inputs": {number: intention.inputs.to_json() for number, intention in made.items()},
            COMPUTED: {number: intention.to_json() for number, intention in made.items()},
        }


class Desk:
    """One notebook's hold on the desk. run: the run that the page belongs to, None when there is
    none; live: whether this very kernel was started for that run and may act.

    rng: a NumPy generator that starts from the run's seed, as Python's and NumPy's own do.
    trade_at: gives a venue's client that may trade, by name; None: a new one each time.
    """

    def __init__(
        self,
        settings: DeskSettings,
        ledger: Ledger,
        run: Run | None,
        *,
        live: bool,
        trade_at: Callable[[str], Venue] | None = None,
    ) -> None:
        self._trade_at = trade_at or partial(open_venue, settings, trading=True)
        self.settings = settings
        self.ledger = ledger
        self.run = run
        self.live = live
        self.reads: list[CandleRead] = []
        # What came later is not there for a page of a run, whenever it is opened.
        self.store = CandleStore(
            settings.candles, on_read=self._note_read, as_of=run.as_of if run else None
        )
        # A page has its process for itself; who lends a client acts among others in theirs.
        seed = run.seed if run else None
        self.rng = np.random.default_rng(seed) if trade_at else seed_randomness(seed)

    @property
    def title(self) -> str:
        """Which run this page shows, and whether it is the run itself."""
        if self.run is None:
            return "No run: this page was opened by hand and can only look."
        state = "running" if self.live else f"opened again, {self.run.outcome.lower()}"
        return f"Run {self.run.id} ({state}), as of {self.run.as_of or self.run.started_at:%F %T}Z"

    def fetch_candles(
        self, venue: str, symbols: Sequence[str], timeframe: str, as_of: str
    ) -> Fetch:
        """Bring the store up to date for several symbols."""
        if not self.live:
            return self._fetched_before(venue, timeframe)
        moment = parse_time(as_of)
        client = open_venue(self.settings, venue)
        reports = fetch_candles(
            client,
            CandleStore(self.settings.candles),
            venue,
            symbols,
            timeframe,
            as_of=moment,
            history=self._history(venue, timeframe),
        )
        if reports and all(report.error for report in reports):
            raise reports[0].error  # nothing was fetched, so no bot may decide on it
        lines = tuple(_line(report) for report in reports)
        return Fetch(venue, timeframe, moment, lines, client.used_weight)

    def generate_signal(self, bot: str, as_of: str) -> Signal | TargetSignal:
        """Score a bot's candles, or weigh its symbols, and record what it decides; again, show
        both once more."""
        if not self.live:
            return self._signal_before()
        return self.score(load_bot(self.ledger, bot), parse_time(as_of)).record(self.ledger)

    def score(self, bot: Bot, as_of: datetime) -> Signal | TargetSignal:
        """What a bot's rules say of its candles closed at `as_of`; nothing is recorded yet."""
        look = weigh_symbols if bot.symbols else score_bot
        return look(self.ledger, self.store, self.settings.limits, bot, as_of, self.run_id)

    def execute_order(self, bot: str, decision: str) -> ExecutionPage:
        """Turn a decision into at most one order a symbol; again, show what became of it."""
        if not self.live:
            return ExecutionPage(self._execution_before(decision))
        chosen = load_bot(self.ledger, bot)
        return self.carry_out(chosen, load_decision(self.ledger, decision))

    def carry_out(self, bot: Bot, decision: Decision, held: Lease | None = None) -> ExecutionPage:
        """Turn a decision into at most one order a symbol. held: the bot's lease, where this run
        has it already."""
        return ExecutionPage(
            execute_and_protect(
                self.ledger, self._trade_at(bot.venue), self.settings.limits, bot, decision,
                self.run_id, patience=_PATIENCE, held=held,
            )
        )  # fmt: skip

    def reconcile(self, venue: str) -> Reconciliation | dict[str, Any]:
        """Make the books equal to the venue; again, the report of the run."""
        if not self.live:
            return self._result("live/40_reconcile_orders")
        client = open_venue(self.settings, venue, trading=True)
        return reconcile_venue(self.ledger, client, self.run_id)

    def promote(
        self, strategy: Strategy | str, bot: str, sample: CandleFile, **more: Any
    ) -> Promotion:
        """Examine a strategy on the candles and put it on the desk as a stopped bot.

        strategy: itself, or its name. more: what else a `Proposal` tells, such as symbol,
        parameters and tried, and `overrule`. A page that may only read may do this all the same,
        for a person wants it: its ledger takes a bot, a source and a promotion, and nothing else.
        """
        from tradelib.trading.promoting import ADDS, Proposal, promote

        overrule = more.pop("overrule", "")
        name = strategy if isinstance(strategy, str) else strategy.name
        with closing(open_ledger(self.settings, adds=ADDS)) as ledger:
            proposal = Proposal(bot, name, sample, **more)
            return promote(self.settings, ledger, proposal, overrule=overrule)

    def check_parity(self, bot: str, day: str, tolerance: float) -> Parity:
        """Hold what a bot did on a UTC day against the backtest of its candles, and keep an
        incident of what ought not to differ; again, what the run found."""
        if not self.live:
            return Parity.from_json(self._result("live/50_check_parity"))
        since = parse_time(day, "day")
        found = check_bot(self.ledger, self.store, bot, since, since + timedelta(days=1))
        keep_incident(self.ledger, found, Decimal(str(tolerance)))
        return found

    def record(self, result: Recordable | dict[str, Any]) -> None:
        """Record the page's result, with the candles that it was made of; the run fails without
        one."""
        told = result if isinstance(result, dict) else result.to_json()
        record_result(told, [read.to_json() for read in self.reads])

    @property
    def run_id(self) -> str:
        if self.run is None:
            raise ReadOnly("This page has no run; only a scheduled run records anything.")
        return self.run.id

    def _note_read(self, read: CandleRead) -> None:
        if read not in self.reads:
            self.reads.append(read)

    def _history(self, venue: str, timeframe: str) -> int:
        """Candles to keep at least, for the bots' scores and for a chart."""
        bots = [bot for bot in load_bots(self.ledger) if bot.venue == venue]
        return candle_history(bots, timeframe)

    def _result(self, notebook: str) -> dict[str, Any]:
        """The recorded result of this page's run, else of the newest run of the notebook."""
        run = self.run or latest_run(self.ledger, notebook)
        if run is not None and run.outcome == Outcome.FAILED:
            raise InvalidInput(f"Run {run.id} failed and has nothing to show: {run.reason}.")
        if run is None or run.result is None:
            raise InvalidInput(
                f"There is no finished run of {notebook} to show; start the desk with `desk up`."
            )
        return run.result

    def _fetched_before(self, venue: str, timeframe: str) -> Fetch:
        told = self._result("live/10_fetch_candles")
        return Fetch(
            venue or told["venue"],
            timeframe or told["timeframe"],
            datetime.fromisoformat(told["as_of"]),
            tuple(told["lines"]),
            told.get("used_weight"),
        )

    def _signal_before(self) -> Signal | TargetSignal:
        """The recorded decision, and all that it came from computed again: from the candles as
        they were and from what the ledger told then."""
        told = self._result("live/20_generate_signals")
        decision = load_decision(self.ledger, told["decision"])
        # A later edit must not change what this page shows, nor the bot's end take it away.
        with self.ledger.read() as books:
            provide_sources(books, [told["config"]["strategy"]])
        chosen = bot_as_it_was(decision.bot, told["config"], decision.decided_at)
        close = decision.candle_close
        if chosen.symbols:
            read = TargetInputs.from_json(told["inputs"]) if told["inputs"] else None
            weighed = compute_targets(self.store, chosen, close, read, decision.run)
            return TargetSignal(chosen, close, decision, weighed)
        if COMPUTED not in told:  # a run of before inputs were kept
            candles, scores = load_scores(self.store, chosen, close)
            return Signal(chosen, close, candles, scores, decision)
        inputs = DecisionInputs.from_json(told["inputs"]) if told["inputs"] else None
        computed = compute_signal(self.store, chosen, close, inputs, decision.run)
        return Signal(chosen, close, computed.candles, computed.scores, decision, computed)

    def _execution_before(self, decision: str) -> Execution:
        """The recorded decision with its order as it stands, and the order that this run wanted
        sized and weighed again from what it was made of."""
        told = self._result("live/30_execute_orders") if self.run or not decision else {}
        wanted: Decision = load_decision(self.ledger, decision or told["decision"])
        inputs = told.get("inputs") or {}
        if not wanted.targets:
            inputs = {"0": inputs} if inputs else {}
        outcomes = []
        # The bot may be gone by now; of one on one symbol, the order or its inputs tell which.
        for leg in wanted.legs(""):
            mine = inputs.get(str(leg.number))
            again = intend_order(wanted, leg, OrderInputs.from_json(mine)) if mine else None
            with self.ledger.read() as books:
                order = first(find_attempts(books, wanted.id, leg.number)[::-1])
                refusals = load_refusals(books, order.client_id) if order else ()
            outcomes.append(LegOutcome(leg, order, refusals, again))
        return Execution(wanted, tuple(outcomes))


def open_desk(run: str = "", *, home: Path | str | None = None) -> Desk:
    """The desk for the notebook that asks.

    run: the run that the page belongs to. The page may act only if this kernel was started for
    that very run, holds its token, and the run has not ended.
    """
    settings = load_settings(home)
    live = _is_live_kernel(run)
    if live:
        configure_logging(settings)
    ledger = open_ledger(settings, read_only=not live)
    if not live:
        tell_errors_plainly()
    if not run:
        return Desk(settings, ledger, None, live=False)
    record = load_run(ledger, run)
    if os.environ.get(REPLAY_ENV) == run:
        set_clock(lambda: record.started_at)
    if live and not _may_act(record):
        raise ReadOnly(f"Run {run} has ended or was started by another process; it cannot act.")
    if live:
        spend_as(record.notebook.removeprefix("live/"), run, record.bot)
    return Desk(settings, ledger, record, live=live)


def seed_randomness(seed: int | None) -> np.random.Generator:
    """Let the kernel's generators start from the seed; without one they stay as they are."""
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed)
    return np.random.default_rng(seed)


def tell_errors_plainly() -> None:
    """In a page that somebody looks at, the desk's own errors are sentences without a traceback."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return

    def tell(_shell: Any, kind: type, error: BaseException, _tb: Any, tb_offset: Any = None) -> Any:
        lines = [f"{kind.__name__}: {error}"]
        shell._showtraceback(kind, error, lines)
        return lines

    shell.set_custom_exc((DeskError,), tell)


def _is_live_kernel(run: str) -> bool:
    return bool(run) and os.environ.get(RUN_ENV) == run and TOKEN_ENV in os.environ


def _may_act(record: Run) -> bool:
    held = hash_token(os.environ[TOKEN_ENV])
    return record.outcome == Outcome.RUNNING and compare_digest(held, record.token_hash)


def _line(report: FetchReport) -> dict[str, Any]:
    return {
        "symbol": report.symbol,
        "requested": report.requested,
        "added": report.added,
        "revised": report.revised,
        "open_gaps": sum(gap.missing for gap in report.open_gaps),
        "venue_gaps": sum(gap.missing for gap in report.recorded_gaps),
        "last_close": report.last_close.isoformat() if report.last_close else None,
        "age_seconds": report.age.total_seconds() if report.age is not None else None,
        "error": str(report.error) if report.error else None,
    }
