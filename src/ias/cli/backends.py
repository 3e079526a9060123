"""`ias backends`: the servers behind models, their health, and what is done about them."""

import json
from collections.abc import Callable
from typing import IO, Any

import click

from ias.cli.failures import CommandError
from ias.cli.management_api import ManagementApi, management_options
from ias.cli.models import MODELS, find_model, sent, tell

BACKENDS = "/registry/v1/backends"
ADAPTERS = "/registry/v1/adapters"

_dry_run = click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
_connected = management_options("registry")


@click.group()
def backends() -> None:
    """Backends of models, for platform admins."""


@backends.command("list")
@click.argument("model")
@_connected
def list_backends(model: str, url: str, token_file: IO[str] | None) -> None:
    """List the backends of MODEL with their health."""
    api = ManagementApi(url, token_file)
    for backend in api.list(f"{MODELS}/{find_model(api, model)['id']}/backends"):
        health = api.get(f"{BACKENDS}/{backend['id']}/health")
        state = backend["status"] if backend["status"] == "disabled" else "draining" if backend["draining"] else ""
        place = f"tier {backend['tier']}, {backend['group']}, weight {backend['weight']}"
        click.echo(
            f"{backend['id']}  {_state_of(health):<9}  {backend['url']}  ({place}{', ' + state if state else ''})"
        )


def _fields(command: Callable[..., None]) -> Callable[..., None]:
    """What a backend is added with and changed to."""
    for option in (
        click.option(
            "--credential-from",
            metavar="REFERENCE",
            help="Where the registry finds it instead: env:IAS_BACKEND_CREDENTIAL_… or file:NAME.",
        ),
        click.option("--credential-file", type=click.File("r"), help="File with the API key that it asks for."),
        click.option("--environment", help="Where it runs: a label of yours."),
        click.option("--concurrency-max", type=click.IntRange(1), help="Requests at a time that it bears."),
        click.option("--group", type=click.Choice(["stable", "canary"])),
        click.option(
            "--tier", type=click.IntRange(0, 9), help="Lower ones first; the others are for when none can serve."
        ),
        click.option("--weight", type=click.IntRange(0, 1000), help="Share of the requests in its group."),
        click.option("--engine", type=click.Choice(["vllm", "openai", "ias-sim"]), help="What serves there."),
        click.option("--upstream-model", metavar="NAME", help="The name it knows the model, or the adapter, by."),
    ):
        command = option(command)
    return command


@backends.command()
@click.argument("model")
@click.argument("backend_url", metavar="BASE_URL")
@_fields
@click.option(
    "--verify", "verifies", is_flag=True, help="Send one completion through it; leave it disabled if it fails."
)
@_dry_run
@_connected
def add(
    model: str,
    backend_url: str,
    *,
    verifies: bool,
    dry_run: bool,
    url: str,
    token_file: IO[str] | None,
    credential_file: IO[str] | None,
    **fields: Any,
) -> None:
    """Add the backend at BASE_URL (with its version path, http://10.0.0.7:8000/v1) to MODEL."""
    api = ManagementApi(url, token_file)
    body = {"url": backend_url, **sent(fields), **_credential(credential_file)}
    if verifies:
        body["status"] = "disabled"
    told = api.post(f"{MODELS}/{find_model(api, model)['id']}/backends", body, dry_run=dry_run)
    if dry_run:
        click.echo("it can be added; nothing was changed")
        return
    click.echo(told["id"])
    if verifies:
        _verify(api, f"{BACKENDS}/{told['id']}")
        api.post(f"{BACKENDS}/{told['id']}/enable", {})


@backends.command()
@click.argument("backend_id", metavar="ID")
@click.option("--backend-url", "url_", metavar="BASE_URL", help="Where it is from now on.")
@_fields
@_dry_run
@_connected
def update(
    backend_id: str,
    *,
    url_: str | None,
    dry_run: bool,
    url: str,
    token_file: IO[str] | None,
    credential_file: IO[str] | None,
    **fields: Any,
) -> None:
    """Change what is given of backend ID."""
    changed = {**sent({**fields, "url": url_}), **_credential(credential_file)}
    if not changed:
        raise click.UsageError("nothing to change was given")
    api = ManagementApi(url, token_file)
    path = f"{BACKENDS}/{backend_id}"
    tell(api.get(path), api.patch(path, changed, dry_run=dry_run), dry_run=dry_run)


@backends.command()
@click.argument("backend_id", metavar="ID")
@_dry_run
@_connected
def delete(backend_id: str, *, dry_run: bool, url: str, token_file: IO[str] | None) -> None:
    """Take backend ID away."""
    ManagementApi(url, token_file).delete(f"{BACKENDS}/{backend_id}", dry_run=dry_run)
    if dry_run:
        click.echo("it can be taken away; nothing was changed")


