"""The candle store: month files that survive crashes, crowds and revisions."""

import json
import multiprocessing
import os
import resource
import signal
from datetime import timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradelib.candles.schema import Gap, candles_from_rows, candles_hash, open_ms
from tradelib.candles.store import CandleStore
from tradelib.candles.walk import random_candles
from tradelib.clock import from_ms
from tradelib.errors import InvalidInput, StorageFailed

HOUR = 3_600_000
START = 1_767_225_600_000 - 5 * HOUR  # five hours before 2026 begins
SERIES = ("paper", "BTC/USDT", "1h")
LATER = from_ms(START + 10_000 * HOUR)


def hourly(*hours, price=100.0):
    return candles_from_rows(
        [(START + hour * HOUR, price, price + 2, price - 2, price + 1, 5) for hour in hours]
    )


def time(hour):
    return from_ms(START + hour * HOUR)


@pytest.fixture
def store(tmp_path):
    return CandleStore(tmp_path / "candles")


def folder(store):
    return store.root / "paper" / "BTC-USDT" / "1h"


def test_candles_come_back_as_they_went_in(store):
    frame = hourly(*range(10))
    assert store.append(*SERIES, frame, as_of=LATER).added == 10
    pd.testing.assert_frame_equal(store.load(*SERIES), frame)
    assert candles_hash(store.load(*SERIES)) == candles_hash(frame)


@pytest.mark.parametrize("limits", [(1, 3, None, 12, 2), (None, 5), (7, 1), (20, 3)])
def test_who_looks_from_one_time_reads_the_same_however_often(store, limits):
    store.append(*SERIES, hourly(*range(10)), as_of=time(10))
    reads = []
    looking = CandleStore(store.root, on_read=reads.append, as_of=time(9))
    for limit in limits:
        found = looking.load(*SERIES, limit=limit)
        expected = store.load(*SERIES, as_of=time(9), limit=limit)
        pd.testing.assert_frame_equal(found, expected)
        assert (reads[-1].candles, reads[-1].hash) == (len(expected), candles_hash(expected))
    before = looking.load(*SERIES)
    before.loc[:, "close"] = 0.0
    store.append(*SERIES, hourly(5, price=200.0), as_of=time(11))
    assert looking.load(*SERIES)["close"].tolist() == [101] * 9
    assert looking.load(*SERIES, as_of=time(11))["close"].tolist() == [101] * 5 + [201] + [101] * 4


def test_months_are_plain_parquet_files(store):
    store.append(*SERIES, hourly(*range(10)), as_of=LATER)
    assert sorted(path.name for path in folder(store).glob("*.parquet")) == [
        "2025-12.parquet",
        "2026-01.parquet",
    ]
    table = pd.read_parquet(folder(store) / "2026-01.parquet")
    assert table.columns.tolist() == ["open_time", "open", "high", "low", "close", "volume"]
    assert len(table) == 5


def test_the_forming_candle_is_dropped(store):
    report = store.append(*SERIES, hourly(0, 1, 2), as_of=time(2) + timedelta(minutes=59))
    assert report.added == 2
    assert store.last_close(*SERIES) == time(2)


def test_a_candle_counts_as_closed_at_its_very_close(store):
    assert store.append(*SERIES, hourly(0, 1, 2), as_of=time(3)).added == 3


def test_equal_candles_are_kept_once_and_rewrite_nothing(store):
    store.append(*SERIES, hourly(*range(10)), as_of=LATER)
    stamps = {path: path.stat().st_mtime_ns for path in folder(store).glob("*.parquet")}
    report = store.append(*SERIES, hourly(*range(3, 10)), as_of=LATER)
    assert (report.added, report.revised) == (0, 0)
    assert stamps == {path: path.stat().st_mtime_ns for path in folder(store).glob("*.parquet")}
    assert not (folder(store) / "revisions.jsonl").exists()


def test_a_revision_wins_and_both_values_are_kept(store):
    store.append(*SERIES, hourly(0, 1, 2), as_of=time(3))
    report = store.append(*SERIES, hourly(1, price=200.0), as_of=time(4))
    assert (report.added, report.revised) == (0, 1)
    assert store.load(*SERIES)["close"].tolist() == [101, 201, 101]
    (line,) = (folder(store) / "revisions.jsonl").read_text().splitlines()
    assert json.loads(line)["old"] == [100, 102, 98, 101, 5]
    assert json.loads(line)["new"] == [200, 202, 198, 201, 5]


