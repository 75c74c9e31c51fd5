"""Fills a desk's home with two real cycles and a check of them, so that every notebook has
something to show: `python tests/prepare_home.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.desks import paper_desk
from tests.replays import entry_file
from tradelib.notebooks.cycle import parity_step, run_step
from tradelib.trading.decisions import latest_decision


def main(home: Path) -> None:
    with paper_desk(home, files=[entry_file(home)]) as desk:
        desk.reconcile()
        for _ in range(2):
            for run in desk.run_cycle():
                print(f"  {run.outcome} {run.id}", flush=True)
            desk.step()
        day = latest_decision(desk.ledger, desk.bot.name).decided_at.date()
        check = parity_step(desk.bot.name, desk.bot.venue, day)
        run = run_step(desk.settings, desk.ledger, check, None)
        print(f"  {run.outcome} {run.id}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
