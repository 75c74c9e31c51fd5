"""A strategy comes onto the desk with its text and the checks that the desk ran, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, text

from tests.strategy.sources import LEAK, REVERSAL
from tradelib.candles.files import CandleFile
from tradelib.candles.schema import candles_hash
from tradelib.errors import InvalidInput, ReadOnly, StorageFailed
from tradelib.research.samples import random_candles
from tradelib.settings import DeskSettings, load_settings
from tradelib.strategy import registry
from tradelib.strategy.own import Source, save_source
from tradelib.trading import tables
from tradelib.trading.backup import back_up_desk, restore_desk
from tradelib.trading.bots import BotStatus, add_bot, change_bot, load_bot, load_bots, new_bot
from tradelib.trading.ledger import Ledger, open_ledger
from tradelib.trading.promoting import ADDS, NotPromoted, Proposal, promote
from tradelib.trading.promotions import changes_since, find_promotion, load_promotions
from tradelib.venue import save_keys

SAMPLE = CandleFile(Path("x_BTC-USDT_1h.csv"), "BTC/USDT", "1h", random_candles(1500, seed=6))
TRIED = {"window": [10, 20, 40]}
NO_SIZE = {"hot_size": 0.0, "warm_size": 0.0, "cool_size": 0.0}


@pytest.fixture
def settings(home: Path) -> DeskSettings:
    (home / "desk.toml").write_text('[venues.paper]\nrest_url = "service:paper"\n')
    for name, source in (("idea", REVERSAL), ("leak", LEAK)):
        save_source(home / "strategies", Source(name, source))
    return load_settings(home)


@pytest.fixture
def ledger(settings: DeskSettings) -> Iterator[Ledger]:
    opened = open_ledger(settings, migrate=True)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a process of its own: it knows no frozen source but from its ledger."""
    monkeypatch.setattr(registry, "_frozen", {})


def put(settings: DeskSettings, ledger: Ledger, bot="one", strategy="idea", overrule="", **more):
    proposal = Proposal(bot, strategy, SAMPLE, **({"tried": TRIED} | more))
    return promote(settings, ledger, proposal, overrule=overrule, progress=False)


def rows(ledger: Ledger) -> dict[str, list]:
    with ledger.read() as books:
        return {name: list(books.execute(select(tables.metadata.tables[name]))) for name in ADDS}


def test_a_promotion_keeps_source_parameters_candles_and_checks_beside_a_stopped_bot(
    settings, ledger
):
    done = put(settings, ledger, parameters={"window": 10}, decision={"stop_loss": 0.2})
    bot = load_bot(ledger, "one")
    reference = Source("idea", REVERSAL).reference
    assert (bot.status, bot.strategy) == (BotStatus.STOPPED, reference)
    assert bot.parameters == {"window": 10}
    found = find_promotion(ledger, bot)
    assert found == done
    assert (found.source, found.strategy, found.overruled) == (reference, reference, None)
    assert found.candles["hash"] == candles_hash(SAMPLE.frame)
    assert found.candles["candles"] == 1500
    assert found.config == bot.config | {"stops": {}}
    assert found.checks["bias"]["unbiased"]
    assert found.checks["bias"]["candles"] == 1500
    assert found.checks["out_of_sample"]["kind"] == "walk-forward"
    assert found.checks["luck"]["trials"] == 3
    assert 0 <= found.checks["luck"]["deflated_sharpe"] <= 1
    assert "@" in found.promoted_by
    with ledger.read() as books:
        (kept,) = books.execute(select(tables.sources)).all()
    assert (kept.text, kept.hash) == (REVERSAL, Source("idea", REVERSAL).hash)


def test_a_bot_trades_by_the_frozen_text_whatever_becomes_of_the_file(settings, ledger, home):
    put(settings, ledger)
    save_source(home / "strategies", Source("idea", "def score(candles): return 3"))
    expected = registry.make_strategy(Source("idea", REVERSAL)).score(SAMPLE.frame)
    registry._frozen.clear()
    assert load_bots(ledger)[0].rules.score(SAMPLE.frame).equals(expected)
    registry._frozen.clear()
    (home / "strategies" / "idea.py").unlink()
    assert load_bot(ledger, "one").rules.score(SAMPLE.frame).equals(expected)


