"""A desk to look at: the real paper exchange and the real Voilà, with cycles run on demand."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from tradelib.notebooks.cycle import (
    execute_step,
    new_cycle_id,
    plan_cycle,
    reconcile_step,
    run_step,
    signal_step,
)
from tradelib.paper.config import (
    ACCOUNTS_FILE,
    TOKEN_FILE,
    make_accounts_file,
    read_accounts,
    write_private,
)
from tradelib.services.addresses import Running
from tradelib.services.definitions import paper_exchange, voila
from tradelib.services.service import Service
from tradelib.services.supervisor import Supervisor
from tradelib.settings import DeskSettings, load_settings
from tradelib.trading.bots import BotStatus, add_bot, new_bot
from tradelib.trading.ledger import Ledger, open_ledger

EAGER = {"confirmation_minutes": 0, "cooldown_minutes": 0}
BOTS = (
    ("hold-btc", "BTC/USDT", "buy_and_hold", {}),
    ("move-eth", "ETH/USDT", "momentum", {"window": 5, "full": 0.5}),
)


@dataclass(frozen=True)
class LookedAtDesk:
    """A desk whose market stands still until a cycle steps it."""

    settings: DeskSettings
    ledger: Ledger
    services: dict[str, Running]

    def run_cycle(self, candles: int = 1) -> None:
        """Step the market by some candles, then do what a trading cycle does."""
        self._step_market(candles)
        cycle = new_cycle_id()
        plans, troubles = plan_cycle(self.settings, self.ledger)
        assert troubles == []
        for plan in plans:
            for fetch in plan.fetches.values():
                run_step(self.settings, self.ledger, fetch, cycle)
            for bot in plan.bots:
                told = run_step(self.settings, self.ledger, signal_step(bot, plan.as_of), cycle)
                execution = execute_step(bot, told)
                if execution:
                    run_step(self.settings, self.ledger, execution, cycle)
            run_step(self.settings, self.ledger, reconcile_step(plan.venue), cycle)

    def _step_market(self, candles: int) -> None:
        token = (self.settings.home / "paper" / TOKEN_FILE).read_text().strip()
        request = urllib.request.Request(
            f"{self.services['paper'].url}/paper/step",
            data=json.dumps({"candles": candles}).encode(),
            headers={"X-Paper-Token": token, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200


@contextmanager
def open_looked_at_desk(home: Path) -> Iterator[LookedAtDesk]:
    """A desk with two eager bots on the seeded market, its paper exchange and its Voilà."""
    settings = _make_settings(home)
    ledger = open_ledger(settings, migrate=True)
    for name, symbol, strategy, params in BOTS:
        bot = new_bot(
            name, "paper", symbol, "1m", strategy, params, EAGER, status=BotStatus.RUNNING
        )
        add_bot(ledger, bot)
    services = [
        paper_exchange(settings, "paper", home / "paper", ("--stepped",)),
        _impatient(voila(settings)),
    ]
    with Supervisor(settings, services) as desk:
        yield LookedAtDesk(settings, ledger, dict(desk.running))
    ledger.close()


def _impatient(server: Service) -> Service:
    """Voilà that ends the kernels of vanished browsers after seconds instead of minutes."""
    times = (
        "--MappingKernelManager.cull_idle_timeout=20",
        "--MappingKernelManager.cull_interval=5",
    )
    kept = [word for word in server.command if "cull" not in word]
    return replace(server, command=(*kept, *times))


def _make_settings(home: Path) -> DeskSettings:
    """A home whose venue `paper` is the paper exchange, with keys in a file of their own."""
    accounts = home / "paper" / ACCOUNTS_FILE
    make_accounts_file(accounts, {"USDT": Decimal(10_000)})
    account = read_accounts(accounts)[0]
    write_private(home / "paper-keys.toml", f'key = "{account.key}"\nsecret = "{account.secret}"\n')
    (home / "desk.toml").write_text(
        "[venues.paper]\n"
        'rest_url = "service:paper"\n'
        'ws_url = "service:paper"\n'
        'keys = "paper-keys.toml"\n'
    )
    return load_settings(home)
