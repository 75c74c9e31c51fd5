"""Whatever comes in, an answer of the dialect goes out."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paper.conftest import ANN, BOB, NO_LIMITS
from tradelib.paper import PaperConfig
from tradelib.paper.app import open_exchange
from tradelib.paper.gate import Gate, Request
from tradelib.paper.rest import ENDPOINTS

VALUES = st.one_of(
    st.sampled_from(["BTCUSDT", "ETHUSDT", "BUY", "SELL", "LIMIT", "MARKET", "STOP_LOSS"]),
    st.sampled_from(["TAKE_PROFIT_LIMIT", "LIMIT_MAKER", "GTC", "IOC", "FOK", "EXPIRE_TAKER"]),
    st.sampled_from(["0.1", "100000.00", "90000", "1", "0", "5", "1000", "1704067200000"]),
    st.sampled_from(["1h", "1M", "FULL", "one", "STOP_ON_FAILURE", "true"]),
    st.integers(0, 10**20).map(str),
    st.decimals("0", "1e12", places=8).map(str),
    st.text(max_size=12),
)
ROUTES = sorted(ENDPOINTS)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    home: Path = tmp_path_factory.mktemp("gate")
    config = PaperConfig(home=home, speed=0, accounts=(ANN, BOB), limits=NO_LIMITS)
    exchange, opened = open_exchange(config)
    yield opened
    exchange.close()


def signed(gate: Gate, params: dict[str, str]) -> str:
    query = urlencode({"timestamp": gate.exchange.now, **params})
    signature = hmac.new(ANN.secret.encode(), query.encode(), hashlib.sha256).hexdigest()
    return f"{query}&signature={signature}"


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from(ROUTES))
def test_no_request_breaks_the_exchange(gate: Gate, data: st.DataObject, route: tuple) -> None:
    endpoint = ENDPOINTS[route]
    names = sorted(endpoint.params)
    likely = {"symbol": "BTCUSDT"} if "symbol" in names and data.draw(st.booleans()) else {}
    drawn = data.draw(st.dictionaries(st.sampled_from(names or ["x"]), VALUES, max_size=10))
    method, path = route
    text = signed(gate, {**drawn, **likely}) if endpoint.is_signed else urlencode(drawn | likely)
    sent = {"query": text, "body": ""} if method != "POST" else {"query": "", "body": text}
    reply = gate.handle(Request(method, path, key=ANN.key, address="here", **sent))
    assert reply.status in (200, 400, 409)
    json.loads(reply.encode())
    for held in gate.exchange.engine.balances.values():
        assert all(each.free >= 0 and each.locked >= 0 for each in held.values())


def test_a_request_may_be_signed_over_query_and_body_together(gate: Gate) -> None:
    query, body = "symbol=ETHUSDT&side=BUY&type=MARKET", "quantity=0.01"
    body += f"&timestamp={gate.exchange.now}"
    signature = hmac.new(ANN.secret.encode(), (query + body).encode(), hashlib.sha256).hexdigest()
    request = Request("POST", "order/test", query, f"{body}&signature={signature}", ANN.key, "here")
    assert gate.handle(request).status == 200


def test_listeners_hear_of_changes_after_they_are_stored(gate: Gate) -> None:
    heard = []

    def listen(changes) -> None:
        order = changes.executions[-1].order
        heard.append((order.status, gate.exchange.store.order("ann", "ETHUSDT", order.id, None)))

    gate.exchange.listeners.append(listen)
    order = {"symbol": "ETHUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    reply = gate.handle(Request("POST", "order", "", signed(gate, order), ANN.key, "here"))
    gate.exchange.listeners.clear()
    assert reply.status == 200
    [(status, stored)] = heard
    assert status == stored.status == "FILLED"
    assert stored.filled == Decimal("0.01")
