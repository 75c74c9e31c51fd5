"""Fees are taken from what is received, or from an asset of the account's choice."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import ccxt
import pytest

from tests.paper.conftest import ANN, Start, trader
from tradelib.errors import InvalidInput
from tradelib.paper import FeeAsset, PaperAccount, PaperHandle

PAIR = "BTC/USDT"


def rich_in(asset: str, amount: str, chosen: FeeAsset) -> PaperAccount:
    held = {**ANN.balances, asset: Decimal(amount)}
    return PaperAccount("ann", ANN.key, ANN.secret, held, chosen)


def fees(order: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["commission"], each["commissionAsset"]) for each in order["info"]["fills"]]


def test_a_fee_is_worth_its_share_at_the_markets_price(start: Start) -> None:
    paper = start(accounts=(rich_in("ETH", "1", FeeAsset("ETH")),))
    ann = trader(paper)
    order = ann.create_order(PAIR, "market", "buy", 0.1)
    [(fee, asset)] = fees(order)
    last = Decimal(ann.fetch_ticker("ETH/USDT")["info"]["lastPrice"])
    worth = Decimal(order["info"]["cummulativeQuoteQty"]) * Decimal("0.00075")
    assert asset == "ETH"
    assert worth - last * Decimal("0.00000001") < Decimal(fee) * last <= worth
    assert ann.fetch_balance()["BTC"]["total"] == 2.1
    assert paper.control("record", account="ann")["balances"]["ETH"] == {
        "free": str(1 - Decimal(fee)),
        "locked": "0.00000000",
    }
    [trade] = ann.fetch_my_trades(PAIR)
    assert (trade["fee"]["currency"], trade["info"]["commission"]) == ("ETH", fee)


def test_a_price_is_needed_where_the_market_has_none(start: Start) -> None:
    chosen = FeeAsset("BNB", discount=Decimal(0), price=Decimal(500))
    ann = trader(start(accounts=(rich_in("BNB", "1", chosen),)))
    order = ann.create_order(PAIR, "market", "sell", 0.1)
    [(fee, asset)] = fees(order)
    assert asset == "BNB"
    assert Decimal(fee) == pytest.approx(Decimal(order["info"]["cummulativeQuoteQty"]) / 500_000)
    unpriced = FeeAsset("BNB")
    ann = trader(start(accounts=(rich_in("BNB", "1", unpriced),), is_kept=False))
    assert fees(ann.create_order(PAIR, "market", "sell", 0.1))[0][1] == "USDT"


def test_a_spent_fee_asset_leaves_the_fee_to_what_is_received(start: Start) -> None:
    chosen = FeeAsset("BNB", price=Decimal(500))
    ann = trader(start(accounts=(rich_in("BNB", "0.02", chosen),)))
    assets = [fees(ann.create_order(PAIR, "market", "buy", 0.1))[0][1] for _ in range(3)]
    assert assets[0] == "BNB"
    assert assets[-1] == "BTC"
    assert 0 <= ann.fetch_balance()["BNB"]["free"] < 0.02


def test_a_resting_order_pays_in_the_chosen_asset_too(start: Start) -> None:
    paper = start(accounts=(rich_in("ETH", "1", FeeAsset("ETH")),))
    ann = trader(paper)
    last = ann.fetch_ticker(PAIR)["last"]
    ann.create_order(PAIR, "limit", "buy", 0.01, round(last * 0.9999, 2))
    paper.control("step", candles=60)
    trades = ann.fetch_my_trades(PAIR)
    assert {(each["takerOrMaker"], each["fee"]["currency"]) for each in trades} == {
        ("maker", "ETH")
    }


def test_the_control_chooses_for_an_account(paper: PaperHandle, ann: ccxt.binance) -> None:
    paper.control("fees", account="ann", asset="USDT", discount="0.5")
    assert fees(ann.create_order(PAIR, "market", "sell", 0.1))[0][1] == "USDT"
    # A buy pays with it, and may need all there is.
    assert fees(ann.create_order(PAIR, "market", "buy", 0.1))[0][1] == "BTC"
    told = ann.private_get_account_commission({"symbol": "BTCUSDT"})["discount"]
    assert (told["discountAsset"], told["discount"]) == ("USDT", "0.50000000")
    paper.control("fees", account="ann", asset=None)
    assert "discount" not in ann.private_get_account_commission({"symbol": "BTCUSDT"})


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"account": "anne", "asset": "BNB"}, "did you mean 'ann'"),
        ({"account": "ann", "asset": 5}, "is a name such as BNB, not 5"),
        ({"account": "ann", "asset": "BNB", "discount": 2}, "a share from 0 to 1, not 2"),
        ({"account": "ann", "asset": "BNB", "price": "dear"}, "is a number, not 'dear'"),
        ({"account": "ann", "asset": "BNB", "price": 0}, "is more than 0, not 0"),
        ({"account": "ann", "asset": "BNB", "pric": 5}, "did you mean 'price'"),
    ],
)
def test_a_bad_choice_is_one_sentence(paper: PaperHandle, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        paper.control("fees", **asked)
