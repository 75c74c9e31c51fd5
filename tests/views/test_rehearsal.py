"""What a fork server does before it forks must leave nothing that a fork would share or miss."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOOK = """
import json, os, sys
import tradelib.views.live
def look():
    return sorted(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
before = look()
from tradelib.views.rehearsal import rehearse
drawn = rehearse()["application/vnd.plotly.v1+json"]
print(json.dumps([before, look(), len(drawn["data"]), os.listdir(".")]))
"""


def test_a_rehearsal_draws_a_chart_and_opens_no_file_and_starts_no_thread(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    before, after, traces, files = json.loads(told.stdout)
    assert after == before
    assert traces == 4
    assert files == []
