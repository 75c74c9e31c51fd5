"""Reads that lag: for a while after a write, an account sees what was before it."""

from __future__ import annotations

from dataclasses import dataclass

from tradelib.paper.clock import Wall
from tradelib.paper.exchange import Exchange
from tradelib.paper.reads import OldSight, Past, Sight, remember


@dataclass(frozen=True, eq=False)
class Lag:
    """Until `until`, in ms of the wall, an account's reads show the past, or its trades end."""

    until: int
    account: str
    past: Past | None = None
    trades_end: int | None = None


class Lags:
    """All that lags now. What a lag hides shows as soon as that lag is over, whatever began since:
    reads then show what was before the next one."""

    def __init__(self, exchange: Exchange, wall: Wall) -> None:
        self._exchange, self._wall = exchange, wall
        self._lags: list[Lag] = []

    def end(self) -> None:
        self._lags = []

    def hide_all(self, account: str, length: int) -> Lag | None:
        """Shows orders and balances as they stand now, for `length` ms."""
        if account not in self._exchange.engine.balances:
            return None
        past = remember(self._exchange, account)
        return self._begin(Lag(self._wall() + length, account, past))

    def hide_trades(self, account: str, first: int, length: int) -> Lag:
        """Shows no trade from id `first` on, for `length` ms."""
        return self._begin(Lag(self._wall() + length, account, trades_end=first))

    def _begin(self, lag: Lag) -> Lag:
        self._lags.append(lag)
        return lag

    def keep(self, lag: Lag | None, is_needed: bool) -> bool:
        """Drops a lag after which nothing happened."""
        if lag is not None and not is_needed:
            self._lags = [each for each in self._lags if each is not lag]
        return lag is not None and is_needed

    def sight(self, account: str) -> Sight | None:
        """What the account sees; None when that is how it stands."""
        if not self._lags:
            return None
        now = self._wall()
        self._lags = [each for each in self._lags if each.until > now]
        own = [each for each in self._lags if each.account == account]
        past = next((each.past for each in own if each.past), None)
        ends = [each.trades_end for each in own if each.trades_end is not None]
        if past is not None:
            return OldSight(self._exchange, account, min(ends, default=None), past)
        return Sight(self._exchange, account, min(ends)) if ends else None
