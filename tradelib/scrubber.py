"""Takes secrets out of text before it is kept: those that the desk knows, in the ways in which
they are usually written, and what looks like one."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import string
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from tradelib.settings import DeskSettings

REMOVED = "***"

# A shorter secret is a word that stands everywhere; only its name beside it gives it away.
_SHORTEST = 8
# A text so long without a space is a picture, an archive or the like.
_BLOB = 10_000
# What of a long secret is enough to take it for the whole, as where a table cuts a text short; what
# stands beside it, without a space, is taken with it, up to so many characters.
_PART = 12
_BESIDE = 4_000
_IN_SECRETS = string.ascii_letters + string.digits + "_+/=-"

# What a name ends with whose value is a secret, in lower case, with "_" for "-": where any value
# is, and where only what looks like one is.
_PASSWORDS = ("password", "passwd", "passphrase")
# As they stand in what is sent to a venue: any value in quotes or of a header.
_SENT = ("api_key", "apikey", "api_sign", "access_key", "access_sign", "listenkey")
_KEYS = ("authorization", "secret", "private_key", "privatekey")
# A coin is a token, and a rule has a signature.
_OF_TWO_MEANINGS = ("signature", "token")
_NAMES = (*_PASSWORDS, *_SENT, *_KEYS, *_OF_TWO_MEANINGS)

_SECRET_NAME = re.compile(
    r"(?:SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|(?:API|ACCESS|PRIVATE|SECRET)KEY)S?\d*"
    r"(?:$|[_-])|(?:^|[_-])(?:KEY|PASS|PAT)S?\d*(?:$|[_-])|_PWD$"
)

# No part of a pattern may run far without a match, or a long text takes for ever: what repeats is
# bounded, or ends at what cannot begin another try.
_COLOUR = r"(?:\x1b\[[0-9;]{0,20}m){0,8}"
_QUOTE = r"\\{0,8}[\"']|&quot;|&\#39;|&\#x27;"
# From the end of a name to the end of its value.
_VALUE = re.compile(
    rf"""
    (?: {_QUOTE} )? \]? {_COLOUR} \s{{0,20}} {_COLOUR}
    (?P<sign> [:=] | %3[aAdD] ) {_COLOUR} \s{{0,20}} {_COLOUR}
    (?:
        b? (?P<quote> {_QUOTE} ) {_COLOUR}
        (?P<quoted> [^\r\n]{{0,200}}? ) (?= {_COLOUR} (?P=quote) | $ )
      | (?P<bare>
            (?: (?P<scheme> basic | bearer | digest | token )\s{{1,20}} )?
            [^\s&'"\\<>;,(){{}}\[\]\x1b]+
        )
      | b? (?: {_QUOTE} ) {_COLOUR} (?P<open> [^\s&'"\\<>;,(){{}}\[\]\x1b]+ )
    )
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
# The same in a program, where only a literal is a value, and what follows a colon mostly a type.
_LITERAL = re.compile(
    r"""
    (?:
        ["'] \]? [ \t]{0,20} (?: : | ={1,2} )
      | [ \t]{0,20} (?: : [ \t]{0,20} [\w.\[\], |]{1,60} | : )? ={1,2}
    )
    [ \t]{0,20} \(? [bru]{0,2} (?P<quote> \"{3} | '{3} | ["'] )
    (?P<literal> (?: (?! (?P=quote) ) [^\r\n\\] | \\. )+ )
    """,
    re.VERBOSE | re.IGNORECASE,
)
# What stands between two literals, where the quote of one's end was taken for another's beginning.
_BETWEEN = re.compile(r"\s*[,.)\]%].*|\s.*|\+.*\+")
_QUERY = re.compile(r"[?&][\w.-]*$|%(?:26|3[fF])[\w.-]*$")
_SCHEME = re.compile(r"(?i)(?:basic|bearer|digest|token)\s+\S")
_HARMLESS = re.compile(r"(?i)none|null|true|false|undefined|\*+|[\d.,:eE+-]*|<[^>]*>")
_ATTRIBUTE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_LOOKS_SECRET = re.compile(r"(?=[^a-zA-Z]*[a-zA-Z])(?=\D*\d)[^\s/()\[\]{}]{16,}")
_BASE64 = re.compile(r"(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])(?=\D*\d)[A-Za-z0-9+/]{40,}={0,2}")

_IN_URL = re.compile(r"(://[^\s/:@'\"<>?#]*:)[^\s/@'\"<>?#]+@")
_JWT = re.compile(r"(?:(?<![\w-])|(?<=\\n)|(?<=%3D))eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
    r".*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)


class Look(Enum):
    """What a text is, which tells what of it may be a secret besides those that are known.

    DATA: values that are computed with, where only what is a secret beyond doubt is one: private
    keys, signed URLs and the like. SOURCE: a program, where literals that have the name of a secret
    are too. TEXT: anything else, where what follows such a name and looks like a secret is.
    """

    DATA = "data"
    SOURCE = "source"
    TEXT = "text"


# A text to look for, whether it is a part that stands for the whole, and what the secret is called.
_Written = tuple[str, bool, str]


@dataclass(frozen=True)
class Scrubber:
    """secrets: what each known secret is called, by the secret.

    Without any, it removes what looks like one: signed URLs, API keys, passwords, tokens, private
    keys, by the names or the forms that they come with.
    """

    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    _written: tuple[_Written, ...] = field(init=False, repr=False, compare=False)
    _in_blobs: tuple[_Written, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found: dict[str, _Written] = {}
        blobs: set[str] = set()
        for secret, name in self.secrets.items():
            blobs |= {secret, *_in_base64(secret)}
            for text, is_part in _ways_to_write(secret):
                found.setdefault(text, (text, is_part, name))
        # The longest first: a part of a secret must not hide the whole.
        written = tuple(sorted(found.values(), key=lambda one: -len(one[0])))
        object.__setattr__(self, "_written", written)
        object.__setattr__(self, "_in_blobs", tuple(one for one in written if one[0] in blobs))

    def scrub(self, text: str, look: Look = Look.TEXT) -> str:
        """The text with every secret as asterisks."""
        if len(text) < _SHORTEST:
            return text
        is_blob = len(text) > _BLOB and " " not in text
        for written, is_part, _ in self._in_blobs if is_blob else self._written:
            if written in text:
                text = _remove(text, written, is_part)
        return _scrub_lookalikes(text, look)

    def scrub_all(self, value: Any, look: Look = Look.TEXT) -> Any:
        """The same value, lists and mappings with all they hold; what has no secret in it is not
        copied."""
        if isinstance(value, str):
            return self.scrub(value, look)
        if isinstance(value, dict):
            return self._scrub_mapping(value, look)
        if isinstance(value, list | tuple):
            clean = [x if isinstance(x, float | int) else self.scrub_all(x, look) for x in value]
            same = all(a is b for a, b in zip(clean, value, strict=True))
            return value if same else type(value)(clean)
        return value

    def _scrub_mapping(self, value: dict[Any, Any], look: Look) -> dict[Any, Any]:
        clean = {
            self.scrub_all(key, look): self._scrub_item(key, item, look)
            for key, item in value.items()
        }
        same = all(a is b and clean[a] is value[b] for a, b in zip(clean, value, strict=False))
        return value if same and len(clean) == len(value) else type(value)(clean)

    def _scrub_item(self, key: Any, item: Any, look: Look) -> Any:
        if look is Look.TEXT and isinstance(key, str) and isinstance(item, str):
            name = _name_of_secret(key)
            if name and _is_secret(name, item, exact=True):
                return REMOVED
        return self.scrub_all(item, look)

    def find(self, value: Any) -> str | None:
        """What secret a value holds, in words; None when it holds none."""
        told = value if isinstance(value, str) else json.dumps(value, default=str)
        known = (
            name
            for text, is_part, name in self._written
            if text in told and _remove(told, text, is_part) != told
        )
        found = next(known, None)
        if found is None and self.scrub_all(value, Look.DATA) != value:
            return "what looks like a key, a password or a signed URL"
        return found


def is_secret_name(name: str) -> bool:
    """Whether that name, of a variable of the environment or of an entry of a file, is a
    secret's."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return bool(_SECRET_NAME.search(words.upper()))


def desk_scrubber(settings: DeskSettings, more: Mapping[str, str] | None = None) -> Scrubber:
    """A scrubber that knows the secrets of a desk as they are now: its venues' keys, its ledger's
    password, the tokens of its pages. more: others, each with what it is called."""
    found = dict(more or {})
    for name, venue in settings.venues.items():
        if venue.keys:
            for secret in _load_secrets(venue.keys, settings.home):
                found.setdefault(secret, f"a key of venue {name}")
    for whose, url in (("ledger", settings.ledger_url), ("cache", settings.cache.url)):
        with suppress(ValueError):
            password = urlsplit(url or "").password
            if password:
                found[unquote(password)] = f"the {whose}'s password"
    for name, text in os.environ.items():
        if name.startswith("DESK_") and name.endswith("_TOKEN"):
            found.setdefault(text, "the token of this run")
    for token in _file_secrets(settings.services_file):
        found.setdefault(token, "the token of the desk's pages")
    return _make(tuple(found.items()))


@lru_cache(maxsize=16)
def _make(secrets: tuple[tuple[str, str], ...]) -> Scrubber:
    return Scrubber(dict(secrets))


def _load_secrets(source: str, home: Path) -> tuple[str, ...]:
    """Every secret of a venue's source of keys, as far as it can be read: what is wrong with it is
    told by who needs the keys."""
    if source.startswith("env:"):
        prefix = f"{source.removeprefix('env:')}_"
        named = ((name.removeprefix(prefix), text) for name, text in os.environ.items()
                 if name.startswith(prefix))  # fmt: skip
        return tuple(text for name, text in named if is_secret_name(name))
    return _file_secrets(home / source)


def _file_secrets(path: Path) -> tuple[str, ...]:
    """What is named as a secret in a TOML or JSON file; nothing where it cannot be read."""
    try:
        found = path.stat()
        return _read_secrets(path, found.st_mtime_ns, found.st_size)
    except OSError:
        return ()


@lru_cache(maxsize=64)
def _read_secrets(path: Path, _changed: int, _size: int) -> tuple[str, ...]:
    with suppress(ValueError):  # neither format, or no text
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return tuple(_texts(content))
    return ()


def _texts(content: Any, name: str = "") -> Iterator[str]:
    if isinstance(content, dict):
        for one, item in content.items():
            yield from _texts(item, one)
    elif isinstance(content, str) and is_secret_name(name):
        yield content


def _ways_to_write(secret: str) -> Iterator[tuple[str, bool]]:
    """What to look for, and whether it is only a part."""
    whole = secret.strip()
    lines = [line for line in whole.splitlines() if not line.startswith("-----")]
    for text in {secret, whole, *lines}:
        if len(text) < _SHORTEST:
            continue
        yield from ((written, False) for written in _encoded(text))
        if len(text) >= 2 * _PART:
            for part in (text[:_PART], text[-_PART:]):
                if re.search(r"\d", part) and re.search(r"[A-Za-z]", part):
                    yield part, True


def _remove(text: str, written: str, is_part: bool) -> str:
    """The text without a secret; a password that is a word counts only as a word of its own."""
    if is_part:
        return _cut(text, _around(text, written))
    if written.isalpha() and len(written) < 2 * _SHORTEST:
        return re.sub(rf"\b{re.escape(written)}\b", REMOVED, text)
    return text.replace(written, REMOVED)


def _around(text: str, part: str) -> Iterator[tuple[int, int]]:
    """Where a part of a secret stands, with what else of it stands beside it."""
    done, at = 0, text.find(part)
    while at >= 0:
        before = text[max(done, at - _BESIDE) : at]
        after = text[at + len(part) : at + len(part) + _BESIDE]
        start = at - len(before) + len(before.rstrip(_IN_SECRETS))
        done = at + len(part) + len(after) - len(after.lstrip(_IN_SECRETS))
        yield start, done
        at = text.find(part, done)


@lru_cache(maxsize=1024)
def _name_of_secret(key: str) -> str | None:
    """The name of a secret that a key ends with."""
    low = _plain(key)
    return next((name for name in _NAMES if low.endswith(name)), None)


def _encoded(text: str) -> set[str]:
    """The text as it is, escaped, quoted for URLs and pages, and within base64 and hex."""
    told = json.dumps(text)[1:-1]
    found = {
        text, told, json.dumps(told)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1],
        repr(text)[1:-1], html.escape(text), quote(text, safe=""), quote(text),
        quote_plus(text),
    }  # fmt: skip
    found |= {re.sub(r"%[0-9A-F]{2}", lambda m: m[0].lower(), one) for one in found}
    raw = text.encode()
    return found | {raw.hex(), raw.hex().upper()} | _in_base64(text)


def _in_base64(text: str) -> set[str]:
    """What is the same of its base64 whatever stands beside it."""
    raw, found = text.encode(), set()
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + raw).decode()
        inner = encoded[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6]
        found |= {inner, inner.replace("+", "-").replace("/", "_")}
    return found


def _plain(text: str) -> str:
    """In lower case, with "_" for "-", and as long as before."""
    low = text.lower()
    if len(low) != len(text):
        low = re.sub("[A-Z]+", lambda m: m[0].lower(), text)
    return low.replace("-", "_")


def _scrub_lookalikes(text: str, look: Look) -> str:
    if "PRIVATE KEY-----" in text:
        text = _PRIVATE_KEY.sub(REMOVED, text)
    if "eyJ" in text:
        text = _JWT.sub(REMOVED, text)
    if "://" in text:
        text = _IN_URL.sub(rf"\1{REMOVED}@", text)
    if _has_no_signs(text):
        return text
    spans = list(_secret_values(text, look))
    return _cut(text, spans) if spans else text


def _has_no_signs(text: str) -> bool:
    """Whether nothing in the text can be a name's value: true of an image in base64, which would
    take long to look through."""
    return ":" not in text and "%" not in text and text.find("=", 0, len(text) - 3) < 0


def _secret_values(text: str, look: Look) -> Iterator[tuple[int, int]]:
    low = _plain(text)
    for name in _NAMES:
        yield from _values_of(name, text, low, look, 0, len(text))


def _values_of(
    name: str, text: str, low: str, look: Look, start: int, stop: int
) -> Iterator[tuple[int, int]]:
    at = low.find(name, start, stop)
    while at >= 0:
        named = at + len(name)
        end, span = _read_value(name, text, at, look)
        if span:
            yield span
        elif end > named:
            # It is not looked through again, or a name in each value takes for ever; but a URL
            # may stand in it.
            yield from _values_of(name, text, low, Look.DATA, named, end)
        at = low.find(name, end, stop)


def _read_value(name: str, text: str, at: int, look: Look) -> tuple[int, tuple[int, int] | None]:
    """Where to look on, and where the value of the name at that place is if it is a secret."""
    end = at + len(name)
    in_url = _QUERY.search(text[max(0, at - 40) : at])
    if look is Look.SOURCE and not in_url and (found := _LITERAL.match(text, end)):
        secret = _is_secret_literal(name, found["literal"])
        return (found.end(), found.span("literal")) if secret else (end, None)
    if look is not Look.TEXT and not in_url:
        return end, None
    found = _VALUE.match(text, end)
    if not found:
        return end, None
    if in_url and found["bare"]:
        return found.end(), found.span("bare") if found["bare"] != REMOVED else None
    if look is not Look.TEXT:
        return end, None
    return found.end(), _secret_span(name, text, found)


def _secret_span(name: str, text: str, found: re.Match[str]) -> tuple[int, int] | None:
    group = next(one for one in ("quoted", "bare", "open") if found[one] is not None)
    value, after = found[group], text[found.end() : found.end() + 1]
    if group == "bare" and (after in ("(", "[") or _ATTRIBUTE.fullmatch(value)):
        return None  # code that fetches it
    exact = group == "quoted"
    if not exact and name in _SENT:
        exact = "-" in text[max(0, found.start() - len(name) - 1) : found.start()]
    elif not exact:
        exact = found["sign"] == "="
    return found.span(group) if _is_secret(name, value, exact=exact) else None


def _is_secret(name: str, value: str, *, exact: bool) -> bool:
    """exact: whether it is certain where the value ends; prose has colons too."""
    if _HARMLESS.fullmatch(value):
        return False
    if exact and (name in _PASSWORDS or name in _SENT):
        return len(value) > 2
    if name == "authorization" and _SCHEME.match(value):
        return True
    return bool(_LOOKS_SECRET.fullmatch(value) or _BASE64.fullmatch(value))


def _is_secret_literal(name: str, value: str) -> bool:
    if name in _OF_TWO_MEANINGS:
        return _is_secret(name, value, exact=True)
    return len(value) > 2 and not (_HARMLESS.fullmatch(value) or _BETWEEN.fullmatch(value))


def _cut(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts, done = [], 0
    for start, end in sorted(spans):
        if start >= done:
            parts += [text[done:start], REMOVED]
        done = max(done, end)
    return "".join([*parts, text[done:]])
