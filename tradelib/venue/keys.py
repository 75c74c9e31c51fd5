"""API keys: read when a client is made, from the environment or a file only its owner can read."""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from tradelib.errors import AuthenticationFailed


@dataclass(frozen=True)
class Keys:
    """A key and its secret; both print as asterisks."""

    key: SecretStr
    secret: SecretStr

    def named(self, venue: str) -> dict[str, str]:
        """What each is called, for a scrubber."""
        name = f"a key of venue {venue}"
        return {one.get_secret_value(): name for one in (self.key, self.secret)}


def load_keys(source: str | None, home: Path, venue: str) -> Keys | None:
    """Keys from `env:PREFIX` (PREFIX_KEY, PREFIX_SECRET) or a TOML file with `key` and `secret`,
    relative to the desk's home. None when the venue names no source.

    Raises AuthenticationFailed that says which variable or file to mend.
    """
    if source is None:
        return None
    if source.startswith("env:"):
        return _from_environment(source.removeprefix("env:"), venue)
    return _from_file(home / source, venue)


def _from_environment(prefix: str, venue: str) -> Keys:
    key, secret = os.environ.get(f"{prefix}_KEY"), os.environ.get(f"{prefix}_SECRET")
    if not key or not secret:
        raise AuthenticationFailed(
            f"Venue {venue} takes its keys from the environment, but "
            f"{prefix}_KEY and {prefix}_SECRET are not both set."
        )
    return Keys(SecretStr(key), SecretStr(secret))


def _from_file(path: Path, venue: str) -> Keys:
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise AuthenticationFailed(
                f"Key file {path} of venue {venue} can be read by others; run: chmod 600 {path}"
            )
        content = tomllib.loads(path.read_text())
        return Keys(SecretStr(content["key"]), SecretStr(content["secret"]))
    except OSError as error:
        raise AuthenticationFailed(
            f"Key file {path} of venue {venue} cannot be read ({error.strerror}); "
            'create it with the lines key = "…" and secret = "…", mode 600.'
        ) from None
    except (tomllib.TOMLDecodeError, KeyError, UnicodeDecodeError):
        # The parser's own message would quote the file.
        raise AuthenticationFailed(
            f"Key file {path} of venue {venue} is not TOML with the lines key and secret."
        ) from None


def save_keys(path: Path, key: str, secret: str) -> None:
    """Write a key file that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f'key = "{key}"\nsecret = "{secret}"\n')
