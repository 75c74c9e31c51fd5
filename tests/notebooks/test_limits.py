"""A page that does not end well says why, is kept as far as it got, and leaves no process."""

import json

import psutil
import pytest

from tests.notebooks.test_runner import RECORD
from tradelib.errors import RunFailed
from tradelib.notebooks import runner
from tradelib.notebooks.provenance import code_version
from tradelib.notebooks.runner import (
    execute_page,
    make_page_path,
    new_run,
    plain_environment,
    run_notebook,
)
from tradelib.scrubber import desk_scrubber
from tradelib.settings import LIVE_KERNEL
from tradelib.trading.runs import Outcome, load_runs

COLD_KERNEL = "python3"
both_kernels = pytest.mark.parametrize("kernel", [LIVE_KERNEL, COLD_KERNEL])


@pytest.fixture
def fail(settings, ledger, notebooks):
    """Run a page of these cells, which must fail; returns its run, the error and its page."""

    def run(*cells, kernel=LIVE_KERNEL, **limits):
        changed = settings.model_copy(update=limits)
        with pytest.raises(RunFailed) as caught:
            run_notebook(changed, ledger, notebooks("page", *cells), {}, kernel=kernel)
        (run,) = load_runs(ledger)
        assert (run.outcome, run.result) == (Outcome.FAILED, None)
        assert run.reason in str(caught.value)
        return run, caught.value, (settings.reports / run.page).read_text()

    return run


KILL = "import os, signal; os.kill(os.getpid(), signal.{})"


@both_kernels
@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (KILL.format("SIGKILL"), "its kernel was killed by SIGKILL, perhaps for memory"),
        (KILL.format("SIGSEGV"), "its kernel was killed by SIGSEGV"),
        ("import os; os.abort()", "its kernel was killed by SIGABRT, perhaps for memory"),
        ("import os; os._exit(7)", "its kernel ended itself with exit code 7"),
    ],
)
def test_how_a_kernel_died_is_told(fail, cell, reason, kernel):
    run, error, page = fail("print('so far', flush=True)", cell, RECORD, kernel=kernel)
    assert run.reason == reason
    assert error.retryable
    assert "so far" in page


@both_kernels
def test_what_a_cell_printed_before_time_ran_out_is_kept(fail, kernel):
    slow = "import time\nprint('so far', flush=True)\ntime.sleep(60)"
    run, error, page = fail(slow, RECORD, kernel=kernel, notebook_timeout=4)
    assert run.reason == "it took longer than 4 s"
    assert not error.retryable
    assert "so far" in page


def test_the_time_is_for_all_cells_together(fail):
    nap = "import time; time.sleep(0.7)"
    run, _, page = fail(*[nap] * 40, RECORD, notebook_timeout=4)
    assert run.reason == "it took longer than 4 s"
    ran = [cell for cell in json.loads(page)["cells"] if cell.get("execution_count")]
    assert len(ran) < 12


def test_a_kernel_that_no_longer_answers_after_its_last_cell_is_ended(settings, ledger, notebooks):
    hang = "import asyncio, time\nasyncio.get_event_loop().call_soon(time.sleep, 600)"
    quick = settings.model_copy(update={"notebook_timeout": 4})
    with pytest.raises(RunFailed, match="it took longer than 4 s"):
        run_notebook(quick, ledger, notebooks("page", RECORD, hang), {})


STUBBORN = """import atexit, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
atexit.register(time.sleep, 600)
"""


@both_kernels
def test_a_kernel_that_does_not_want_to_end_keeps_nobody_waiting(
    settings, ledger, notebooks, kernel
):
    page = notebooks("page", STUBBORN + RECORD)
    assert run_notebook(settings, ledger, page, {}, kernel=kernel).result == {"limit": 3}


