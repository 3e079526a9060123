"""`ias logs`."""

import importlib
import time
from pathlib import Path

import click

from ias.cli.data_dir import data_dir_option
from ias.cli.failures import CommandError

_POLL_S = 0.2
_CHUNK_BYTES = 65536


@click.command()
@click.argument("name", required=False)
@data_dir_option
@click.option("--follow", "-f", is_flag=True, help="Go on showing new lines until Ctrl-C.")
@click.option("--lines", "-n", type=click.IntRange(0), default=50, show_default=True, help="Lines to show of each log.")
def logs(name: str | None, data_dir: Path, *, follow: bool, lines: int) -> None:
    """Show the log of a process (gateway, management, consumers, engine, postgres, redis, up), or of all."""
    files = _find_logs(data_dir / "logs")
    if not files:
        start = importlib.import_module("ias.local.typed_command").typed("up", "--data-dir", str(data_dir))
        raise CommandError(f"there are no logs in {data_dir / 'logs'}", advice=f"start a platform with `{start}`")
    if name is not None and name not in files:
        raise CommandError(f"there is no log of {name}", advice=f"there are: {', '.join(files)}")
    chosen = {name: files[name]} if name is not None else files
    prefixes = {path: "" if name is not None else f"{stem:<11}| " for stem, path in chosen.items()}
    positions = {path: _show_tail(path, prefix, lines) for path, prefix in prefixes.items()}
    while follow:
        time.sleep(_POLL_S)
        for path, prefix in prefixes.items():
            positions[path] = _show_new(path, prefix, positions[path])


def _find_logs(directory: Path) -> dict[str, Path]:
    """The log files by the names of their processes."""
    errors = importlib.import_module("ias.local.errors")
    try:
        with importlib.import_module("ias.local.data_directory").explain_unreadable(directory):
            names = sorted(path for path in directory.iterdir() if path.suffix == ".log")
    except FileNotFoundError:
        return {}
    except errors.PlatformError as error:
        raise CommandError(error.message, advice=error.advice) from error
    return {path.stem: path for path in names}


def _show_tail(path: Path, prefix: str, lines: int) -> int:
    """Show the last lines; the position after the last complete one."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        wanted, start = b"", size
        while start > 0 and wanted.count(b"\n") <= lines:
            start = max(0, start - _CHUNK_BYTES)
            file.seek(start)
            wanted = file.read(size - start)
    complete, _, partial = wanted.rpartition(b"\n")
    for line in complete.split(b"\n")[-lines:] if lines and complete else []:
        click.echo(prefix + line.decode(errors="replace"))
    return size - len(partial)


def _show_new(path: Path, prefix: str, position: int) -> int:
    """Show the complete lines since a position; the new position. A log that was set aside is read from its beginning."""
    try:
        size = path.stat().st_size
        if size < position:
            position = 0
        if size == position:
            return position
        with path.open("rb") as file:
            file.seek(position)
            complete, newline, _ = file.read(size - position).rpartition(b"\n")
    except FileNotFoundError:
        return 0
    for line in complete.split(b"\n") if newline else []:
        click.echo(prefix + line.decode(errors="replace"))
    return position + len(complete) + len(newline)
