"""The desk's child processes: what they are, and what keeps them.

`definitions` says what the desk runs, `supervisor` keeps it running and ends it, `addresses` tells
everyone else where it is. Nothing here knows about trading, and nothing here imports another room.
"""

from importlib import import_module

_HOMES = {
    "State": "supervisor",
    "Supervisor": "supervisor",
    "claim_home": "claim",
    "dashboard_path": "definitions",
    "desk_services": "definitions",
    "find_service": "addresses",
    "load_services": "addresses",
    "report_path": "definitions",
    "service_url": "addresses",
}


def __getattr__(name: str) -> object:
    # On demand, because the guard imports this package and stays for as long as the desk does.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
