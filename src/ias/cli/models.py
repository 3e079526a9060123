"""`ias models`: the models that clients may ask for, and how requests for them are routed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import click

from ias.cli.desired_models import DesiredModels, read_models
from ias.cli.failures import CommandError
from ias.cli.management_api import ManagementApi, management_options

MODELS = "/registry/v1/models"

_STRATEGIES = ("prefix", "least_tokens", "weighted", "priority")
_CAPABILITIES = ("chat", "completions", "embeddings", "responses", "tools", "vision", "audio", "structured_output")
_dry_run = click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
_connected = management_options("registry")


@click.group()
def models() -> None:
    """Models and their routes, for platform admins. Backends have a command of their own."""


@models.command("list")
@_connected
def list_models(url: str, token_file: IO[str] | None) -> None:
    """List models: status, context, name, aliases."""
    for model in ManagementApi(url, token_file).list(MODELS):
        also = f"  (also {', '.join(model['aliases'])})" if model["aliases"] else ""
        instead = f"  → {model['replacement']}" if model["replacement"] else ""
        click.echo(f"{model['status']:<10}  {model['context_length']:>9}  {model['name']}{also}{instead}")


@models.command()
@click.argument("name")
@_connected
def show(name: str, url: str, token_file: IO[str] | None) -> None:
    """Show model NAME and its route policy as JSON."""
    api = ManagementApi(url, token_file)
    model = find_model(api, name)
    click.echo(json.dumps({**model, "route_policy": api.get(f"{MODELS}/{model['id']}/route-policy")}, indent=2))


def _fields(command: Callable[..., None]) -> Callable[..., None]:
    """What a model is created with and changed to."""
    for option in (
        click.option("--replacement", metavar="NAME", help="The model to use instead."),
        click.option(
            "--sunset-at", metavar="TIME", help="From then on requests are refused, e.g. 2027-01-31T00:00:00Z."
        ),
        click.option("--status", type=click.Choice(["enabled", "disabled", "deprecated"]), help="Whether it serves."),
        click.option("--org", "org_ids", multiple=True, metavar="ID", help="Only these orgs may see and use it."),
        click.option("--capability", "capabilities", multiple=True, type=click.Choice(_CAPABILITIES)),
        click.option("--alias", "aliases", multiple=True, metavar="NAME", help="Another name for it."),
        click.option("--output-tokens-max", type=click.IntRange(1), help="Tokens of one answer at most."),
    ):
        command = option(command)
    return command


@models.command()
@click.argument("name")
@click.option("--context-length", type=click.IntRange(1), required=True, help="Tokens of prompt and answer together.")
@_fields
@_dry_run
@_connected
def create(name: str, *, dry_run: bool, url: str, token_file: IO[str] | None, **fields: Any) -> None:
    """Add model NAME. It can be asked for when it has a backend and a price."""
    api = ManagementApi(url, token_file)
    told = api.post(MODELS, {"name": name, **sent(fields)}, dry_run=dry_run)
    click.echo("it can be made; nothing was changed" if dry_run else told["id"])


@models.command()
@click.argument("name")
@click.option("--context-length", type=click.IntRange(1), help="Tokens of prompt and answer together.")
@_fields
@click.option(
    "--clear",
    multiple=True,
    type=click.Choice(["aliases", "capabilities", "org_ids", "output_tokens_max", "replacement", "sunset_at"]),
    help="Empty this field.",
)
@_dry_run
@_connected
def update(
    name: str, *, clear: tuple[str, ...], dry_run: bool, url: str, token_file: IO[str] | None, **fields: Any
) -> None:
    """Change what is given of model NAME. Lists are replaced, not added to."""
    emptied: dict[str, Any] = {field: [] if field in ("aliases", "capabilities") else None for field in clear}
    changed = {**sent(fields), **emptied}
    if not changed:
        raise click.UsageError("nothing to change was given")
    api = ManagementApi(url, token_file)
    model = find_model(api, name)
    tell(model, api.patch(f"{MODELS}/{model['id']}", changed, dry_run=dry_run), dry_run=dry_run)


@models.command()
@click.argument("name")
@_dry_run
@_connected
def delete(name: str, *, dry_run: bool, url: str, token_file: IO[str] | None) -> None:
    """Take model NAME and its backends away."""
    api = ManagementApi(url, token_file)
    told = api.delete(f"{MODELS}/{find_model(api, name)['id']}", dry_run=dry_run)
    if dry_run:
        click.echo(f"{len(told['changes']) - 1} backends would go with it; nothing was changed")


@models.command()
@click.argument("name")
@click.option("--strategy", type=click.Choice(_STRATEGIES), help="How one backend of a group is chosen.")
@click.option("--sticky/--not-sticky", "is_sticky", default=None, help="Whether a session stays with its backend.")
@click.option("--canary-percent", type=click.IntRange(0, 100), help="Share of the requests for the canary group.")
@click.option("--attempts-max", type=click.IntRange(1), help="How many backends a request is sent to at most.")
@click.option("--first-byte-timeout-s", type=float)
@click.option("--total-timeout-s", type=float)
@click.option("--queue-timeout-s", type=float, help="How long a request waits for a place, or for a cold model.")
@_dry_run
@_connected
def route(name: str, *, dry_run: bool, url: str, token_file: IO[str] | None, **fields: Any) -> None:
    """Change what is given of the route policy of model NAME; given nothing, show it."""
    api = ManagementApi(url, token_file)
    path = f"{MODELS}/{find_model(api, name)['id']}/route-policy"
    policy, changed = api.get(path), sent(fields)
    if not changed:
        click.echo(json.dumps(policy, indent=2))
        return
    tell(policy, api.patch(path, changed, dry_run=dry_run), dry_run=dry_run)


@models.command("apply")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--prune", is_flag=True, help="Take away backends and adapters of FILE's models that it does not name.")
@_dry_run
@_connected
def apply_models(file: Path, *, prune: bool, dry_run: bool, url: str, token_file: IO[str] | None) -> None:
    """Bring models, routes and backends to what FILE (YAML or JSON) says; what it does not speak of stays.

    FILE holds `models`: a list of name and the fields of a model, with `route_policy` (its fields) and `backends`: a list of url
    and the fields of a backend, with `adapters` (`adapter: model`).
    """
    desired = read_models(file)
    changes = 0
    for line in DesiredModels(ManagementApi(url, token_file), dry_run=dry_run, prune=prune).apply(desired):
        click.echo(line)
        changes += 1
    click.echo(f"{changes} changes{', none of them made' if dry_run and changes else ''}", err=True)


def find_model(api: ManagementApi, name: str) -> dict[str, Any]:
    """The model of that public name. Raises CommandError when there is none."""
    model = next(api.list(MODELS, {"name": name}), None)
    if model is None:
        raise CommandError(
            f"there is no model {name!r}", advice="`ias models list` shows their names; aliases are none"
        )
    return model


def sent(fields: dict[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    return {name: value for name, value in given.items() if value is not None and value != []}


def tell(before: dict[str, Any], told: dict[str, Any], *, dry_run: bool) -> None:
    """What changed, or would, a line for each field."""
    if dry_run:
        changes = told["changes"]
        before, after = (changes[0]["before"], changes[0]["after"]) if changes else ({}, {})
    else:
        after = told
    for name, value in after.items():
        if name not in ("version", "updated_at") and before.get(name) != value:
            click.echo(f"{name}: {json.dumps(before.get(name))} → {json.dumps(value)}")
    if dry_run:
        click.echo("nothing was changed", err=True)
