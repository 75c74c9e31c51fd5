"""What the campaign has found, each reduced to its smallest case."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ccxt
import pytest
from pydantic import SecretStr

from tradelib.settings import VenueSettings
from tradelib.venue.client import make_exchange
from tradelib.venue.keys import Keys


@contextmanager
def cut_short(reply: bytes) -> Iterator[str]:
    """A server that begins every reply the same way and then closes the connection."""
    opened = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                line, _ = opened.accept()
            except OSError:
                return
            line.recv(65536)
            line.sendall(reply)
            line.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield "http://{}:{}".format(*opened.getsockname())
    finally:
        opened.shutdown(socket.SHUT_RDWR)
        opened.close()
        thread.join()


@pytest.mark.parametrize(
    "reply",
    [b"HTTP/1.1 200 OK\r\nContent-Ty", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
)
@pytest.mark.parametrize(
    "read",
    [
        lambda exchange: exchange.fetch_time(),
        lambda exchange: exchange.fetch_balance(),
        lambda exchange: exchange.fetch_open_orders("BTC/USDT"),
        lambda exchange: exchange.fetch_my_trades("BTC/USDT"),
    ],
)
def test_a_reply_cut_within_its_head_is_no_answer(reply, read):
    with cut_short(reply) as url:
        keys = Keys(SecretStr("k"), SecretStr("s"))
        exchange = make_exchange("paper", VenueSettings(rest_url=url), keys)
        exchange.set_markets(
            [
                {
                    "id": "BTCUSDT",
                    "symbol": "BTC/USDT",
                    "spot": True,
                    "type": "spot",
                    "linear": None,
                    "inverse": None,
                }
            ]
        )
        with pytest.raises(ccxt.BadResponse, match="cut off"):
            read(exchange)
