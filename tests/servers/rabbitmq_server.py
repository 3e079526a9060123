"""RabbitMQ: one broker for the whole run, started when the first test asks; a virtual host of its own for each test."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import httpx

from tests.servers import containers, programs
from tests.servers.launch import Kept, Launch, ServerStartError, accepts_connections, free_port, start
from tests.servers.run import Server, TestRun

IMAGE = "rabbitmq:3.13-management-alpine"
MANAGEMENT_URL_VARIABLE = "IAS_TEST_RABBITMQ_MANAGEMENT_URL"
TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 90.0


def shared_rabbitmq(run: TestRun) -> Server:
    """The broker that all workers of the run share.

    Raises:
        ServerUnavailableError: there is none and it cannot be had.
    """
    if url := os.environ.get(programs.RABBITMQ.url_variable):
        return Server(url=url, management_url=os.environ.get(MANAGEMENT_URL_VARIABLE))
    return run.shared("rabbitmq", lambda directory: _start(run, directory))


def create_virtual_host(broker: Server) -> str:
    """The URL of a new, empty virtual host; the broker's own URL where its management API is unknown."""
    if broker.management_url is None:
        return broker.url
    name = f"test-{uuid4().hex[:12]}"
    with _management(broker.management_url) as management:
        management.put(f"/api/vhosts/{name}", json={}).raise_for_status()
        user = quote(urlsplit(broker.url).username or "guest", safe="")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        management.put(f"/api/permissions/{name}/{user}", json=everything).raise_for_status()
    return urlunsplit(urlsplit(broker.url)._replace(path=f"/{name}"))


def delete_virtual_host(broker: Server, url: str) -> None:
    """Delete a test's virtual host with all its queues; closes the connections that a test left open."""
    if broker.management_url is not None:
        with _management(broker.management_url) as management:
            management.delete(f"/api/vhosts{urlsplit(url).path}").raise_for_status()


def _management(url: str) -> httpx.Client:
    parts = urlsplit(url)
    credentials = (parts.username or "guest", parts.password or "guest")
    return httpx.Client(base_url=url, auth=credentials, timeout=TIMEOUT_S, trust_env=False)


def _start(run: TestRun, directory: Path) -> Server:
    script = programs.find_or_install(programs.RABBITMQ)
    if script is None:
        return _start_container()
    node = prepare(run, script, directory)
    kept = node.start()
    return Server(
        url=node.broker.url, management_url=node.broker.management_url, keeper_pids=(kept.keeper_pid, node.names_pid)
    )


@dataclass(frozen=True)
class Node:
    """A broker that can be started, with its ports and directory, any number of times."""

    launch: Launch
    broker: Server
    port: int
    names_pid: int
    """The keeper of its name service."""

    def start(self) -> Kept:
        """Returns when it answers."""
        return start(self.launch, lambda: accepts_connections(self.port) and _answers(self.broker))


def prepare(run: TestRun, script: Path, directory: Path) -> Node:
    """A broker that has not been started yet; its name service has."""
    epmd_port, node_port, distribution_port, management_port = (free_port() for _ in range(4))
    names = _start_name_service(run, epmd_port)
    environment = _environment(directory, epmd_port, node_port, distribution_port)
    (directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
    (directory / "rabbitmq.conf").write_text(
        f"listeners.tcp.default = 127.0.0.1:{node_port}\n"
        "management.tcp.ip = 127.0.0.1\n"
        f"management.tcp.port = {management_port}\n"
        "management_agent.disable_metrics_collector = true\n"
        "disk_free_limit.absolute = 50MB\n"
        "vm_memory_high_watermark.absolute = 512MB\n"
    )
    broker = Server(
        url=f"amqp://guest:guest@127.0.0.1:{node_port}/",
        management_url=f"http://guest:guest@127.0.0.1:{management_port}",
    )
    launch = Launch(directory=directory, command=[str(script)], owner_pid=run.owner_pid, environment=environment)
    return Node(launch, broker, node_port, names)


def _start_name_service(run: TestRun, port: int) -> int:
    """Erlang's name service of our own, kept like a server: the one that a node starts by itself would stay behind."""
    program = shutil.which("epmd")
    if program is None:
        raise programs.ServerUnavailableError("RabbitMQ is here but Erlang's epmd is not in PATH")
    command = [program, "-port", str(port), "-address", "127.0.0.1"]
    launch = Launch(directory=run.new_directory("epmd"), command=command, owner_pid=run.owner_pid)
    return start(launch, lambda: accepts_connections(port)).keeper_pid


def _environment(directory: Path, epmd_port: int, node_port: int, distribution_port: int) -> dict[str, str]:
    """Everything the node would otherwise put under /var, in HOME or on a well-known port."""
    return {
        "HOME": str(directory),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"ias-{node_port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(node_port),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "rabbitmq.pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "absent"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "config"),
        # Two schedulers are enough for tests, and an idle node must not spin.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
    }


def _start_container() -> Server:
    if not containers.engine_answers():
        raise programs.ServerUnavailableError(programs.RABBITMQ.explain())
    container = containers.start_container(IMAGE, (5672, 15672), {})
    broker = Server(
        url=f"amqp://guest:guest@127.0.0.1:{container.ports[5672]}/",
        management_url=f"http://guest:guest@127.0.0.1:{container.ports[15672]}",
        container_id=container.id,
    )
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while not _answers(broker):
        if time.monotonic() > deadline:
            raise ServerStartError(f"the container of {IMAGE} does not answer")
        time.sleep(0.2)
    return broker


def _answers(broker: Server) -> bool:
    try:
        with _management(broker.management_url or "") as management:
            return management.get("/api/overview").is_success
    except httpx.HTTPError:
        return False