@both_kernels
@pytest.mark.parametrize(
    "cell",
    [
        "x = b'x' * 2_000_000_000",
        "import numpy; x = numpy.ones(250_000_000); import time; time.sleep(60)",
        "x = []\nwhile True: x.append(b'x' * 5_000_000)",
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import time; x = b\"x\" * 10**9; time.sleep(60)'])",
    ],
)
def test_a_page_that_needs_too_much_memory_is_told(fail, cell, kernel):
    run, error, _ = fail(cell, RECORD, kernel=kernel, notebook_memory_mb=600)
    assert run.reason == "it needed more than 600 MB"
    assert not error.retryable


@both_kernels
def test_a_kernel_that_could_not_be_prepared_is_ended(settings, ledger, notebooks, kernel):
    file, marker = runner.NOTEBOOKS / f"{notebooks('page', RECORD)}.ipynb", settings.home / "pid"
    run = new_run(
        file, "page", {}, "token", None, None, None, None, kernel, code_version()
    )  # fmt: skip
    prepare = (
        f"import os\nopen({str(marker)!r}, 'w').write(str(os.getpid()))\nraise ValueError('no')"
    )
    done = execute_page(
        settings, file, make_page_path(settings, run), run, plain_environment(settings),
        desk_scrubber(settings), prepare=prepare,
    )  # fmt: skip
    assert done.reason == "RuntimeError: its kernel was not prepared: no"
    assert not psutil.pid_exists(int(marker.read_text()))


SHARING = """import multiprocessing, numpy, time
shared = numpy.ones(25_000_000)
def look(_): time.sleep(2.5); return float(shared.sum())
with multiprocessing.get_context("fork").Pool(4) as pool: pool.map(look, range(4))
"""


def test_memory_that_processes_share_counts_once(settings, ledger, notebooks):
    limited = settings.model_copy(update={"notebook_memory_mb": 900})
    assert run_notebook(limited, ledger, notebooks("page", SHARING + RECORD), {}).result


@pytest.mark.parametrize(
    "cell",
    [
        "for _ in range(100): print('x' * 1_000_000)",
        "print('x' * 100_000_000)",
        "for _ in range(3000): print('x' * 10_000, flush=True)",
        "from IPython.display import HTML\nfor _ in range(50): display(HTML('x' * 300_000))",
        "import os\nwhile True: os.write(1, b'x' * 100_000)",
        "import subprocess; subprocess.run(['yes'])",
    ],
)
@pytest.mark.parametrize("watched", [True, False])
def test_a_page_that_prints_too_much_is_stopped(fail, cell, watched, monkeypatch):
    if watched:  # ipykernel takes what is written to file descriptors, but in tests
        monkeypatch.delenv("PYTEST_CURRENT_TEST")
    first = "print('the first line', flush=True)"
    run, error, page = fail(first, cell, RECORD, notebook_output_mb=2)
    assert run.reason == "it printed more than 2 MB"
    assert not error.retryable
    assert "the first line" in page
    assert len(page) < 3_000_000


def test_the_middle_of_what_was_printed_too_much_is_left_out(fail):
    lines = "for number in range(10**6): print('line', number)"
    _, _, page = fail(lines, RECORD, notebook_output_mb=1)
    assert "line 0" in page
    assert "characters left out" in page
    assert len(page) < 300_000


