"""The parameters of a request, read as strictly as the real exchange reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from urllib.parse import parse_qsl

from tradelib.paper.refusals import Refusal, illegal, missing

_AMOUNT = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"
NUMBER = r"^[0-9]{1,20}$"
_LARGEST = 2**53
_CLIENT_ID = r"^[a-zA-Z0-9-_.:/]{1,36}$"
_SYMBOL = r"^[A-Z0-9-_.]{1,20}$"


class Params:
    """Names and values of one request."""

    def __init__(self, text: str) -> None:
        pairs = parse_qsl(text, keep_blank_values=True)
        self._values = dict(pairs)
        if len(self._values) < len(pairs):
            raise Refusal(-1101, "Duplicate values for a parameter detected.")

    @property
    def names(self) -> set[str]:
        return set(self._values)

    def text(self, name: str) -> str | None:
        """A value as sent; None when absent. Empty is as bad as malformed."""
        value = self._values.get(name)
        if value == "":
            raise Refusal(-1105, f"Parameter '{name}' was empty.")
        return value

    def need(self, name: str) -> str:
        if not self._values.get(name):
            raise missing(name)
        return self._values[name]

    def choice(self, name: str, choices: Iterable[str], refusal: Refusal) -> str | None:
        value = self.text(name)
        if value is not None and value not in choices:
            raise refusal
        return value

    def amount(self, name: str) -> Decimal | None:
        """A decimal number with at most 8 decimals."""
        value = self._matching(name, _AMOUNT)
        if value is None:
            return None
        if len(value.partition(".")[2].rstrip("0")) > 8:
            raise Refusal(-1111, f"Parameter '{name}' has too much precision.")
        return Decimal(value)

    def integer(self, name: str) -> int | None:
        value = self._matching(name, NUMBER)
        if value is not None and int(value) > _LARGEST:
            raise illegal(name, NUMBER)
        return None if value is None else int(value)

    def client_id(self, name: str) -> str | None:
        return self._matching(name, _CLIENT_ID)

    def symbol(self, name: str = "symbol") -> str:
        self.need(name)
        return self._matching(name, _SYMBOL)

    def symbols(self) -> list[str] | None:
        """The symbols asked for, by `symbol` or by `symbols`; None for all."""
        if "symbol" in self._values and "symbols" in self._values:
            raise Refusal(-1128, "Combination of optional parameters invalid.")
        if "symbol" in self._values:
            return [self.symbol()]
        text = self.text("symbols")
        if text is None:
            return None
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise illegal("symbols", '^\\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}")*\\]$')
        return found

    def limit(self, default: int, most: int) -> int:
        value = self.integer("limit")
        if value is None:
            return default
        if value < 1:
            raise Refusal(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(value, most)

    def _matching(self, name: str, pattern: str) -> str | None:
        value = self.text(name)
        if value is not None and not re.match(pattern, value):
            raise illegal(name, pattern)
        return value
