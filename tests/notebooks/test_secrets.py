"""No key, token or signed URL is kept: planted in every channel, found in none."""

import base64
import json
import logging
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import nbformat
import pytest

from tests.desks import PaperDesk, paper_desk
from tests.venue.served import Relay, Served, serve
from tradelib.errors import InvalidInput, RunFailed
from tradelib.logs import configure_logging
from tradelib.notebooks import engine, runner
from tradelib.notebooks.runner import run_notebook
from tradelib.scrubber import Look, Scrubber, desk_scrubber, is_secret_name
from tradelib.settings import LIVE_KERNEL, load_settings
from tradelib.trading.incidents import open_incident
from tradelib.trading.runs import load_runs
from tradelib.venue import open_venue

# With what has to be escaped in Python, JSON, HTML and URLs, and is written with + and / in base64.
KEY = "L1veKeyL1veKeyL1veKey99"
AWKWARD = 'pa/ss+w0rd="&\\n\\t<é>~~~???>>>'
# In parts, for no file of the project may hold a key.
_KIND = "EC PRIVATE " + "KEY"
PEM = f"-----BEGIN {_KIND}-----\nMHcCAQEEIBqw\noAoGCCqGSM49\n-----END {_KIND}-----\n"
_LIVE_VENUE = '[venues.live]\nexchange = "binance"\nkeys = "env:LIVE"\nrest_url = "{}"\n'


@contextmanager
def relayed(paper: str):
    """An exchange that passes on to the paper exchange, and remembers what it was asked."""
    with serve(Relay(paper)) as served:
        yield served


@pytest.fixture
def desk(home, monkeypatch):
    monkeypatch.setenv("LIVE_KEY", KEY)
    monkeypatch.setenv("LIVE_SECRET", AWKWARD)
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # ipykernel then treats output as it does elsewhere
    with paper_desk(home) as desk, relayed(desk.paper.url) as relay:
        file = home / "desk.toml"
        text = file.read_text().replace(desk.paper.url, relay.url)
        file.write_text(text + _LIVE_VENUE.format(relay.url))
        yield PaperDesk(load_settings(home), desk.ledger, desk.paper, desk.market), relay


@pytest.fixture
def tokens(monkeypatch) -> list[str]:
    """The tokens of the runs that are started, as they are made."""
    made, make = [], runner.secrets.token_urlsafe
    monkeypatch.setattr(
        runner.secrets, "token_urlsafe", lambda size: made.append(make(size)) or made[-1]
    )
    return made


def keys_of(desk: PaperDesk) -> list[str]:
    told = (desk.settings.home / "keys" / "paper.toml").read_text()
    return re.findall(r'= "(.+)"', told)


def signatures(relay: Served) -> list[str]:
    queries = (parse_qs(urlsplit(asked.target).query) for asked in relay.asked)
    return [one for query in queries for one in query.get("signature", [])]


def ways_to_write(secret: str) -> set[bytes]:
    inner = set()
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + secret.encode()).decode()
        inner.add(encoded[4 : len(encoded) - 4])
    ways = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe=""), *inner}
    ways |= {json.dumps(way)[1:-1] for way in ways}
    return {way.encode() for way in ways}


def leaks(folder: Path, secrets: list[str]) -> list[str]:
    """Files in which a secret stands, but for those that are there to hold it."""
    found = []
    for file in folder.rglob("*"):
        if not file.is_file() or file.relative_to(folder).parts[0] in ("keys", "paper"):
            continue
        content = file.read_bytes()
        for secret in secrets:
            for way in ways_to_write(secret):
                if way in content:
                    where = content.index(way)
                    found.append(f"{file.name}: …{content[max(0, where - 60) : where + 20]!r}…")
    return found


GATHER = """import base64, html, json, logging, os, subprocess, sys, time, warnings
from IPython.display import HTML, JSON, Image, Markdown, SVG, display
from tradelib.notebooks import open_desk
from tradelib.notebooks.results import record_result
from tradelib.venue import load_keys, open_venue
desk = open_desk(run)
secrets = [os.environ["DESK_RUN_TOKEN"], os.environ["LIVE_KEY"], os.environ["LIVE_SECRET"]]
for venue in desk.settings.venues.values():
    keys = load_keys(venue.keys, desk.settings.home, "v")
    secrets += [keys.key.get_secret_value(), keys.secret.get_secret_value()]
"""

