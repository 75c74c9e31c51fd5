"""A long history: months with tails, what other programs read, revisions, gaps and compaction."""

import json
import multiprocessing
import random
from datetime import timedelta

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradelib.candles import partitions
from tradelib.candles.partitions import TAIL_ROWS, tail_of
from tradelib.candles.schema import Gap, candles_from_arrays, candles_hash, open_ms
from tradelib.candles.store import CandleStore
from tradelib.clock import from_ms

MINUTE = 60_000
START = 1_767_225_600_000  # 2026-01-01
SERIES = ("paper", "BTC/USDT", "1m")
LONG = 3 * TAIL_ROWS


def minutes(*numbers, price=100.0):
    many = np.asarray(numbers)
    ones = np.ones(len(many))
    values = [
        price * ones,
        (price + 2) * ones,
        (price - 2) * ones,
        (price + 1) * ones,
        many + 1000.0,
    ]
    return candles_from_arrays(START + MINUTE * many, *values)


def time(minute):
    return from_ms(START + minute * MINUTE)


def stored(store, **more):
    return ((open_ms(store.load(*SERIES, **more)) - START) // MINUTE).tolist()


def append(store, *numbers, as_of=None, price=100.0):
    as_of = as_of or time(max(numbers) + 1)
    return store.append(*SERIES, minutes(*numbers, price=price), as_of=as_of)


@pytest.fixture
def store(tmp_path):
    """A store with three days of minutes in one file."""
    store = CandleStore(tmp_path / "candles")
    append(store, *range(LONG))
    return store


@pytest.fixture
def january(store):
    return store.root / "paper" / "BTC-USDT" / "1m" / "2026-01.parquet"


def test_a_new_candle_of_a_long_month_goes_into_its_tail_alone(store, january):
    before = january.stat().st_mtime_ns
    assert append(store, LONG).added == 1
    assert january.stat().st_mtime_ns == before
    assert pq.read_metadata(tail_of(january)).num_rows == 1
    assert stored(store) == list(range(LONG + 1))
    assert store.last_close(*SERIES) == time(LONG + 1)


def test_a_tail_that_is_longer_than_a_day_is_folded_into_its_month(store, january):
    append(store, *range(LONG, LONG + TAIL_ROWS))
    assert tail_of(january).exists()
    append(store, LONG + TAIL_ROWS)
    assert not tail_of(january).exists()
    assert stored(store) == list(range(LONG + TAIL_ROWS + 1))


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 500, LONG, LONG + 10])
@pytest.mark.parametrize("cut", [None, LONG + 1, LONG - 3, 9000, 17])
def test_the_newest_of_a_month_and_its_tail_are_those_of_all(tmp_path, limit, cut):
    store = CandleStore(tmp_path)
    append(store, *range(LONG))
    append(store, LONG, LONG + 1)
    whole = range(min(LONG + 2, cut or LONG + 2))
    newest = list(whole)[max(len(whole) - limit, 0) :]
    assert stored(store, limit=limit, end=cut and time(cut)) == newest
    assert stored(store, limit=limit, as_of=cut and time(cut)) == newest


def test_a_tail_that_a_killed_writer_left_behind_doubles_nothing(store, january):
    append(store, LONG, LONG + 1)
    left_over = tail_of(january).read_bytes()
    store.compact(*SERIES)
    tail_of(january).write_bytes(left_over)
    assert stored(store) == list(range(LONG + 2))
    assert stored(store, limit=3) == [LONG - 1, LONG, LONG + 1]
    assert store.gaps(*SERIES) == []
    append(store, LONG + 2)
    assert stored(store) == list(range(LONG + 3))
    assert pq.read_metadata(tail_of(january)).num_rows == 1


def test_a_tail_that_a_killed_fold_left_behind_hides_no_newer_candle(store, january):
    append(store, *range(LONG, LONG + TAIL_ROWS))
    left_over = tail_of(january).read_bytes()
    newest = LONG + TAIL_ROWS
    append(store, newest)  # folds the tail, with one candle more
    tail_of(january).write_bytes(left_over)
    assert store.last_close(*SERIES) == time(newest + 1)
    assert stored(store, limit=2) == [newest - 1, newest]
    assert stored(store, limit=2, end=time(newest)) == [newest - 2, newest - 1]


