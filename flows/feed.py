"""Follows what venues stream: `python -m flows.feed`, started by `desk up`.

One flow run for each venue that the desk looks after, for as long as the desk is up. DESK_HOME
names the desk, DESK_READY_FILE a file to make once venues are followed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from prefect import flow
from prefect.states import Completed, State

from flows.react import Reactor
from flows.ready import announce_ready
from tradelib.feed.feed import Feed
from tradelib.logs import configure_logging
from tradelib.notebooks.cycle import venues_in_use
from tradelib.notebooks.provenance import imported_version
from tradelib.settings import DeskSettings, load_settings
from tradelib.trading.ledger import open_ledger
from tradelib.traffic import spend_as

log = logging.getLogger("flows.feed")

# Between two looks at which venues are in use, and before one whose feed failed is tried again.
PAUSE_SECONDS = 10.0
# Within so many seconds of being told to, a feed has ended: before the supervisor kills it, and
# Prefect never hears of its runs' end. Of these, bots and pages that are at work have so many.
END_SECONDS, WORK_SECONDS = 8.0, 4.0


@flow(name="follow_venue", flow_run_name="follow {venue}", validate_parameters=False)
async def follow_venue(home: str, venue: str) -> State[None]:
    """Keep candles, quotes and account as new as the venue streams them, until the desk ends; and
    wake the bots that react to them."""
    settings = load_settings(home)
    ledger = open_ledger(settings)
    reactor = Reactor(settings, ledger, venue)
    feed = Feed(settings, ledger, venue, [reactor])
    reactor.told = feed
    try:
        await feed.run()
    except asyncio.CancelledError:
        return Completed(message="the desk ended")
    finally:
        await asyncio.to_thread(reactor.end, WORK_SECONDS)
        ledger.close()


def wait_for_nobody() -> None:
    """Let no order wait for what else this process does. Before the first feed is made, which may
    have to be made anew."""
    # Of the threads that react to one candle, the one that trades soon has its turn.
    sys.setswitchinterval(0.001)
    imported_version()  # git is asked now, and not between a candle and its order
    # What is imported stays; to look through it for garbage takes a tenth of a second.
    gc.collect()
    gc.freeze()


def main() -> None:
    settings = load_settings()
    configure_logging(settings)
    spend_as("feed")
    wait_for_nobody()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ended = threading.Event()
    # Not in the main thread, where Prefect would have SIGTERM crash whatever the loop is at.
    with ThreadPoolExecutor(1, "follow") as beside:
        following = beside.submit(asyncio.run, _follow_all(settings, ended))
        try:
            following.result()
        except KeyboardInterrupt:
            for sign in (signal.SIGTERM, signal.SIGINT):
                signal.signal(sign, signal.SIG_IGN)
            _exit_within(END_SECONDS)
            ended.set()
            following.result()


def _exit_within(seconds: float) -> None:
    """End this process by then, whatever its threads wait for; it may be killed at any moment."""
    timer = threading.Timer(seconds, os._exit, [0])
    timer.daemon = True
    timer.start()


async def _follow_all(settings: DeskSettings, ended: threading.Event) -> None:
    following: dict[str, asyncio.Task[State[None]]] = {}
    while not ended.is_set():
        for venue in await asyncio.to_thread(_venues, settings):
            if venue not in following or following[venue].done():
                flow_run = follow_venue(str(settings.home), venue, return_state=True)
                following[venue] = asyncio.create_task(flow_run)
        announce_ready()
        await asyncio.to_thread(ended.wait, PAUSE_SECONDS)
    for task in following.values():
        task.cancel()
    await asyncio.gather(*following.values(), return_exceptions=True)


def _venues(settings: DeskSettings) -> list[str]:
    ledger = open_ledger(settings)
    try:
        return venues_in_use(settings, ledger)
    finally:
        ledger.close()


if __name__ == "__main__":
    main()
