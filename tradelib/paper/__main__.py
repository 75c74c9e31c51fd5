"""`python -m tradelib.paper`: runs a paper exchange that speaks Binance's spot dialect over REST
and WebSocket, and tells how to trade on it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from tradelib.clock import format_time, from_ms, parse_time
from tradelib.errors import DeskError, InvalidInput
from tradelib.paper.app import run_paper
from tradelib.paper.config import (
    ACCOUNTS_FILE,
    TOKEN_FILE,
    OHLCVSource,
    PaperAccount,
    PaperConfig,
    ccxt_settings,
    new_token,
    read_accounts,
    write_private,
)
from tradelib.paper.exchange import Exchange
from tradelib.paper.faults import NO_FAULTS, mild_plan

TOKEN_VARIABLE = "PAPER_CONTROL_TOKEN"

_WELCOME = """\
Paper exchange at {url}, market time {time}
  market   {market}; candles from {first} to {last}
  symbols  {symbols}
  accounts {accounts}
  keys     {secrets}
  streams  {socket}/ws and /stream; of accounts {socket}/ws-api/v3
  control  {url}/paper/status, header X-Paper-Token from {token}
  faults   {faults}

Any ccxt program can trade here and watch, in any of its languages; the settings are JSON:
  exchange = ccxt.binance(json.load(open({settings!r})))
  exchange.exceptions["exact"].update(exchange.exceptions["spot"]["exact"])  # fine errors
"""
_FAULTS = "a little of each, by seed {seed}; {url}/paper/faults tells"
SETTINGS_FILE = "ccxt.json"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise InvalidInput(f"{message[:1].upper()}{message[1:]}; see --help.")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="python -m tradelib.paper", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the exchange's state")
    parser.add_argument("--port", type=int, default=0, help="port on loopback (a free one)")
    parser.add_argument(
        "--market", type=Path, action="append", default=[], metavar="FILE",
        help="CSV or Parquet candles to play; repeat it for more symbols",
    )  # fmt: skip
    parser.add_argument(
        "--follow", metavar="EXCHANGE", help="a real exchange to follow, by ccxt's name of it"
    )
    parser.add_argument("--follow-url", help="address of a server that speaks its dialect")
    parser.add_argument(
        "--symbol", action="append", default=[], help="what to follow, such as BTC/USDT"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the seeded market (1)")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--speed", type=float, help="market seconds per second (1; files: stepped)")
    pace.add_argument("--stepped", action="store_true", help="the clock waits for steps")
    parser.add_argument("--start", help="market time at which to begin, ISO 8601")
    parser.add_argument(
        "--faults", type=int, metavar="SEED", help="play a little of every fault, by this seed"
    )
    parser.add_argument("--accounts", type=Path, metavar="FILE", help="TOML with [[accounts]]")
    return parser.parse_args(arguments)


def make_config(asked: argparse.Namespace) -> PaperConfig:
    """The configuration of a command line; nothing is written yet."""
    if asked.speed is not None and not 0 < asked.speed <= 1e6:
        raise InvalidInput(f"Speed {asked.speed} must be more than 0 and at most a million.")
    if not 0 <= asked.port <= 65535:
        raise InvalidInput(f"Port {asked.port} is not between 0 and 65535.")
    if asked.symbol and not asked.follow:
        raise InvalidInput("--symbol says what to --follow; name an exchange too.")
    return PaperConfig(
        source=_open_source(asked),
        source_symbols=tuple(asked.symbol) or PaperConfig.source_symbols,
        home=asked.home.expanduser(),
        port=asked.port,
        seed=asked.seed,
        files=tuple(asked.market),
        speed=0.0 if asked.stepped else asked.speed,
        start=parse_time(asked.start, "start") if asked.start else None,
        accounts=read_accounts(asked.accounts) if asked.accounts else (),
        faults=NO_FAULTS if asked.faults is None else mild_plan(asked.faults),
        control_token=os.environ.get(TOKEN_VARIABLE) or new_token(),
    )


def _open_source(asked: argparse.Namespace) -> OHLCVSource | None:
    if not asked.follow:
        return None
    from tradelib.venue.source import PublicCandles  # ccxt, which nobody else here needs

    # A desk's own market asks as one of the desk's processes.
    home = os.environ.get("DESK_HOME")
    return PublicCandles(asked.follow, asked.follow_url, home=Path(home) if home else None)


def announce(url: str, exchange: Exchange, config: PaperConfig, accounts_file: Path) -> None:
    """Tells the user, and nobody else, how to get in; keys stay in their file."""
    token_file = config.home / TOKEN_FILE
    write_private(token_file, config.control_token + "\n")
    accounts: tuple[PaperAccount, ...] = config.accounts or read_accounts(accounts_file)
    settings_file = config.home / SETTINGS_FILE
    settings = ccxt_settings(url, accounts[0].key, accounts[0].secret)
    write_private(settings_file, json.dumps(settings, indent=2) + "\n")
    first, last = exchange.tape.market.span
    text = _WELCOME.format(
        url=url,
        socket="ws" + url.removeprefix("http"),
        time=format_time(from_ms(exchange.now)),
        market=exchange.tape.market.identity,
        first=format_time(from_ms(first)),
        last=format_time(from_ms(last - exchange.tape.step)),
        symbols=" ".join(
            f"{each.base}/{each.quote}" for each in exchange.tape.instruments.values()
        ),
        accounts=", ".join(map(_told, accounts)),
        secrets=accounts_file,
        token=token_file,
        faults=_FAULTS.format(seed=config.faults.seed, url=url) if config.faults else "none",
        settings=str(settings_file),
    )
    print(text, flush=True)


def _told(account: PaperAccount) -> str:
    """An account's name, with its key for those who sit at a terminal: what is printed anywhere
    else is a log, and no key belongs there."""
    return f"{account.name} (key {account.key})" if sys.stdout.isatty() else account.name


def main(arguments: list[str] | None = None) -> int:
    try:
        asked = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        config = make_config(asked)
        accounts_file = asked.accounts or config.home / ACCOUNTS_FILE
        run_paper(config, lambda url, paper: announce(url, paper, config, accounts_file))
    except DeskError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
