"""How values read: digits, signs, colours and units."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tradelib.views.cells import amount, moment, money, percent, price, span


@pytest.mark.parametrize(
    ("value", "quote", "text"),
    [
        ("10012.756", "USDT", "10,012.76"),
        ("0.9237", "USDT", "0.92"),
        ("-1234.5", "EUR", "-1,234.50"),
        ("1.23456789", "BTC", "1.23456789"),
        ("0.00012300", "BTC", "0.000123"),
        ("0", "USDT", "0.00"),
    ],
)
def test_money_has_the_decimals_of_its_currency(value: str, quote: str, text: str) -> None:
    assert money(Decimal(value), quote).text == text


def test_a_rounded_cell_keeps_the_exact_value_beside_it() -> None:
    assert money(Decimal("1.23456789")).value == "1.23456789"


def test_profit_and_loss_have_a_sign_and_a_colour() -> None:
    told = [money(Decimal(value), "USDT", signed=True) for value in ("2.5", "-2.5", "0")]
    assert [(cell.text, cell.tone) for cell in told] == [
        ("+2.50", "gain"),
        ("-2.50", "loss"),
        ("0.00", "muted"),
    ]


def test_percent_is_signed() -> None:
    assert percent(Decimal("-0.0123")).text == "-1.23%"


@pytest.mark.parametrize(
    ("value", "text"),
    [("107320.724", "107,320.72"), ("1.234567", "1.23457"), ("0.00001234", "0.00001234")],
)
def test_prices_show_six_digits_or_two_decimals(value: str, text: str) -> None:
    assert price(Decimal(value)).text == text


def test_amounts_lose_no_digit_and_no_needless_zero_is_shown() -> None:
    assert amount(Decimal("0.02331000")).text == "0.02331"
    assert amount(Decimal("1000")).text == "1,000"
    assert amount(Decimal("0.00000001")).text == "0.00000001"


def test_times_are_utc_and_spans_have_two_units() -> None:
    assert moment(datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)).text == "2026-03-01 04:05:06"
    assert span(timedelta(seconds=3.21)).text == "3.2 s"
    assert span(timedelta(minutes=2, seconds=5)).text == "2 min 5 s"
    assert span(timedelta(hours=3, minutes=1)).text == "3 h 1 min"
    assert span(timedelta(days=3)).text == "3 d 0 h"


@pytest.mark.parametrize("show", [money, price, amount, percent, moment, span])
def test_what_is_not_known_is_a_dash(show) -> None:
    assert show(None).text == "–"