CHANNELS = {
    "stdout": "print(secrets)\nprint(*secrets)\nprint(json.dumps(secrets))",
    "stdout in parts": """for one in secrets:
    print(one[:7], end="", flush=True)
    print(one[7:], flush=True)""",
    "stderr": "print(*secrets, file=sys.stderr)",
    "a result": "secrets",
    "html": "display(HTML(f'<b>{html.escape(str(secrets))}</b>{secrets[-1]}'))",
    "json": "display(JSON({'X-MBX-APIKEY': secrets[1], 'all': secrets, **dict.fromkeys(secrets)}))",
    "markdown": "display(Markdown(' '.join(secrets)))",
    "metadata": "display({'text/plain': 'x'}, metadata={'by': secrets}, raw=True)",
    "svg": "display(SVG(f'<svg><text>{html.escape(str(secrets))}</text></svg>'))",
    "an image's text": """for offset in range(3):
    png = bytes.fromhex("89504e470d0a1a0a") + b"." * offset + " ".join(secrets).encode()
    display(Image(png, format="png", width=1, height=1))""",
    "a table": "import pandas; pandas.DataFrame({'keys': secrets})",
    "widgets": "import ipywidgets; box = ipywidgets.Text(value=' '.join(secrets)); display(box)",
    "warnings": "warnings.warn(str(secrets)); warnings.warn(secrets[-1])",
    "logs": """log = logging.getLogger("tradelib.test")
log.error("keys %s", secrets, extra={"fields": {"keys": secrets, "token": secrets[0]}})
try: raise ValueError(secrets)
except ValueError: log.exception("failed")
logging.getLogger("elsewhere").error("keys %s", secrets)""",
    "file descriptors": """for one in secrets:
    os.write(1, one.encode()); os.write(2, one.encode() + b"\\n")""",
    "children": """subprocess.run([sys.executable, "-c", "import sys; print(sys.argv)", *secrets])
subprocess.run(["sh", "-c", 'echo "$@" >&2', "sh", *secrets])""",
    "headers": """basic = base64.b64encode(f"user:{secrets[-1]}".encode()).decode()
print({"Authorization": f"Basic {basic}"}, f"Authorization: Bearer {secrets[0]}")""",
    "a client that tells": """venue = open_venue(desk.settings, "paper")
venue._exchange.verbose = True
venue.fetch_balances()""",
    "a recorded result": "record_result({'secrets': secrets, 'more': [{'s': secrets[-1]}]})",
}
FAILURES = {
    "a message": "raise ValueError(*secrets)",
    "locals": "%xmode Verbose\ndef fail(key, more):\n    local = str(more)\n    1 / 0\n"
    "fail(secrets[-1], secrets)",
    "a venue's refusal": "open_venue(desk.settings, 'live').fetch_balances()",
    "a client's own error": "open_venue(desk.settings, 'paper')._exchange.private_get_account()",
    "an answer that is lost": "client = open_venue(desk.settings, 'paper')._exchange\n"
    "client.load_markets(); open(os.environ['DESK_HOME'] + '/lose', 'w').close()\n"
    "client.fetch_balance()",
    "a death": "print(secrets, flush=True); os.write(1, ' '.join(secrets).encode())\n"
    "time.sleep(0.3); os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("kernel", [LIVE_KERNEL, "python3"])
def test_no_channel_keeps_a_secret(desk, notebooks, tokens, kernel):
    desk, relay = desk
    cells = [*CHANNELS.values(), "print('the last word')"]
    run = run_notebook(
        desk.settings, desk.ledger, notebooks("page", GATHER, *cells), {}, kernel=kernel
    )
    assert len(run.result["secrets"]) == 7
    page = (desk.settings.reports / run.page).read_text()
    assert "the last word" in page
    assert page.count("***") > 20
    assert "IPY_MODEL_" in page
    secrets = [*keys_of(desk), KEY, AWKWARD, *tokens, *signatures(relay)]
    assert len(secrets) > 5
    assert leaks(desk.settings.home, secrets) == []
    assert page.count('"image/png": "iVBORw0KGg') == 3


@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_keeps_a_secret(desk, notebooks, tokens, failure):
    desk, relay = desk
    page = notebooks("page", GATHER, FAILURES[failure], "record_result({})")
    if "lost" in failure:
        relay.exchange = LosesWhenAsked(relay.exchange, desk.settings.home / "lose")
    elif "refusal" in failure or "client" in failure:
        relay.exchange = Repeats()
    with pytest.raises(RunFailed) as caught:
        run_notebook(desk.settings, desk.ledger, page, {})
    secrets = [*keys_of(desk), KEY, AWKWARD, *tokens, *signatures(relay)]
    assert leaks(desk.settings.home, secrets) == []
    told = f"{caught.value} {load_runs(desk.ledger)[0].reason}"
    assert [secret for secret in secrets if secret in told] == []


class LosesWhenAsked:
    """An exchange whose answers are lost as soon as a file is there."""

    def __init__(self, exchange, file: Path) -> None:
        self.exchange, self.file = exchange, file

    def answer(self, asked):
        if self.file.exists():
            raise ConnectionError
        return self.exchange.answer(asked)


def test_a_page_that_is_saved_half_way_holds_no_secret(desk, notebooks, monkeypatch):
    desk, _ = desk
    monkeypatch.setattr(engine, "_SAVE_EVERY", 0.0)
    look = """import glob
pages = [open(path).read() for path in glob.glob(str(desk.settings.reports / "*/*/page.ipynb"))]
record_result({"pages": len(pages), "printed": "printed" in pages[0],
    "found": [n for n, one in enumerate(secrets) if one in pages[0]]})"""
    page = notebooks("page", GATHER, "print('printed', *secrets)", look)
    run = run_notebook(desk.settings, desk.ledger, page, {})
    assert run.result == {"pages": 1, "printed": True, "found": []}


def test_a_cell_runs_as_it_is_written_though_it_is_not_kept_so(desk, notebooks):
    desk, _ = desk
    cell = f"password = 'hunter22'\nurl = 'https://x.test/?token={keys_of(desk)[0]}'\n"
    look = "from tradelib.notebooks.results import record_result\n"
    look += "record_result({'length': len(password), 'url': len(url)})"
    run = run_notebook(desk.settings, desk.ledger, notebooks("page", cell, look), {})
    assert run.result == {"length": 8, "url": 22 + len(keys_of(desk)[0])}
    assert "hunter22" not in (desk.settings.reports / run.page).read_text()


@pytest.mark.parametrize(
    "make",
    [
        lambda key: key,
        lambda key: f"Basic {base64.b64encode(b'user:' + key.encode()).decode()}",
        lambda key: "https://x.test/feed?token=abc123",
        lambda key: "postgresql://me:hunter22@x.test/db",
    ],
)
@pytest.mark.parametrize("name", ["run_text", "symbols"])
def test_a_parameter_that_holds_a_secret_starts_nothing(desk, notebooks, make, name):
    desk, _ = desk
    value = make(keys_of(desk)[1])
    given = {"symbols": ["BTC/USDT", value]} if name == "symbols" else {"label": value}
    with pytest.raises(InvalidInput, match="holds") as caught:
        run_notebook(desk.settings, desk.ledger, notebooks("page", "1"), given)
    assert value not in str(caught.value)
    assert load_runs(desk.ledger) == []
    assert leaks(desk.settings.home, [keys_of(desk)[1]]) == []


class Repeats:
    """An exchange that refuses, and repeats what it was sent."""

    def answer(self, asked):
        return 400, {"code": -1022, "msg": f"no: {asked.target} {asked.headers} {asked.body}"}


def test_what_a_venue_says_of_a_request_is_kept_without_keys(home):
    with paper_desk(home) as desk, relayed(desk.paper.url) as relay:
        file = home / "desk.toml"
        file.write_text(file.read_text().replace(desk.paper.url, relay.url))
        venue = open_venue(load_settings(home), "paper", trading=True)
        venue.fetch_instruments()
        relay.exchange = Repeats()
        with pytest.raises(Exception, match="could not") as caught:
            venue.fetch_balances()
        with desk.ledger.write() as books:
            open_incident(books, "test", "paper", "x", {"said": str(caught.value)})
        key = relay.asked[-1].headers["X-MBX-APIKEY"]
        assert key in keys_of(desk)
        assert leaks(home, [key, *signatures(relay)]) == []
        assert [s for s in (key, *signatures(relay)) if s in str(caught.value)] == []


def test_what_prefect_logs_of_a_failure_holds_no_secret(home, monkeypatch, capsys):
    monkeypatch.setenv("LIVE_KEY", KEY)
    monkeypatch.setitem(sys.modules, "prefect", sys)
    (home / "desk.toml").write_text(_LIVE_VENUE.format("http://127.0.0.1:9"))
    logger, handler = logging.getLogger("prefect.flow_runs"), logging.StreamHandler(sys.stdout)
    before = list(logger.handlers)
    logger.addHandler(handler)
    try:
        configure_logging(load_settings(home))
        configure_logging(load_settings(home))
        try:
            raise ValueError(f"no {KEY}")
        except ValueError:
            logger.exception("Encountered %s", KEY)
    finally:
        logger.handlers = before
        for name in ("tradelib", "flows", "stamina"):
            logging.getLogger(name).handlers = []
    told = capsys.readouterr().out
    assert "Encountered ***" in told
    assert "ValueError: no ***" in told
    assert len(handler.filters) == 1


def test_the_ledgers_password_is_known(home, monkeypatch):
    monkeypatch.setenv("DESK_LEDGER_URL", "postgresql+psycopg://me:p%40ss%2Fw0rd-9@x.test/db")
    scrubber = desk_scrubber(load_settings(home))
    told = "p@ss/w0rd-9 p%40ss%2Fw0rd-9 p%40ss%2fw0rd-9"
    assert scrubber.scrub(told) == "*** *** ***"


ORDINARY = [
    "open 123.45 high 9e-5 volume 100000, run 20261120T110315-10_fetch_candles-paper-0a1b2c",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "{'token': 'BTC', 'tokens': 3, 'max_token': 100000, 'signature': ''}",
    "api_key = keys.key; password = getpass(); secret=None; token=settings.token",
    "Signature: print(*args, sep=' ')  the token: it is a coin, the secret: patience",
    "https://x.test:8080/a?symbol=BTC&limit=5#top http://127.0.0.1:8620/voila/render/a.ipynb",
    base64.b64encode(bytes(range(256)) * 100).decode(),
    '{"token": "1INCH/USDT", "base_token": "1000PEPE", "signature": "sma(10,50)"}',
    "order token: 1000SATS/USDT filled, token=1000PEPE, signature: 7a3f9c2b71",
    "Authorization: required by the venue; private_key = '/srv/keys/kraken2.toml'",
    "self.api_key = api_key; api_key: str; apikey=None",
    "http://localhost:8888?x=1&mail=a@b.c http://localhost:8888#a@b.c",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_what_is_no_secret_stays_as_it_is(text):
    scrubber = Scrubber({"kJ8xQw93nFzLm22pXcvbNmQ1w2e3r4t5": "a key", "postgres": "a password"})
    assert scrubber.scrub(text) == text
    held = {"a": [text, 1, 2.5, None], "b": {"c": text}}
    assert scrubber.scrub_all(held) is held


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("GET /o?a=1&signature=ab&b=2", "GET /o?a=1&signature=***&b=2"),
        ("GET%20/o%3Fa%3D1%26signature%3Dab12cd", "GET%20/o%3Fa%3D1%26signature%3D***"),
        ("{'X-MBX-APIKEY': 'abc', 'a': 1}", "{'X-MBX-APIKEY': '***', 'a': 1}"),
        ('{\\"api_key\\": \\"abc\\"}', '{\\"api_key\\": \\"***\\"}'),
        ("&quot;password&quot;: &quot;a b&quot;", "&quot;password&quot;: &quot;***&quot;"),
        ("password=hunter2 next", "password=*** next"),
        ("ftp://me:hunter2@x.test/", "ftp://me:***@x.test/"),
        ("Authorization: Bearer a.b-c", "Authorization: ***"),
        ("CB-ACCESS-SIGN: 0a1b", "CB-ACCESS-SIGN: ***"),
        (
            "\x1b[33mtoken\x1b[0m=\x1b[32m'kJ8xQw93nFzLm22p'\x1b[0m",
            "\x1b[33mtoken\x1b[0m=\x1b[32m'***'\x1b[0m",
        ),
        ("{'Authorization': 'Basic dXNl'}", "{'Authorization': '***'}"),
        (f"'API-Sign': '{'aB3/' * 11}=='", "'API-Sign': '***'"),
        (
            "signature: 'GET https://x.test/?a=1&signature=ab'",
            "signature: 'GET https://x.test/?a=1&signature=***'",
        ),
        (f"{PEM}.", "***\n."),
        ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.dozjgNryP4J3", "jwt ***"),
    ],
)
def test_what_looks_like_a_secret_is_removed(text, clean):
    assert Scrubber().scrub(text) == clean
    assert Scrubber().scrub_all({"text": [text]}) == {"text": [clean]}


