"""Candle files a user brings: read strictly, refused in one sentence."""

import os
import random
from pathlib import Path

import pandas as pd
import pytest

from tradelib.candles.files import read_candle_file
from tradelib.candles.schema import COLUMNS, candles_hash
from tradelib.errors import InvalidInput

HEADER = "date,open,high,low,close,volume"
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def rows(*hours):
    return [f"2026-01-01 {hour:02}:00:00+00:00,10,12,9,11,5" for hour in hours]


def write(path, *lines):
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "coinbase_BTC-USD_1h.csv"


def refusal(path, **arguments):
    with pytest.raises(InvalidInput) as caught:
        read_candle_file(path, **arguments)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message.strip()
    return message


def test_a_csv_file_tells_symbol_timeframe_and_candles(file):
    read = read_candle_file(write(file, *rows(0, 1, 2)))
    assert (read.symbol, read.timeframe, read.gaps) == ("BTC/USD", "1h", ())
    assert read.frame.index.dtype == "datetime64[ms, UTC]"
    assert list(read.frame.columns) == list(COLUMNS)
    assert read.frame.iloc[0].tolist() == [10, 12, 9, 11, 5]


def test_a_parquet_file_reads_as_its_csv_twin(file, tmp_path):
    frame = read_candle_file(write(file, *rows(0, 1, 2))).frame
    twin = tmp_path / "coinbase_BTC-USD_1h.parquet"
    frame.to_parquet(twin)
    assert candles_hash(read_candle_file(twin).frame) == candles_hash(frame)
    frame.reset_index(names="timestamp").to_parquet(twin)
    assert candles_hash(read_candle_file(twin).frame) == candles_hash(frame)


@pytest.mark.parametrize("column", ["date", "open_time", "timestamp", "time", "Time"])
@pytest.mark.parametrize("scale", [1, 1000])
def test_epoch_times_are_read_in_seconds_and_in_milliseconds(file, column, scale):
    start = 1_767_225_600
    lines = [f"{(start + hour * 3600) * scale},10,12,9,11,5" for hour in range(3)]
    file.write_text("\n".join([f"{column},open,high,low,close,volume", *lines]))
    assert read_candle_file(file).frame.index[0] == pd.Timestamp("2026-01-01", tz="UTC")


def test_a_gap_is_recorded_and_not_filled(file):
    read = read_candle_file(write(file, *rows(0, 1, 5, 6)))
    (gap,) = read.gaps
    assert (gap.start.hour, gap.end.hour, gap.missing) == (2, 5, 3)
    assert len(read.frame) == 4


def test_the_timeframe_is_the_commonest_spacing_when_the_name_tells_none(tmp_path):
    path = write(tmp_path / "BTC-USD.csv", *rows(0, 2, 4, 8))
    assert read_candle_file(path).timeframe == "2h"


def test_arguments_win_over_the_name(tmp_path):
    path = write(tmp_path / "candles.csv", *rows(0, 1, 2))
    assert read_candle_file(path, symbol="ETH/BTC", timeframe="1h").symbol == "ETH/BTC"


def test_a_missing_file_is_refused(file):
    assert "no candle file" in refusal(file)


def test_a_folder_is_refused(tmp_path):
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_is_refused(file, content):
    file.write_bytes(content)
    assert "is empty" in refusal(file)


def test_a_file_without_rows_is_refused(file):
    assert "no rows" in refusal(write(file))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("seed", range(5))
def test_binary_rubbish_is_refused(file, suffix, seed):
    path = file.with_suffix(suffix)
    path.write_bytes(random.Random(seed).randbytes(2000))
    refusal(path)


def test_a_truncated_parquet_file_is_refused(file):
    frame = read_candle_file(write(file, *rows(0, 1, 2))).frame
    path = file.with_suffix(".parquet")
    frame.to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "not a whole Parquet file" in refusal(path)


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "BTC-USD_1h.xlsx").write_text("x")
    assert "neither .csv nor .parquet" in refusal(tmp_path / "BTC-USD_1h.xlsx")


