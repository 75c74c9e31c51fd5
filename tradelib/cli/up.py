"""`desk up`: everything a desk needs, started, shown, and ended together."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from tradelib.cli.home import PreparedHome, prepare_home
from tradelib.cli.markets import (
    DEFAULT_SEED,
    SEEDED_SYMBOLS,
    LocalMarket,
    check_playable,
    file_market,
    find_start,
    followed_market,
    seeded_candles,
    seeded_market,
)
from tradelib.cli.trade import accounts_in_use
from tradelib.clock import floor_time, format_time, parse_time, timeframe_ms, utc_now
from tradelib.errors import DeskError, InvalidInput, RunFailed, StorageFailed
from tradelib.kernels.servers import NoWarmKernel, own_servers, warm_up
from tradelib.logs import configure_logging
from tradelib.services.addresses import Running, find_service
from tradelib.services.claim import claim_home
from tradelib.services.definitions import (
    DASHBOARDS,
    dashboard_path,
    desk_services,
    prefect_environment,
)
from tradelib.services.environment import environment_for_child
from tradelib.services.supervisor import State, Supervisor
from tradelib.settings import LIVE_KERNEL, RESEARCH_KERNEL, load_settings
from tradelib.trading.bots import load_bots
from tradelib.trading.runs import Outcome, fail_abandoned_runs, load_runs
from tradelib.trading.watch import watch_once
from tradelib.venue import open_venue

MIN_CYCLE_SECONDS = 30.0
MAX_SPEED = 1e6  # which the paper exchange can play
# Wall seconds after a candle's close at which a cycle starts, so that the venue has it.
SETTLE_SECONDS = 2.0
_SEEDED_SEARCH_HOURS = 24
_WATCH_SECONDS = 15.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpOptions:
    """What `desk up` was asked for. cycles: None runs on schedule until Ctrl-C."""

    cycles: int | None = None
    files: tuple[Path, ...] = ()
    start: str | None = None
    speed: float | None = None
    seed: int | None = None
    follow: str | None = None
    symbols: tuple[str, ...] = ()


def run_desk(home: Path | None, options: UpOptions, console: Console) -> int:
    """Start the desk and trade; returns the exit status once everything has ended."""
    start = parse_time(options.start, "start") if options.start else None
    market = _choose_market(options)
    check_playable(market, start)
    settings = load_settings(home)
    with claim_home(settings), own_servers():
        return _run_claimed(prepare_home(settings.home, market), market, options, start, console)


def _run_claimed(
    prepared: PreparedHome,
    market: LocalMarket,
    options: UpOptions,
    start: datetime | None,
    console: Console,
) -> int:
    settings = prepared.settings
    configure_logging(settings)
    fail_abandoned_runs(prepared.ledger, utc_now(), host=socket.gethostname())
    speed = options.speed or market.default_speed()
    arguments = _paper_arguments(market, prepared, options, start, speed, console)
    seconds = _cycle_seconds(prepared, speed)
    services = desk_services(
        settings,
        market.venue,
        prepared.paper_home,
        arguments,
        flow_environment=_schedule(seconds, speed, market),
        without=("flows", "feed") if options.cycles else (),
    )
    show = _StartDisplay(console)
    desk = Supervisor(settings, services, show, claimed=True)
    try:
        with show, desk:
            show.close()
            _join_prefect(prepared)
            _print_links(desk.running, console)
            _warm_up_kernels([LIVE_KERNEL] if options.cycles else [LIVE_KERNEL, RESEARCH_KERNEL])
            if options.cycles:
                return _run_counted(prepared, market, options.cycles, console)
            _first_cycle(prepared, console)
            console.print(f"Trading every {seconds:.0f} s. Ctrl-C ends everything.")
            with _dead_man_switch(prepared):
                desk.watch()
    except KeyboardInterrupt:
        if options.cycles:
            raise
        console.print("Everything has ended.")
    return 0


def _warm_up_kernels(names: Sequence[str]) -> None:
    """Start the fork servers beside the first cycle; what goes wrong is told when one is used."""
    from tradelib.kernels.specs import load_identity

    environment = environment_for_child()

    def warm_up_all() -> None:
        for name in names:
            with suppress(NoWarmKernel):
                warm_up(load_identity(name, environment))

    threading.Thread(target=warm_up_all, name="warm-up", daemon=True).start()


@contextmanager
def _dead_man_switch(prepared: PreparedHome) -> Iterator[None]:
    """Look after the cycles from this process, which depends on neither Prefect nor the flows."""
    done, since = threading.Event(), utc_now()
    patience = timedelta(minutes=prepared.settings.dead_man_minutes)
    find_accounts = partial(accounts_in_use, prepared.settings, prepared.ledger)

    def look() -> None:
        while not done.wait(_WATCH_SECONDS):
            try:
                watch_once(prepared.ledger, find_accounts, patience, since)
            except Exception:  # a thread that ends leaves nobody to watch
                log.exception("the watch over the cycles failed")

    watcher = threading.Thread(target=look, name="dead-man-switch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _choose_market(options: UpOptions) -> LocalMarket:
    _refuse_what_contradicts(options)
    if options.follow:
        return followed_market(options.follow, options.symbols or SEEDED_SYMBOLS[:2])
    if options.files:
        return file_market(options.files)
    return seeded_market(DEFAULT_SEED if options.seed is None else options.seed)


def _refuse_what_contradicts(options: UpOptions) -> None:
    chosen = {
        "--market": options.files,
        "--cycles": options.cycles,
        "--speed": options.speed,
        "--start": options.start,
        "--seed": options.seed is not None,
    }
    extra = [name for name, given in chosen.items() if given]
    if options.follow and extra:
        raise InvalidInput(
            "--follow trades on the present prices of an exchange; "
            f"leave {' and '.join(extra)} away."
        )
    if options.files and "--seed" in extra:
        raise InvalidInput("--seed is of the seeded market, --market replays candles; leave one.")
    if options.symbols and not options.follow:
        raise InvalidInput("--symbol says what to --follow; name an exchange too.")
    if options.speed is not None and not 0 < options.speed <= MAX_SPEED:
        raise InvalidInput(
            f"--speed {options.speed:g} must be more than 0 and at most {MAX_SPEED:g}."
        )


def _paper_arguments(
    market: LocalMarket,
    prepared: PreparedHome,
    options: UpOptions,
    start: datetime | None,
    speed: float,
    console: Console,
) -> list[str]:
    """What the paper exchange is told beside its home and port."""
    if start is not None and not prepared.new:
        raise InvalidInput(
            f"Market {market.venue} of this home has begun already and goes on where it stands; "
            "--start chooses where a new one begins: use another --home."
        )
    arguments = ["--seed", str(market.seed)]
    for file in market.files:
        arguments += ["--market", str(file.path.resolve())]
    if market.follow:
        arguments += ["--follow", market.follow]
        return [*arguments, *(part for symbol in market.symbols for part in ("--symbol", symbol))]
    arguments += ["--stepped"] if options.cycles else ["--speed", f"{speed:g}"]
    if start is None and prepared.new and (options.cycles or market.files):
        start = _choose_start(market, options.cycles or 2)
        if start:
            console.print(
                f"Replaying from {start:%F %T}Z, where a default bot finds an entry; "
                "--start chooses another stretch."
            )
    if start:
        arguments += ["--start", format_time(start)]
    return arguments


def _choose_start(market: LocalMarket, cycles: int) -> datetime | None:
    """A stretch in which something happens, else the newest one there is."""
    if market.files:
        candles = {file.symbol: file.frame for file in market.files}
        fallback = None
    else:
        candles = seeded_candles(market.seed, utc_now(), _SEEDED_SEARCH_HOURS)
        fallback = floor_time(utc_now(), market.timeframe) - timedelta(hours=1)
    return find_start(candles, market.timeframe, cycles) or fallback


def _cycle_seconds(prepared: PreparedHome, speed: float) -> float:
    """Wall seconds between cycles: the shortest timeframe of a running bot, at the market's
    speed, and never less than a cycle of cold notebooks needs."""
    running = load_bots(prepared.ledger, running_only=True)
    shortest = min((timeframe_ms(bot.timeframe) for bot in running), default=60_000)
    return max(MIN_CYCLE_SECONDS, shortest / 1000 / speed)


def _schedule(seconds: float, speed: float, market: LocalMarket) -> dict[str, str]:
    """What the flows are told of when cycles start: just after candles close."""
    now = utc_now()
    into = (now - floor_time(now, market.timeframe)).total_seconds() if speed == 1 else 0.0
    anchor = now - timedelta(seconds=into - SETTLE_SECONDS)
    return {"DESK_CYCLE_SECONDS": f"{seconds:g}", "DESK_CYCLE_ANCHOR": format_time(anchor)}


class _StartDisplay:
    """Services and their states while they start, on one line; on a terminal only."""

    def __init__(self, console: Console) -> None:
        self._status = console.status("Starting") if console.is_terminal else None
        self._states: dict[str, State] = {}

    def __enter__(self) -> _StartDisplay:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._status:
            self._status.stop()

    def __call__(self, name: str, state: State) -> None:
        self._states[name] = state
        if self._status:
            told = "  ".join(f"{known}: {is_}" for known, is_ in self._states.items())
            self._status.update(f"Starting  {told}")


def _print_links(running: dict[str, Running], console: Console) -> None:
    """One line each, never wrapped: a link that is cut cannot be opened."""
    links = {service.name: service.page or service.url for service in running.values()}
    voila = running.get("voila")
    if voila:
        for name in DASHBOARDS:
            links[f"  {name}"] = voila.address(dashboard_path(name))
    for name, link in links.items():
        if link:
            console.print(f"{name:24}{link}", soft_wrap=True)


def _join_prefect(prepared: PreparedHome) -> None:
    """Let flows that run in this process report to the desk's Prefect; before it is imported."""
    server = find_service(prepared.settings, "prefect").url
    os.environ |= prefect_environment(prepared.settings, server)
    # The desk tells failures in its own words; Prefect's page has the rest.
    os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    os.environ["DESK_HOME"] = str(prepared.settings.home)


