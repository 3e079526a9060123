"""`ias migrate`."""

import importlib
import os

import click

from ias.cli.failures import CommandError

SERVICES = ("identity", "registry", "billing", "analytics", "gitops")


@click.command()
@click.argument("services", nargs=-1, required=True, type=click.Choice([*SERVICES, "all"]))
@click.option(
    "--revision", default="head", show_default=True, help="The revision to go to; `base` takes everything back."
)
def migrate(services: tuple[str, ...], revision: str) -> None:
    """Bring the databases of services to the current schema. Reads IAS_<SERVICE>_DATABASE_URL; safe to run at any time."""
    wanted = list(SERVICES) if "all" in services else list(dict.fromkeys(services))
    variables = {service: f"IAS_{service.upper()}_DATABASE_URL" for service in wanted}
    missing = [variable for variable in variables.values() if variable not in os.environ]
    if missing:
        raise CommandError(
            f"{', '.join(missing)} must be set", advice="for example postgresql://user@host:5432/ias_identity"
        )
    settings = importlib.import_module("ias.kit.settings")
    for variable in variables.values():
        try:
            settings.check_database_url(os.environ[variable])
        except ValueError as error:
            raise CommandError(f"{variable} {error}") from error
    for service, variable in variables.items():
        _migrate(service, os.environ[variable], revision)
        click.echo(f"{service} is at {revision}")


def _migrate(service: str, database_url: str, revision: str) -> None:
    try:
        importlib.import_module("ias.kit.migrations").migrate(service, database_url, revision=revision)
    except Exception as error:  # what has no line of its own is raised again, with its traceback
        failures = importlib.import_module("ias.cli.database_failures")
        explained: CommandError | None = failures.explain_database_failure(service, error)
        if explained is None:
            raise
        raise explained from error