def test_a_secret_that_a_table_cut_short_is_removed():
    scrubber = Scrubber({"kJ8xQw93nFzLm22pXcvbNmQ1w2e3r4t5": "a key"})
    assert scrubber.scrub("0  kJ8xQw93nFzLm22pXcvb...") == "0  ***..."


def test_a_private_key_is_known_by_each_of_its_lines():
    assert Scrubber({PEM: "a key"}).scrub("got oAoGCCqGSM49 and MHcCAQEEIBqw") == "got *** and ***"


SOURCES = [
    ("self.api_key = api_key", None),
    ("self.api_key = key; self.secret = secret", None),
    ("def load(api_key: str, secret: 'Secret', password: str = '', token: str = 'BTC'): ...", None),
    ('token = token = base_token_of_symbol2 = "BTC"', None),
    ('prices = {"token": "1INCH/USDT", "signature": "sma(10,50)"}', None),
    ("api_key = load_key_from_environment2\npassword=getpass.getpass()", None),
    ("url = 'https://x.test/?token=' + token + '&a=1'; told = 'password=' + word + ' '", None),
    ("secret = os.environ['A_SECRET']; key = keys['api_key']", None),
    ("http = 'http://localhost:8888?mail=a@b.c'", None),
    ("password = 'hunter22'", "password = '***'"),
    ('password: str | None = "hunter22"', 'password: str | None = "***"'),
    ("""d["api_secret"] = b'abc-def'""", """d["api_secret"] = b'***'"""),
    ("{'passphrase': 'two words', 'a': 1}", "{'passphrase': '***', 'a': 1}"),
    ("token = 'kJ8xQw93nFzLm22p'", "token = '***'"),
    ("get('https://x.test/?token=abc123')", "get('https://x.test/?token=***')"),
    ("f(a_known_secret, 'kJ8xQw93nFzLm22pXcvbNmQ1')", "f(a_known_secret, '***')"),
]