def test_two_texts_under_one_name_are_two_strategies(settings, ledger, home):
    put(settings, ledger, "one")
    save_source(home / "strategies", Source("idea", REVERSAL.replace("2 *", "3 *")))
    put(settings, ledger, "two")
    first, second = load_bots(ledger)
    assert first.strategy != second.strategy
    assert not first.rules.score(SAMPLE.frame).equals(second.rules.score(SAMPLE.frame))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"strategy": "leak"}, r"bias check failed: leak@.*look-ahead"),
        ({"tried": {}}, "there is no out-of-sample result: name all values that were tried"),
        ({"timeframe": "5m"}, "is to trade 5m candles and was examined on 1h"),
        ({"tried": {"window": [10, 500]}}, "out-of-sample result is missing: .* too few"),
        ({"decision": NO_SIZE}, "out-of-sample result is missing: it traded noth"),
        ({"tried": {}, "hold_out": 1.5}, "A share of 1.5 cannot be held out"),
    ],
)
def test_what_speaks_against_it_is_told_and_only_a_writing_overrules_it(
    settings, ledger, more, words
):
    before = rows(ledger)
    with pytest.raises(NotPromoted, match=words) as told:
        put(settings, ledger, overrule="   ", **more)
    assert not told.value.examination.passed
    assert rows(ledger) == before
    done = put(settings, ledger, overrule="I want to see it fail", **more)
    assert done.overruled == "I want to see it fail"
    assert load_bot(ledger, "one").status == BotStatus.STOPPED
    assert done.checks["refusals"]


def test_a_hold_out_is_an_out_of_sample_result_too(settings, ledger):
    done = put(settings, ledger, tried={}, hold_out=0.3)
    outside = done.checks["out_of_sample"]
    assert (outside["kind"], outside["candles"], len(outside["folds"])) == ("hold-out", 450, 1)
    assert done.checks["luck"] is None


def test_a_strategy_that_ships_is_promoted_with_the_version_of_its_code(settings, ledger):
    done = put(settings, ledger, strategy="mean_reversion")
    assert (done.source, done.strategy, len(done.code)) == (None, "mean_reversion", 64)
    assert load_bot(ledger, "one").strategy == "mean_reversion"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"bot": "One!"}, "Bot name"),
        ({"venue": "papier"}, "did you mean 'paper'"),
        ({"symbol": "BTC/EUR"}, "counts in USDT"),
        ({"strategy": "ide"}, "did you mean 'idea'"),
        ({"strategy": "gone.py"}, "cannot be read"),
        ({"strategy": "equal_weight"}, "holds several symbols"),
        ({"parameters": {"windw": 3}}, "did you mean 'window'"),
        ({"tried": {"windw": [3]}}, "did you mean 'window'"),
        ({"tried": {"window": []}}, "Of window no value was tried"),
        ({"tried": {"window": range(1, 2000)}}, "more than the 1,000"),
    ],
)
def test_what_makes_no_sense_cannot_be_overruled(settings, ledger, more, words):
    with pytest.raises(InvalidInput, match=words):
        put(settings, ledger, overrule="please", **more)
    assert rows(ledger) == {name: [] for name in ADDS}


def test_a_bots_name_is_given_once_and_a_promotion_belongs_to_its_bot(settings, ledger):
    put(settings, ledger)
    with pytest.raises(InvalidInput, match="exists already"):
        put(settings, ledger)
    assert len(load_promotions(ledger)) == 1
    later = replace(load_bot(ledger, "one"), created_at=tables.parse_time("2100-01-01T00:00Z"))
    assert find_promotion(ledger, later) is None


def test_what_was_changed_since_is_named(settings, ledger):
    done = put(settings, ledger)
    changed = change_bot(
        ledger, "one", lambda bot: replace(bot, parameters={"window": 30}, stops={"loss": 0.1})
    )
    assert changes_since(done, changed) == ["window: 20 → 30", "loss: None → 0.1"]