def test_an_earlier_as_of_time_sees_the_values_known_then(store):
    store.append(*SERIES, hourly(0, 1, 3), as_of=time(4))
    then = store.load(*SERIES, as_of=time(4))
    store.append(*SERIES, hourly(1, price=200.0), as_of=time(5))
    store.append(*SERIES, hourly(1, price=300.0), as_of=time(6))
    store.append(*SERIES, hourly(2, 5), as_of=time(6))
    assert candles_hash(store.load(*SERIES, as_of=time(4))) == candles_hash(then)
    assert store.load(*SERIES, as_of=time(5))["close"].tolist() == [101, 201, 101]
    assert store.load(*SERIES, as_of=time(6))["close"].tolist() == [101, 301, 101, 101, 101]


def test_a_revision_line_cut_short_by_a_crash_is_passed_over(store):
    store.append(*SERIES, hourly(0, 1), as_of=time(2))
    with open(folder(store) / "revisions.jsonl", "w") as log:
        log.write('{"as_of": "2026-')
    store.append(*SERIES, hourly(1, price=200.0), as_of=time(3))
    assert store.load(*SERIES, as_of=time(2))["close"].tolist() == [101, 101]


def test_load_keeps_to_start_end_as_of_and_limit(store):
    store.append(*SERIES, hourly(*range(10)), as_of=LATER)
    hours = lambda frame: ((open_ms(frame) - START) // HOUR).tolist()  # noqa: E731
    assert hours(store.load(*SERIES, start=time(3), end=time(7))) == [3, 4, 5, 6]
    assert hours(store.load(*SERIES, as_of=time(7))) == [0, 1, 2, 3, 4, 5, 6]
    assert hours(store.load(*SERIES, limit=7)) == [3, 4, 5, 6, 7, 8, 9]
    assert hours(store.load(*SERIES, as_of=time(6), limit=2)) == [4, 5]
    assert hours(store.load(*SERIES, as_of=time(3), limit=50)) == [0, 1, 2]
    assert hours(store.load(*SERIES, limit=0)) == []


def test_nothing_stored_loads_as_no_candles(store):
    assert store.load(*SERIES).empty
    assert store.last_close(*SERIES) is None
    assert store.age(*SERIES, as_of=LATER) is None
    assert store.gaps(*SERIES) == []
    assert store.series() == []


def test_age_counts_from_the_newest_close(store):
    store.append(*SERIES, hourly(0, 1), as_of=LATER)
    assert store.age(*SERIES, as_of=time(2) + timedelta(minutes=7)) == timedelta(minutes=7)
    assert store.age(*SERIES, as_of=time(1)) == timedelta(0)


def test_gaps_are_told_until_they_are_recorded(store):
    report = store.append(*SERIES, hourly(0, 1, 4, 8), as_of=LATER)
    first, second = Gap(time(2), time(4), 2), Gap(time(5), time(8), 3)
    assert report.gaps == (first, second)
    assert store.gaps(*SERIES, start=time(4)) == [second]
    store.record_gaps(*SERIES, [first, Gap(time(6), time(7), 1)])
    assert store.gaps(*SERIES) == [Gap(time(5), time(6), 1), Gap(time(7), time(8), 1)]
    assert [gap.missing for gap in store.recorded_gaps(*SERIES)] == [2, 1]


def test_a_gap_over_whole_months_is_found(store):
    store.append(*SERIES, hourly(0, 3000), as_of=LATER)
    assert store.gaps(*SERIES, start=time(1500), end=time(1501)) == [Gap(time(1), time(3000), 2999)]


def test_series_are_listed_by_their_own_names(store):
    names = [("b-2", "1INCH/USDT", "5m"), ("a", "BTC/USDT", "1h"), ("a", "币安/US-D:T", "1d")]
    for name in names:
        step = candles_from_rows([(START - 19 * HOUR, 1, 1, 1, 1, 0)])
        store.append(*name, step, as_of=LATER)
    assert sorted(store.series()) == sorted(names)


@pytest.mark.parametrize(
    "name", [("..", "BTC/USDT", "1h"), ("a/b", "BTC/USDT", "1h"), ("a", "BTCUSDT", "1h")]
)
def test_a_name_that_is_no_series_is_refused(store, name):
    with pytest.raises(InvalidInput):
        store.load(*name)


def test_a_timeframe_that_does_not_exist_is_refused(store):
    with pytest.raises(InvalidInput, match="timeframe"):
        store.load("paper", "BTC/USDT", "../1h")


def test_a_symbol_cannot_leave_the_store(store):
    store.append("paper", "../..", "1h", hourly(0), as_of=LATER)
    assert [path.name for path in store.root.parent.iterdir()] == ["candles"]


def test_a_truncated_file_stops_with_its_name(store):
    store.append(*SERIES, hourly(*range(10)), as_of=LATER)
    path = folder(store) / "2026-01.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(StorageFailed, match=r"2026-01\.parquet"):
        store.load(*SERIES)


def test_a_foreign_file_stops_with_its_name(store):
    store.append(*SERIES, hourly(*range(10)), as_of=LATER)
    pq.write_table(pa.table({"a": [1]}), folder(store) / "2026-02.parquet")
    with pytest.raises(StorageFailed, match=r"2026-02\.parquet"):
        store.load(*SERIES)


def test_a_file_of_another_month_stops_the_load(store):
    store.append(*SERIES, hourly(*range(10)), as_of=LATER)
    january = folder(store) / "2026-01.parquet"
    (folder(store) / "2026-02.parquet").write_bytes(january.read_bytes())
    with pytest.raises(StorageFailed, match="doubled"):
        store.load(*SERIES)


def test_damaged_records_of_gaps_stop_with_their_name(store):
    store.append(*SERIES, hourly(0, 2), as_of=LATER)
    (folder(store) / "gaps.json").write_text("[[1")
    with pytest.raises(StorageFailed, match=r"gaps\.json"):
        store.gaps(*SERIES)


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="space and permissions"):
        CandleStore(tmp_path / "file").append(*SERIES, hourly(0), as_of=LATER)