def survivors(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("OF_TEST") == mark and process.status() != "zombie":
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


CHILDREN = """import os, subprocess, sys, time
env = {**os.environ, "OF_TEST": "TEST_MARK"}
nap = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(nap, env=env)
subprocess.Popen(nap, env=env, start_new_session=True)
subprocess.Popen(nap, env=env, start_new_session=True, stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL)
# A daemon: nobody's child, in a session of its own.
subprocess.run([sys.executable, "-c", '''import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
os._exit(0)'''], env=env)
# One that forgot whose it is.
subprocess.Popen(["env", "-i", "OF_TEST=TEST_MARK", "setsid", *nap])
# A daemon that forgot it too.
subprocess.run(["env", "-i", "OF_TEST=TEST_MARK", "sh", "-c", "setsid sleep 600 >/dev/null 2>&1 &"])
time.sleep(0.3)
"""


@pytest.fixture
def mark(tmp_path):
    mark = tmp_path.name
    yield mark
    for process in survivors(mark):
        process.kill()


@both_kernels
@pytest.mark.parametrize(
    ("end", "limits"),
    [
        (RECORD, {}),
        ("1 / 0", {}),
        ("time.sleep(60)", {"notebook_timeout": 4}),
        ("for _ in range(50): print('x' * 10**6)", {"notebook_output_mb": 1}),
    ],
)
def test_no_process_of_a_page_outlives_it(settings, ledger, notebooks, mark, end, limits, kernel):
    changed = settings.model_copy(update=limits)
    started = "print('started', len(__import__('psutil').Process().children()))"
    page = notebooks("page", CHILDREN.replace("TEST_MARK", mark), started, end)
    try:
        run_notebook(changed, ledger, page, {}, kernel=kernel)
    except RunFailed:
        assert end != RECORD
    (run,) = load_runs(ledger)
    assert "started" in (settings.reports / run.page).read_text()
    assert survivors(mark) == []


@both_kernels
def test_no_process_of_a_page_outlives_a_kernel_that_was_killed(fail, mark, kernel):
    known = CHILDREN.replace("TEST_MARK", mark).partition("# One that forgot")[0]
    fail(known + "time.sleep(0.3)", KILL.format("SIGKILL"), kernel=kernel)
    assert survivors(mark) == []


def test_a_process_that_holds_the_pages_pipe_open_keeps_nobody_waiting(fail, mark):
    hold = f"env -i OF_TEST={mark} setsid sleep 600 &"
    holding = f"import subprocess; subprocess.run(['sh', '-c', {hold!r}])\n" + KILL.format(
        "SIGKILL"
    )
    run, _, _ = fail(holding)
    assert run.reason == "its kernel was killed by SIGKILL, perhaps for memory"
    assert len(survivors(mark)) == 1  # nobody can know whose it was


FLAKY = """import os, pathlib, sys
tried = pathlib.Path(sys.argv[1])
if int(sys.argv[2]) > (times := len(tried.read_text()) if tried.exists() else 0):
    tried.write_text("x" * (times + 1))
    sys.exit("no luck")
os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *sys.argv[3:]])
"""


@pytest.fixture
def flaky_kernel(tmp_path, monkeypatch):
    """A kernel that dies before it answers, so many times; returns its name."""

    def make(failures):
        (tmp_path / "flaky.py").write_text(FLAKY)
        folder = tmp_path / "jupyter" / "kernels" / f"flaky{failures}"
        folder.mkdir(parents=True)
        argv = ["python", str(tmp_path / "flaky.py"), str(tmp_path / "tried"), str(failures)]
        spec = {
            "argv": [*argv, "-f", "{connection_file}"],
            "display_name": "",
            "language": "python",
        }
        (folder / "kernel.json").write_text(json.dumps(spec))
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
        return folder.name

    return make


def test_a_kernel_that_did_not_start_is_started_once_more(
    settings, ledger, notebooks, flaky_kernel
):
    page = notebooks("page", RECORD)
    assert run_notebook(settings, ledger, page, {}, kernel=flaky_kernel(1)).result
    assert len(load_runs(ledger)) == 1


def test_a_kernel_that_never_starts_is_told(fail, flaky_kernel, settings):
    run, error, _ = fail(RECORD, kernel=flaky_kernel(9))
    assert run.reason.startswith("its kernel did not start")
    assert error.retryable
    assert (settings.logs / "kernels.log").read_text().count("no luck") == 2


def test_a_page_that_ran_a_cell_is_not_run_again(fail, tmp_path):
    ran = f"with open({str(tmp_path / 'ran')!r}, 'a') as file: file.write('x')"
    fail(ran, KILL.format("SIGKILL"))
    assert (tmp_path / "ran").read_text() == "x"