def test_a_users_strategy_cannot_be_given_to_a_bot_without_a_promotion(settings, ledger):
    with pytest.raises(InvalidInput, match=r"not on the desk yet; .*`desk promote idea`"):
        add_bot(ledger, new_bot("two", "paper", "BTC/USDT", "1h", "idea"))
    put(settings, ledger)
    add_bot(ledger, new_bot("two", "paper", "BTC/USDT", "1h", "idea"))
    assert find_promotion(ledger, load_bot(ledger, "two")) is None


def test_a_source_that_leans_on_another_file_is_not_frozen(settings, ledger, home, monkeypatch):
    (home / "my_helpers.py").write_text("factor = 2")
    monkeypatch.syspath_prepend(home)
    save_source(home / "strategies", Source("idea", f"import my_helpers\n{REVERSAL}"))
    with pytest.raises(InvalidInput, match="imports my_helpers, which lies in no installed pack"):
        put(settings, ledger, overrule="please")
    assert rows(ledger) == {name: [] for name in ADDS}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("# as {secret} says", "holds a key of venue paper"),
        ('api_secret = "{other}"', "holds what has the name of a secret"),
    ],
)
def test_a_source_or_a_reason_with_a_secret_is_not_kept(settings, ledger, home, line, words):
    secret, other = "nHq7Tz2pLx9VbR4sWk8mYc3dFg6jQa1e", "Zt5uKp0wXe7rMn3bVc8sDf2gHj6lQy9a"
    (home / "keys").mkdir()
    save_keys(home / "keys" / "paper.toml", "key-of-the-venue-paper-1234567890", secret)
    (home / "desk.toml").write_text(
        '[venues.paper]\nrest_url = "service:paper"\nkeys = "keys/paper.toml"\n'
    )
    told, settings = line.format(secret=secret, other=other), load_settings(home)
    with pytest.raises(InvalidInput, match="What overrules the checks holds"):
        put(settings, ledger, overrule=told)
    save_source(home / "strategies", Source("idea", f"{told}\n{REVERSAL}"))
    with pytest.raises(InvalidInput, match=words) as error:
        put(settings, ledger)
    assert secret not in str(error.value)
    assert rows(ledger) == {name: [] for name in ADDS}


def test_a_source_that_was_changed_in_the_ledger_is_not_run(settings, ledger):
    put(settings, ledger)
    with ledger.write() as books:
        books.execute(text("UPDATE sources SET text = text || '# more'"))
    registry._frozen.clear()
    (bot,) = load_bots(ledger)
    with pytest.raises(StorageFailed, match=r"source of strategy idea@\w+ was changed"):
        _ = bot.rules


def test_a_page_that_may_only_read_can_promote_and_write_nothing_else(
    settings, ledger, monkeypatch
):
    monkeypatch.setenv("DESK_READ_ONLY", "1")
    page = open_ledger(settings, adds=ADDS)
    put(settings, page)
    assert load_bot(ledger, "one").status == BotStatus.STOPPED
    for harm in (
        "UPDATE bots SET status = 'RUNNING'",
        "DELETE FROM promotions",
        "INSERT INTO halts (reason, at) VALUES ('', '')",
        "DROP TABLE bots",
    ):
        with pytest.raises(ReadOnly), page.write() as books:
            books.execute(text(harm))
    with pytest.raises(ReadOnly):
        change_bot(page, "one", lambda bot: replace(bot, status=BotStatus.RUNNING))
    with pytest.raises(ReadOnly), page.write() as books:
        books.execute(tables.halts.insert().values(reason="", at=load_bot(page, "one").created_at))
    with pytest.raises(ReadOnly):
        put(settings, open_ledger(settings), "two")
    assert load_bot(ledger, "one").status == BotStatus.STOPPED


def test_a_backup_brings_a_promotion_back_with_its_source(settings, ledger, home):
    done = put(settings, ledger)
    expected = load_bot(ledger, "one").rules.score(SAMPLE.frame)
    kept = back_up_desk(settings).file
    with ledger.write() as books:
        for table in ("promotions", "sources", "bots"):
            books.execute(text(f"DELETE FROM {table}"))
    ledger.close()
    (home / "strategies" / "idea.py").unlink()
    restore_desk(settings, kept)
    registry._frozen.clear()
    again = open_ledger(settings)
    bot = load_bot(again, "one")
    assert find_promotion(again, bot) == done
    assert bot.rules.score(SAMPLE.frame).equals(expected)
    again.close()