def _append_on_a_full_disk(root):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    try:
        CandleStore(root).append(*SERIES, hourly(*range(2, 10)), as_of=LATER)
    except StorageFailed:
        os._exit(7)
    os._exit(0)


def test_a_full_disk_leaves_nothing_half_written(store):
    store.append(*SERIES, hourly(0, 1), as_of=LATER)
    process = multiprocessing.get_context("fork").Process(
        target=_append_on_a_full_disk, args=(store.root,)
    )
    process.start()
    process.join(20)
    assert process.exitcode == 7
    assert len(store.load(*SERIES)) == 2
    assert not list(folder(store).glob(".*.tmp"))


def test_a_killed_writers_leftovers_are_cleared_by_the_next(store):
    store.append(*SERIES, hourly(0, 1), as_of=LATER)
    (folder(store) / ".abc.tmp").write_text("half")
    assert len(store.load(*SERIES)) == 2
    store.append(*SERIES, hourly(2), as_of=LATER)
    assert not list(folder(store).glob(".*.tmp"))


def _write_share(root, share, shares):
    for first in (share, share + 80):
        hours = range(first, first + 80, shares)
        CandleStore(root).append(*SERIES, hourly(*hours), as_of=LATER)


def _read_on(root):
    store, seen = CandleStore(root), 0
    for _ in range(100):
        count = len(store.load(*SERIES))
        assert count >= seen
        seen = count


def test_eight_writers_and_eight_readers_lose_nothing(store):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_read_on, args=(store.root,)) for _ in range(8)]
    processes += [
        context.Process(target=_write_share, args=(store.root, share, 8)) for share in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0] * 16
    assert ((open_ms(store.load(*SERIES)) - START) // HOUR).tolist() == list(range(160))


def _append_for_ever(root):
    for hour in range(100_000):
        CandleStore(root).append(*SERIES, hourly(hour), as_of=time(200_000))


def test_writers_killed_at_any_moment_leave_a_whole_series(store):
    for _ in range(5):
        process = multiprocessing.get_context("fork").Process(
            target=_append_for_ever, args=(store.root,)
        )
        process.start()
        process.join(0.1)
        process.kill()
        process.join()
        stored = store.load(*SERIES)
        assert ((open_ms(stored) - START) // HOUR).tolist() == list(range(len(stored)))
    assert store.append(*SERIES, hourly(0, 99_999), as_of=time(200_000)).revised == 0


@settings(max_examples=8, deadline=None)
@given(pieces=st.lists(st.sets(st.integers(0, 40), min_size=1), min_size=1, max_size=5))
def test_pieces_in_any_order_make_the_same_series(tmp_path_factory, pieces):
    store = CandleStore(tmp_path_factory.mktemp("candles"))
    for piece in pieces:
        store.append(*SERIES, hourly(*sorted(piece)), as_of=LATER)
    whole = hourly(*sorted(set().union(*pieces)))
    assert candles_hash(store.load(*SERIES)) == candles_hash(whole)


def test_what_is_read_again_is_what_the_file_holds_now(tmp_path) -> None:
    store, candles = CandleStore(tmp_path), random_candles(50, seed=1, timeframe="1m")
    as_of = candles.index[-1] + pd.Timedelta("1h")
    name = ("paper", "BTC/USDT", "1m")
    store.append(*name, candles[:40], as_of=as_of)
    first = store.load(*name)
    first.iloc[-1, 0] = -1.0
    assert store.load(*name).equals(candles[:40])
    for end in range(41, 51):
        store.append(*name, candles[:end], as_of=as_of)
        assert store.load(*name).equals(candles[:end])
        assert store.load(*name, limit=3).equals(candles[end - 3 : end])
