"""A kernel that was started before its page was known is no other than one that was not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.kernels.kernels import add_kernelspec, sockets_folder
from tests.waiting import until
from tradelib.errors import RunFailed
from tradelib.kernels.servers import load_servers
from tradelib.logs import CYCLE_ENV
from tradelib.notebooks.desk import RUN_ENV, TOKEN_ENV
from tradelib.notebooks.family import MARK_ENV
from tradelib.notebooks.preheat import KernelPool
from tradelib.notebooks.results import RESULT_MIME
from tradelib.notebooks.runner import run_notebook
from tradelib.settings import DeskSettings
from tradelib.trading.ledger import Ledger
from tradelib.trading.runs import Run

KERNEL = "preheat-test"
TELL = f"""
import hashlib, os, sys
from IPython.display import display
shell = get_ipython()
os.umask(mask := os.umask(0))
told = {{
    "pid": os.getpid(), "token": hashlib.sha256(os.environ[{TOKEN_ENV!r}].encode()).hexdigest(),
    "names": sorted(name for name in globals() if not name.startswith("_i")),
    "environment": dict(os.environ),
    "folder": os.getcwd(), "mask": mask, "path": sys.path, "count": len(In),
    "history": shell.history_manager.hist_file, "modules": "preheated" in sys.modules,
}}
display({{{RESULT_MIME!r}: told}}, raw=True)
"""
RECORD = "from tradelib.notebooks.results import record_result\nimport os\n"
RECORD += 'record_result({"pid": os.getpid()})\n'


@pytest.fixture
def pool(
    settings: DeskSettings, tmp_path: Path, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[KernelPool]:
    """Its kernels are forked from a server that has imported `preheated`."""
    (modules / "preheated.py").write_text("value = 1\n")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    add_kernelspec(tmp_path / "jupyter", "preheated", name=KERNEL)
    with sockets_folder():
        pool = KernelPool(settings, KERNEL)
        yield pool
        pool.close()


def waiting() -> set[int]:
    """The kernels that run."""
    return {pid for server in load_servers() for pid in server.kernels}


def fill(pool: KernelPool, size: int) -> None:
    pool.fill(size)
    until(lambda: pool.count == size)


Runs = Callable[..., Run]


@pytest.fixture
def run(settings: DeskSettings, ledger: Ledger, notebooks: Callable[..., str]) -> Runs:
    """Run a page of one cell."""

    def run(cell: str, pool: KernelPool | None, **changed: object) -> Run:
        limited = settings.model_copy(update=changed)
        page = notebooks("page", cell)
        return run_notebook(limited, ledger, page, {}, kernel=KERNEL, cycle="c-1", pool=pool)

    return run


def test_a_preheated_kernel_stands_where_a_fresh_one_does(pool: KernelPool, run: Runs) -> None:
    fill(pool, 1)
    (preheated,) = waiting()
    runs = [run(TELL, one) for one in (pool, None)]
    seen = [dict(one.result or {}) for one in runs]
    assert [one.pop("pid") == preheated for one in seen] == [True, False]
    for told, one in zip(seen, runs, strict=True):
        own = {name: told["environment"].pop(name) for name in (RUN_ENV, TOKEN_ENV, CYCLE_ENV)}
        assert (own[RUN_ENV], own[CYCLE_ENV]) == (one.id, "c-1")
        assert (own[TOKEN_ENV], told.pop("token")) == ("***", one.token_hash)
        assert told["environment"].pop(MARK_ENV)
    assert seen[0] == seen[1]
    assert runs[0].kernel_kind == runs[1].kernel_kind == "warm"


def test_each_page_has_a_kernel_of_its_own(pool: KernelPool, run: Runs) -> None:
    fill(pool, 1)
    first = run(RECORD, pool).result
    assert waiting() == set()
    second = run(RECORD, pool).result
    fill(pool, 2)
    third = run(RECORD, pool).result
    assert len({one["pid"] for one in (first, second, third) if one}) == 3


def change_code(modules: Path, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    (modules / "preheated.py").write_text("value = 22\n")


def change_environment(modules: Path, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("SOMETHING", "else")


def change_settings_of_ipython(modules: Path, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ipython" / "profile_default" / "startup" / "mine.py"
    file.write_text("value = 22\n")


def change_packages(modules: Path, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    add_kernelspec(tmp_path / "jupyter", "preheated", "sqlite3", name=KERNEL)


def kill(modules: Path, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    for pid in waiting():
        psutil.Process(pid).kill()


@pytest.mark.parametrize(
    "change",
    [change_code, change_environment, change_settings_of_ipython, change_packages, kill],
)
def test_a_kernel_that_would_be_another_by_now_is_not_used(
    pool: KernelPool, run: Runs, modules: Path, tmp_path: Path, change: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fill(pool, 1)
    before = waiting()
    change(modules, tmp_path, monkeypatch)
    told = run(RECORD, pool).result
    assert told
    assert told["pid"] not in before
    until(lambda: not any(map(psutil.pid_exists, before)))


def test_a_page_in_a_preheated_kernel_keeps_its_limits(
    pool: KernelPool, run: Runs, settings: DeskSettings
) -> None:
    fill(pool, 1)
    (preheated,) = waiting()
    start = "import subprocess; subprocess.Popen(['sleep', '617'], start_new_session=True)"
    slow = f"{start}\nprint('so far', flush=True)\nwhile True: pass"
    with pytest.raises(RunFailed, match="it took longer than 3 s"):
        run(slow, pool, notebook_timeout=3)
    assert not psutil.pid_exists(preheated)
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "617"]
    ]
    fill(pool, 1)
    with pytest.raises(RunFailed, match="it needed more than 300 MB"):
        run("x = b'x' * 1_000_000_000\nwhile True: pass", pool, notebook_memory_mb=300)


def test_what_a_preheated_kernel_says_beside_its_cells_is_kept_without_secrets(
    pool: KernelPool, run: Runs, settings: DeskSettings
) -> None:
    fill(pool, 1)
    said = f"import os; os.write(1, b'beside: ' + os.environ[{TOKEN_ENV!r}].encode() + b'\\n')\n"
    run(said + RECORD, pool)
    (line,) = [
        line
        for line in (settings.logs / "kernels.log").read_text().splitlines()
        if "beside" in line
    ]
    assert line == "beside: ***"


def test_a_closed_pool_leaves_nothing(pool: KernelPool, run: Runs, settings: DeskSettings) -> None:
    def held() -> tuple[int, int]:
        return psutil.Process().num_fds(), len(os.listdir(settings.kernel_sockets))

    fill(pool, 2)
    run(RECORD, pool)
    pool.close()
    assert waiting() == set()
    assert held()[1] == 0
    pool.fill(2)
    assert run(RECORD, pool).result
    assert waiting() == set()
    again = KernelPool(settings, KERNEL)
    before = held()
    fill(again, 2)
    again.close()
    assert held() == before


def test_a_pool_that_is_closed_while_a_kernel_starts_ends_it(
    settings: DeskSettings, pool: KernelPool
) -> None:
    fill(pool, 1)
    (first,) = waiting()
    another = KernelPool(settings, KERNEL)
    another.fill(1)
    another.close()
    another._starter.shutdown()
    assert waiting() == {first}


def test_where_no_kernel_can_be_forked_none_waits(
    settings: DeskSettings, pool: KernelPool, tmp_path: Path
) -> None:
    fill(pool, 1)
    before = waiting()
    spec = tmp_path / "jupyter" / "kernels" / KERNEL / "kernel.json"
    told = json.loads(spec.read_text())
    del told["metadata"]["kernel_provisioner"]
    spec.write_text(json.dumps(told))
    cold = KernelPool(settings, KERNEL)
    cold.fill(2)
    cold._starter.shutdown()
    assert cold.take(KERNEL, dict(os.environ)) is None
    assert waiting() == before