@backends.command()
@click.argument("backend_id", metavar="ID")
@_connected
def adapters(backend_id: str, url: str, token_file: IO[str] | None) -> None:
    """List the LoRA adapters of backend ID, and whether its server has them."""
    for adapter in ManagementApi(url, token_file).list(f"{BACKENDS}/{backend_id}/adapters"):
        click.echo(f"{adapter['id']}  {_state_of(adapter):<9}  {adapter['name']}  ({adapter['reason']})")


@backends.command("add-adapter")
@click.argument("backend_id", metavar="ID")
@click.argument("name")
@click.option("--model", required=True, metavar="NAME", help="The model that it is to clients.")
@click.option("--verify", "verifies", is_flag=True, help="Send one completion through it; take it away if it fails.")
@_dry_run
@_connected
def add_adapter(
    backend_id: str, name: str, *, model: str, verifies: bool, dry_run: bool, url: str, token_file: IO[str] | None
) -> None:
    """Serve a model by the LoRA adapter NAME, which the server of backend ID has loaded."""
    api = ManagementApi(url, token_file)
    body = {"name": name, "model_id": find_model(api, model)["id"]}
    told = api.post(f"{BACKENDS}/{backend_id}/adapters", body, dry_run=dry_run)
    if dry_run:
        click.echo("it can be added; nothing was changed")
        return
    if verifies:
        try:
            _verify(api, f"{ADAPTERS}/{told['id']}")
        except CommandError:
            api.delete(f"{ADAPTERS}/{told['id']}")
            raise
    click.echo(told["id"])


@backends.command("remove-adapter")
@click.argument("adapter_id", metavar="ADAPTER_ID")
@_dry_run
@_connected
def remove_adapter(adapter_id: str, *, dry_run: bool, url: str, token_file: IO[str] | None) -> None:
    """Serve its model by adapter ADAPTER_ID no more."""
    ManagementApi(url, token_file).delete(f"{ADAPTERS}/{adapter_id}", dry_run=dry_run)
    if dry_run:
        click.echo("it can be taken away; nothing was changed")


def _add_switch(name: str, text: str) -> None:
    @click.argument("backend_id", metavar="ID")
    @click.option("--reason", help="Why; kept with the change.")
    @_dry_run
    @_connected
    def switch(backend_id: str, *, reason: str | None, dry_run: bool, url: str, token_file: IO[str] | None) -> None:
        api = ManagementApi(url, token_file)
        path = f"{BACKENDS}/{backend_id}"
        tell(api.get(path), api.post(f"{path}/{name}", {"reason": reason}, dry_run=dry_run), dry_run=dry_run)

    backends.command(name, help=text)(switch)


_add_switch("disable", "The kill switch: within a second backend ID gets nothing more, and what it serves is cut.")
_add_switch("enable", "Undo `disable`.")
_add_switch("drain", "Give backend ID nothing new; what it serves goes on.")
_add_switch("resume", "Undo `drain`.")


@backends.command()
@click.argument("backend_id", metavar="ID")
@_connected
def verify(backend_id: str, url: str, token_file: IO[str] | None) -> None:
    """Send one completion through backend ID and report. Exit code 1: it failed."""
    _verify(ManagementApi(url, token_file), f"{BACKENDS}/{backend_id}")


@backends.command()
@click.argument("backend_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="The API's answer as it is.")
@_connected
def health(backend_id: str, *, as_json: bool, url: str, token_file: IO[str] | None) -> None:
    """Show the health of backend ID, its load, and what happened to it."""
    told = ManagementApi(url, token_file).get(f"{BACKENDS}/{backend_id}/health")
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"{_state_of(told)} since {told['since']}: {told['reason']}")
    if told["scraped_at"]:
        usage = told["kv_cache_usage"]
        filled = "" if usage is None else f", KV cache {usage:.0%} full"
        click.echo(f"{told['running']} requests running, {told['waiting']} waiting{filled}")
    if told["adapters"]:
        click.echo(f"adapters: {', '.join(told['adapters'])}")
    for one in told["history"]:
        click.echo(f"  {one['at']}  {_state_of(one):<9}  {one['reason']}")


def _verify(api: ManagementApi, path: str) -> None:
    told = api.post(f"{path}/verify", {})
    if not told["ok"]:
        raise CommandError(f"{path.rpartition('/')[2]} failed: {told['detail']}")
    click.echo(f"{told['detail']} {told['latency_ms']:.0f} ms, {told['usage']['output_tokens']} tokens")


def _credential(file: IO[str] | None) -> dict[str, str]:
    return {} if file is None else {"credential": file.read().strip()}


def _state_of(health: dict[str, Any]) -> str:
    return str(health["health"] if health["circuit"] == "closed" else health["circuit"])
