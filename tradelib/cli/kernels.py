"""`desk kernels`: the fork servers, and the kernels that they have forked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import psutil
import typer

from tradelib.cli.common import AsJson, make_table, out, print_json
from tradelib.kernels.identity import is_owner
from tradelib.kernels.servers import ServerStatus, load_servers

kernels_app = typer.Typer()


@dataclass(frozen=True)
class Row:
    """A server, or a kernel of one. memory: MB that would be free without it (USS), None when it
    has ended meanwhile."""

    pid: int
    kind: str
    since: datetime | None
    memory: float | None
    served: int | None = None
    owned: bool | None = None
    preload: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@kernels_app.command()
def kernels(as_json: AsJson = False) -> None:
    """Fork servers: what they have imported, what they have forked, and their memory."""
    rows = [row for server in load_servers() for row in _rows(server)]
    if as_json:
        print_json(rows)
        return
    table = make_table("Process", "Kind", "Since", "MB", "Kernels", "Ends", "Imported")
    for row in rows:
        table.add_row(str(row.pid), row.kind, _time(row.since), _number(row.memory),
                      "" if row.served is None else str(row.served), _end(row),
                      _imported(row))  # fmt: skip
    out.print(table if rows else "No fork server runs; the first kernel starts one.")


def _rows(server: ServerStatus) -> list[Row]:
    born = datetime.fromtimestamp(server.since, UTC)
    head = Row(
        server.pid, "server", born, _memory(server.pid), server.served, is_owner(server.owner),
        server.preload, server.missing,
    )  # fmt: skip
    return [head, *(Row(pid, "kernel", _born(pid), _memory(pid)) for pid in server.kernels)]


def _memory(pid: int) -> float | None:
    try:
        return round(psutil.Process(pid).memory_full_info().uss / 1e6, 1)
    except psutil.Error:
        return None


def _born(pid: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)
    except psutil.Error:
        return None


def _time(moment: datetime | None) -> str:
    return f"{moment:%F %T}" if moment else "ended"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _end(row: Row) -> str:
    if row.owned is None:
        return ""
    return "with its desk" if row.owned else "when idle"


def _imported(row: Row) -> str:
    packages = (name.partition(".")[0] for name in row.preload if name not in row.missing)
    told = ", ".join(dict.fromkeys(packages))
    return told + (f"; not: {', '.join(row.missing)}" if row.missing else "")