def _first_cycle(prepared: PreparedHome, console: Console) -> None:
    """One cycle at once; its failure is told and does not end the desk."""
    try:
        _reconcile_at_start(prepared)
        _run_cycle(prepared, "First cycle", console)
    except DeskError as error:
        console.print(f"The first cycle failed: {error}")


def _run_counted(prepared: PreparedHome, market: LocalMarket, cycles: int, console: Console) -> int:
    """Step the market and run a cycle, so many times; the first failure ends it."""
    _reconcile_at_start(prepared)
    for number in range(1, cycles + 1):
        _step_if_seen(prepared, market)
        _run_cycle(prepared, f"Cycle {number}/{cycles}", console)
    _print_summary(prepared, console)
    return 0


def _reconcile_at_start(prepared: PreparedHome) -> None:
    from flows.trading import reconcile_orders

    _require_completed(reconcile_orders(str(prepared.settings.home), return_state=True))


def _run_cycle(prepared: PreparedHome, title: str, console: Console) -> None:
    from flows.trading import trading_cycle
    from tradelib.notebooks.cycle import new_cycle_id

    cycle = new_cycle_id()
    expected = 2 + len(load_bots(prepared.ledger, running_only=True))
    with _cycle_display(prepared, cycle, title, expected, console):
        state = trading_cycle(str(prepared.settings.home), cycle, return_state=True)
    _require_completed(state)