def test_a_tail_that_is_cut_off_stops_with_its_name(store, january):
    append(store, LONG)
    tail_of(january).write_bytes(tail_of(january).read_bytes()[:-20])
    with pytest.raises(Exception, match=r"2026-01\.tail\.parquet"):
        store.load(*SERIES)


def test_a_revision_in_month_or_tail_wins_and_is_listed(store):
    append(store, LONG)
    append(store, 5, LONG, price=200.0, as_of=time(LONG + 9))
    early, late = store.revisions(*SERIES)
    assert (early.open_time, early.seen) == (time(5), time(LONG + 9))
    assert early.old == (100.0, 102.0, 98.0, 101.0, 1005.0)
    assert early.new == (200.0, 202.0, 198.0, 201.0, 1005.0)
    assert late.open_time == time(LONG)
    assert store.load(*SERIES)["close"].iloc[[5, -1]].tolist() == [201.0, 201.0]
    before = store.load(*SERIES, as_of=time(LONG + 1))
    assert before["close"].eq(101.0).all()
    assert stored(store, as_of=time(LONG + 1), limit=7) == list(range(LONG - 6, LONG + 1))


def test_a_candle_that_came_late_is_not_among_the_newest_of_before(store):
    append(store, LONG + 1, LONG + 2)
    append(store, LONG, as_of=time(LONG + 9))
    assert stored(store, as_of=time(LONG + 3), limit=3) == [LONG - 1, LONG + 1, LONG + 2]
    assert stored(store, limit=3) == [LONG, LONG + 1, LONG + 2]


def test_what_is_older_than_all_is_no_revision(store):
    append(store, -3, -2, as_of=time(LONG + 9))
    assert store.revisions(*SERIES) == []
    assert stored(store)[:3] == [-3, -2, 0]


def test_what_is_missing_is_told_at_both_ends_and_between(store):
    append(store, LONG + 4)
    assert store.missing(*SERIES, time(-10), time(LONG + 6)) == [
        Gap(time(-10), time(0), 10),
        Gap(time(LONG), time(LONG + 4), 4),
        Gap(time(LONG + 5), time(LONG + 6), 1),
    ]
    store.record_gaps(*SERIES, [Gap(time(-10), time(-4), 6)])
    assert store.missing(*SERIES, time(-10), time(20)) == [Gap(time(-4), time(0), 4)]
    assert store.missing(*SERIES, time(3), time(9)) == []
    assert store.missing(*SERIES, time(-90), time(-80)) == [Gap(time(-90), time(-80), 10)]


def test_a_summary_counts_what_is_stored(store):
    append(store, LONG + 4)
    store.record_gaps(*SERIES, [Gap(time(LONG), time(LONG + 1), 1)])
    append(store, 5, price=200.0, as_of=time(LONG + 9))
    append(store, LONG + 2, as_of=time(LONG + 9))
    told = store.summary(*SERIES)
    assert (told.candles, told.first, told.last_close) == (LONG + 2, time(0), time(LONG + 5))
    assert [gap.missing for gap in told.open_gaps] == [1, 1]
    assert [gap.missing for gap in told.venue_gaps] == [1]
    assert (told.revisions, told.late) == (1, 1)
    assert store.summary("paper", "ETH/USDT", "1m") is None


def test_compacting_changes_no_candle(store, january):
    append(store, LONG)
    append(store, 5, price=200.0, as_of=time(LONG + 9))
    append(store, LONG + 1)
    whole, then = store.load(*SERIES), store.load(*SERIES, as_of=time(LONG + 1))
    assert tail_of(january).exists()
    done = store.compact(*SERIES)
    assert not tail_of(january).exists()
    assert (done.files_before, done.files_after) == (2, 1)
    pd.testing.assert_frame_equal(store.load(*SERIES), whole)
    pd.testing.assert_frame_equal(store.load(*SERIES, as_of=time(LONG + 1)), then)
    stamp = january.stat().st_mtime_ns
    again = store.compact(*SERIES)
    assert again.size_before == again.size_after
    assert january.stat().st_mtime_ns == stamp


