"""`connection.json`: how to reach a running platform, for people and scripts on the same machine."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ias.local.data_directory import find_document, write_private


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What `connection.json` holds. Other programs read it: names here are a promise."""

    gateway_url: str
    gateway_metrics_url: str
    """For Prometheus on this machine."""
    management_url: str
    admin: dict[str, str]
    """`email` and `password` of the first platform admin."""
    org_id: str
    project_id: str
    api_key: str
    model: str
    pids: dict[str, int] = field(default_factory=dict)
    """Process ids by name, the supervisor among them."""

    def as_document(self) -> dict[str, Any]:
        """The JSON document."""
        return asdict(self)


def write_connection(path: Path, connection: Connection) -> None:
    """Write it, 0600, as a whole."""
    write_private(path, connection.as_document())


def find_connection(path: Path) -> Connection | None:
    """The connection of the platform that runs; None when none is written."""
    document = find_document(path)
    return Connection(**document) if document else None
