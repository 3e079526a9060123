"""The option that says which platform on this machine is meant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

DEFAULT_DATA_DIR = Path.home() / ".local" / "share" / "ias"


def data_dir_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--data-dir`, for every command about a platform on this machine."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
        envvar="IAS_DATA_DIR",
        default=DEFAULT_DATA_DIR,
        show_default="~/.local/share/ias",
        help="Where the platform's data is.",
    )(command)
