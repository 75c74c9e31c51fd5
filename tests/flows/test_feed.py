"""The feed as the desk runs it, beside Prefect: how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.desks import PaperDesk
from tests.flows.test_desk_up import flow_states, processes_of
from tests.waiting import until
from tradelib.feed.status import load_streams
from tradelib.services.definitions import feed, prefect_server
from tradelib.services.supervisor import Supervisor
from tradelib.strategy.own import Source
from tradelib.trading.bots import Bot, BotStatus, WakeParams, load_bots, update_bot
from tradelib.trading.runs import Outcome, load_runs
from tradelib.trading.sources import freeze
from tradelib.venue.streams import Channel

# Decides at once in the feed's process, and never in a kernel.
ENDLESS_PAGE = Source("endless", '''
import os
import time
from pathlib import Path

import pandas as pd


def score(candles):
    while {"DESK_READ_ONLY", "DESK_RUN_TOKEN"} & os.environ.keys():
        Path(os.environ["DESK_HOME"], "endless").touch()
        time.sleep(0.1)
    return pd.Series(1.0, index=candles.index)


def warm_up():
    return 0


def history():
    return 1
''')  # fmt: skip


@contextmanager
def supervised(desk: PaperDesk) -> Iterator[Supervisor]:
    """Prefect and the feed as `desk up` starts and ends them."""
    services = [prefect_server(desk.settings), feed(desk.settings, ("prefect",))]
    with Supervisor(desk.settings, services) as supervisor:
        until(lambda: joined(desk) == set(Channel))
        yield supervisor


def joined(desk: PaperDesk) -> set[str]:
    return {one.channel for one in load_streams(desk.settings) if one.joined}


def only_bot(desk: PaperDesk, **wake: object) -> Bot:
    """The desk's first bot on the strategy above, that alone runs; it wants in at once."""
    first, *others = load_bots(desk.ledger)
    for other in others:
        update_bot(desk.ledger, replace(other, status=BotStatus.STOPPED))
    with desk.ledger.write() as books:
        freeze(books, ENDLESS_PAGE)
    lively = {"buy_threshold": 0.1, "confirmation_minutes": 0, "smallest_step": 0.001}
    bot = replace(
        first, strategy=ENDLESS_PAGE.reference, parameters={}, decision=lively,
        wake=WakeParams(on="close", **wake).model_dump(mode="json", exclude_defaults=True),
    )  # fmt: skip
    update_bot(desk.ledger, bot)
    return bot


@pytest.mark.parametrize("fast", [True, False], ids=["page", "trade"])
def test_a_feed_whose_work_never_ends_leaves_no_flow_running(desk: PaperDesk, fast: bool) -> None:
    only_bot(desk, fast=fast)
    desk.reconcile()
    with supervised(desk):
        desk.step()
        until((desk.settings.home / "endless").exists)
    assert flow_states(desk.settings.home) == [(f"follow {desk.market.venue}", "COMPLETED")]
    assert processes_of(desk.settings.home) == []
    assert not any(run.page for run in load_runs(desk.ledger))
    unfinished = [run for run in load_runs(desk.ledger) if run.outcome != Outcome.SUCCEEDED]
    assert bool(unfinished) != fast
