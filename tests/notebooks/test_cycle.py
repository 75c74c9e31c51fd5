"""Which venues a desk looks after, and which of them can be asked."""

import json
from dataclasses import replace
from decimal import Decimal

import psutil
import pytest
from sqlalchemy import delete

from tests.desks import PaperDesk, desk_command, paper_desk
from tradelib.clock import utc_now
from tradelib.notebooks.cycle import is_up, running_bots, venues_in_use
from tradelib.services.addresses import Running, save_services
from tradelib.settings import load_settings
from tradelib.trading import tables
from tradelib.trading.bots import add_bot
from tradelib.trading.orders import OrderStatus, Side, load_orders
from tradelib.trading.positions import Position

_LOCAL = """
[venues.local]
exchange = "binance"
rest_url = "service:local"
keys = "keys/paper.toml"
quote = "USDT"
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A desk at a venue named by its address, beside a local exchange with a bot."""
    with paper_desk(tmp_path_factory.mktemp("desk")) as desk:
        file = desk.settings.home / "desk.toml"
        file.write_text(file.read_text() + _LOCAL)
        desk.reconcile()
        add_bot(desk.ledger, replace(desk.bot, name="zz-local", venue="local"))
        yield replace(desk, settings=load_settings(desk.settings.home))


@pytest.fixture(params=["absent", "of a dead process"])
def desk(opened, request):
    """The desk with no services, as no `desk up` runs."""
    file = opened.settings.services_file
    file.unlink(missing_ok=True)
    if request.param != "absent":
        save_services(file, [])
        told = json.loads(file.read_text())
        file.write_text(json.dumps(told | {"desk": {"pid": told["desk"]["pid"], "born": 1.0}}))
    yield opened
    desk_command("resume", home=opened.settings.home)


def test_a_local_exchange_that_no_desk_runs_is_not_up_and_others_are(desk: PaperDesk):
    assert not is_up(desk.settings, "local")
    assert venues_in_use(desk.settings, desk.ledger) == ["paper"]
    assert list(running_bots(desk.settings, desk.ledger)) == ["paper"]


def test_a_local_exchange_that_a_desk_runs_is_up(opened: PaperDesk):
    me = psutil.Process()
    service = Running("local", "http://127.0.0.1:9", me.pid, me.create_time(), "")
    save_services(opened.settings.services_file, [service])
    assert is_up(opened.settings, "local")
    assert venues_in_use(opened.settings, opened.ledger) == ["local", "paper"]
    opened.settings.services_file.unlink()


def test_addresses_that_cannot_be_read_keep_nobody_from_the_other_venues(opened: PaperDesk):
    opened.settings.services_file.write_text("{")
    assert venues_in_use(opened.settings, opened.ledger) == ["local", "paper"]
    opened.settings.services_file.unlink()


def rest(desk: PaperDesk) -> str:
    """An entry that rests far below the market."""
    price = int(desk.ccxt().fetch_ticker("BTC/USDT")["bid"] * 0.6)
    done = desk_command(
        "buy", "BTC/USDT", "0.001", "--limit", price, "--venue", "paper",
        "--confirm", "buy 0.001 BTC/USDT", home=desk.settings.home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return load_orders(desk.ledger, limit=1)[0].client_id


@pytest.mark.parametrize(
    "words", [("cancel", "all"), ("halt", "storm", "--cancel-orders"), ("watch", "--once")]
)
def test_entries_at_another_venue_are_cancelled_while_the_desk_is_down(desk: PaperDesk, words):
    entry = rest(desk)
    with desk.ledger.write() as books:
        books.execute(delete(tables.incidents))
    done = desk_command(*words, home=desk.settings.home)
    assert done.returncode == 0, done.stderr
    assert entry in done.stdout
    assert load_orders(desk.ledger, limit=1)[0].status == OrderStatus.CANCELED


def test_what_stays_at_an_exchange_that_is_not_up_is_named(desk: PaperDesk):
    left = Position("BTC/USDT", Decimal(1), Decimal(50_000), venue="local", bot="zz-local")
    row = vars(left) | {"last_side": Side.BUY, "last_trade": utc_now()}
    known = tables.positions.c.keys()
    with desk.ledger.write() as books:
        books.execute(
            tables.positions.insert().values({n: v for n, v in row.items() if n in known})
        )
    done = desk_command("halt", "storm", "--flatten", home=desk.settings.home)
    with desk.ledger.write() as books:
        books.execute(delete(tables.positions).where(tables.positions.c.venue == "local"))
    assert done.returncode == 1
    assert "bot zz-local was not sold: its exchange local is not up" in done.stderr


def test_another_venue_is_reconciled_while_the_desk_is_down(desk: PaperDesk):
    assert desk_command("reconcile", home=desk.settings.home).returncode == 0


def test_a_venue_without_bots_is_looked_after_while_an_order_or_coins_are_there(tmp_path):
    with paper_desk(tmp_path / "desk") as desk:
        desk.reconcile()
        with desk.ledger.write() as books:
            books.execute(delete(tables.bots))
        assert venues_in_use(desk.settings, desk.ledger) == []
        entry = rest(desk)
        assert venues_in_use(desk.settings, desk.ledger) == ["paper"]
        assert running_bots(desk.settings, desk.ledger) == {}
        done = desk_command("halt", "storm", "--cancel-orders", home=desk.settings.home)
        assert entry in done.stdout
        assert venues_in_use(desk.settings, desk.ledger) == []
        desk_command("resume", home=desk.settings.home)
        done = desk_command(
            "buy", "BTC/USDT", "0.001", "--confirm", "buy 0.001 BTC/USDT", home=desk.settings.home
        )
        assert done.returncode == 0, done.stderr
        assert venues_in_use(desk.settings, desk.ledger) == ["paper"]
