"""The desk's services: the paper exchange, Prefect, the flows, the feed, Voilà and JupyterLab."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tradelib.errors import InvalidInput, StorageFailed
from tradelib.services.service import LOOPBACK, FileProbe, HttpProbe, Service
from tradelib.settings import KERNELSPECS, NOTEBOOKS, PROJECT, RESEARCH_KERNEL, DeskSettings

# The notebooks in notebooks/dashboards, in the order in which they are shown.
DASHBOARDS = ("portfolio", "operations", "runs", "promotions")
# Seconds without a browser after which a page's kernel ends, and between two looks.
PAGE_KERNEL_IDLE = 120
PAGE_KERNEL_LOOK = 30
# Prefect's first start makes its database: 5 s here, several times that on a slow disk.
PREFECT_PATIENCE = 180.0


def desk_services(
    settings: DeskSettings,
    market: str,
    paper_home: Path,
    paper_arguments: Sequence[str] = (),
    *,
    flow_environment: Mapping[str, str] | None = None,
    without: Collection[str] = (),
) -> list[Service]:
    """What `desk up` starts, in an order in which each needs only those before it.

    market, paper_home: the name of the paper exchange's service, and where it keeps its state.
    paper_arguments: further arguments of `python -m tradelib.paper`.
    flow_environment: further variables for `python -m flows.serve`.
    without: names to leave out, of prefect, the market's, jupyter, voila, flows, feed.
    """
    flow_needs = [name for name in ("prefect", market) if name not in without]
    services = [
        prefect_server(settings),
        paper_exchange(settings, market, paper_home, paper_arguments),
        jupyter_lab(settings),
        voila(settings),
        flows(settings, flow_environment or {}, flow_needs),
        feed(settings, flow_needs),
    ]
    return [service for service in services if service.name not in without]


def paper_exchange(
    settings: DeskSettings, name: str, folder: Path, arguments: Sequence[str] = ()
) -> Service:
    """The local exchange of one market, with its state in `folder`."""
    return Service(
        name=name,
        command=_python("tradelib.paper", "--home", folder, "--port", "{port}", *arguments),
        port=settings.ports.paper,
        ready=HttpProbe("/api/v3/ping"),
        env={"DESK_HOME": str(settings.home)},
        folder=PROJECT,
    )


def prefect_server(settings: DeskSettings) -> Service:
    """Prefect's API and pages, on a database in the desk's home unless the environment names one.

    Pages of other origins may not call the API: it can start a flow, and a flow can trade.
    """
    return Service(
        name="prefect",
        # As `prefect server start` runs it, with `prefect_app` before it.
        command=_python(
            "uvicorn",
            "--factory",
            "tradelib.services.prefect_app:make_app",
            "--host",
            LOOPBACK,
            "--port",
            "{port}",
            "--log-level",
            "warning",
        ),
        port=settings.ports.prefect,
        ready=HttpProbe("/api/health"),
        link="/dashboard",
        env={
            **prefect_environment(settings, "{url}"),
            "PREFECT_UI_API_URL": "{url}/api",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "{url}",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        },
        keeps=("PREFECT_",),
        folder=PROJECT,
        ready_within=PREFECT_PATIENCE,
    )


def prefect_environment(settings: DeskSettings, url: str) -> dict[str, str]:
    """What a process needs to talk to the desk's Prefect at `url`, and to nobody else."""
    return {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def flows(
    settings: DeskSettings, variables: Mapping[str, str], needs: Sequence[str] = ("prefect",)
) -> Service:
    """The process that serves the flows."""
    return _trading_service(settings, "flows", "flows.serve", variables, needs)


def feed(settings: DeskSettings, needs: Sequence[str] = ("prefect",)) -> Service:
    """The process that follows what venues stream, and wakes bots."""
    return _trading_service(settings, "feed", "flows.feed", {}, needs)


def _trading_service(
    settings: DeskSettings,
    name: str,
    module: str,
    variables: Mapping[str, str],
    needs: Sequence[str],
) -> Service:
    """A process of flows; it makes the file DESK_READY_FILE when it is ready.

    No other service sees the venues' keys in the environment, for none else trades.
    """
    ready = settings.services_file.with_name(f"{name}.ready")
    return Service(
        name=name,
        command=_python(module),
        ready=FileProbe(ready),
        env={
            **variables,
            **prefect_environment(settings, "{prefect.url}"),
            "DESK_HOME": str(settings.home),
            "DESK_READY_FILE": str(ready),
        },
        keeps=("",),
        needs=tuple(needs),
        folder=PROJECT,
    )


def voila(settings: DeskSettings) -> Service:
    """The dashboards and the reports as pages without code, and nothing else of the disk."""
    root = _pages_folder(settings)
    token = secrets.token_urlsafe(24)
    return Service(
        name="voila",
        command=_python(
            "voila",
            root,
            "--no-browser",
            "--Voila.ip=127.0.0.1",
            "--Voila.port={port}",
            "--Voila.port_retries=0",
            "--Voila.auto_token=True",  # which is JUPYTER_TOKEN when there is one
            "--VoilaConfiguration.template=lab",
            "--VoilaConfiguration.allow_template_override=NO",
            "--VoilaConfiguration.strip_sources=True",
            "--VoilaConfiguration.show_tracebacks=True",
            # Voilà hands out plain files without asking for the token.
            "--VoilaConfiguration.file_denylist=['.*']",
            f"--MappingKernelManager.cull_idle_timeout={PAGE_KERNEL_IDLE}",
            f"--MappingKernelManager.cull_interval={PAGE_KERNEL_LOOK}",
            # Jupyter's own waits 200 ms for silence at each start.
            "--AsyncKernelManager.client_class=tradelib.kernels.client.QuickKernelClient",
        ),
        port=settings.ports.voila,
        ready=HttpProbe("/login"),
        link="/voila/tree/dashboards",
        token=token,
        env={**_jupyter_environment(settings), "JUPYTER_TOKEN": token},
        folder=root,
    )


def jupyter_lab(settings: DeskSettings) -> Service:
    """JupyterLab on the project's folder, for research; it asks nothing of the network."""
    _silence_announcements(settings.home / "jupyter")
    token = secrets.token_urlsafe(24)
    return Service(
        name="jupyter",
        command=_python(
            "jupyterlab",
            "--no-browser",
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.port={port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={PROJECT}",
            "--ServerApp.allow_root=True",
            "--LabApp.extension_manager=readonly",
        ),
        port=settings.ports.jupyter,
        ready=HttpProbe("/api"),
        link="/lab",
        token=token,
        env={**_jupyter_environment(settings), "JUPYTER_TOKEN": token},
        folder=PROJECT,
    )


def dashboard_path(name: str) -> str:
    """Path on Voilà of the dashboard `name`, as in `find_service(…, "voila").address(path)`."""
    return f"/voila/render/dashboards/{name.removesuffix('.ipynb')}.ipynb"


def report_path(settings: DeskSettings, notebook: Path) -> str:
    """Path on Voilà of an executed notebook in the reports folder.

    Raises InvalidInput for one that lies elsewhere.
    """
    try:
        inside = notebook.resolve().relative_to(settings.reports.resolve())
    except ValueError:
        raise InvalidInput(f"{notebook} is not in the reports folder {settings.reports}.") from None
    return f"/voila/render/reports/{inside.as_posix()}"


def _python(module: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *map(str, arguments))


def _jupyter_environment(settings: DeskSettings) -> dict[str, str]:
    """Keep a user's own Jupyter and IPython settings out, the kernels in this environment, and
    the ledger and the venues' orders out of their reach: only scheduled runs write."""
    return {
        "DESK_HOME": str(settings.home),
        "DESK_READ_ONLY": "1",
        "JUPYTER_PATH": str(_kernels_folder(settings)),
        "JUPYTER_CONFIG_DIR": str(settings.home / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(settings.home / "run" / "jupyter"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": str(settings.home / "ipython"),
    }


def _kernels_folder(settings: DeskSettings) -> Path:
    """A folder of Jupyter data in which python3, the kernel that notebooks name, is a warm one."""
    folder = settings.home / "jupyter" / "data"
    with _told_as_desk_error(folder):
        (folder / "kernels").mkdir(parents=True, exist_ok=True)
        _link(folder / "kernels" / "python3", KERNELSPECS / RESEARCH_KERNEL)
    return folder


def _silence_announcements(config: Path) -> None:
    """Turn off the extension that asks for news and updates; no command-line option does."""
    file = config / "labconfig" / "page_config.json"
    disabled = {"@jupyterlab/apputils-extension:announcements": True}
    with _told_as_desk_error(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"disabledExtensions": disabled}), encoding="utf-8")


def _pages_folder(settings: DeskSettings) -> Path:
    """A folder that holds links to the dashboards and the reports alone."""
    folder = settings.home / "voila"
    with _told_as_desk_error(folder):
        settings.reports.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        _link(folder / "dashboards", NOTEBOOKS / "dashboards")
        _link(folder / "reports", settings.reports)
    return folder


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target, target_is_directory=True)


@contextmanager
def _told_as_desk_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"{path} cannot be written ({error.strerror}); "
            f"mend its permissions, or choose another home with --home."
        ) from error