def test_missing_columns_are_named(file):
    file.write_text("day,open,high,low\n1,2,3,4\n")
    message = refusal(file)
    assert all(word in message for word in ("time", "close", "volume"))


def test_text_in_a_number_column_is_named_with_its_time(file):
    lines = rows(0, 1, 2)
    lines[1] = lines[1].replace("11", "eleven")
    message = refusal(write(file, *lines))
    assert "close 'eleven'" in message
    assert "2026-01-01T01:00:00" in message


def test_a_missing_number_is_named_with_its_time(file):
    message = refusal(write(file, *rows(0), "2026-01-01 01:00:00+00:00,10,12,9,,5"))
    assert "close" in message
    assert "2026-01-01T01:00:00Z" in message


def test_a_time_that_is_no_time_is_named_with_its_row(file):
    assert "row 2" in refusal(write(file, *rows(0), "yesterday,10,12,9,11,5"))


def test_an_infinite_time_and_doubled_time_columns_are_refused(file):
    file.write_text(f"{HEADER}\n1767225600,1,1,1,1,1\ninf,1,1,1,1,1\n")
    assert "row 2" in refusal(file)
    file.write_text(f"Date,{HEADER}\n1767225600,1767225600,1,1,1,1,1\n")
    assert "time" in refusal(file)


def test_text_late_in_a_long_file_is_found(file):
    start, count = 1_767_225_600, 300_000
    lines = [f"{start + 3600 * i},1,1,1,1,1" for i in range(count)]
    lines[-1] = lines[-1].replace(",1,1,1,1,1", ",1,1,1,one,1")
    assert "close 'one'" in refusal(write(file, *lines))


def test_a_month_of_the_store_is_read_when_told_its_symbol(file, tmp_path):
    frame = read_candle_file(write(file, *rows(0, 1, 2))).frame
    frame.to_parquet(tmp_path / "2026-01.parquet")
    assert "symbol" in refusal(tmp_path / "2026-01.parquet")
    assert read_candle_file(tmp_path / "2026-01.parquet", symbol="BTC/USD").timeframe == "1h"


def test_a_row_with_too_many_fields_is_refused(file):
    refusal(write(file, *rows(0), rows(1)[0] + ",7"))
    refusal(write(file, rows(0)[0] + ",7", rows(1)[0] + ",7"))


def test_doubled_rows_are_counted_and_gaps_mentioned_beside(file):
    message = refusal(write(file, *rows(0, 1, 1, 1, 2, 6)))
    assert "2 doubled rows, the first at 2026-01-01T01:00:00Z" in message
    assert "3 candles missing in 1 gaps" in message


def test_disorder_is_refused(file):
    assert "out of order" in refusal(write(file, *rows(0, 2, 1)))


def test_a_name_without_a_symbol_is_refused(tmp_path):
    assert "symbol" in refusal(write(tmp_path / "candles.csv", *rows(0, 1)))


def test_hourly_rows_under_the_name_of_five_minutes_are_refused(tmp_path):
    path = write(tmp_path / "coinbase_BTC-USD_5m.csv", *rows(0, 1, 2, 3))
    assert "1h apart" in refusal(path)


@pytest.mark.parametrize("timeframe", ["1H", "fast", "1y"])
def test_an_unknown_timeframe_is_refused(file, timeframe):
    with pytest.raises(InvalidInput, match="timeframe"):
        read_candle_file(write(file, *rows(0, 1)), timeframe=timeframe)


@pytest.mark.skipif(
    not DATA.exists() and os.environ.get("CI") != "true", reason="sample files absent"
)
@pytest.mark.parametrize(
    ("name", "count", "missing"),
    [
        ("binance_ADA-BTC_5m.csv", 5720, 40),
        ("binance_ETH-BTC_5m.csv", 5760, 0),
        ("binance_LTC-BTC_5m.csv", 5760, 0),
        ("binance_XMR-BTC_5m.csv", 5758, 2),
        ("coinbase_BTC-USD_1h.csv", 20111, 0),
    ],
)
def test_real_files_are_read_whole(name, count, missing):
    read = read_candle_file(DATA / name)
    assert len(read.frame) == count
    assert sum(gap.missing for gap in read.gaps) == missing