@pytest.mark.parametrize(("source", "clean"), SOURCES)
def test_a_program_loses_its_secrets_and_nothing_else(source, clean):
    scrubber = Scrubber({"kJ8xQw93nFzLm22pXcvbNmQ1": "a key"})
    assert scrubber.scrub(source, Look.SOURCE) == (clean or source)


_PART_OF_KEY = "AbCdEf1234567890XyZqwertyUIOP"
# Each made so that a pattern that looks back or ahead without bound takes hours for it.
ADVERSE = [
    "eyJhIjoxMjM0NTY3fQ", "eyJhbGci.eyJhbGci ", "token=", "token:", "signature=?signature=",
    "password: '", 'x password:\\"a ', "password=\"'", "secret\x1b[0m\x1b[0m:", "token    \n",
    "token" + "\\" * 50, "-----BEGIN ", f"-----BEGIN {_KIND}-----", "-----END ",
    "://a:", "://", "\x1b[", "api_key:'" + "\x1b[0m" * 9, "a+/-_=", _PART_OF_KEY[:12] + "+",
    "?token", "%26token=", "https://x.test/?token=", 'password = ("\\\\', "token:" + " " * 30,
]  # fmt: skip


@pytest.mark.parametrize("look", Look)
def test_a_long_text_is_looked_through_in_one_go(look):
    scrubber = Scrubber({_PART_OF_KEY: "a key"})
    for one in ADVERSE:
        text = f"{_PART_OF_KEY[:14]}… : PRIVATE KEY-----" + one * (1_000_000 // len(one))
        assert _PART_OF_KEY[:12] not in scrubber.scrub(text, look)


@pytest.mark.parametrize(
    "value",
    ["1INCH/USDT", {"token": "1INCH/USDT"}, {"signature": "sma(10,50)"}, {"secret": "hold4ever"},
     {"api_key": "kJ8xQw93nFzLm22pXcvbNmQ1"}],
)  # fmt: skip
def test_what_is_computed_with_is_no_secret_for_its_name(value):
    scrubber = Scrubber({"another-secret-1": "a key"})
    assert scrubber.find(value) is None
    assert scrubber.scrub_all(value, Look.DATA) is value


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *((name, True) for name in (
            "PGPASSWORD", "DB_PASSWD", "KRAKEN_APIKEY", "MY_PASSPHRASE", "SMTP_PASS", "GITHUB_PAT",
            "AWS_CREDENTIALS", "LIVE_KEY", "LIVE_SECRET", "DESK_RUN_TOKEN", "key", "apiKey", "key2",
            "private-key", "wsKey", "SSH_KEYS", "secret", "AWS_SECRET_ACCESS_KEY", "MYSQL_PWD",
            "TOKENS", "db_password_file", "secretkey",
        )),
        *((name, False) for name in (
            "PATH", "PASSAGE", "COMPASS", "KEYBOARD", "MONKEY", "PWD", "OLDPWD", "XDG_DATA_PATHS",
            "TOKENIZERS_PARALLELISM", "DESK_HOME", "url", "PATTERN",
        )),
    ],
)  # fmt: skip
def test_a_secret_is_known_by_its_name(name, is_secret):
    assert is_secret_name(name) is is_secret


