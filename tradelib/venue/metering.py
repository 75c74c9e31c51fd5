"""ccxt's requests under the budget: what they take before they are signed, what answers tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import ccxt

from tradelib.traffic.budget import Budget
from tradelib.venue.dialects import Dialect

_TOO_MANY = (ccxt.DDoSProtection, ccxt.RateLimitExceeded)


def budgeted(exchange: ccxt.Exchange, dialect: Dialect, budget: Budget) -> Callable[..., Any]:
    """ccxt's own `fetch2`, which signs a request and sends it, held to a budget.

    The wait comes before the signature, whose time the venue holds against its clock.
    """
    fetch = exchange.fetch2

    def fetch_within_budget(
        path: str, api: Any = "public", method: str = "GET",
        params: Any = None, config: Any = None,
    ) -> Any:  # fmt: skip
        params, config = params or {}, config or {}
        cost = exchange.calculate_rate_limiter_cost(api, method, path, params, config)
        charges = dialect.charges(method, path, _is_private(api), cost)
        budget.take(charges, f"{method} {path}")
        exchange.last_response_headers = None
        try:
            answer = fetch(path, api, method, params, config)
        except ccxt.BaseError as error:
            _note(budget, dialect, _headers(exchange))
            if _wants_fewer(dialect, error):
                error.retry_after = _close_gate(budget, dialect, charges, exchange, error)
            raise
        _note(budget, dialect, _headers(exchange))
        budget.learn_limits(dialect.told_limits(path, answer))
        return answer

    return fetch_within_budget


def _is_private(api: Any) -> bool:
    return "private" in (api if isinstance(api, list | tuple) else [api])


def _headers(exchange: ccxt.Exchange) -> dict[str, str]:
    told: Mapping[str, str] = exchange.last_response_headers or {}
    return {name.upper(): value for name, value in told.items()}


def _note(budget: Budget, dialect: Dialect, headers: Mapping[str, str]) -> None:
    budget.learn_used(dialect.told_used(headers))


def _wants_fewer(dialect: Dialect, error: ccxt.BaseError) -> bool:
    said = str(error)
    kind = next((kind for pattern, kind in dialect.clearer if pattern.search(said)), type(error))
    return issubclass(kind, _TOO_MANY)


def _close_gate(
    budget: Budget, dialect: Dialect, charges: Mapping[str, int],
    exchange: ccxt.Exchange, error: ccxt.BaseError,
) -> float:  # fmt: skip
    """Nobody asks until the venue takes requests again: going on is what it bans for."""
    told = _headers(exchange).get("RETRY-AFTER", "")
    seconds = float(told) if told.isdigit() else None
    pool = dialect.refused_pool(charges, str(error))
    return budget.close_gate(pool, seconds, f"it wants fewer requests ({pool})")


class Answers:
    """What an exchange answered while instruments were loaded, to be answered once more without
    it: ccxt's parsers take more from an answer than the instruments that they return.

    The time is always asked for: ccxt corrects its own clock by it.
    """

    def __init__(self, exchange: ccxt.Exchange) -> None:
        self._fetch = exchange.fetch2
        self._told: dict[str, Any] | None = None
        self._noted: dict[str, Any] | None = None
        exchange.fetch2 = self._answer

    def note(self, load: Callable[[], Any]) -> dict[str, Any]:
        """The answers to all that `load` asks."""
        self._noted = {}
        try:
            load()
            return self._noted
        finally:
            self._noted = None

    def repeat(self, told: dict[str, Any], load: Callable[[], Any]) -> None:
        """Let `load` find these answers."""
        self._told = told
        try:
            load()
        finally:
            self._told = None

    def _answer(
        self, path: str, api: Any = "public", method: str = "GET",
        params: Any = None, config: Any = None,
    ) -> Any:  # fmt: skip
        name = json.dumps([method, api, path, params or {}], default=str)
        if self._told is not None and name in self._told:
            return self._told[name]
        answer = self._fetch(path, api, method, params or {}, config or {})
        if self._noted is not None and not path.lower().endswith("time"):
            self._noted[name] = answer
        return answer
