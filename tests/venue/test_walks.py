"""Walks through histories lose nothing and double nothing, whatever falls on the edge of a page."""

from __future__ import annotations

from typing import Any

import ccxt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradelib.venue.client import gather
from tradelib.venue.dialects.base import page_by_time

TIMES = st.lists(st.integers(1, 12), max_size=40).map(sorted)


def rows_at(times: list[int]) -> list[dict[str, Any]]:
    return [{"id": str(number), "timestamp": time} for number, time in enumerate(times)]


def walk_by_time(rows: list[dict[str, Any]], limit: int) -> list[str]:
    def fetch(start: int) -> list[dict[str, Any]]:
        return [row for row in rows if row["timestamp"] >= start][:limit]

    found, cursor = [], (0, frozenset())
    while cursor is not None:
        page = page_by_time(fetch, None, cursor, limit)
        found += [row["id"] for row in page.rows]
        cursor = page.next
    return found


@given(TIMES, st.integers(2, 8))
def test_a_walk_forward_in_time_is_exact_or_says_that_it_cannot_be(times, limit):
    rows = rows_at(times)
    most_at_once = max((times.count(time) for time in times), default=0)
    try:
        walked = walk_by_time(rows, limit)
    except ccxt.ExchangeError:
        assert most_at_once >= limit
    else:
        assert walked == [row["id"] for row in rows]


@given(TIMES, st.integers(1, 8), st.lists(st.integers(0, 3), max_size=40))
def test_a_walk_back_in_time_is_exact_while_rows_come_in(times, size, arrivals):
    """Those that come while it goes on may be missing, and no other."""
    newest_first = rows_at(times)[::-1]
    before = [row["id"] for row in newest_first[::-1]]

    def pages():
        start, number = 0, 0
        while start < len(newest_first):
            yield newest_first[start : start + size]
            start += size
            for _ in range(arrivals[number] if number < len(arrivals) else 0):
                newest_first.insert(0, {"id": f"new-{len(newest_first)}", "timestamp": 99})
            number += 1

    walked = [row["id"] for row in gather(pages(), None)]
    assert [number for number in walked if not number.startswith("new")] == before
    assert len(set(walked)) == len(walked)


@given(TIMES.filter(bool), st.integers(1, 8), st.data())
def test_a_walk_back_in_time_from_a_known_row_misses_none_after_it(times, size, data):
    rows = rows_at(times)
    known = data.draw(st.sampled_from(rows))
    newest_first, asked = rows[::-1], []

    def pages():
        for start in range(0, len(newest_first), size):
            asked.append(start)
            yield newest_first[start : start + size]

    walked = [row["id"] for row in gather(pages(), known["id"])]
    wanted = [row["id"] for row in rows if row["timestamp"] >= known["timestamp"]]
    assert walked == wanted
    assert (len(asked) - 1) * size <= len(wanted) + size


def test_a_page_full_of_one_millisecond_is_told():
    with pytest.raises(ccxt.ExchangeError, match="one millisecond"):
        walk_by_time(rows_at([5] * 6), 3)
