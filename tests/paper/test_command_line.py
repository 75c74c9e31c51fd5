"""`python -m tradelib.paper`: what it prints, and how it says no."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import ccxt
import pytest

from tests.conftest import require
from tests.paper.conftest import DATA
from tradelib.errors import InvalidInput
from tradelib.paper import FeeAsset
from tradelib.paper.__main__ import main, make_config, parse_arguments
from tradelib.paper.app import open_exchange
from tradelib.paper.config import make_accounts_file, read_accounts

ACCOUNT = '[[accounts]]\nname = "a"\nkey = "k"\nsecret = "s"\nbalances = { USDT = "10000" }\n'


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) > 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    return told.err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--market", "nonesuch.csv"], "nonesuch.csv"),
        (["--stepped", "--start", "yesterday"], "not ISO 8601"),
        (["--stepped", "--start", "1999-01-01"], "outside of the market's candles"),
        (["--accounts", "nonesuch.toml"], "nonesuch.toml cannot be read"),
        (["--speed", "-1"], "Speed -1.0 must be more than 0"),
        (["--speed", "2", "--stepped"], "not allowed with"),
        (["--port", "99999"], "Port 99999"),
        (["--seed", "x"], "invalid int value"),
        (["--faults", "many"], "invalid int value"),
        (["--surprise"], "Unrecognized arguments"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert told in complaint(capsys, "--home", str(tmp_path / "home"), *more)
    assert not (tmp_path / "home").exists()


def test_a_busy_port_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"Port {port}" in complaint(capsys, "--home", str(tmp_path), "--port", port)


def test_a_start_outside_of_the_files_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require(DATA.is_dir(), f"no candle files in {DATA}")
    file = str(DATA / "coinbase_BTC-USD_1h.csv")
    told = complaint(
        capsys, "--home", str(tmp_path), "--market", file, "--start", "2021-01-01T00:00:00Z"
    )
    assert "2017-07-01T11:00" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("accounts = 3", "no [[accounts]]"),
        ("[[accounts", "not valid TOML"),
        (ACCOUNT.replace("secret", "password"), "exactly name, key, secret and balances"),
        (ACCOUNT.replace('"10000"', '"much"'), "must read { USDT"),
        (ACCOUNT.replace('"10000"', '"-1"'), "0 or more"),
        (ACCOUNT.replace('"10000"', '"0.123456789"'), "at most 8 decimals"),
        (ACCOUNT.replace('"10000"', '"NaN"'), "0 or more"),
        (ACCOUNT + 'fee_discount = "2"\nfee_asset = "BNB"', "a share from 0 to 1, not 2"),
        (ACCOUNT + 'fee_assets = "BNB"', "fee_asset, fee_discount and fee_price may come"),
        (ACCOUNT + ACCOUNT, "uses one name twice"),
    ],
)
def test_a_broken_accounts_file_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_accounts(private(tmp_path / "accounts.toml", text))
    assert told in str(caught.value)


def test_an_accounts_file_others_can_read_is_refused(tmp_path: Path) -> None:
    path = private(tmp_path / "accounts.toml", ACCOUNT)
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="others may read it"):
        read_accounts(path)


def test_fresh_accounts_are_for_their_owners_eyes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "accounts.toml"
    make_accounts_file(path, {"USDT": 10_000})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [account] = read_accounts(path)
    assert account.balances == {"USDT": 10_000}
    assert account.secret not in repr(account)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_welcome_names_everything_but_the_secrets_and_the_key_at_a_terminal_alone(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
) -> None:
    def run(config, announce) -> None:
        exchange, _ = open_exchange(config)
        announce("http://127.0.0.1:1", exchange)
        exchange.close()

    monkeypatch.setattr("tradelib.paper.__main__.run_paper", run)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert main(["--home", str(tmp_path), "--stepped", "--start", "2024-02-03"]) == 0
    told = capsys.readouterr().out
    [account] = read_accounts(tmp_path / "accounts.toml")
    token = (tmp_path / "control.token").read_text().strip()
    assert (account.key in told) == terminal
    assert str(tmp_path / "accounts.toml") in told
    assert "2024-02-03T00:00:00" in told
    assert account.secret not in told
    assert token not in told
    assert stat.S_IMODE((tmp_path / "control.token").stat().st_mode) == 0o600


def test_an_accounts_file_may_choose_a_fee_asset(tmp_path: Path) -> None:
    text = ACCOUNT + 'fee_asset = "BNB"\nfee_price = "600"\n' + ACCOUNT.replace('"a"', '"b"')
    first, second = read_accounts(private(tmp_path / "a", text.replace('"k"', '"l"', 1)))
    assert first.fee_asset == FeeAsset("BNB", Decimal("0.25"), Decimal(600))
    assert second.fee_asset is None


def test_faults_are_told_in_the_welcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config, announce) -> None:
        exchange, _ = open_exchange(config)
        announce("http://127.0.0.1:1", exchange)
        exchange.close()

    monkeypatch.setattr("tradelib.paper.__main__.run_paper", run)
    assert main(["--home", str(tmp_path), "--stepped", "--faults", "7"]) == 0
    assert "a little of each, by seed 7" in capsys.readouterr().out
    assert main(["--home", str(tmp_path), "--stepped"]) == 0
    assert "faults   none" in capsys.readouterr().out


def test_the_arguments_make_the_configuration(tmp_path: Path) -> None:
    accounts = private(tmp_path / "accounts.toml", ACCOUNT)
    asked = ["--home", str(tmp_path), "--seed", "5", "--speed", "60", "--accounts", str(accounts)]
    config = make_config(parse_arguments([*asked, "--market", "a.csv", "--market", "b.csv"]))
    assert (config.seed, config.speed, config.accounts[0].name) == (5, 60, "a")
    assert config.files == (Path("a.csv"), Path("b.csv"))
    assert config.control_token not in repr(config)


def test_the_settings_it_writes_open_the_exchange_to_a_plain_ccxt(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tradelib.paper", "--home", str(tmp_path / "h"), "--stepped"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            told = ""
            while "# fine errors" not in told:
                line = running.stdout.readline()
                assert line, told
                told += line
            file = tmp_path / "h" / "ccxt.json"
            settings = json.loads(file.read_text())
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert settings["secret"] not in told
            exchange = ccxt.binance(settings)
            exchange.exceptions["exact"].update(exchange.exceptions["spot"]["exact"])
            assert exchange.create_order("BTC/USDT", "market", "buy", 0.01)["status"] == "closed"
            with pytest.raises(ccxt.InsufficientFunds):
                exchange.create_order("BTC/USDT", "market", "buy", 50)
        finally:
            running.terminate()
