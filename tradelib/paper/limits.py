"""Request weights and order counts, as the real exchange keeps them: per minute by address."""

from __future__ import annotations

from dataclasses import dataclass, field

from tradelib.paper.clock import Wall, wall_ms
from tradelib.paper.config import RateLimits
from tradelib.paper.refusals import Refusal, banned, too_many_orders, too_many_requests

_MINUTE, _TEN_SECONDS, _DAY = 60_000, 10_000, 86_400_000
_LONGEST_BAN = 3 * _DAY
_FIVE_MINUTES = 5 * _MINUTE


@dataclass
class _Window:
    """A count that begins anew with every span of the wall clock."""

    length: int
    start: int = -1
    count: int = 0

    def add(self, now: int, amount: int) -> int:
        start = now // self.length * self.length
        if start != self.start:
            self.start, self.count = start, 0
        self.count += amount
        return self.count

    def left(self, now: int) -> int:
        """Milliseconds until the next span."""
        return self.length - now % self.length


@dataclass
class _Address:
    weight: _Window = field(default_factory=lambda: _Window(_MINUTE))
    excess: int = 0
    bans: int = 0
    banned_until: int = 0


@dataclass
class _Orders:
    short: _Window = field(default_factory=lambda: _Window(_TEN_SECONDS))
    day: _Window = field(default_factory=lambda: _Window(_DAY))


class RateLimiter:
    """Counts what each address and account asks, and refuses what is too much."""

    def __init__(self, limits: RateLimits, wall: Wall = wall_ms) -> None:
        self.limits, self._wall = limits, wall
        self.weight_used, self.refused = 0, 0
        self._addresses: dict[str, _Address] = {}
        self._accounts: dict[str, _Orders] = {}

    def spend(self, address: str, weight: int) -> dict[str, str]:
        """Counts a request; the headers of its reply. Raises 429, and 418 when one goes on."""
        now, seen = self._wall(), self._addresses.setdefault(address, _Address())
        if now < seen.banned_until:
            raise self._banned(seen, now)
        used = seen.weight.add(now, weight)
        self.weight_used += weight
        headers = {"X-MBX-USED-WEIGHT": str(used), "X-MBX-USED-WEIGHT-1M": str(used)}
        if used <= self.limits.weight:
            seen.excess = 0
            return headers
        seen.excess += 1
        if seen.excess > self.limits.ban_after:
            self._ban(seen, now)
            raise self._banned(seen, now)
        self.refused += 1
        raise too_many_requests(self.limits.weight, seen.weight.left(now), headers)

    def count_order(self, account: str) -> dict[str, str]:
        """Counts a new order; the headers of its reply."""
        now, seen = self._wall(), self._accounts.setdefault(account, _Orders())
        short, day = seen.short.add(now, 1), seen.day.add(now, 1)
        for used, limit, span in (
            (short, self.limits.orders_10s, "10 SECOND"),
            (day, self.limits.orders_day, "1 DAY"),
        ):
            if used > limit:
                self.refused += 1
                raise too_many_orders(limit, span)
        return {"X-MBX-ORDER-COUNT-10S": str(short), "X-MBX-ORDER-COUNT-1D": str(day)}

    def _ban(self, seen: _Address, now: int) -> None:
        length = min(self.limits.ban_seconds * 1000 * 2**seen.bans, _LONGEST_BAN)
        seen.bans += 1
        seen.excess = 0
        seen.banned_until = now + length

    def _banned(self, seen: _Address, now: int) -> Refusal:
        self.refused += 1
        return banned(seen.banned_until, now)

    def used_by(self, address: str) -> int:
        """Weight that an address has used in this minute."""
        return self._addresses.setdefault(address, _Address()).weight.add(self._wall(), 0)

    def rules(self) -> list[dict[str, object]]:
        """exchangeInfo's rateLimits."""
        return [
            _rule("REQUEST_WEIGHT", "MINUTE", 1, self.limits.weight),
            _rule("ORDERS", "SECOND", 10, self.limits.orders_10s),
            _rule("ORDERS", "DAY", 1, self.limits.orders_day),
        ]


class Arrivals:
    """Counts the connections that each address opens, in spans of five minutes."""

    def __init__(self, most: int, wall: Wall = wall_ms) -> None:
        self._most, self._wall = most, wall
        self._seen: dict[str, _Window] = {}

    def admit(self, address: str) -> bool:
        window = self._seen.setdefault(address, _Window(_FIVE_MINUTES))
        return window.add(self._wall(), 1) <= self._most


def _rule(kind: str, interval: str, number: int, limit: int) -> dict[str, object]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}
