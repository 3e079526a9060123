"""Redis: one instance per worker, emptied before each test that uses it."""

import os
import time
from pathlib import Path

import redis

from tests.servers import containers, programs
from tests.servers.launch import Kept, Launch, ServerStartError, accepts_connections, free_port, start
from tests.servers.run import Server, TestRun

IMAGE = "redis:7-alpine"
PORT_ATTEMPTS = 5
ANSWER_TIMEOUT_S = 30.0


def own_redis(run: TestRun) -> str:
    """The URL of the Redis that this worker alone uses.

    Raises:
        ServerUnavailableError: there is none and it cannot be had.
    """
    if url := os.environ.get(programs.REDIS.url_variable):
        return f"{url.rstrip('/').removesuffix('/0')}/{run.worker_number}"
    return run.shared(f"redis-{run.worker}", lambda directory: _start(run, directory)).url


def empty(url: str) -> None:
    """Remove everything a test may have left: keys, functions and scripts stay with the server they were loaded on."""
    client = redis.Redis.from_url(url, socket_timeout=10)
    try:
        if programs.REDIS.url_variable in os.environ:
            client.flushdb()
        else:
            client.flushall()
    finally:
        client.close()


def start_on(run: TestRun, program: Path, directory: Path, port: int, *options: str) -> Kept:
    """A Redis on a given port that keeps nothing on disk unless the options say so."""
    command = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
    launch = Launch(directory=directory, command=[*command, *options], owner_pid=run.owner_pid)
    return start(launch, lambda: accepts_connections(port) and _answers(f"redis://127.0.0.1:{port}/0"))


def _start(run: TestRun, directory: Path) -> Server:
    program = programs.find_or_install(programs.REDIS)
    if program is None:
        return _start_container()
    for attempt in range(PORT_ATTEMPTS):
        port = free_port()
        try:
            kept = start_on(run, program, directory, port)
        except ServerStartError:
            if attempt == PORT_ATTEMPTS - 1:
                raise
        else:
            return Server(url=f"redis://127.0.0.1:{port}/0", keeper_pids=(kept.keeper_pid,))
    raise AssertionError("unreachable")


def _start_container() -> Server:
    if not containers.engine_answers():
        raise programs.ServerUnavailableError(programs.REDIS.explain())
    container = containers.start_container(IMAGE, (6379,), {})
    url = f"redis://127.0.0.1:{container.ports[6379]}/0"
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while not _answers(url):
        if time.monotonic() > deadline:
            raise ServerStartError(f"the container of {IMAGE} does not answer")
        time.sleep(0.1)
    return Server(url=url, container_id=container.id)


def _answers(url: str) -> bool:
    client = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
