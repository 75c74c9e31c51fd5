"""What the desk command says when something other than the user is at fault, and to whom."""

import sys
from pathlib import Path

import pytest

from tests.desks import desk_command
from tradelib.cli import app


def exit_status() -> int:
    with pytest.raises(SystemExit) as ended:
        app.main()
    return ended.value.code


def wrapped_ctrl_c() -> None:
    """As a library does that meets Ctrl-C in the middle of its own work."""
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as pressed:
            raise ValueError("could not be serialised") from pressed
    except ValueError:
        raise RuntimeError("the flow run crashed")  # noqa: B904


def test_ctrl_c_is_no_fault_whatever_it_was_wrapped_in(home: Path, monkeypatch, capsys):
    monkeypatch.setattr(app, "app", lambda standalone_mode: wrapped_ctrl_c())
    assert exit_status() == 130
    assert capsys.readouterr().err == ""


def break_logs(monkeypatch, *arguments: object) -> None:
    """Have `desk logs` fail as no one foresaw."""
    monkeypatch.setattr("tradelib.logs.read_log", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["desk", "logs", *map(str, arguments)])


def test_a_faults_traceback_is_kept_in_the_home_in_use(home: Path, monkeypatch, capsys):
    other = home.parent / "other"
    other.mkdir()
    break_logs(monkeypatch, "--home", other)
    assert exit_status() == 70
    assert str(other / "logs" / "fault.txt") in capsys.readouterr().err
    assert "ZeroDivisionError" in (other / "logs" / "fault.txt").read_text()
    assert list(home.iterdir()) == []


def test_a_fault_makes_no_home(home: Path, monkeypatch, capsys):
    break_logs(monkeypatch, "--home", home / "absent")
    assert exit_status() == 70
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert list(home.iterdir()) == []


def test_brackets_are_no_markup(home: Path):
    done = desk_command("orders", "[/srv/desk]", home=home)
    assert done.returncode == 2
    assert "[/srv/desk]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_traceback_of_a_fault_holds_no_secret(home: Path, monkeypatch, capsys):
    monkeypatch.setenv("DESK_ONE_TOKEN", "the-token-of-a-run")
    monkeypatch.setattr("tradelib.logs.read_log", lambda *_, **__: {}["the-token-of-a-run"])
    monkeypatch.setattr(sys, "argv", ["desk", "logs"])
    assert exit_status() == 70
    assert "KeyError: '***'" in (home / "logs" / "fault.txt").read_text()


def test_a_fault_is_told_though_its_traceback_cannot_be_kept(home: Path, monkeypatch, capsys):
    monkeypatch.setattr(app, "desk_scrubber", lambda _: 1 / 0)
    break_logs(monkeypatch)
    assert exit_status() == 70
    assert "its traceback could not be kept" in capsys.readouterr().err
