"""ccxt's requests under the budget: what they take before they are signed, what answers tell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import ccxt

from tradelib.traffic.budget import Budget
from tradelib.venue.dialects import Dialect

_TOO_MANY = (ccxt.DDoSProtection, ccxt.RateLimitExceeded)


class _Meter:
    """An exchange's requests as its budget sees them."""

    def __init__(self, exchange: Any, dialect: Dialect, budget: Budget) -> None:
        self._exchange, self._dialect, self._budget = exchange, dialect, budget

    def begin(self, path: str, api: Any, method: str, params: Any, config: Any) -> dict[str, int]:
        """Take what a request costs, which may take a while; that by pool."""
        cost = self._exchange.calculate_rate_limiter_cost(api, method, path, params, config)
        is_private = "private" in (api if isinstance(api, list | tuple) else [api])
        charges = self._dialect.charges(method, path, is_private, cost)
        self._budget.take(charges, f"{method} {path}")
        self._exchange.last_response_headers = None
        return charges

    def end(self, path: str, answer: Any) -> Any:
        """Learn from an answer."""
        self._learn_used()
        self._budget.learn_limits(self._dialect.told_limits(path, answer))
        return answer

    def fail(self, charges: Mapping[str, int], error: ccxt.BaseError) -> None:
        """Learn from a refusal. Where the venue wants fewer requests nobody asks until it takes
        them again: going on is what it bans for."""
        self._learn_used()
        said = str(error)
        clearer = self._dialect.clearer
        kind = next((kind for pattern, kind in clearer if pattern.search(said)), type(error))
        if issubclass(kind, _TOO_MANY):
            told = self._headers().get("RETRY-AFTER", "")
            seconds = float(told) if told.isdigit() else None
            pool = self._dialect.refused_pool(charges, said)
            why = f"it wants fewer requests ({pool})"
            error.retry_after = self._budget.close_gate(pool, seconds, why)

    def _learn_used(self) -> None:
        self._budget.learn_used(self._dialect.told_used(self._headers()))

    def _headers(self) -> dict[str, str]:
        told: Mapping[str, str] = self._exchange.last_response_headers or {}
        return {name.upper(): value for name, value in told.items()}


def budgeted(exchange: ccxt.Exchange, dialect: Dialect, budget: Budget) -> Callable[..., Any]:
    """ccxt's own `fetch2`, which signs a request and sends it, held to a budget.

    The wait comes before the signature, whose time the venue holds against its clock.
    """
    fetch, meter = exchange.fetch2, _Meter(exchange, dialect, budget)

    def fetch_within_budget(
        path: str, api: Any = "public", method: str = "GET",
        params: Any = None, config: Any = None,
    ) -> Any:  # fmt: skip
        params, config = params or {}, config or {}
        charges = meter.begin(path, api, method, params, config)
        try:
            answer = fetch(path, api, method, params, config)
        except ccxt.BaseError as error:
            meter.fail(charges, error)
            raise
        return meter.end(path, answer)

    return fetch_within_budget


def budgeted_stream(exchange: Any, dialect: Dialect, budget: Budget) -> Callable[..., Any]:
    """The same of ccxt.pro; a wait for the budget holds up no stream."""
    fetch, meter = exchange.fetch2, _Meter(exchange, dialect, budget)

    async def fetch_within_budget(
        path: str, api: Any = "public", method: str = "GET",
        params: Any = None, config: Any = None,
    ) -> Any:  # fmt: skip
        params, config = params or {}, config or {}
        charges = await asyncio.to_thread(meter.begin, path, api, method, params, config)
        try:
            answer = await fetch(path, api, method, params, config)
        except ccxt.BaseError as error:
            meter.fail(charges, error)
            raise
        return meter.end(path, answer)

    return fetch_within_budget


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