def test_a_month_in_small_groups_is_made_one_that_reads_fast(store, january):
    table = pq.read_table(january)
    pq.write_table(table, january, row_group_size=100)
    assert stored(store, limit=3) == [LONG - 3, LONG - 2, LONG - 1]
    store.compact(*SERIES)
    assert pq.read_metadata(january).num_row_groups == 1
    assert stored(store) == list(range(LONG))


def test_pandas_and_duckdb_read_the_same_files(store, january):
    append(store, LONG, LONG + 1)
    append(store, 60 * 24 * 31, as_of=time(60 * 24 * 31 + 1))
    whole = store.load(*SERIES)
    by_pandas = pd.read_parquet(january.parent).sort_values("open_time").set_index("open_time")
    assert candles_hash(by_pandas) == candles_hash(whole)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(
            f"SELECT * FROM read_parquet('{january.parent}/*.parquet') ORDER BY open_time"
        ).df()
    assert candles_hash(found.set_index("open_time")) == candles_hash(whole)


def _grow(root, first, count):
    for number in range(first, first + count):
        append(CandleStore(root), number)


def _compact_on(root, times):
    for _ in range(times):
        CandleStore(root).compact(*SERIES)


def _read_on(root, times):
    seen = 0
    for _ in range(times):
        found = stored(CandleStore(root))
        assert found == list(range(len(found)))
        assert len(found) >= seen
        newest = stored(CandleStore(root), limit=5)
        assert len(newest) == 5
        assert newest == list(range(newest[0], newest[0] + 5))
        seen = len(found)


def test_readers_see_no_hole_while_a_tail_grows_and_is_folded(store):
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_grow, args=(store.root, LONG, 120)),
        context.Process(target=_compact_on, args=(store.root, 40)),
        *(context.Process(target=_read_on, args=(store.root, 60)) for _ in range(2)),
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0] * 4
    assert stored(store) == list(range(LONG + 120))


def test_a_writer_killed_while_it_folds_leaves_a_whole_series(store):
    draw = random.Random(7)
    context = multiprocessing.get_context("fork")
    for _ in range(8):
        first = store.load(*SERIES, limit=1)["volume"].iloc[0] - 999
        process = context.Process(target=_grow_and_fold, args=(store.root, int(first)))
        process.start()
        process.join(draw.uniform(0.02, 0.15))
        process.kill()
        process.join()
        found = stored(store)
        assert found == list(range(len(found)))
        assert len(found) >= first


def _grow_and_fold(root, first):
    for number in range(first, first + 10_000):
        append(CandleStore(root), number)
        CandleStore(root).compact(*SERIES)


@settings(max_examples=10, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.integers(-30, LONG + 60), st.integers(1, 40)), min_size=1, max_size=6
    )
)
def test_pieces_anywhere_make_the_same_series_as_one(tmp_path_factory, pieces):
    store = CandleStore(tmp_path_factory.mktemp("candles"))
    append(store, *range(LONG))
    whole = set(range(LONG))
    for first, count in pieces:
        append(store, *range(first, first + count), as_of=time(LONG + 200))
        whole |= set(range(first, first + count))
    assert stored(store) == sorted(whole)
    assert stored(store, limit=70) == sorted(whole)[-70:]
    assert sum(gap.missing for gap in store.gaps(*SERIES)) == max(whole) - min(whole) + 1 - len(
        whole
    )


def test_revisions_are_lines_of_json(store, january):
    append(store, 5, price=200.0, as_of=time(LONG) + timedelta(seconds=3))
    (line,) = (january.parent / "revisions.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)) == ["as_of", "new", "old", "open_time"]


def test_a_fold_between_a_readers_two_files_makes_no_hole(store, monkeypatch):
    append(store, LONG)
    read, read_before = partitions._read_file, []

    def read_and_let_a_writer_in(path, *more):
        found = read(path, *more)
        if not read_before:
            read_before.append(path)
            store.compact(*SERIES)
            append(store, LONG + 1)
        return found

    monkeypatch.setattr(partitions, "_read_file", read_and_let_a_writer_in)
    found = stored(store)
    assert found == list(range(len(found)))
    assert len(found) > LONG
