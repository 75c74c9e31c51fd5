"""Fills a desk's home with two real cycles, so that every notebook has something to show:
`python tests/prepare_home.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.desks import paper_desk
from tests.replays import entry_file


def main(home: Path) -> None:
    with paper_desk(home, files=[entry_file(home)]) as desk:
        desk.reconcile()
        for _ in range(2):
            for run in desk.run_cycle():
                print(f"  {run.outcome} {run.id}", flush=True)
            desk.step()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
