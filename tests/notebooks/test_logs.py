"""The desk's log: one line per event, from every process, with its cycle's id."""

import json
import logging
import multiprocessing

import pytest

from tradelib import logs
from tradelib.logs import LOG_FILE, configure_logging, cycle_id, read_log
from tradelib.settings import load_settings


@pytest.fixture
def settings(home):
    known = {name: logging.getLogger(name) for name in ("tradelib", "flows", "stamina")}
    before = {name: (list(one.handlers), one.propagate) for name, one in known.items()}
    token = cycle_id.set(None)
    yield load_settings(home)
    cycle_id.reset(token)
    for name, one in known.items():
        one.handlers, one.propagate = before[name]


def test_lines_carry_their_cycle_and_their_own_fields(settings):
    configure_logging(settings, "c-1")
    logging.getLogger("tradelib.x").info("first", extra={"fields": {"run": "r"}})
    configure_logging(settings, "c-2")
    logging.getLogger("flows.y").warning("second")
    assert [e["message"] for e in read_log(settings)] == ["first", "second"]
    (first,) = read_log(settings, cycle="c-1")
    assert (first["run"], first["level"], first["logger"]) == ("r", "INFO", "tradelib.x")


def test_configuring_twice_writes_each_line_once(settings):
    configure_logging(settings)
    configure_logging(settings)
    logging.getLogger("tradelib").info("once")
    assert len(read_log(settings)) == 1


def test_credentials_in_urls_are_masked(settings):
    configure_logging(settings)
    logging.getLogger("tradelib").info("GET /api?symbol=X&signature=abc123&token=t0k3n")
    text = (settings.logs / LOG_FILE).read_text()
    assert "abc123" not in text
    assert "t0k3n" not in text


def write_lines(home, number):
    configure_logging(load_settings(home), f"c-{number}")
    for line in range(200):
        logging.getLogger("tradelib").info("line %d of %d", line, number)


def test_processes_that_write_at_once_tear_no_line(settings):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write_lines, args=(settings.home, n)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = (settings.logs / LOG_FILE).read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 600


def test_a_full_log_is_set_aside_and_still_read(settings, monkeypatch):
    monkeypatch.setattr(logs, "MAX_BYTES", 2000)
    configure_logging(settings)
    for number in range(150):
        logging.getLogger("tradelib").info("line %d", number)
    files = {path.name for path in settings.logs.glob("desk.jsonl.*")}
    assert files == {f"desk.jsonl.{n}" for n in range(1, 1 + logs.KEPT_FILES)}
    told = [entry["message"] for entry in read_log(settings)]
    assert told == [f"line {n}" for n in range(150 - len(told), 150)]
    assert 50 < len(told) < 150


def test_a_line_that_was_cut_short_is_left_out(settings):
    configure_logging(settings)
    logging.getLogger("tradelib").info("whole")
    with (settings.logs / LOG_FILE).open("a") as file:
        file.write('{"message": "cut')
    assert [e["message"] for e in read_log(settings)] == ["whole"]