def _require_completed(state: Any) -> None:
    if not state.is_completed():
        raise RunFailed(state.message or "The flow failed; its log is in Prefect's page.")


@contextmanager
def _cycle_display(
    prepared: PreparedHome, cycle: str, title: str, expected: int, console: Console
) -> Iterator[None]:
    """A bar that follows the cycle's notebooks as the ledger sees them."""
    done, columns = threading.Event(), (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
        MofNCompleteColumn(), TextColumn("{task.fields[at]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=console.is_terminal) as progress:
        bar = progress.add_task(title, total=expected, at="")

        def follow() -> None:
            while not done.wait(0.5):
                runs = load_runs(prepared.ledger, cycle=cycle, limit=10_000)
                ended = [run for run in runs if run.outcome != Outcome.RUNNING]
                at = ", ".join(r.notebook.removeprefix("live/") for r in runs if r not in ended)
                progress.update(bar, completed=len(ended), total=max(expected, len(runs)), at=at)

        watcher = threading.Thread(target=follow, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
    runs = load_runs(prepared.ledger, cycle=cycle, limit=10_000)
    failed = sum(run.outcome == Outcome.FAILED for run in runs)
    console.print(
        f"{title}: {len(runs)} notebooks, {failed} failed" if runs else f"{title}: skipped"
    )


def _step_if_seen(prepared: PreparedHome, market: LocalMarket) -> None:
    """Move a stepped market one candle on, unless no cycle has looked at this one yet."""
    now = open_venue(prepared.settings, market.venue).fetch_time()
    runs = load_runs(prepared.ledger, limit=20)
    if not any(run.venue == market.venue and run.as_of and run.as_of >= now for run in runs):
        return
    token = (prepared.paper_home / "control.token").read_text().strip()
    url = find_service(prepared.settings, market.venue).url
    request = urllib.request.Request(
        f"{url}/paper/step",
        json.dumps({"candles": 1, "timeframe": market.timeframe}).encode(),
        {"X-Paper-Token": token, "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60):
            return
    except urllib.error.HTTPError as error:
        with error:
            raise DeskError(
                f"The market could not be stepped: {json.load(error)['error']}"
            ) from None


def _print_summary(prepared: PreparedHome, console: Console) -> None:
    from tradelib.trading.incidents import load_incidents
    from tradelib.trading.orders import load_fills, load_orders

    orders, fills = load_orders(prepared.ledger), load_fills(prepared.ledger)
    console.print(f"Orders {len(orders)}, fills {len(fills)}; pages in {prepared.settings.reports}")
    for fill in fills[-3:]:
        console.print(f"  desk show {fill.venue}/{fill.symbol}/{fill.trade_id}")
    open_now = load_incidents(prepared.ledger, open_only=True)
    if open_now:
        raise StorageFailed(
            f"{len(open_now)} discrepancies are open, first {open_now[0].kind} "
            f"{open_now[0].subject}; see the reconcile page and `desk status`."
        )
