"""`ias serve`: one deployable in the foreground, as in production."""

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import click

from ias import __version__
from ias.cli.failures import CommandError

_APPS: Mapping[str, str] = {
    "identity": "ias.identity.wiring",
    "registry": "ias.registry.wiring",
    "billing": "ias.billing.wiring",
    "analytics": "ias.analytics.wiring",
    "gitops": "ias.gitops.wiring",
}
_PORTS: Mapping[str, int] = {
    "gateway": 8000,
    "identity": 8001,
    "registry": 8002,
    "billing": 8003,
    "analytics": 8004,
    "gitops": 8005,
    "management": 8080,
}
_GRACE_S = 10
"""How long running requests may take to finish after SIGTERM."""


@click.command()
@click.argument("service", type=click.Choice(list(_PORTS)))
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [default: the service's own]")
@click.option("--workers", type=click.IntRange(1, 64), help="Worker processes, of the gateway only.")
@click.pass_context
def serve(ctx: click.Context, service: str, host: str | None, port: int | None, workers: int | None) -> None:
    """Run one service in the foreground. `management` is all management services in one process."""
    if workers is not None and service != "gateway":
        raise click.UsageError("--workers is for the gateway; other services scale by running more of them")
    if service == "gateway":
        ctx.exit(_serve_gateway({"gateway_host": host, "gateway_port": port, "gateway_workers": workers}))
    _serve_apps(service, host or "127.0.0.1", _PORTS[service] if port is None else port)


def _serve_gateway(given: Mapping[str, Any]) -> int:
    settings_type = importlib.import_module("ias.gateway.settings").GatewaySettings
    settings = read_settings(settings_type, **{name: value for name, value in given.items() if value is not None})
    status: int = importlib.import_module("ias.gateway.main").serve(settings)
    return status


def _serve_apps(service: str, host: str, port: int) -> None:
    settings = read_settings(importlib.import_module("ias.kit.settings").ProcessSettings)
    configure_logging(service, settings)
    names = list(_APPS) if service == "management" else [service]
    apps = {name: build_part(_APPS[name], "build_app") for name in names}
    if service == "management":
        app = importlib.import_module("ias.local.management").ManagementApp(apps, version=__version__)
    else:
        app = apps[service]

    def explain(error: BaseException) -> CommandError | None:
        failures = importlib.import_module("ias.cli.database_failures")
        explained: CommandError | None = failures.explain_database_failure(getattr(error, "service", service), error)
        return explained

    run_uvicorn(importlib.import_module("ias.cli.startup").StartupWatch(app, explain), host, port)


def build_part(module: str, function: str) -> Any:
    """What a service's wiring builds; settings that are missing or wrong become one line."""
    with explained_settings():
        return getattr(importlib.import_module(module), function)()


def run_uvicorn(app: Any, host: str, port: int) -> None:
    """Serve a watched app until SIGTERM or SIGINT, then let running requests finish."""
    uvicorn = importlib.import_module("uvicorn")
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=importlib.import_module("ias.cli.http_protocol").ProblemProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # kit.web looks at X-Forwarded-For, by IAS_TRUSTED_PROXIES
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = uvicorn.Server(config)
    with suppress(SystemExit):  # uvicorn's own end when it could not start, which is told below
        server.run()
    if app.failure:
        raise app.failure
    if not server.started:
        raise CommandError("the service did not start", advice="its log says why")


def read_settings(settings_type: Any, **given: Any) -> Any:
    """A process's settings, from the environment and from what was typed."""
    with explained_settings():
        return settings_type(**given)


@contextmanager
def explained_settings() -> Iterator[None]:
    """Turn settings that are missing or wrong into one line."""
    pydantic, sources = importlib.import_module("pydantic"), importlib.import_module("pydantic_settings")
    try:
        yield
    except pydantic.ValidationError as error:
        raise explain_settings(error) from error
    except sources.SettingsError as error:  # its text names the field and holds no value
        field = re.search(r'field "(\w+)"', str(error))
        raise CommandError(
            f"IAS_{field[1].upper()} is not valid JSON" if field else str(error),
            advice="docs/settings.md lists the settings",
        ) from error


def explain_settings(error: Any) -> CommandError:
    """Settings that are missing or wrong, by the names of their environment variables."""
    wrong = [f"IAS_{'_'.join(str(part) for part in item['loc']).upper()} {_say(item)}" for item in error.errors()]
    return CommandError("; ".join(wrong), advice="docs/settings.md lists the settings")


def _say(wrong: Mapping[str, Any]) -> str:
    if wrong["type"] == "missing":
        return "must be set"
    if wrong["type"] == "value_error":
        return str(wrong["ctx"]["error"])
    return f"is wrong ({wrong['msg']})"


def configure_logging(process: str, settings: Any) -> None:
    """Send this process's logs where the settings say."""
    importlib.import_module("ias.kit.logging").configure_logging(process, settings)