WORDS = [
    "notedesk", "metadata", "cell_type", "output_type", "execute_result", "language_info",
    "kernelspec", "parameters", "papermill", "model_name", "model_id", "application", "text/plain",
    "display_data", "nbformat", "IntTextModel", "injected-parameters",
]  # fmt: skip


def test_a_secret_that_is_a_word_of_every_page_breaks_none(home, notebooks, monkeypatch):
    for number, word in enumerate(WORDS):
        monkeypatch.setenv(f"LIVE_KEY{number}", word)
    with paper_desk(home) as desk:
        file = home / "desk.toml"
        file.write_text(file.read_text() + _LIVE_VENUE.format("http://127.0.0.1:9"))
        settings = load_settings(home)
        page = notebooks(
            "page",
            "from tradelib.notebooks.results import record_result\nimport ipywidgets, sys",
            "box = ipywidgets.IntText(3); display(box)\nprint('the metadata'); 1",
            "record_result({'token': '1INCH/USDT', 'metadata': 'notedesk', 'quantity': '1'})",
        )
        run = run_notebook(settings, desk.ledger, page, {})
    assert run.result == {"token": "1INCH/USDT", "***": "***", "quantity": "1"}
    kept = nbformat.read(settings.reports / run.page, as_version=4)
    nbformat.validate(kept)
    assert kept.metadata.notedesk.kernel_kind == run.kernel_kind
    assert [o.text for c in kept.cells for o in c.get("outputs", []) if "text" in o] == [
        "the ***\n"
    ]
    widgets = kept.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert "IntTextModel" in [one["model_name"] for one in widgets.values()]
    assert any("injected-parameters" in cell.metadata.get("tags", []) for cell in kept.cells)


def test_what_is_recorded_is_kept_as_it_was_computed(home, notebooks):
    result = {"best_token": "1000SATS2USDTPERP", "signature": "sma(10,50)", "secret": "1INCH/USDT"}
    cell = f"from tradelib.notebooks.results import record_result\nrecord_result({result})"
    with paper_desk(home) as desk:
        given = {"label": "token=1000SATS2USDTPERP"}
        run = run_notebook(desk.settings, desk.ledger, notebooks("page", cell), given)
    assert run.result == result
