"""Faults on what is sent over one connection, message by message."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Protocol

from tradelib.paper.clock import Wall
from tradelib.paper.faults import Fault, Seen
from tradelib.paper.faulty import FaultyGate, Span


class Outlet(Protocol):
    """A connection, seen from here."""

    def send(self, stream: str, text: str) -> None: ...

    def pause(self, milliseconds: int) -> None:
        """What is sent from now on waits so long."""
        ...

    def hang_up(self) -> None:
        """The connection ends without a word once all before is sent."""
        ...

    def terminate(self, stream: str) -> None:
        """Ends the stream of an account."""
        ...


@dataclass
class _Lane:
    """One stream of the connection. held: what the next message overtakes. old: what is sent
    again, each with how many messages come before it."""

    held: list[str] = field(default_factory=list)
    old: list[tuple[int, str]] = field(default_factory=list)


class FaultyOutlet:
    """Sends messages, or does to them what the faults of a plan say."""

    def __init__(self, outlet: Outlet, faulty: FaultyGate, wall: Wall) -> None:
        self._outlet, self._faulty, self._wall = outlet, faulty, wall
        self._lanes: dict[str, _Lane] = defaultdict(_Lane)
        self._silence, self._silencer = Span(0), faulty.plan

    def deliver(self, stream: str, seen: Seen, text: str) -> None:
        if not self._faulty.meets_streams and not self._lanes:
            self._outlet.send(stream, text)
            return
        if self._is_silent():
            return
        fault = self._faulty.meet(seen)
        if fault is None:
            self._send(stream, text)
            return
        self._faulty.tell_played(fault, seen)
        getattr(self, f"_play_{fault.kind.removeprefix('stream_')}")(fault, stream, text)

    def _is_silent(self) -> bool:
        """Another plan ends the silence of the one before."""
        if self._silencer is not self._faulty.plan or self._silence.is_over(self._wall()):
            return False
        if self._silence.left is not None:
            self._silence.left -= 1
        return True

    def _send(self, stream: str, text: str) -> None:
        """Sends a message, what waited for it, and what is due again."""
        lane = self._lanes[stream]
        self._outlet.send(stream, text)
        for each in lane.held:
            self._outlet.send(stream, each)
        due = [each for left, each in lane.old if left <= 1]
        lane.held, lane.old = [], [(left - 1, each) for left, each in lane.old if left > 1]
        for each in due:
            self._outlet.send(stream, each)
        if not lane.old:
            del self._lanes[stream]

    def _play_drop(self, fault: Fault, stream: str, text: str) -> None:
        pass

    def _play_double(self, fault: Fault, stream: str, text: str) -> None:
        self._send(stream, text)
        self._send(stream, text)

    def _play_stale(self, fault: Fault, stream: str, text: str) -> None:
        self._send(stream, text)
        self._lanes[stream].old.append((max(1, fault["stale_messages"]), text))

    def _play_disorder(self, fault: Fault, stream: str, text: str) -> None:
        self._lanes[stream].held.append(text)
        loop = asyncio.get_running_loop()
        loop.call_later(fault["disorder_ms"] / 1000, self._let_go, stream, text)

    def _let_go(self, stream: str, text: str) -> None:
        """Nothing overtook it in time."""
        if stream in self._lanes and text in self._lanes[stream].held:
            self._lanes[stream].held.remove(text)
            self._send(stream, text)

    def _play_delay(self, fault: Fault, stream: str, text: str) -> None:
        self._outlet.pause(fault["delay_ms"])
        self._send(stream, text)

    def _play_disconnect(self, fault: Fault, stream: str, text: str) -> None:
        self._outlet.hang_up()

    def _play_terminate(self, fault: Fault, stream: str, text: str) -> None:
        self._lanes.pop(stream, None)
        self._outlet.terminate(stream)

    def _play_silence(self, fault: Fault, stream: str, text: str) -> None:
        """The message that begins it is the first that is not sent."""
        left = fault["silence_messages"]
        self._silencer = self._faulty.plan
        self._silence = Span(self._wall() + fault["silence_ms"], left - 1 if left else None)
