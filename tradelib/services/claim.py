"""Who holds a desk's home: one desk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from tradelib.errors import RefusedError, StorageFailed
from tradelib.settings import DeskSettings


@contextmanager
def claim_home(settings: DeskSettings) -> Iterator[None]:
    """Hold the home's lock, so that two desks never share a home; makes the home's own folders.

    Raises RefusedError while another desk holds it, with nothing of that desk touched, and
    StorageFailed when the home cannot be written.
    """
    folder = settings.services_file.parent
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        settings.logs.mkdir(exist_ok=True)
        lock = FileLock(folder / "desk.lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise RefusedError(
            f"A desk is already running on {settings.home}; "
            f"stop it first, or choose another home with --home."
        ) from None
    except OSError as error:
        raise StorageFailed(
            f"The desk's home {settings.home} cannot be written ({error.strerror}); "
            f"mend its permissions, or choose another home with --home."
        ) from error
    try:
        yield
    finally:
        lock.release()
