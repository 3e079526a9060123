"""Servers from Testcontainers, where a Docker engine answers and the programs are not on the machine."""

from dataclasses import dataclass

import docker
from docker.errors import DockerException, NotFound
from testcontainers.core.container import DockerContainer

ENGINE_TIMEOUT_S = 5


@dataclass(frozen=True)
class Container:
    """A running container and the loopback ports its own ports are published on."""

    id: str
    ports: dict[int, int]


def engine_answers() -> bool:
    """Whether a Docker engine can be talked to."""
    try:
        client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except DockerException:
        return False
    finally:
        client.close()


def start_container(image: str, ports: tuple[int, ...], environment: dict[str, str], command: str = "") -> Container:
    """Start a container and return once its ports are published; that it answers is the caller's to wait for."""
    container = DockerContainer(image).with_exposed_ports(*ports)
    for name, value in environment.items():
        container = container.with_env(name, value)
    if command:
        container = container.with_command(command)
    container.start()
    published = {port: int(container.get_exposed_port(port)) for port in ports}
    return Container(id=container.get_wrapped_container().id, ports=published)


def remove_container(container_id: str) -> None:
    """Stop and remove a container, which may be gone already."""
    client = docker.from_env(timeout=30)
    try:
        client.containers.get(container_id).remove(force=True)
    except NotFound:
        pass
    finally:
        client.close()
