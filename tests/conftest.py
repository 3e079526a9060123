"""Fixtures every test may use: real servers, clean for each test.

| fixture | scope | gives |
|---|---|---|
| `redis_url` | test | a Redis that no other worker uses, emptied before the test |
| `private_redis` | test | a factory of Redis processes of the test's own, to kill, pause and restart |
| `make_database` | test | a factory of fresh PostgreSQL databases: `make_database("billing")` returns a DSN |
| `make_migrated_database` | test | the same, with the tables of the service: a copy of one that was migrated once |
| `rabbitmq_url` | test | a virtual host of its own on the run's RabbitMQ |
| `redis_server_url`, `postgres_url`, `rabbitmq_server_record` | run | the servers themselves |

A server is found in this order: the URL in IAS_TEST_REDIS_URL, IAS_TEST_POSTGRES_URL, IAS_TEST_RABBITMQ_URL (tests wipe
it); the program on the machine; apt-get as root on Debian and Ubuntu; Testcontainers where a Docker engine answers.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog

from ias.kit.migrations import migrate
from tests.servers import postgres_server, rabbitmq_server, redis_process, redis_server
from tests.servers.run import Server, TestRun, create_run

RUN = pytest.StashKey[TestRun]()

# A busy machine is no failure: properties have no deadline of their own (pytest-timeout ends what hangs).
hypothesis.settings.register_profile("ias", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("ias")


# A traceback in colours, with every local variable, takes a minute to draw on a busy machine.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


def pytest_configure(config: pytest.Config) -> None:
    """The controller creates the run; a worker joins it."""
    told: dict[str, Any] | None = getattr(config, "workerinput", None)
    if told is None:
        config.stash[RUN] = create_run(os.getpid())
    else:
        config.stash[RUN] = TestRun(
            directory=Path(told["ias_directory"]), owner_pid=told["ias_owner_pid"], worker=told["workerid"]
        )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Called by xdist in the controller for each worker that is about to start."""
    run = node.config.stash[RUN]
    node.workerinput["ias_directory"] = str(run.directory)
    node.workerinput["ias_owner_pid"] = run.owner_pid


def pytest_unconfigure(config: pytest.Config) -> None:
    """Whoever created the run ends it."""
    run = config.stash.get(RUN, None)
    if run is not None and not hasattr(config, "workerinput"):
        run.stop_everything()


@pytest.fixture(scope="session")
def test_run(request: pytest.FixtureRequest) -> TestRun:
    return request.config.stash[RUN]


@pytest.fixture(scope="session")
def redis_server_url(test_run: TestRun) -> str:
    return redis_server.own_redis(test_run)


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    redis_server.empty(redis_server_url)
    return redis_server_url


@pytest.fixture
def private_redis(test_run: TestRun) -> Iterator[Callable[..., redis_process.RedisProcess]]:
    """`private_redis(durable=True)` keeps its data over a kill; by default a restart finds it empty."""
    started: list[redis_process.RedisProcess] = []

    def make(*, durable: bool = False) -> redis_process.RedisProcess:
        started.append(redis_process.start_private(test_run, durable=durable))
        return started[-1]

    yield make
    for process in started:
        process.stop()


@pytest.fixture(scope="session")
def postgres_url(test_run: TestRun) -> str:
    return postgres_server.shared_postgres(test_run)


@pytest.fixture
def make_database(postgres_url: str) -> Iterator[Callable[[str], str]]:
    created: list[str] = []

    def make(name: str = "ias_test") -> str:
        created.append(postgres_server.create_database(postgres_url, name))
        return created[-1]

    yield make
    for dsn in created:
        postgres_server.drop_database(postgres_url, dsn)


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> Iterator[Callable[[str], str]]:
    """A service's migrated database, which nobody connects to, made once for the worker."""
    made: dict[str, str] = {}

    def find(service: str) -> str:
        if service not in made:
            dsn = postgres_server.create_database(postgres_url, f"template_{service}")
            with ThreadPoolExecutor(max_workers=1) as executor:  # the test that asks may have a running event loop
                executor.submit(migrate, service, dsn).result()
            made[service] = dsn
        return made[service]

    yield find
    for dsn in made.values():
        postgres_server.drop_database(postgres_url, dsn)


@pytest.fixture
def make_migrated_database(
    postgres_url: str, migrated_template: Callable[[str], str]
) -> Iterator[Callable[[str], str]]:
    created: list[str] = []

    def make(service: str) -> str:
        created.append(postgres_server.create_database(postgres_url, service, like=migrated_template(service)))
        return created[-1]

    yield make
    for dsn in created:
        postgres_server.drop_database(postgres_url, dsn)


@pytest.fixture(scope="session")
def rabbitmq_server_record(test_run: TestRun) -> Server:
    return rabbitmq_server.shared_rabbitmq(test_run)


@pytest.fixture
def rabbitmq_url(rabbitmq_server_record: Server) -> Iterator[str]:
    url = rabbitmq_server.create_virtual_host(rabbitmq_server_record)
    yield url
    rabbitmq_server.delete_virtual_host(rabbitmq_server_record, url)
